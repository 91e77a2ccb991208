/* Chromium with mqtt.js in a page, over ws and wss: a dashboard as its users have it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import net from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { clientId, connect, run, scratchDir, startBroker, topicName } from './harness.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)
const bundle = path.join(path.dirname(require.resolve('mqtt/package.json')), 'dist/mqtt.min.js')
const files = {
    '/': ['text/html', path.join(here, 'browser_page.html')],
    '/mqtt.min.js': ['text/javascript', bundle],
}
const browserArguments = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--ignore-certificate-errors',
]

let broker
let browser
let pages

before(async () => {
    broker = await startBroker()
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        args: browserArguments,
        headless: true,
    })
    pages = http.createServer((request, response) => {
        const [type, file] = files[request.url] ?? []
        response.writeHead(file ? 200 : 404, { 'Content-Type': type ?? 'text/plain' })
        response.end(file && fs.readFileSync(file))
    })
    pages.listen(0, '127.0.0.1')
    await once(pages, 'listening')
})

after(async () => {
    await browser?.close()
    pages?.closeAllConnections()
    pages?.close()
    await broker?.stop()
})

/* A network path to the broker that the test can cut, so that connections break without a word. */
async function cuttableProxy(port) {
    const pairs = new Set()
    const server = net.createServer((inward) => {
        if (server.down) {
            inward.destroy()
            return
        }
        const outward = net.connect(port, '127.0.0.1')
        const pair = [inward, outward]
        pairs.add(pair)
        const end = () => {
            pair.forEach((socket) => socket.destroy())
            pairs.delete(pair)
        }
        pair.forEach((socket) => socket.on('error', end).on('close', end))
        inward.pipe(outward)
        outward.pipe(inward)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return {
        port: server.address().port,
        cut() {
            server.down = true
            pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()))
        },
        restore() {
            server.down = false
        },
        close() {
            this.cut()
            server.close()
        },
    }
}

async function withPage(body) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true })
    try {
        const page = await context.newPage()
        await page.goto(`http://127.0.0.1:${pages.address().port}/`)
        const until = (what, argument) =>
            page.waitForFunction(what, argument, { timeout: 20_000, polling: 20 })
        await body({ page, context, until })
    } finally {
        await context.close()
    }
}

const messages = (page) => page.evaluate(() => seen.messages)

for (const scheme of ['ws', 'wss']) {
    describe(`Chromium over ${scheme}`, { concurrency: 2 }, () => {
        for (const protocolVersion of [4, 5]) {
            test(`subscribes and publishes with protocol version ${protocolVersion}`, () =>
                withPage(async ({ page, until }) => {
                    const device = await connect(broker, 'tcp', '3.1.1')
                    const root = topicName('browser')
                    await device.publishAsync(`${root}/last`, 'kept', { qos: 1, retain: true })
                    await page.evaluate(([url, options]) => start(url, options), [
                        broker.url(scheme), { protocolVersion, clientId: clientId('page') },
                    ])
                    await page.evaluate((topic) => subscribe(topic, 2), `${root}/#`)
                    await until(() => seen.messages.length === 1)
                    for (const qos of [0, 1, 2]) {
                        await device.publishAsync(`${root}/live`, `at ${qos}`, { qos })
                    }
                    await until(() => seen.messages.length === 4)
                    const [kept, ...live] = await messages(page)
                    assert.deepEqual(kept, { topic: `${root}/last`, text: 'kept', qos: 1, retain: true })
                    assert.deepEqual(live.map((m) => `${m.text}/${m.qos}`).sort(),
                        ['at 0/0', 'at 1/1', 'at 2/2'])

                    const back = topicName('browser-back')
                    await device.subscribeAsync(back, { qos: 2 })
                    for (const qos of [0, 1, 2]) {
                        await page.evaluate(([topic, qos]) => publish(topic, `back ${qos}`, { qos }),
                            [back, qos])
                    }
                    const got = await device.received(3)
                    assert.deepEqual(got.map((m) => m.text).sort(), ['back 0', 'back 1', 'back 2'])
                    await page.evaluate(() => end())
                    assert.deepEqual(await page.evaluate(() => seen.errors), [])
                    await device.endAsync()
                }))
        }

        test('comes back from a cut network with what was queued', () =>
            withPage(async ({ page, context, until }) => {
                const proxy = await cuttableProxy(broker.ports[scheme])
                const device = await connect(broker, 'tcp', '5')
                const topic = topicName('offline')
                await page.evaluate(([url, options]) => start(url, options), [
                    `${scheme}://127.0.0.1:${proxy.port}/mqtt`,
                    {
                        protocolVersion: 5, clientId: clientId('page'), clean: false,
                        properties: { sessionExpiryInterval: 300 },
                    },
                ])
                await page.evaluate((name) => subscribe(name, 1), topic)
                await device.publishAsync(topic, 'before', { qos: 1 })
                await until(() => seen.messages.length === 1)

                await context.setOffline(true)
                proxy.cut()
                await until(() => seen.closes > 0)
                for (let i = 0; i < 20; i++) {
                    await device.publishAsync(topic, `${i}`, { qos: 1 })
                }
                assert.equal(await page.evaluate(() => seen.connects), 1)
                proxy.restore()
                await context.setOffline(false)

                await until(() => seen.messages.length >= 21)
                assert.equal(await page.evaluate(() => seen.sessionPresent), true)
                const got = (await messages(page)).map((m) => m.text)
                assert.deepEqual(got, ['before', ...[...Array(20).keys()].map(String)])
                await page.evaluate(() => end())
                await device.endAsync()
                proxy.close()
            }))

        test('subscribes again by itself when it has no session', () =>
            withPage(async ({ page, until }) => {
                const proxy = await cuttableProxy(broker.ports[scheme])
                const device = await connect(broker, 'tcp', '3.1.1')
                const topic = topicName('again')
                await page.evaluate(([url, options]) => start(url, options), [
                    `${scheme}://127.0.0.1:${proxy.port}/`, { clientId: clientId('page') },
                ])
                await page.evaluate((name) => subscribe(name, 1), topic)
                proxy.cut()
                await until(() => seen.closes > 0)
                await device.publishAsync(topic, 'last value', { qos: 1, retain: true })
                proxy.restore()
                await until(() => seen.messages.length === 1)
                await device.publishAsync(topic, 'live', { qos: 1 })
                await until(() => seen.messages.length === 2)
                assert.deepEqual((await messages(page)).map((m) => [m.text, m.retain]),
                    [['last value', true], ['live', false]])
                await page.evaluate(() => end())
                await device.endAsync()
                proxy.close()
            }))

        test('publishes a will when the tab is closed', () =>
            withPage(async ({ page }) => {
                const device = await connect(broker, 'tcp', '5')
                const topic = topicName('tab')
                await device.subscribeAsync(topic, { qos: 1 })
                await page.evaluate(([url, options]) => start(url, options), [
                    broker.url(scheme),
                    { clientId: clientId('page'), will: { topic, payload: 'closed', qos: 1 } },
                ])
                await page.close()
                assert.equal((await device.received(1))[0].text, 'closed')
                await device.endAsync()
            }))
    })
}

test('the bare host name and port are enough as an address', () =>
    withPage(async ({ page }) => {
        await page.evaluate((url) => start(url, {}), `ws://127.0.0.1:${broker.ports.ws}`)
        assert.equal(await page.evaluate(() => seen.connects), 1)
        await page.evaluate(() => end())
    }))

/* The example as the README has it, but for the port and for where the CDN's file comes from. */
async function openExample(context, file) {
    const page = await context.newPage()
    await page.route('https://esm.sh/mqtt@5', (route) => route.fulfill({
        path: path.join(path.dirname(bundle), 'mqtt.esm.js'),
        contentType: 'text/javascript',
        headers: { 'access-control-allow-origin': '*' },
    }))
    await page.goto(`file://${file}`)
    return page
}

test('the example of the README works when pasted', async () => {
    const readme = fs.readFileSync(path.join(here, '../../README.md'), 'utf8')
    const example = /```html\n(.*?)```/s.exec(readme)[1]
    assert.match(example, /ws:\/\/127\.0\.0\.1:1883/)
    const file = path.join(scratchDir(), 'example.html')
    fs.writeFileSync(file, example.replace('1883', String(broker.ports.ws)))
    const context = await browser.newContext()
    const tabs = [await openExample(context, file), await openExample(context, file)]
    const shows = (tab, text) =>
        tab.waitForFunction((wanted) => document.querySelector('#log').textContent.includes(wanted), text)
    await tabs[0].fill('#say', 'from the first tab')
    await tabs[0].press('#say', 'Enter')
    for (const tab of tabs) {
        await shows(tab, 'room/tab: from the first tab')
    }
    for (const qos of ['0', '1', '2']) {
        const shell = await run('mosquitto_pub', ['-p', String(broker.ports.tcp), '-t', 'room/shell',
            '-m', `QoS ${qos}`, '-q', qos]).done
        assert.equal(shell.code, 0, shell.stderr)
        for (const tab of tabs) {
            await shows(tab, `room/shell: QoS ${qos}`)
        }
    }
    await context.close()
})
