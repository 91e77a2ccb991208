/* Every front end to every other: what one sends, all receive, text as well as bytes. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { after, before, describe, test } from 'node:test'
import { Client } from '@stomp/stompjs'
import WebSocket from 'ws'
import { connect, isMosquitto, startBroker, topicName, within } from './harness.mjs'

const skip = isMosquitto
const text = 'grüße, 世界 \u{1F426}'
const bytes = Buffer.from([0, 1, 0xff, 0xfe, 10, 13, 0x80, 0])

let broker
const ends = []

before(async () => {
    if (!skip) {
        broker = await startBroker()
    }
})
after(async () => {
    for (const end of ends.reverse()) {
        await end()
    }
    await broker?.stop()
})

function request(method, target, body) {
    return within(new Promise((resolve, reject) => {
        const req = http.request({ host: '127.0.0.1', port: broker.ports.tcp, method, path: target, agent: false }, (res) => {
            const chunks = []
            res.on('data', (chunk) => chunks.push(chunk))
            res.on('end', () => resolve({ status: res.statusCode, body: Buffer.concat(chunks) }))
        })
        req.on('error', reject)
        req.end(body)
    }), `${method} ${target}`)
}

/* Resolves with the first thing that is put into it. */
function box() {
    let put
    const first = new Promise((resolve) => (put = resolve))
    return { put, first }
}

async function stomp() {
    const client = new Client({
        brokerURL: broker.url('ws'), webSocketFactory: () => new WebSocket(broker.url('ws'), ['v12.stomp']),
        reconnectDelay: 0,
    })
    const connected = new Promise((resolve) => (client.onConnect = resolve))
    client.activate()
    await within(connected, 'CONNECTED')
    ends.push(() => client.deactivate())
    return client
}

/* A receipt says that a subscription is in force. */
function stompSubscribe(client, destination, onMessage) {
    const done = box()
    client.watchForReceipt(`r-${destination}`, done.put)
    client.subscribe(destination, onMessage, { receipt: `r-${destination}` })
    return within(done.first, 'RECEIPT')
}

/* It has its subscriptions when it gets what it sends itself. */
async function plainSocket(topic) {
    const ready = topicName('ready')
    const query = [topic, ready].map((each) => `topic=${encodeURIComponent(each)}`).join('&')
    const socket = new WebSocket(`ws://127.0.0.1:${broker.ports.ws}/api/v1/ws?${query}`)
    socket.on('error', () => {})
    await within(once(socket, 'open'), 'WebSocket')
    ends.push(() => socket.terminate())
    socket.send(JSON.stringify({ topic: ready, payload: 'ready' }))
    await within(once(socket, 'message'), 'its own message')
    return socket
}

/* Each listens on `topic` and resolves with a function that waits for the payload, as bytes. */
const receivers = {
    'mqtt.js': async (topic) => {
        const client = await connect(broker, 'ws', 5)
        ends.push(() => client.endAsync(true))
        const { put, first } = box()
        client.on('message', (_topic, payload) => put(payload))
        await client.subscribeAsync(topic, { qos: 1 })
        return () => first
    },
    stompjs: async (topic) => {
        const { put, first } = box()
        await stompSubscribe(await stomp(), topic, (message) => put(Buffer.from(message.binaryBody)))
        return () => first
    },
    'Server-Sent Events': async (topic) => {
        const { put, first } = box()
        const req = http.get({
            host: '127.0.0.1', port: broker.ports.tcp, path: `/api/v1/subscribe?topic=${encodeURIComponent(topic)}`,
            agent: false,
        })
        req.on('error', () => {})
        const [res] = await within(once(req, 'response'), 'event stream')
        ends.push(() => req.destroy())
        let seen = ''
        res.setEncoding('utf8')
        res.on('error', () => {})
        res.on('data', (chunk) => {
            seen += chunk
            const data = seen.match(/^data: (.*)\n\n/m)
            if (data !== null) {
                const { payload, payload_base64: base64 } = JSON.parse(data[1])
                put(base64 === undefined ? Buffer.from(payload) : Buffer.from(base64, 'base64'))
            }
        })
        return () => first
    },
    'plain WebSocket': async (topic) => {
        const socket = await plainSocket(topic)
        const { put, first } = box()
        socket.on('message', (data) => put(Buffer.from(data)))
        return () => first
    },
    /* What is retained is there to be read; senders that cannot retain are asked by a mirror. */
    'HTTP GET': async (topic) => {
        const mirror = await connect(broker, 'tcp', 5)
        ends.push(() => mirror.endAsync(true))
        const { put, first } = box()
        mirror.on('message', (_topic, payload) => put(mirror.publishAsync(`${topic}/last`, payload, { qos: 1, retain: true })))
        await mirror.subscribeAsync(topic)
        return async () => {
            await first
            return (await request('GET', `/api/v1/topics/${topic}/last`)).body
        }
    },
}

/* Each sends `payload` (a string or a Buffer) to `topic`. */
const senders = {
    'mqtt.js': async (topic, payload) => {
        const client = await connect(broker, 'wss', '3.1.1')
        ends.push(() => client.endAsync(true))
        await client.publishAsync(topic, payload, { qos: 2 })
    },
    stompjs: async (topic, payload) => {
        const body = typeof payload === 'string' ? { body: payload } : { binaryBody: new Uint8Array(payload) }
        const client = await stomp()
        client.publish({ destination: topic, ...body })
    },
    'plain WebSocket': async (topic, payload) => {
        const socket = await plainSocket(`${topic}/nothing`)
        const member = typeof payload === 'string' ? { payload } : { payload_base64: payload.toString('base64') }
        socket.send(JSON.stringify({ topic, qos: 1, ...member }))
    },
    'HTTP POST': async (topic, payload) => {
        const answer = await request('POST', `/api/v1/topics/${topic}?qos=1`, payload)
        assert.equal(answer.status, 200, answer.body.toString())
        assert.equal(JSON.parse(answer.body).matched, Object.keys(receivers).length)
    },
}

describe('what one front end sends the others receive', { skip }, () => {
    for (const [sender, send] of Object.entries(senders)) {
        for (const [kind, payload] of [['text', text], ['bytes', bytes]]) {
            describe(`${kind} from ${sender}`, () => {
                const waits = {}
                before(async () => {
                    const topic = topicName('cross')
                    for (const [receiver, listen] of Object.entries(receivers)) {
                        waits[receiver] = await listen(topic)
                    }
                    await send(topic, payload)
                })
                for (const receiver of Object.keys(receivers)) {
                    test(`to ${receiver}`, async () => {
                        const got = await within(waits[receiver](), 'the message')
                        assert.deepEqual(Buffer.from(got), Buffer.from(payload))
                    })
                }
            })
        }
    }
})
