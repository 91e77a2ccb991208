/* mqtt.js 5 as an MQTT 3.1, 3.1.1 and 5 client, each over tcp, tls, ws and wss. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import {
    clientId, connect, cut, drained, isMosquitto, reconnect, startBroker, topicName, transports, versions, within,
} from './harness.mjs'

const largeBytes = 1024 * 1024
const streamMessages = 1000

let broker

function texts(messages) {
    return messages.map((m) => m.text)
}

/* Every test gets its own clients and closes them in the end. */
async function withClients(transport, version, body) {
    const clients = []
    const open = async (options) => {
        const client = await connect(broker, transport, version, options)
        clients.push(client)
        return client
    }
    let failed = true
    try {
        await body(open)
        failed = false
    } finally {
        await Promise.all(clients.map((client) => client.endAsync(failed || !client.connected)))
    }
}

/* What every version can do. */
const common = {
    async 'delivers at QoS 0, 1 and 2'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('qos')
        const granted = await a.subscribeAsync(topic, { qos: 2 })
        assert.equal(granted[0].qos, 2)
        for (const qos of [0, 1, 2]) {
            await b.publishAsync(topic, `at ${qos}`, { qos })
        }
        const got = await a.received(3)
        /* A QoS 2 message may be released before a QoS 0 or 1 one, so the order is left open. */
        assert.deepEqual(texts(got).sort(), ['at 0', 'at 1', 'at 2'])
        assert.deepEqual(got.map((m) => m.packet.qos).sort(), [0, 1, 2])
        assert.ok(got.every((m) => !m.packet.dup && !m.packet.retain))
    },

    async 'lowers the QoS to what was granted'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('low')
        await a.subscribeAsync({ [`${topic}/0`]: { qos: 0 }, [`${topic}/1`]: { qos: 1 } })
        await b.publishAsync(`${topic}/0`, 'x', { qos: 2 })
        await b.publishAsync(`${topic}/1`, 'y', { qos: 2 })
        const got = await a.received(2)
        assert.deepEqual(got.map((m) => [m.text, m.packet.qos]), [['x', 0], ['y', 1]])
    },

    async 'matches + and # and nothing else'(open) {
        const [a, b] = [await open(), await open()]
        const root = topicName('wild')
        await a.subscribeAsync([`${root}/+/on`, `${root}/deep/#`], { qos: 1 })
        const published = ['lamp/on', 'lamp/off', 'a/b/on', 'deep', 'deep/x', 'deep/x/y', '/on']
        for (const name of published) {
            await b.publishAsync(`${root}/${name}`, name, { qos: 1 })
        }
        await drained(a)
        assert.deepEqual(texts(a.inbox), ['lamp/on', 'deep', 'deep/x', 'deep/x/y', '/on'])
    },

    async 'stops delivering after unsubscribe'(open) {
        const a = await open()
        const topic = topicName('unsubscribe')
        await a.subscribeAsync(topic, { qos: 1 })
        await a.publishAsync(topic, 'before', { qos: 1 })
        await a.received(1)
        await a.unsubscribeAsync(topic)
        await a.publishAsync(topic, 'after', { qos: 1 })
        await drained(a)
        assert.deepEqual(texts(a.inbox), ['before'])
    },

    async 'keeps, replaces and clears a retained message'(open) {
        const [a, b, c] = [await open(), await open(), await open()]
        const topic = topicName('retained')
        await a.publishAsync(topic, 'old', { qos: 1, retain: true })
        await a.publishAsync(topic, 'new', { qos: 1, retain: true })
        await b.subscribeAsync(topic, { qos: 1 })
        const [got] = await b.received(1)
        assert.deepEqual([got.text, got.packet.retain, got.packet.qos], ['new', true, 1])
        await a.publishAsync(topic, '', { qos: 1, retain: true })
        const [, cleared] = await b.received(2)
        assert.deepEqual([cleared.text, cleared.packet.retain], ['', false])
        await c.subscribeAsync(topic, { qos: 1 })
        await drained(c)
        assert.deepEqual(c.inbox, [])
    },

    async 'sends retained messages to a wildcard subscription'(open) {
        const [a, b] = [await open(), await open()]
        const root = topicName('retained')
        for (let i = 0; i < 20; i++) {
            await a.publishAsync(`${root}/${i}`, `${i}`, { qos: i % 3, retain: true })
        }
        await b.subscribeAsync(`${root}/#`, { qos: 2 })
        const got = await b.received(20)
        assert.deepEqual(texts(got).map(Number).sort((x, y) => x - y), [...Array(20).keys()])
        assert.ok(got.every((m) => m.packet.retain && m.packet.qos === Number(m.text) % 3))
    },

    async 'publishes the will when the network fails'(open) {
        const topic = topicName('will')
        const will = { topic, payload: 'gone', qos: 1, retain: true }
        const [a, b, c] = [await open({ will }), await open(), await open()]
        await b.subscribeAsync(topic, { qos: 1 })
        await cut(a)
        const [live] = await b.received(1)
        assert.deepEqual([live.text, live.packet.retain, live.packet.qos], ['gone', false, 1])
        await c.subscribeAsync(topic, { qos: 1 })
        const [kept] = await c.received(1)
        assert.deepEqual([kept.text, kept.packet.retain], ['gone', true])
    },

    async 'drops the will after DISCONNECT'(open) {
        const topic = topicName('will')
        const will = { topic, payload: 'gone', qos: 1, retain: false }
        const [a, b] = [await open({ will }), await open()]
        await b.subscribeAsync(topic, { qos: 1 })
        await a.endAsync()
        await drained(b)
        assert.deepEqual(b.inbox, [])
    },

    async 'gives a session back what was queued while it was cut off'(open, version) {
        const session = persistent(version)
        const [a, b] = [await open(session), await open()]
        const topic = topicName('offline')
        await a.subscribeAsync(topic, { qos: 2 })
        assert.equal(a.connack.sessionPresent, false)
        await cut(a)
        for (let i = 0; i < 30; i++) {
            await b.publishAsync(topic, `${i}`, { qos: 1 + (i >= 15) })
        }
        await reconnect(a)
        assert.equal(a.connack.sessionPresent, version !== '3.1')
        const got = await a.received(30)
        assert.deepEqual(texts(got.slice(0, 15)), [...Array(15).keys()].map(String))
        assert.deepEqual(texts(got.slice(15)), [...Array(15).keys()].map((i) => `${i + 15}`))
    },

    async 'queues for a session between two connections'(open, version) {
        const session = persistent(version)
        const topic = topicName('offline')
        const a = await open(session)
        await a.subscribeAsync(topic, { qos: 1 })
        await a.endAsync()
        const b = await open()
        for (const text of ['one', 'two', 'three']) {
            await b.publishAsync(topic, text, { qos: 1 })
        }
        const again = await open(session)
        assert.equal(again.connack.sessionPresent, version !== '3.1')
        assert.deepEqual(texts(await again.received(3)), ['one', 'two', 'three'])
        await again.endAsync()
        const clean = await open({ ...session, clean: true })
        assert.equal(clean.connack.sessionPresent, false)
        await b.publishAsync(topic, 'four', { qos: 1 })
        await drained(clean)
        assert.deepEqual(clean.inbox, [])
    },

    async 'keeps an exchange that the publisher was cut off in'(open, version) {
        /* mqtt.js forgets its unfinished exchanges in reconnect(), so it reconnects by itself. */
        const a = await open({ ...persistent(version), reconnectPeriod: 20 })
        const b = await open()
        const topic = topicName('in-flight')
        await b.subscribeAsync(topic, { qos: 2 })
        const firstAnswer = new Promise((resolve) => a.once('packetreceive', resolve))
        const done = []
        for (let i = 0; i < 20; i++) {
            done.push(a.publishAsync(topic, `${i}`, { qos: 2 }))
        }
        await within(firstAnswer, 'PUBREC')
        await cut(a)
        await within(Promise.all(done), 'publishes to be acknowledged')
        await b.received(20)
        await drained(b)
        const numbers = texts(b.inbox).map(Number).sort((x, y) => x - y)
        assert.deepEqual(numbers, [...Array(20).keys()], 'each message exactly once')
    },

    async 'lets a second client with the same id take over'(open) {
        const id = clientId('takeover')
        const a = await open({ clientId: id })
        const closed = once(a, 'close')
        const reason = new Promise((resolve) => a.once('disconnect', resolve))
        await open({ clientId: id })
        await within(closed, 'first client to be closed')
        /* mosquitto 2.0.11 closes without a DISCONNECT. */
        if (a.options.protocolVersion === 5 && !isMosquitto) {
            const packet = await within(reason, 'DISCONNECT')
            assert.equal(packet.reasonCode, 0x8e)
        }
    },

    async 'carries a payload of 1 MiB unchanged'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('large')
        await a.subscribeAsync(topic, { qos: 1 })
        const payload = randomBytes(largeBytes)
        await b.publishAsync(topic, payload, { qos: 1 })
        const [got] = await a.received(1)
        assert.ok(payload.equals(got.payload))
    },

    async 'carries empty and binary payloads'(open) {
        const a = await open()
        const topic = topicName('binary/\u00e4\u6f22\u{1f600}')
        const payload = Buffer.from([...Array(256).keys()])
        await a.subscribeAsync(topic, { qos: 1 })
        await a.publishAsync(topic, '', { qos: 1 })
        await a.publishAsync(topic, payload, { qos: 1 })
        const got = await a.received(2)
        assert.equal(got[0].payload.length, 0)
        assert.ok(payload.equals(got[1].payload))
        assert.ok(got.every((m) => m.topic === topic))
    },
}

for (const qos of [0, 1, 2]) {
    common[`carries ${streamMessages} messages in order at QoS ${qos}`] = async (open) => {
        const [a, b] = [await open(), await open()]
        const topic = topicName('order')
        await a.subscribeAsync(topic, { qos })
        const all = [...Array(streamMessages).keys()].map(String)
        /* mqtt.js does not keep to the server's Receive Maximum (MQTT 5, 4.9); this does. */
        const window = b.connack.properties?.receiveMaximum ?? (isMosquitto ? 20 : 65_535)
        const inFlight = []
        for (const text of all) {
            if (qos > 0 && inFlight.length === window) {
                await inFlight.shift()
            }
            inFlight.push(b.publishAsync(topic, text, { qos }))
        }
        await Promise.all(inFlight)
        assert.deepEqual(texts(await a.received(streamMessages)), all)
    }
}

/* CONNACK has no Session Present flag in MQTT 3.1. */
function persistent(version) {
    return {
        clientId: clientId('s'),
        clean: false,
        ...(version === '5' ? { properties: { sessionExpiryInterval: 300 } } : {}),
    }
}

/* What MQTT 5 adds. */
const five = {
    async 'forwards the properties of a PUBLISH'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('properties')
        await a.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 4711 } })
        await b.publishAsync(topic, '{"a":1}', {
            qos: 1,
            properties: {
                payloadFormatIndicator: true,
                messageExpiryInterval: 600,
                contentType: 'application/json',
                responseTopic: 'answers/here',
                correlationData: Buffer.from([1, 0, 2]),
                userProperties: { first: ['1', '2'], second: '\u00e9' },
            },
        })
        const [{ packet }] = await a.received(1)
        const got = packet.properties
        assert.equal(got.payloadFormatIndicator, true)
        assert.ok(got.messageExpiryInterval > 590 && got.messageExpiryInterval <= 600)
        assert.equal(got.contentType, 'application/json')
        assert.equal(got.responseTopic, 'answers/here')
        assert.deepEqual(Buffer.from(got.correlationData), Buffer.from([1, 0, 2]))
        assert.deepEqual({ ...got.userProperties }, { first: ['1', '2'], second: '\u00e9' })
        assert.equal(got.subscriptionIdentifier, 4711)
    },

    async 'answers a request'(open) {
        const [service, client] = [await open(), await open()]
        const [question, answers] = [topicName('question'), topicName('answer')]
        await service.subscribeAsync(question, { qos: 1 })
        service.on('message', (topic, payload, { properties }) => {
            service.publish(properties.responseTopic, `${payload}!`, {
                qos: 1,
                properties: { correlationData: properties.correlationData },
            })
        })
        await client.subscribeAsync(answers, { qos: 1 })
        const correlationData = randomBytes(16)
        await client.publishAsync(question, 'there', {
            qos: 1,
            properties: { responseTopic: answers, correlationData },
        })
        const [got] = await client.received(1)
        assert.equal(got.text, 'there!')
        assert.ok(correlationData.equals(got.packet.properties.correlationData))
    },

    async 'says when nobody subscribes'(open) {
        const a = await open()
        const answer = new Promise((resolve) => a.once('packetreceive', resolve))
        await a.publishAsync(topicName('nobody'), 'x', { qos: 1 })
        const ack = await answer
        assert.equal(ack.cmd, 'puback')
        assert.equal(ack.reasonCode, 0x10)
    },

    async 'assigns a client id'(open) {
        const a = await open({ clientId: '' })
        assert.ok(a.connack.properties.assignedClientIdentifier.length > 0)
    },

    async 'withholds own messages with No Local'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('no-local')
        await a.subscribeAsync(topic, { qos: 1, nl: true })
        await a.publishAsync(topic, 'own', { qos: 1 })
        await b.publishAsync(topic, 'other', { qos: 1 })
        await drained(a)
        assert.deepEqual(texts(a.inbox), ['other'])
    },

    async 'keeps the retain flag with Retain As Published'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('rap')
        await a.subscribeAsync(topic, { qos: 1, rap: true })
        await b.publishAsync(topic, 'x', { qos: 1, retain: true })
        await b.publishAsync(topic, 'y', { qos: 1 })
        const got = await a.received(2)
        assert.deepEqual(got.map((m) => m.packet.retain), [true, false])
    },

    async 'obeys Retain Handling'(open) {
        const [a, b] = [await open(), await open()]
        const topic = topicName('rh')
        await a.publishAsync(topic, 'kept', { qos: 1, retain: true })
        const inboxAfter = async (rh) => {
            b.inbox.length = 0
            await b.subscribeAsync(topic, { qos: 1, rh })
            if (rh === 0) {
                await b.received(1)
            }
            await drained(b)
            return texts(b.inbox)
        }
        assert.deepEqual(await inboxAfter(2), [])
        assert.deepEqual(await inboxAfter(1), [], 'the subscription exists already')
        assert.deepEqual(await inboxAfter(0), ['kept'])
    },

    async 'takes topic aliases and uses them'(open) {
        const a = await open({ properties: { topicAliasMaximum: 10 } })
        const b = await open({ autoAssignTopicAlias: true })
        const topic = topicName('alias')
        await a.subscribeAsync(`${topic}/+`, { qos: 1 })
        for (let i = 0; i < 30; i++) {
            await b.publishAsync(`${topic}/${i % 3}`, `${i}`, { qos: 1 })
        }
        const got = await a.received(30)
        assert.deepEqual(got.map((m) => m.topic), got.map((m, i) => `${topic}/${i % 3}`))
        assert.deepEqual(texts(got), [...Array(30).keys()].map(String))
    },

    async 'shares a subscription'(open) {
        const [a, b, c] = [await open(), await open(), await open()]
        const topic = topicName('shared')
        await a.subscribeAsync(`$share/workers/${topic}`, { qos: 1 })
        await b.subscribeAsync(`$share/workers/${topic}`, { qos: 1 })
        const all = [...Array(40).keys()].map(String)
        for (const text of all) {
            await c.publishAsync(topic, text, { qos: 1 })
        }
        await drained(a)
        await drained(b)
        assert.ok(a.inbox.length > 0 && b.inbox.length > 0, 'both get some')
        const got = texts([...a.inbox, ...b.inbox]).sort((x, y) => x - y)
        assert.deepEqual(got, all, 'each message once')
    },

    async 'keeps within Receive Maximum'(open) {
        const [a, b] = [
            await open({ properties: { receiveMaximum: 2 } }),
            await open(),
        ]
        const topic = topicName('window')
        let unacknowledged = 0
        let most = 0
        const held = []
        a.handleMessage = (packet, done) => {
            most = Math.max(most, ++unacknowledged)
            held.push(done)
            setImmediate(() => {
                unacknowledged--
                held.shift()()
            })
        }
        await a.subscribeAsync(topic, { qos: 1 })
        for (let i = 0; i < 20; i++) {
            await b.publishAsync(topic, `${i}`, { qos: 1 })
        }
        await a.received(20)
        assert.ok(most <= 2)
    },

    async 'does not send what exceeds Maximum Packet Size'(open) {
        const a = await open({ properties: { maximumPacketSize: 500 } })
        const b = await open()
        const topic = topicName('size')
        await a.subscribeAsync(topic, { qos: 1 })
        await b.publishAsync(topic, 'x'.repeat(1000), { qos: 1 })
        await b.publishAsync(topic, 'small', { qos: 1 })
        assert.deepEqual(texts(await a.received(1)), ['small'])
        await drained(a)
        assert.deepEqual(texts(a.inbox), ['small'])
    },

    async 'delays the will'(open) {
        const topic = topicName('will')
        const will = {
            topic, payload: 'gone', qos: 1, retain: false,
            properties: { willDelayInterval: 1, contentType: 'text/plain' },
        }
        const a = await open({ will, properties: { sessionExpiryInterval: 60 } })
        const b = await open()
        await b.subscribeAsync(topic, { qos: 1 })
        const start = performance.now()
        await cut(a)
        const [got] = await b.received(1)
        assert.ok(performance.now() - start >= 900, 'not before its delay')
        assert.equal(got.packet.properties.contentType, 'text/plain')
    },

    async 'cancels a delayed will when the session comes back'(open) {
        const topic = topicName('will')
        const will = {
            topic, payload: 'gone', qos: 1, retain: false, properties: { willDelayInterval: 1 },
        }
        const session = { clientId: clientId('s'), clean: false, properties: { sessionExpiryInterval: 60 } }
        const a = await open({ ...session, will })
        const [b, later] = [await open(), topicName('later')]
        await b.subscribeAsync([topic, later], { qos: 1 })
        await cut(a)
        const back = await open(session)
        assert.equal(back.connack.sessionPresent, true)
        /* A second client's will with the same delay shows that the first one's time has passed. */
        const c = await open({
            will: { ...will, topic: later, payload: 'clock' },
            properties: { sessionExpiryInterval: 60 },
        })
        await cut(c)
        assert.deepEqual(texts(await b.received(1)), ['clock'])
    },

    async 'refuses an invalid filter with a reason'(open) {
        const a = await open()
        await assert.rejects(
            new Promise((resolve, reject) => {
                /* mqtt.js checks filters itself, so the bad packet is sent past its check. */
                a.once('disconnect', (packet) => reject(new Error(`reason ${packet.reasonCode}`)))
                a._sendPacket({
                    cmd: 'subscribe', messageId: 9999, subscriptions: [{ topic: 'a/#/b', qos: 0 }],
                })
                a.on('packetreceive', (packet) => {
                    if (packet.cmd === 'suback' && packet.messageId === 9999) {
                        reject(new Error(`reason ${packet.granted?.[0] ?? packet.reasonCode}`))
                    }
                })
            }),
            (error) => ['reason 143', 'reason 129', 'reason 130'].includes(error.message)
        )
    },
}

before(async () => (broker = await startBroker()))
after(async () => broker?.stop())

for (const version of Object.keys(versions)) {
    for (const transport of transports) {
        describe(`mqtt.js, MQTT ${version} over ${transport}`, { concurrency: 8 }, () => {
            const cases = { ...common, ...(version === '5' ? five : {}) }
            for (const [name, body] of Object.entries(cases)) {
                test(name, { timeout: 60_000 }, () =>
                    withClients(transport, version, (open) => body(open, version)))
            }
        })
    }
}
