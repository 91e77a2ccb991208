/* Listeners with a `protocol` each, as mosquitto has them, and what clients see at shutdown. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, test } from 'node:test'
import WebSocket from 'ws'
import {
    connect, delay, isMosquitto, startBroker, testCertificate, topicName, transports, within,
} from './harness.mjs'

async function withBroker(options, body) {
    const broker = await startBroker(options)
    try {
        await body(broker)
    } finally {
        await broker.stop()
    }
}

test('every transport reaches the same topics', () =>
    withBroker({ mosquittoStyle: true }, async (broker) => {
        const topic = topicName('all')
        const clients = []
        for (const transport of transports) {
            const client = await connect(broker, transport, '5')
            await client.subscribeAsync(`${topic}/#`, { qos: 1 })
            clients.push(client)
        }
        for (const [i, client] of clients.entries()) {
            await client.publishAsync(`${topic}/${transports[i]}`, 'x', { qos: 1 })
        }
        for (const client of clients) {
            const got = (await client.received(4)).map((m) => m.topic)
            assert.deepEqual(got, transports.map((transport) => `${topic}/${transport}`))
            await client.endAsync()
        }
    }))

test('a listener with a protocol speaks no other', () =>
    withBroker({ mosquittoStyle: true }, async (broker) => {
        const { tcp, ws } = broker.ports
        broker.ports = { tcp: ws, ws: tcp }
        const options = { connectTimeout: 2000 }
        await assert.rejects(connect(broker, 'tcp', '5', options))
        await assert.rejects(connect(broker, 'ws', '5', options))
        broker.ports = { tcp, ws }
        await (await connect(broker, 'ws', '5')).endAsync()
    }))

test('one port speaks everything: protocol any with a certificate', { skip: isMosquitto }, async () => {
    const { cert, key } = testCertificate()
    const listeners = ({ tcp, tls: other }) => [
        `listener ${tcp} 127.0.0.1`, 'protocol any', `certfile ${cert}`, `keyfile ${key}`,
        `listener ${other} 127.0.0.1`, `certfile ${cert}`, `keyfile ${key}`,
    ]
    await withBroker({ config: ['allow_anonymous true'], listeners }, async (broker) => {
        const [everything, secure] = [broker.ports.tcp, broker.ports.tls]
        broker.ports = { tcp: everything, tls: everything, ws: everything, wss: everything }
        const clients = await Promise.all(transports.map((transport) => connect(broker, transport, '5')))
        const topic = topicName('one-port')
        await clients[0].subscribeAsync(topic, { qos: 1 })
        for (const [i, client] of clients.entries()) {
            await client.publishAsync(topic, transports[i], { qos: 1 })
        }
        assert.deepEqual((await clients[0].received(4)).map((m) => m.text).sort(), [...transports].sort())
        await Promise.all(clients.map((client) => client.endAsync()))
        /* Without `any` a port with a certificate lets nobody in without TLS. */
        broker.ports = { tcp: secure, tls: secure, ws: secure, wss: secure }
        for (const transport of ['tcp', 'ws']) {
            await assert.rejects(connect(broker, transport, '5', { connectTimeout: 2000 }))
        }
        await (await connect(broker, 'wss', '5')).endAsync()
    })
})

describe('subprotocols', () => {
    /* The offered list, and what has to come back. */
    const offers = [
        [['mqtt'], 'mqtt'],
        [['mqttv3.1'], 'mqttv3.1'],
        [['other', 'mqtt'], 'mqtt'],
        [[], ''],
    ]
    for (const [offer, answer] of offers) {
        /* mosquitto 2.0.11 does not answer `mqttv3.1` or a list that begins with a stranger. */
        test(`[${offer}] is answered with "${answer}"`, { skip: isMosquitto }, () =>
            withBroker({}, async (broker) => {
                for (const transport of ['ws', 'wss']) {
                    const socket = new WebSocket(broker.url(transport), offer, {
                        ca: testCertificate().pem,
                    })
                    await within(once(socket, 'open'), 'handshake')
                    assert.equal(socket.protocol, answer)
                    socket.close(1000)
                    const [code] = await within(once(socket, 'close'), 'close')
                    assert.equal(code, 1000)
                }
            }))
    }
})

test('SIGTERM says goodbye to every MQTT 5 client', { skip: isMosquitto }, async () => {
    const broker = await startBroker()
    const farewells = []
    for (const transport of transports) {
        const client = await connect(broker, transport, '5')
        farewells.push(new Promise((resolve) => client.once('disconnect', resolve)))
    }
    await broker.stop()
    const packets = await within(Promise.all(farewells), 'DISCONNECT')
    assert.deepEqual(packets.map((packet) => packet.reasonCode), [0x8b, 0x8b, 0x8b, 0x8b])
})

test('SIGTERM closes a WebSocket with 1001', { skip: isMosquitto }, async () => {
    const broker = await startBroker()
    const closes = []
    for (const transport of ['ws', 'wss']) {
        const socket = new WebSocket(broker.url(transport), ['mqtt'], { ca: testCertificate().pem })
        await within(once(socket, 'open'), 'handshake')
        const answer = once(socket, 'message')
        socket.send(Buffer.from('100c00044d5154540402003c0000', 'hex')) // CONNECT, MQTT 3.1.1
        await within(answer, 'CONNACK')
        closes.push(once(socket, 'close'))
    }
    await broker.stop()
    const codes = (await within(Promise.all(closes), 'close')).map(([code]) => code)
    assert.deepEqual(codes, [1001, 1001])
})

test('a silent connection does not keep the broker from stopping', async () => {
    const broker = await startBroker()
    const socket = new WebSocket(broker.url('ws'), ['mqtt'])
    socket.on('error', () => {})
    await within(once(socket, 'open'), 'handshake')
    socket.pause()
    await delay(50)
    await broker.stop()
    socket.terminate()
})
