/* Chromium with @stomp/stompjs 7, stompjs 2.3.3 and webstomp-client in a page, and in a Vue page, over ws and wss. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { connect, scratchDir, startBroker } from './harness.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)
const stompjs = path.dirname(path.dirname(require.resolve('@stomp/stompjs')))
const files = {
    '/': ['text/html', path.join(here, 'stomp_page.html')],
    '/stomp.umd.min.js': ['text/javascript', path.join(stompjs, 'bundles/stomp.umd.min.js')],
    '/stomp.min.js': ['text/javascript', require.resolve('stompjs/lib/stomp.min.js')],
    '/vue': ['text/html', path.join(here, 'stomp_vue_page.html')],
    '/vue.global.prod.js': ['text/javascript', path.join(here, 'node_modules/vue/dist/vue.global.prod.js')],
    '/webstomp.min.js': ['text/javascript', path.join(here, 'node_modules/webstomp-client/dist/webstomp.min.js')],
}
const browserArguments = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--ignore-certificate-errors',
]

let broker
let browser
let pages
let names = 0

before(async () => {
    broker = await startBroker()
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        args: browserArguments,
        headless: true,
    })
    pages = http.createServer((request, response) => {
        const [type, file] = files[request.url.split('?')[0]] ?? []
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

async function withPage(body, target = '') {
    const context = await browser.newContext({ ignoreHTTPSErrors: true })
    const page = await context.newPage()
    page.setDefaultTimeout(15_000)
    try {
        await page.goto(`http://127.0.0.1:${pages.address().port}/${target}`)
        await body(page)
    } finally {
        await context.close()
    }
}

function shows(page, texts) {
    return page.waitForFunction((wanted) => JSON.stringify(shown()) === wanted, JSON.stringify(texts))
}

function url(transport) {
    return `${transport}://127.0.0.1:${broker.ports[transport]}/ws`
}

function unique(what) {
    return `${what}-${process.pid}-${++names}`
}

for (const transport of ['ws', 'wss']) {
    test(`the page of the stompjs manual over ${transport}`, () => withPage(async (page) => {
        const name = unique('greetings')
        await page.evaluate(([at, to]) => startClient(at, to), [url(transport), `/topic/${name}`])
        await shows(page, ['Grüße 1'])
        const device = await connect(broker, 'tcp', 5)
        await device.publishAsync(name, 'from a device', { qos: 1 })
        await shows(page, ['Grüße 1', 'from a device'])
        await page.evaluate(() => page.client.deactivate())
        await page.waitForFunction(() => page.closes === 1)
        assert.deepEqual(await page.evaluate(() => page.errors), [])
        await device.endAsync()
    }))

    test(`stompjs 2.3.3 in a page over ${transport}`, () => withPage(async (page) => {
        const name = unique('old')
        await page.evaluate(([at, to]) => startOldClient(at, to), [url(transport), `/topic/${name}`])
        await shows(page, ['old: from the old one: ü'])
        assert.deepEqual(await page.evaluate(() => page.errors), [])
        await page.evaluate(() => new Promise((resolve) => page.old.disconnect(resolve)))
    }))
}

for (const [library, transport] of [['stompjs', 'ws'], ['webstomp', 'ws'], ['webstomp', 'wss']]) {
    test(`a Vue page with ${library} over ${transport}`, () => {
        const name = unique('vue')
        const query = new URLSearchParams({ library, url: url(transport), topic: `/topic/${name}` })
        return withPage(async (page) => {
            const items = (count) => page.waitForFunction((wanted) =>
                document.querySelectorAll('#messages li').length === wanted, count)
            await page.waitForFunction(() => document.getElementById('state').textContent === 'connected')
            await page.fill('input', 'from the page: ü')
            await page.press('input', 'Enter')
            await items(1)
            const device = await connect(broker, 'tcp', 5)
            await device.subscribeAsync(name, { qos: 1 })
            await device.publishAsync(name, 'from a device', { qos: 1 })
            await items(2)
            assert.deepEqual(await page.locator('#messages li').allTextContents(), ['from the page: ü', 'from a device'])
            await page.fill('input', 'to the device')
            await page.press('input', 'Enter')
            await items(3)
            assert.deepEqual((await device.received(2)).map((m) => m.text), ['from a device', 'to the device'])
            await page.evaluate(() => app.unmount())
            await page.waitForFunction(() => document.title === 'disconnected')
            await device.endAsync()
        }, `vue?${query}`)
    })
}

test('a page comes back by itself and sees the last value at once', () => withPage(async (page) => {
    const name = unique('values')
    const device = await connect(broker, 'tcp', '3.1.1')
    await device.publishAsync(name, 'last', { qos: 1, retain: true })
    await page.evaluate(([at, to]) => startClient(at, to), [url('ws'), `/topic/${name}`])
    await shows(page, ['last', 'Grüße 1'])
    await page.evaluate(() => page.client.webSocket.close())
    await page.waitForFunction(() => page.connects === 2)
    await shows(page, ['last', 'Grüße 1', 'last', 'Grüße 2'])
    await device.endAsync()
}))

test('a page that stays has its heart-beats', () => withPage(async (page) => {
    await page.evaluate(([at, to]) => startClient(at, to), [url('ws'), `/topic/${unique('quiet')}`])
    await page.waitForFunction(() => page.connects === 1)
    await page.waitForTimeout(9500) /* more than twice the interval: without them it would have left */
    assert.equal(await page.evaluate(() => page.closes), 0)
}))

/* The example as the README has it, but for the port and for where the CDN's file comes from. */
test("the README's STOMP example works when pasted", async () => {
    const readme = fs.readFileSync(path.join(here, '../../README.md'), 'utf8')
    const example = [...readme.matchAll(/```html\n(.*?)```/gs)].map((found) => found[1])
        .find((text) => text.includes('@stomp/stompjs'))
    assert.match(example, /ws:\/\/127\.0\.0\.1:1883/)
    const file = path.join(scratchDir(), 'stomp.html')
    fs.writeFileSync(file, example.replace('1883', String(broker.ports.ws)))
    const bundle = fs.readFileSync(files['/stomp.umd.min.js'][1], 'utf8')
    const context = await browser.newContext()
    const page = await context.newPage()
    page.setDefaultTimeout(15_000)
    await page.route('https://esm.sh/@stomp/stompjs@7', (route) => route.fulfill({
        body: `${bundle}\nexport const { Client } = globalThis.StompJs`,
        contentType: 'text/javascript',
        headers: { 'access-control-allow-origin': '*' },
    }))
    await page.goto(`file://${file}`)
    const device = await connect(broker, 'tcp', 5)
    await device.publishAsync('room/shell', 'hello', { qos: 1, retain: true })
    const has = (text) => page.waitForFunction(
        (wanted) => document.querySelector('#log').textContent.includes(wanted), text
    )
    await has('/topic/room.shell: hello')
    await page.fill('#say', 'from the page')
    await page.press('#say', 'Enter')
    await has('/topic/room.tab: from the page')
    await device.endAsync()
    await context.close()
})
