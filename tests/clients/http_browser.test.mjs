/* The HTTP API from a page in Chromium: fetch, EventSource and WebSocket across origins, with mqtt.js beside. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { connect, isMosquitto, startBroker, topicName } from './harness.mjs'

const skip = isMosquitto
let broker
let browser
let pages
let page

before(async () => {
    if (skip) {
        return
    }
    pages = http.createServer((_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<p>page'))
    pages.listen(0, '127.0.0.1')
    await once(pages, 'listening')
    const origin = `http://127.0.0.1:${pages.address().port}`
    broker = await startBroker({
        config: ['allow_anonymous true'],
        listeners: (ports) => [
            `listener ${ports.tcp} 127.0.0.1`, `http_cors_origin ${origin}`, `listener ${ports.tls} 127.0.0.1`,
        ],
    })
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true,
        args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
    })
    page = await browser.newPage()
    await page.goto(`${origin}/`)
})

after(async () => {
    await browser?.close()
    pages?.closeAllConnections()
    pages?.close()
    await broker?.stop()
})

/* A network path to the broker that the test can cut. */
async function cuttable(port) {
    const sockets = new Set()
    const proxy = net.createServer((inward) => {
        const outward = net.connect(port, '127.0.0.1')
        for (const [one, other] of [[inward, outward], [outward, inward]]) {
            sockets.add(one)
            one.on('error', () => {}).on('close', () => {
                sockets.delete(one)
                other.destroy()
            })
            one.pipe(other)
        }
    })
    proxy.cut = () => sockets.forEach((socket) => socket.destroy())
    proxy.listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    return proxy
}

test('a page publishes with fetch and reads what is retained', { skip }, async () => {
    const topic = topicName('fetch')
    const mqtt = await connect(broker, 'tcp', 5)
    await mqtt.subscribeAsync(topic, { qos: 1 })
    const answers = await page.evaluate(async ({ base, name }) => {
        const publish = await fetch(`${base}/api/v1/publish?wait=acked`, {
            method: 'POST', headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ topic: name, payload: 'from a page', qos: 1, retain: true }),
        })
        const read = await fetch(`${base}/api/v1/topics/${name}`)
        return { published: await publish.json(), read: await read.text() }
    }, { base: `http://127.0.0.1:${broker.ports.tcp}`, name: topic })
    assert.deepEqual(answers, { published: { topic, matched: 1, acknowledged: 1 }, read: 'from a page' })
    assert.equal((await mqtt.received(1))[0].text, 'from a page')
    await mqtt.endAsync()
})

test('an EventSource gets what mqtt.js publishes, and goes on by itself after a cut', { skip }, async () => {
    const topic = topicName('events')
    const mqtt = await connect(broker, 'ws', 5)
    const proxy = await cuttable(broker.ports.tcp)
    await page.evaluate(({ base, name }) => {
        window.got = []
        window.opened = 0
        window.source = new EventSource(`${base}/api/v1/subscribe?topic=${encodeURIComponent(`${name}/#`)}`)
        window.source.onopen = () => window.opened++
        window.source.onmessage = (event) => window.got.push(JSON.parse(event.data).payload)
    }, { base: `http://127.0.0.1:${proxy.address().port}`, name: topic })
    await page.waitForFunction(() => window.opened === 1)
    await mqtt.publishAsync(`${topic}/a`, 'one', { qos: 1 })
    await page.waitForFunction(() => window.got.length === 1)
    /* The browser connects again and repeats the last event's id. */
    proxy.cut()
    for (let i = 0; i < 50; i++) {
        await mqtt.publishAsync(`${topic}/b`, `${i}`, { qos: 1 })
    }
    await page.waitForFunction(() => window.opened === 2)
    await page.waitForFunction(() => window.got.length >= 51)
    assert.deepEqual(await page.evaluate(() => window.got), ['one', ...[...Array(50).keys()].map(String)])
    await page.evaluate(() => window.source.close())
    proxy.cut()
    proxy.close()
    await mqtt.endAsync()
})

test('a WebSocket gets payloads as they are, and publishes', { skip }, async () => {
    const topic = topicName('push')
    const mqtt = await connect(broker, 'ws', 5)
    await mqtt.publishAsync(`${topic}/kept`, 'kept', { qos: 1, retain: true })
    await mqtt.subscribeAsync(`${topic}/from-page`, { qos: 1 })
    await page.evaluate(({ base, name }) => {
        window.pushed = []
        window.socket = new WebSocket(`${base}/api/v1/ws?topic=${encodeURIComponent(`${name}/#`)}`)
        window.socket.onmessage = async ({ data }) =>
            window.pushed.push(typeof data === 'string' ? data : [...new Uint8Array(await data.arrayBuffer())])
    }, { base: `ws://127.0.0.1:${broker.ports.tcp}`, name: topic })
    const pushed = async (count) => {
        await page.waitForFunction((wanted) => window.pushed.length >= wanted, count)
        return page.evaluate(() => window.pushed)
    }
    assert.deepEqual(await pushed(1), ['kept'])
    await mqtt.publishAsync(`${topic}/text`, 'grüß', { qos: 1 })
    await pushed(2)
    await mqtt.publishAsync(`${topic}/bytes`, Buffer.from([1, 255]), { qos: 1 })
    assert.deepEqual(await pushed(3), ['kept', 'grüß', [1, 255]])
    await page.evaluate((name) => window.socket.send(JSON.stringify({ topic: name, payload: 'from a page', qos: 1 })), `${topic}/from-page`)
    assert.equal((await mqtt.received(1))[0].text, 'from a page')
    assert.equal((await pushed(4))[3], 'from a page')
    await page.evaluate(() => window.socket.send('hello'))
    assert.equal(JSON.parse((await pushed(5))[4]).error, 'bad_message')
    assert.equal(await page.evaluate(() => window.socket.readyState), 1)
    await page.evaluate((base) => {
        const refused = new WebSocket(`${base}/api/v1/ws?topic=a/%23/b`)
        refused.onclose = ({ code, reason }) => (window.pushEnd = { code, reason })
    }, `ws://127.0.0.1:${broker.ports.tcp}`)
    await page.waitForFunction(() => window.pushEnd !== undefined)
    assert.deepEqual(await page.evaluate(() => window.pushEnd), { code: 1008, reason: '"topic" is not a topic filter' })
    await page.evaluate(() => window.socket.close())
    await mqtt.publishAsync(`${topic}/kept`, '', { retain: true, qos: 1 })
    await mqtt.endAsync()
})
