/* I/O threads: what is particular to them. All other tests may run with threads too: DUNLIN_CONFIG. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import { test } from 'node:test'
import {
    connect, connectPacket, cut, delay, isInstrumented, isMosquitto, packet, rawConnection, reconnect, startBroker, topicName,
    transports, withBroker, within,
} from './harness.mjs'

const skip = isMosquitto
const config = ['io_threads 3']

/* Once a client has been served all threads run. */
async function threadCount(broker) {
    await (await connect(broker, 'tcp', '5')).endAsync()
    return fs.readdirSync(`/proc/${broker.pid}/task`).length
}

/* ThreadSanitizer has a thread of its own. */
const own = { skip: skip || isInstrumented }

test('as many threads more as the key says, and a change of it waits for the next start', own, async () => {
    let alone
    await withBroker({ config: ['io_threads 0'] }, async (broker) => (alone = await threadCount(broker)))
    await withBroker({ config }, async (broker) => {
        assert.equal(await threadCount(broker), alone + 3)
        await broker.reload(['io_threads 1'])
        assert.match(broker.log, /Warning: a change of io_threads needs a restart/)
        assert.equal(await threadCount(broker), alone + 3)
    })
})

test('a crowd over all transports hears everything, each publisher in order', { skip, timeout: 120_000 }, () =>
    withBroker({ config }, async (broker) => {
        const topic = topicName('crowd')
        const clients = await Promise.all(Array.from({ length: 48 }, (_, i) =>
            connect(broker, transports[i % 4], i % 3 === 0 ? '3.1.1' : '5')))
        await Promise.all(clients.map((client, i) => client.subscribeAsync(topic, { qos: i % 3 })))
        const each = 10
        await Promise.all(clients.map(async (client, from) => {
            for (let n = 0; n < each; n++) {
                const size = n % 5 === 4 ? 20_000 : 10
                await client.publishAsync(topic, `${from} ${n} ${'x'.repeat(size)}`, { qos: 1 + from % 2 })
            }
        }))
        for (const client of clients) {
            const seen = new Map()
            for (const { text } of await client.received(each * clients.length, 60_000)) {
                const [from, n, payload] = text.split(' ')
                assert.equal(Number(n), seen.get(from) ?? 0, `order of ${from}`)
                assert.equal(payload.length, n % 5 === 4 ? 20_000 : 10)
                seen.set(from, Number(n) + 1)
            }
            assert.equal(seen.size, clients.length)
        }
        await Promise.all(clients.map((client) => client.endAsync()))
    }))

test('a client id that wanders from thread to thread keeps its session', { skip, timeout: 60_000 }, () =>
    withBroker({ config }, async (broker) => {
        const topic = topicName('wanders')
        const publisher = await connect(broker, 'tcp', '5')
        const options = { clientId: 'wanderer', clean: false, properties: { sessionExpiryInterval: 60 } }
        const client = await connect(broker, 'ws', '5', options)
        await client.subscribeAsync(topic, { qos: 1 })
        for (let n = 0; n < 30; n++) {
            await cut(client)
            await publisher.publishAsync(topic, `${n}`, { qos: 1 })
            await reconnect(client)
            assert.equal(client.connack.sessionPresent, true)
        }
        const texts = () => [...new Set(client.inbox.map(({ text }) => text))] // some come twice
        for (let n = 1; texts().length < 30 && n < 100; n++) {
            await client.received(client.inbox.length + 1)
        }
        assert.deepEqual(texts(), Array.from({ length: 30 }, (_, n) => `${n}`))
        await Promise.all([client.endAsync(), publisher.endAsync()])
    }))

test('takeovers in quick succession leave one client', { skip, timeout: 60_000 }, () =>
    withBroker({ config }, async (broker) => {
        const links = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
            const link = await rawConnection(broker, transports[i % 4])
            link.send(connectPacket('contested'))
            return link
        }))
        const alive = () => links.filter((link) => !link.isClosed)
        const deadline = Date.now() + 20_000
        while (alive().length > 1 && Date.now() < deadline) {
            await delay(10)
        }
        assert.equal(alive().length, 1)
        for (const link of links.filter((one) => one.isClosed)) {
            assert.equal(link.received[0], 0x20) // CONNACK, then DISCONNECT: taken over
            assert.equal(link.received[2 + link.received[1]], 0xe0)
            assert.equal(link.received[4 + link.received[1]], 0x8e)
        }
        alive()[0].cut()
        await broker.loggedTimes(/another connection uses its client id/g, 39)
    }))

test('who floods and does not read is held back, and others are served', { skip, timeout: 60_000 }, () =>
    withBroker({ config }, async (broker) => {
        const topic = topicName('flood')
        const flood = await rawConnection(broker, 'tcp', { silent: true })
        flood.socket.pause()
        flood.send(connectPacket('flood'))
        const filter = Buffer.from(topic)
        flood.send(packet(0x82, Buffer.concat([Buffer.from([0, 1, 0, 0, filter.length]), filter, Buffer.from([0])])))
        const body = Buffer.concat([Buffer.from([0, filter.length]), filter, Buffer.from([0]), Buffer.alloc(4000)])
        const many = Buffer.concat(Array.from({ length: 250 }, () => packet(0x30, body)))
        for (let i = 0; i < 60; i++) { // 60 MB
            flood.send(many)
        }
        const others = await Promise.all(transports.map((transport) => connect(broker, transport, '5')))
        const quiet = topicName('quiet')
        for (const client of others) {
            await client.subscribeAsync(quiet, { qos: 1 })
        }
        for (let n = 0; n < 20; n++) {
            await others[n % 4].publishAsync(quiet, `${n}`, { qos: 1 })
        }
        for (const client of others) {
            assert.equal((await client.received(20)).length, 20)
        }
        const rss = Number(fs.readFileSync(`/proc/${broker.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1])
        if (!isInstrumented) {
            assert.ok(rss < 150_000, `${rss} KiB resident`)
        }
        flood.cut()
        await Promise.all(others.map((client) => client.endAsync()))
    }))

test('SIGTERM in the middle of traffic is orderly', { skip, timeout: 60_000 }, async () => {
    const broker = await startBroker({ config })
    const topic = topicName('end')
    const clients = await Promise.all(Array.from({ length: 12 }, (_, i) => connect(broker, transports[i % 4], '5')))
    const farewells = clients.map((client) => once(client, 'disconnect'))
    await Promise.all(clients.map((client) => client.subscribeAsync(topic)))
    let go = true
    clients.forEach((client, i) => {
        const next = () => go && client.connected && client.publish(topic, `${i}`, () => setImmediate(next))
        next()
    })
    await clients[0].received(100)
    await broker.stop()
    go = false
    const packets = await within(Promise.all(farewells), 'DISCONNECT')
    assert.ok(packets.every(([one]) => one.reasonCode === 0x8b))
    clients.forEach((client) => client.end(true))
})
