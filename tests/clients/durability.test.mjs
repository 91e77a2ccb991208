/* mqtt.js and a broker that is killed: what a callback confirmed arrives, and at QoS 2 once. */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { connect, delay, drained, scratchDir, topicName, within, withBroker } from './harness.mjs'

const crashes = 3
const messages = 240

function durable(name) {
    const data = path.join(scratchDir(), name)
    fs.mkdirSync(data)
    return [`persistence true`, `persistence_location ${data}/`, 'max_queued_messages 0']
}

const persistent = { clean: false, reconnectPeriod: 30, properties: { sessionExpiryInterval: 3600 } }

for (const [transport, version] of [['ws', 5], ['ws', '3.1.1'], ['tcp', 5]]) {
    test(`what was confirmed survives kill -9, ${version} over ${transport}`, async (t) => {
        await withBroker({ config: durable(`${transport}-${version}`) }, async (broker) => {
            const topic = topicName('kept')
            const options = version === 5 ? persistent : { ...persistent, properties: undefined }
            const subscriber = await connect(broker, transport, version, options)
            const publisher = await connect(broker, transport, version, options)
            t.after(() => [subscriber, publisher].forEach((client) => client.end(true)))
            await subscriber.subscribeAsync(topic, { qos: 2 })

            const confirmed = new Set()
            const outcomes = []
            for (let round = 0; round < crashes; round++) {
                for (let i = 0; i < messages / crashes; i++) {
                    const number = round * (messages / crashes) + i
                    /* mqtt.js gives some up when a connection ends while it sends its store again. */
                    outcomes.push(publisher.publishAsync(topic, String(number), { qos: 1 + (number % 2) })
                        .then(() => confirmed.add(number), () => {}))
                    if (i % 10 === 0) {
                        await delay(1) // a loop without turns would hand everything over at once
                    }
                }
                await broker.crash()
            }
            await within(Promise.all(outcomes), 'all callbacks', 30_000)
            /* How many depends on how many mqtt.js has given up; none would make this a test of nothing. */
            assert.ok(confirmed.size >= messages / 12, `${confirmed.size} confirmed`)
            await within(new Promise((resolve) => {
                const missing = new Set(confirmed)
                const look = () => {
                    subscriber.inbox.forEach((m) => missing.delete(Number(m.text)))
                    return missing.size === 0 && resolve()
                }
                subscriber.on('message', look)
                look()
            }), 'all that was confirmed', 30_000)
            await drained(subscriber)

            const seen = subscriber.inbox.map((m) => Number(m.text))
            const twice = seen.filter((number) => number % 2 === 1)
            assert.equal(twice.length, new Set(twice).size, 'a message came twice at QoS 2')
            for (const qos of [0, 1]) {
                const first = [...new Set(seen.filter((number) => number % 2 === qos))]
                assert.deepEqual(first, [...first].sort((a, b) => a - b), 'order')
            }
            publisher.end(true)
            subscriber.end(true)
        })
    })
}

test('sessions, subscriptions and retained messages are there after kill -9', async () => {
    await withBroker({ config: durable('state') }, async (broker) => {
        const [topic, state] = [topicName('offline'), topicName('state')]
        const options = { ...persistent, reconnectPeriod: 0, clientId: 'kept' }
        const offline = await connect(broker, 'ws', 5, options)
        await offline.subscribeAsync(topic, { qos: 1 })
        await offline.endAsync()
        const publisher = await connect(broker, 'ws', 5)
        await publisher.publishAsync(state, 'on', { qos: 1, retain: true })
        await publisher.publishAsync(topic, 'waiting', { qos: 1 })
        await broker.crash()

        const back = await connect(broker, 'ws', 5, options)
        assert.equal(back.connack.sessionPresent, true)
        assert.deepEqual((await back.received(1)).map((m) => m.text), ['waiting'])
        const reader = await connect(broker, 'ws', 5)
        await reader.subscribeAsync(state)
        assert.deepEqual((await reader.received(1)).map((m) => [m.text, m.packet.retain]), [['on', true]])
        await Promise.all([back.endAsync(), reader.endAsync()])
    })
})

test('wills of who was connected when the broker was stopped are there after the restart', async () => {
    await withBroker({ config: durable('wills') }, async (broker) => {
        const state = topicName('state')
        const options = { ...persistent, reconnectPeriod: 0, clientId: 'away' }
        const away = await connect(broker, 'ws', 5, options)
        await away.subscribeAsync(state, { qos: 1 })
        await away.endAsync()
        const device = await connect(broker, 'ws', '3.1.1', {
            reconnectPeriod: 0, will: { topic: state, payload: 'gone', qos: 1, retain: true },
        })
        await broker.restart()
        device.end(true)

        const back = await connect(broker, 'ws', 5, options)
        assert.deepEqual((await back.received(1)).map((m) => m.text), ['gone'])
        const reader = await connect(broker, 'ws', 5)
        await reader.subscribeAsync(state)
        assert.deepEqual((await reader.received(1)).map((m) => [m.text, m.packet.retain]), [['gone', true]])
        await Promise.all([back.endAsync(), reader.endAsync()])
    })
})
