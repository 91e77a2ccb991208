/* The STOMP libraries that pages and services use: @stomp/stompjs 7, stompjs 2.3.3, webstomp-client,
 * and what Spring's relay sends. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { after, before, describe, test } from 'node:test'
import { Client } from '@stomp/stompjs'
import WebSocket from 'ws'
import { clientId, connect, delay, startBroker, testCertificate, within } from './harness.mjs'
import { RawStomp } from './stomp_raw.mjs'

const require = createRequire(import.meta.url)

let broker
let names = 0

before(async () => {
    broker = await startBroker()
})
after(async () => {
    clients.forEach((client) => client.deactivate({ force: true })) /* those of tests that failed */
    sockets.forEach((socket) => socket.terminate())
    await broker.stop()
})

const clients = []
const sockets = []

/* The WebSocket of Node, remembered until the end. */
class TrackedWebSocket extends WebSocket {
    constructor(...args) {
        super(...args)
        sockets.push(this)
    }
}

function unique(what) {
    return `${what}-${process.pid}-${++names}`
}

/* Collects what is put into it; take(n) resolves with the first n. */
function inbox() {
    const items = []
    let wake = () => {}
    return {
        items,
        put: (item) => {
            items.push(item)
            wake()
        },
        take: (count) => within((async () => {
            while (items.length < count) {
                await new Promise((resolve) => (wake = resolve))
            }
            return items.splice(0, count)
        })(), `${count} messages; there are ${items.length}`),
    }
}

describe('@stomp/stompjs 7', () => {
    /* As its manual has it, but for the class of the WebSocket, which is Node's. */
    async function open(transport, options = {}) {
        const client = new Client({
            webSocketFactory: () => new TrackedWebSocket(
                `${transport}://localhost:${broker.ports[transport]}/ws`, client.stompVersions.protocolVersions(),
                { ca: [testCertificate().pem], family: 4 }
            ),
            reconnectDelay: 100,
            ...options,
        })
        clients.push(client)
        client.connects = inbox()
        client.errors = inbox()
        client.onConnect = (frame) => client.connects.put(frame)
        client.onStompError = (frame) => client.errors.put(frame)
        client.activate()
        const [frame] = await client.connects.take(1)
        client.connectedFrame = frame
        return client
    }

    function receipt(client, send) {
        const id = unique('receipt')
        return within(new Promise((resolve) => {
            client.watchForReceipt(id, resolve)
            send(id)
        }), 'a receipt')
    }

    for (const transport of ['ws', 'wss']) {
        test(`subscribes, sends and leaves over ${transport}`, async () => {
            const client = await open(transport)
            assert.equal(client.connectedFrame.headers['heart-beat'], '10000,10000')
            assert.equal(client.connectedVersion, '1.2')
            const destination = `/topic/${unique('chat')}`
            const got = inbox()
            const subscription = client.subscribe(destination, got.put)
            client.publish({ destination, body: 'Hällo: wörld\n', headers: { xy: 'a\nb\\x\r:' } })
            const [message] = await got.take(1)
            assert.equal(message.body, 'Hällo: wörld\n')
            assert.equal(message.headers.xy, 'a\nb\\x\r:')
            assert.equal(message.headers.destination, destination)
            const binaryBody = randomBytes(1000)
            client.publish({ destination, binaryBody, headers: { 'content-type': 'application/octet-stream' } })
            assert.deepEqual(Buffer.from((await got.take(1))[0].binaryBody), binaryBody)
            subscription.unsubscribe()
            await receipt(client, (id) => client.publish({ destination, body: 'unheard', headers: { receipt: id } }))
            assert.deepEqual(got.items, [])
            await within(client.deactivate(), 'deactivate') /* waits for the receipt of DISCONNECT */
        })
    }

    test('acknowledges through message.ack and nack', async () => {
        const [a, b] = [await open('ws'), await open('ws')]
        const queue = `/queue/${unique('work')}`
        const got = inbox()
        const headers = { ack: 'client-individual', 'prefetch-count': '1' }
        a.subscribe(queue, got.put, headers)
        for (const body of ['1', '2', '3']) {
            await receipt(b, (id) => b.publish({ destination: queue, body, headers: { receipt: id } }))
        }
        const [first] = await got.take(1)
        await delay(50)
        assert.deepEqual(got.items, [])
        first.ack()
        const [second] = await got.take(1)
        assert.equal(second.body, '2')
        second.nack()
        const [again] = await got.take(1)
        assert.equal(again.body, '2')
        assert.equal(again.headers.redelivered, 'true')
        await a.deactivate()
        b.subscribe(queue, got.put)
        assert.deepEqual((await got.take(2)).map((m) => m.body), ['2', '3'])
        await b.deactivate()
    })

    test('commits and aborts transactions', async () => {
        const client = await open('ws')
        const destination = `/topic/${unique('tx')}`
        const got = inbox()
        client.subscribe(destination, got.put)
        const lost = client.begin()
        client.publish({ destination, body: 'lost', headers: { transaction: lost.id } })
        lost.abort()
        const kept = client.begin()
        client.publish({ destination, body: 'kept', headers: { transaction: kept.id } })
        client.publish({ destination, body: 'outside' })
        assert.equal((await got.take(1))[0].body, 'outside')
        kept.commit()
        assert.equal((await got.take(1))[0].body, 'kept')
        await client.deactivate()
    })

    test('splits large frames', async () => {
        const client = await open('ws', { splitLargeFrames: true })
        const destination = `/topic/${unique('large')}`
        const got = inbox()
        client.subscribe(destination, got.put)
        const body = randomBytes(100_000).toString('base64')
        client.publish({ destination, body })
        client.publish({ destination, body: 'small' })
        assert.deepEqual((await got.take(2)).map((m) => m.body.length), [body.length, 5])
        await client.deactivate()
    })

    test('lives on heart-beats, both ways', async () => {
        const client = await open('ws', { heartbeatIncoming: 1000, heartbeatOutgoing: 1000, reconnectDelay: 0 })
        let closed = false
        client.onWebSocketClose = () => (closed = true)
        await delay(4500)
        assert.equal(closed, false)
        assert.equal(client.connected, true)
        await client.deactivate()
        assert.equal(closed, true)
    })

    test('comes back after a cut and finds what it missed', async () => {
        const client = await open('ws')
        const sender = await open('ws')
        const destination = `/topic/${unique('feed')}`
        const got = inbox()
        const subscribe = () => client.subscribe(destination, got.put, {
            id: destination, durable: 'true', 'auto-delete': 'false',
        })
        subscribe()
        await receipt(client, (id) => client.publish({ destination: '/topic/x', headers: { receipt: id } }))
        client.reconnectDelay = 300
        const from = broker.log.length
        client.webSocket.terminate()
        await broker.logged(/ disconnected: /, from) /* what is sent before may be lost: see ack:auto */
        await receipt(sender, (id) => sender.publish({ destination, body: 'missed', headers: { receipt: id } }))
        await client.connects.take(1)
        subscribe()
        assert.equal((await got.take(1))[0].body, 'missed')
        await Promise.all([client.deactivate(), sender.deactivate()])
    })

    test('is told what is wrong', async () => {
        const client = await open('ws', { reconnectDelay: 0 })
        client.subscribe('/topic/a.#.b', () => {})
        const [error] = await client.errors.take(1)
        assert.match(error.headers.message, /# may only be its last level/)
        await client.deactivate()
    })

    test('shares topics with mqtt.js', async () => {
        const client = await open('ws')
        const mqtt = await connect(broker, 'tcp', '3.1.1')
        const name = unique('shared')
        const got = inbox()
        client.subscribe(`/topic/${name}.#`, got.put, { ack: 'client' })
        await receipt(client, (id) => client.publish({ destination: '/topic/x', headers: { receipt: id } }))
        await mqtt.subscribeAsync(`${name}/down`, { qos: 1 })
        await mqtt.publishAsync(`${name}/up/1`, 'up', { qos: 1 })
        const [up] = await got.take(1)
        assert.equal(up.headers.destination, `/topic/${name}.up.1`)
        up.ack()
        client.publish({ destination: `/topic/${name}.down`, binaryBody: new Uint8Array([0, 255]) })
        const [down] = await mqtt.received(1)
        assert.deepEqual(down.payload ?? down.packet.payload, Buffer.from([0, 255]))
        await Promise.all([client.deactivate(), mqtt.endAsync()])
    })
})

describe('stompjs 2.3.3', () => {
    /* The npm package's own client, whose WebSocket is the global one, as in a page. */
    const { Stomp } = require('stompjs/lib/stomp.js')

    async function open(login = ['guest', 'guest']) {
        Stomp.WebSocketClass = TrackedWebSocket
        Stomp.setInterval = (interval, beat) => setInterval(beat, interval)
        Stomp.clearInterval = clearInterval
        const client = Stomp.client(`ws://127.0.0.1:${broker.ports.ws}/ws`)
        client.debug = null
        client.ws.binaryType = 'arraybuffer'
        await within(new Promise((resolve, reject) => client.connect(...login, resolve, reject, '/')), 'CONNECTED')
        return client
    }

    test('subscribes, sends and leaves', async () => {
        const client = await open()
        assert.equal(client.ws.protocol, 'v10.stomp')
        const got = inbox()
        const destination = `/topic/${unique('old.chat')}`
        const subscription = client.subscribe(destination, got.put)
        client.send(destination, { priority: 9 }, 'grüß Gott')
        const [message] = await got.take(1)
        assert.equal(message.body, 'grüß Gott')
        assert.equal(message.headers.priority, '9')
        assert.equal(message.headers.destination, destination)
        subscription.unsubscribe()
        await within(new Promise((resolve) => client.disconnect(resolve)), 'DISCONNECT')
    })

    test('acknowledges, and rolls back', async () => {
        const client = await open()
        const got = inbox()
        const queue = `/queue/${unique('old')}`
        client.subscribe(queue, got.put, { ack: 'client' })
        const tx = client.begin()
        client.send(queue, { transaction: tx.id }, 'never')
        tx.abort()
        client.send(queue, {}, 'now')
        const [message] = await got.take(1)
        assert.equal(message.body, 'now')
        message.nack()
        const [again] = await got.take(1)
        assert.equal(again.headers.redelivered, 'true')
        again.ack()
        const receipt = within(new Promise((resolve) => (client.onreceipt = resolve)), 'a receipt')
        client.send(queue, { receipt: 'r1' }, 'last')
        assert.equal((await receipt).headers['receipt-id'], 'r1')
        client.disconnect()
    })
})

describe('webstomp-client', () => {
    const webstomp = require('webstomp-client')

    for (const binary of [false, true]) {
        test(`subscribes, sends and acknowledges, ${binary ? 'binary' : 'text'}`, async () => {
            globalThis.WebSocket ??= WebSocket
            const socket = new TrackedWebSocket(`ws://127.0.0.1:${broker.ports.ws}/ws`, ['v10.stomp', 'v11.stomp', 'v12.stomp'])
            const client = webstomp.over(socket, { debug: false, binary, version: 'v12.stomp' })
            await within(new Promise((resolve, reject) => client.connect({ login: 'a', passcode: 'b' }, resolve, reject)), 'CONNECTED')
            const got = inbox()
            const queue = `/queue/${unique('web')}`
            client.subscribe(queue, got.put, { ack: 'client-individual' })
            client.send(queue, 'eins', { 'content-type': 'text/plain' })
            const [message] = await got.take(1)
            assert.equal(message.body, 'eins')
            message.ack()
            const receipt = within(new Promise((resolve) => (client.onreceipt = resolve)), 'a receipt')
            client.send(queue, 'zwei', { receipt: 'r' })
            await receipt
            await within(new Promise((resolve) => client.disconnect(resolve)), 'DISCONNECT')
        })
    }
})

describe("Spring's relay", () => {
    /* StompBrokerRelayMessageHandler: one system connection, one connection for each user, over TCP;
     * the destinations are the application's, the ids its sessions'. */
    test('has a system connection and many subscriptions for each user', async () => {
        const system = await RawStomp.connect(broker, 'tcp', {
            'accept-version': '1.1,1.2', login: 'guest', passcode: 'guest', 'heart-beat': '10000,10000', host: '/',
        })
        assert.equal(system.connected.headers['heart-beat'], '10000,10000')
        const user = await RawStomp.connect(broker, 'tcp', {
            'accept-version': '1.1,1.2', login: 'guest', passcode: 'guest', 'heart-beat': '0,0', host: '/',
        })
        const app = unique('app')
        const count = 500
        for (let i = 0; i < count; i++) {
            user.send('SUBSCRIBE', { id: `sub-${i}`, destination: `/topic/${app}.room.${i}`, ack: 'auto' })
        }
        await user.ask('SUBSCRIBE', { id: 'sub-user', destination: `/queue/${app}-errors-user${clientId()}` })
        for (let i = 0; i < count; i++) {
            system.send('SEND', {
                destination: `/topic/${app}.room.${i}`, 'content-type': 'application/json;charset=UTF-8',
                'content-length': String(`{"n":${i}}`.length),
            }, `{"n":${i}}`)
        }
        const got = new Set()
        while (got.size < count) {
            const { headers, text } = await user.expect('MESSAGE', { 'content-type': 'application/json;charset=UTF-8' })
            assert.equal(headers.subscription, `sub-${JSON.parse(text).n}`)
            got.add(headers.subscription)
        }
        await user.disconnect()
        await system.disconnect()
    })
})
