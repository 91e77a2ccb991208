/* Plain WebSockets: messages of MQTT clients as they are, and JSON to publish. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import WebSocket from 'ws'
import {
    connect, delay, drained, executable, isMosquitto, run, scratchDir, startBroker, testCertificate, topicName,
    withBroker, within,
} from './harness.mjs'

const skip = isMosquitto

function basic(user, password) {
    return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }
}

/* A WebSocket; `received(n)` resolves with the first n messages: text as a string, else a Buffer. */
function open(broker, query, { transport = 'ws', protocols = [], ...options } = {}) {
    const url = `${transport}://127.0.0.1:${broker.ports[transport]}/api/v1/ws${query}`
    const socket = new WebSocket(url, protocols, { ca: testCertificate().pem, ...options })
    socket.inbox = []
    socket.on('error', () => {})
    socket.on('message', (data, isBinary) => {
        socket.inbox.push(isBinary ? data : data.toString())
        socket.emit('look')
    })
    socket.received = (count) => within((async () => {
        while (socket.inbox.length < count) {
            await once(socket, 'look')
        }
        return socket.inbox.slice(0, count)
    })(), `${count} messages`)
    socket.closed = new Promise((resolve) => socket.once('close', (code, reason) =>
        resolve({ code, reason: reason.toString() })))
    socket.publish = (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message))
    return socket
}

function topicsQuery(topics, more = '') {
    return `?${topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join('&')}${more}`
}

/* Resolves when the WebSocket has its subscriptions: by then it gets what it publishes itself. */
async function subscribe(broker, topics, { more, ...options } = {}) {
    const ready = topicName('ready')
    const socket = open(broker, topicsQuery([...topics, ready], more), options)
    await within(once(socket, 'open'), 'WebSocket')
    socket.publish({ topic: ready, payload: ready })
    for (let i = 1; socket.inbox.at(-1) !== ready; i++) {
        await socket.received(i)
    }
    socket.inbox.pop()
    return socket
}

async function close(socket) {
    socket.close()
    return within(socket.closed, 'end of the WebSocket')
}

for (const ioThreads of [0, 2]) describe(`plain WebSockets with ${ioThreads} I/O threads`, { skip }, () => {
    let broker

    before(async () => (broker = await startBroker({
        config: ['max_packet_size 200000', 'message_size_limit 150000', `io_threads ${ioThreads}`, 'log_type all'],
    })))
    after(async () => broker?.stop())

    for (const transport of ['ws', 'wss']) {
        test(`text, bytes and nothing at all arrive as they were published, over ${transport}`, async () => {
            const topic = topicName('kinds')
            const socket = await subscribe(broker, [topic], { transport })
            const mqtt = await connect(broker, 'tcp', 5)
            const payloads = ['grüß Gott', Buffer.from([0, 255, 1]), '', 'x'.repeat(150_000), Buffer.alloc(100_000, 254), 'last']
            for (const payload of payloads) {
                await mqtt.publishAsync(topic, payload, { qos: 1 })
            }
            assert.deepEqual(await socket.received(payloads.length), payloads)
            assert.equal((await close(socket)).code, 1005)
            await mqtt.endAsync()
        })
    }

    test('two filters, retained messages first, and nothing else', async () => {
        const topic = topicName('filters')
        const mqtt = await connect(broker, 'ws', '3.1.1')
        await mqtt.publishAsync(`${topic}/a/kept`, 'kept', { qos: 1, retain: true })
        const socket = open(broker, topicsQuery([`${topic}/a/#`, `${topic}/+/b`]))
        assert.deepEqual(await socket.received(1), ['kept'])
        for (const name of ['a/1', 'c/1', 'c/b', 'c']) {
            await mqtt.publishAsync(`${topic}/${name}`, name, { qos: 1 })
        }
        await mqtt.publishAsync(`${topic}/x/b`, 'end', { qos: 0 })
        assert.deepEqual(await socket.received(4), ['kept', 'a/1', 'c/b', 'end'])
        await close(socket)
        await mqtt.endAsync()
    })

    test('many messages in order, at both QoS', async () => {
        const topic = topicName('many')
        const sockets = await Promise.all([0, 1].map((qos) => subscribe(broker, [topic], { more: `&qos=${qos}` })))
        const mqtt = await connect(broker, 'tcp', 5)
        const wanted = [...Array(3000).keys()].map((i) => `${i} ${'y'.repeat(i % 300)}`)
        for (let i = 0; i < wanted.length; i += 500) {
            await Promise.all(wanted.slice(i, i + 500).map((payload) => mqtt.publishAsync(topic, payload, { qos: 1 })))
        }
        for (const socket of sockets) {
            assert.deepEqual(await socket.received(wanted.length), wanted)
            await close(socket)
        }
        await mqtt.endAsync()
    })

    test('it publishes one message and many, with what MQTT 5 has beside the payload', async () => {
        const topic = topicName('publish')
        const mqtt = await connect(broker, 'tcp', 5)
        await mqtt.subscribeAsync(`${topic}/#`, { qos: 2 })
        const socket = await subscribe(broker, [`${topic}/back`])
        socket.publish({ topic: `${topic}/1`, payload: 'one', qos: 1, retain: true, properties: { content_type: 'a/b' } })
        socket.publish([{ topic: `${topic}/2`, payload: { a: 1 } }, { topic: `${topic}/3`, payload_base64: 'AP8=' }])
        socket.publish({ messages: [{ topic: `${topic}/back`, payload: 'back', qos: 1 }] })
        const got = await mqtt.received(4)
        assert.deepEqual(got.map((m) => [m.topic.slice(topic.length), m.payload.toString('latin1'), m.packet.qos]), [
            ['/1', 'one', 1], ['/2', '{"a":1}', 0], ['/3', '\0\xff', 0], ['/back', 'back', 1],
        ])
        assert.equal(got[0].packet.properties.contentType, 'a/b')
        assert.deepEqual(await socket.received(1), ['back'])
        /* In parts, of which each may be cut anywhere, and many at once. */
        const text = JSON.stringify({ topic: `${topic}/back`, payload: 'ä'.repeat(40_000) })
        for (let at = 0; at < text.length; at += 7000) {
            socket.send(text.slice(at, at + 7000), { fin: at + 7000 >= text.length })
        }
        for (let i = 0; i < 2000; i++) {
            socket.publish({ topic: `${topic}/back`, payload: i, qos: i % 2 })
        }
        const all = await socket.received(2002)
        assert.equal(all[1], 'ä'.repeat(40_000))
        assert.deepEqual(all.slice(2), [...Array(2000).keys()].map(String))
        await close(socket)
        await drained(mqtt)
        assert.equal(mqtt.inbox.length, 2005)
        await mqtt.publishAsync(`${topic}/1`, '', { retain: true, qos: 1 })
        await mqtt.endAsync()
    })

    test('a mistake is answered, and the connection goes on', async () => {
        const topic = topicName('mistakes')
        const socket = await subscribe(broker, [topic])
        const mistakes = [
            ['hello', 'bad_message'], ['', 'bad_message'], ['{"topic":"a"}', 'bad_message'], ['[]', 'bad_message'],
            [{ topic: `${topic}/#`, payload: '' }, 'bad_message'], [{ topic, payload: 1, other: 2 }, 'bad_message'],
            ['['.repeat(50_000), 'bad_message'], [Buffer.from('{"topic":"a","payload":"b"}'), 'bad_message'],
            [{ topic: '$SYS/x', payload: '' }, 'not_allowed'], [{ topic, payload: 'x'.repeat(150_001) }, 'payload_too_large'],
        ]
        for (const [message, error] of mistakes) {
            if (Buffer.isBuffer(message)) {
                socket.send(message)
            } else {
                socket.publish(message)
            }
            const answer = JSON.parse((await socket.received(1))[0])
            assert.equal(answer.error, error)
            assert.deepEqual(Object.keys(answer), ['error', 'message'])
            socket.inbox = []
        }
        socket.publish([{ topic: '$SYS/x', payload: '' }, { topic, payload: 'good' }, { topic: '$SYS/y', payload: '' }])
        const answers = await socket.received(3)
        assert.ok(answers.includes('good'))
        assert.deepEqual(answers.filter((text) => text !== 'good').map((text) => JSON.parse(text).message.slice(0, 10)),
            ['message 0:', 'message 2:'])
        await close(socket)
    })

    test('it is closed, with a code, for what it may not do', async () => {
        const end = async (query) => within(open(broker, query).closed, `end of ${query}`)
        for (const [query, reason] of [
            ['', /missing/], ['?topic=', /not a topic filter/], ['?topic=a%2', /bad escape/], ['?topic=a/%23/b', /not a topic filter/],
            ['?topic=%ff', /not a topic filter/], ['?topic=a&qos=2', /qos/], ['?topic=a&last_event_id=1', /not known/],
            [topicsQuery(Array(33).fill('a')), /more than 32/],
        ]) {
            const { code, reason: words } = await end(query)
            assert.deepEqual([query, code], [query, 1008])
            assert.match(words, reason)
        }
        await broker.logged(/HTTP request refused .*more than 32/)
        const large = await subscribe(broker, ['a'])
        large.publish('x'.repeat(200_001))
        assert.equal((await within(large.closed, 'end')).code, 1009)
        const invalid = await subscribe(broker, ['a'])
        invalid._sender.sendFrame(invalid._sender.constructor.frame(Buffer.from([0x61, 0xff]),
            { fin: true, opcode: 1, mask: true, readOnly: false, rsv1: false }))
        assert.equal((await within(invalid.closed, 'end')).code, 1007)
    })

    test('everything else on this path, and this path without a WebSocket, is as before', async () => {
        const url = `http://127.0.0.1:${broker.ports.tcp}/api/v1/ws?topic=a`
        const answer = await fetch(url)
        assert.deepEqual([answer.status, (await answer.json()).error], [400, 'no_websocket'])
        const topic = topicName('path')
        const mqtt = await connect(broker, 'ws', 5, { path: '/api/v1/ws' })
        await mqtt.subscribeAsync(topic)
        await mqtt.publishAsync(topic, 'mqtt')
        assert.equal((await mqtt.received(1))[0].text, 'mqtt')
        await mqtt.endAsync()
        const other = new WebSocket(`ws://127.0.0.1:${broker.ports.ws}/api/v1/wsx`)
        await once(other, 'open')
        other.send(Buffer.from('CONNECT\naccept-version:1.2\nhost:x\n\n\0'))
        const [hello] = await within(once(other, 'message'), 'CONNECTED')
        assert.match(hello.toString(), /^CONNECTED/)
        other.close()
    })

    test('a client that reads nothing costs no more than its queue', async () => {
        const topic = topicName('slow')
        const slow = await subscribe(broker, [topic])
        slow._socket.pause()
        const mqtt = await connect(broker, 'tcp', 5)
        const payload = 'z'.repeat(100_000)
        for (let i = 0; i < 600; i++) {
            await mqtt.publishAsync(topic, payload, { qos: 1 })
        }
        /* It sends what is answered, too, and is not read from while it takes no answers. */
        for (let i = 0; i < 50_000; i++) {
            slow.publish('mistake')
        }
        await drained(mqtt)
        slow._socket.resume()
        const text = await within((async () => {
            while (!slow.inbox.some((one) => one.startsWith('{'))) {
                await once(slow, 'look')
            }
            return slow.inbox.find((one) => one.startsWith('{'))
        })(), 'an answer')
        assert.equal(JSON.parse(text).error, 'bad_message')
        assert.ok(slow.inbox.filter((one) => one === payload).length <= 600)
        slow.terminate()
        await mqtt.endAsync()
    })

    test('one line when it connects and one when it is gone', async () => {
        const socket = await subscribe(broker, [topicName('log')])
        await broker.logged(/connected .*WebSocket push/)
        const before = broker.log.length
        await close(socket)
        for (const deadline = Date.now() + 10_000; !/http\/\w+.*WebSocket/.test(broker.log.slice(before));) {
            assert.ok(Date.now() < deadline, broker.log.slice(before))
            await delay(5)
        }
    })

    test('logins, rights and origins', async () => {
        const passwords = path.join(scratchDir(), `push-passwords-${ioThreads}`)
        const acl = path.join(scratchDir(), `push-acl-${ioThreads}`)
        await run(executable, ['passwd', '-b', 'päss:wörd', passwords, 'ann']).done
        fs.writeFileSync(acl, 'user ann\ntopic write w/#\ntopic read r/#\ntopic readwrite both\n')
        const config = [`password_file ${passwords}`, `acl_file ${acl}`, `io_threads ${ioThreads}`]
        const listeners = (ports) => [`listener ${ports.tcp} 127.0.0.1`, 'websockets_origin https://a.example',
            `listener ${ports.tls} 127.0.0.1`]
        await withBroker({ config: config, listeners }, async (guarded) => {
            const headers = basic('ann', 'päss:wörd')
            const origin = 'https://a.example'
            const end = async (query, options) => (await within(open(guarded, query, options).closed, 'end'))
            for (const bad of [{}, basic('ann', 'wrong'), basic('eve', 'x'), { authorization: 'Bearer x' }]) {
                assert.equal((await end('?topic=both', { headers: bad, origin })).code, 1008)
            }
            await guarded.logged(/HTTP request refused .*user="eve"/)
            assert.deepEqual(await end('?topic=w/1', { headers, origin }),
                { code: 1008, reason: 'this user may not read one of the topics' })
            assert.equal((await end('?topic=both', { headers, origin: 'https://b.example' })).code, 1006)
            const socket = open(guarded, '?topic=%23', { headers, origin })
            await within(once(socket, 'open'), 'WebSocket')
            /* Sent while the password is being checked. */
            socket.publish({ topic: 'both', payload: 'yes', retain: true })
            socket.publish({ topic: 'r/1', payload: 'no' })
            socket.publish({ topic: 'w/1', payload: 'unseen' })
            const texts = await socket.received(2)
            assert.deepEqual([texts.includes('yes'), texts.some((text) => text.includes('"not_allowed"'))], [true, true])
            socket.publish({ topic: 'both', payload: 'again' })
            assert.equal((await socket.received(3))[2], 'again')
            /* Its entry in the password file changes. */
            await run(executable, ['passwd', '-b', 'new', passwords, 'ann']).done
            await guarded.reload(config)
            assert.equal((await within(socket.closed, 'end')).code, 1008)
            const last = open(guarded, '?topic=both', { headers: basic('ann', 'new'), origin })
            assert.deepEqual(await last.received(1), ['yes'])
            await close(last)
        })
    })
})

describe('plain WebSockets, the store and the end', { skip }, () => {
    for (const ioThreads of [0, 2]) {
        test(`they are told when the broker stops, with ${ioThreads} I/O threads`, async () => {
            const broker = await startBroker({ config: [`io_threads ${ioThreads}`] })
            const socket = await subscribe(broker, [topicName('end')])
            await broker.stop()
            assert.deepEqual(await within(socket.closed, 'end'), { code: 1001, reason: 'the broker stops' })
        })

        test(`what must be durable goes one after the other, with ${ioThreads} I/O threads`, async () => {
            const folder = fs.mkdtempSync(path.join(scratchDir(), 'push-store-'))
            const config = ['persistence true', `persistence_location ${folder}`, `io_threads ${ioThreads}`]
            const topic = topicName('durable')
            await withBroker({ config }, async (broker) => {
                const socket = await subscribe(broker, [`${topic}/#`])
                for (let i = 0; i < 300; i++) {
                    socket.publish({ topic: `${topic}/${i}`, payload: i, retain: true, qos: 1 })
                }
                assert.deepEqual(await socket.received(300), [...Array(300).keys()].map(String))
                await close(socket)
            })
            await withBroker({ config }, async (broker) => {
                const socket = open(broker, topicsQuery([`${topic}/#`]))
                const got = await socket.received(300)
                assert.deepEqual(got.map(Number).sort((a, b) => a - b), [...Array(300).keys()])
                await close(socket)
            })
        })
    }
})
