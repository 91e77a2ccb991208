/* STOMP frame by frame: what the versions ask for, over tcp, tls, ws and wss. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { connect, delay, executable, run, scratchDir, startBroker, transports, withBroker } from './harness.mjs'
import { RawStomp, frame } from './stomp_raw.mjs'

let broker
let names = 0

before(async () => {
    broker = await startBroker({ args: ['--verbose'] })
})
after(() => broker.stop())

function unique(what) {
    return `${what}-${process.pid}-${++names}`
}

/* A test with clients that are closed in the end. */
function scene(name, body) {
    test(name, async () => {
        const open = []
        const stomp = async (headers, transport, options) => {
            const client = await RawStomp.connect(broker, transport, headers, options)
            open.push(client)
            return client
        }
        const mqtt = async (version = 5, options) => {
            const client = await connect(broker, 'ws', version, options)
            open.push(client)
            return client
        }
        try {
            await body(stomp, mqtt)
        } finally {
            open.forEach((client) => (client.destroy ? client.destroy() : client.end(true)))
        }
    })
}

describe('CONNECT', () => {
    for (const transport of transports) {
        scene(`is answered over ${transport}`, async (stomp) => {
            const client = await stomp({ 'heart-beat': '10000,10000' }, transport)
            assert.equal(client.connected.headers.version, '1.2')
            assert.equal(client.connected.headers['heart-beat'], '10000,10000')
            assert.ok(client.connected.headers.session)
            await client.disconnect()
            if (transport.startsWith('ws')) {
                assert.equal(client.closeCode, 1000)
                assert.equal(client.socket.protocol, 'v12.stomp')
            }
        })
    }

    scene('negotiates the version', async (stomp) => {
        const version = async (list) => (await stomp({ 'accept-version': list })).connected.headers.version
        assert.equal(await version('1.0'), '1.0')
        assert.equal(await version('1.0,1.1'), '1.1')
        assert.equal(await version('1.1,1.2,1.3'), '1.2')
        const plain = await RawStomp.open(broker)
        plain.write('\n\r\nSTOMP\n\n\0')
        assert.equal((await plain.expect('CONNECTED')).headers['heart-beat'], '0,0')
        plain.destroy()
    })

    scene('refuses in words and closes', async () => {
        const cases = [
            [frame('CONNECT', { 'accept-version': '3.0' }), /supported protocol versions/],
            [frame('CONNECT', { 'heart-beat': 'often' }), /heart-beat/],
            [frame('CONNECT', { 'client-id': '$queue/x' }), /Client Identifier/],
            [frame('SEND', { destination: '/topic/a' }), /not CONNECT/],
            ['CONNECT\nno colon\n\n\0', /malformed/],
            ['CONNECT\na:\xff\n\n\0', undefined],
        ]
        for (const [bytes, message] of cases) {
            const client = await RawStomp.open(broker, 'ws')
            client.write(Buffer.from(bytes, 'latin1'))
            const error = await client.expect('ERROR')
            assert.match(error.headers.message, message ?? /UTF-8/)
            assert.equal(error.text, error.headers.message)
            await client.ended()
        }
    })

    scene('comes over a WebSocket without a subprotocol, beside MQTT', async (stomp, mqtt) => {
        const client = await stomp({}, 'ws', { protocols: [] })
        assert.equal(client.socket.protocol, '')
        await client.ask('SUBSCRIBE', { id: 1, destination: '/topic/none' })
        const other = await mqtt('3.1.1', { wsOptions: { protocol: undefined } })
        await other.publishAsync('none', 'hello')
        await client.expect('MESSAGE', { destination: '/topic/none' }, 'hello')
    })

    test('a subprotocol is echoed, the client\'s first choice', async () => {
        for (const protocols of [['v10.stomp', 'v11.stomp'], ['v11.stomp', 'v12.stomp', 'mqtt'], ['x', 'v12.stomp']]) {
            const client = await RawStomp.open(broker, 'ws', { protocols })
            assert.equal(client.socket.protocol, protocols.find((name) => name !== 'x'))
            client.destroy()
        }
    })

    test('is told from HTTP however it is cut', async () => {
        const client = await RawStomp.open(broker)
        for (const byte of frame('CONNECT', { 'accept-version': '1.1' })) {
            client.write(byte)
            await delay(1)
        }
        await client.expect('CONNECTED', { version: '1.1' })
        client.destroy()
    })

    test('needs a login where anonymous clients are not allowed', async () => {
        await withBroker({ config: ['allow_anonymous false'], listeners: (ports) => [`listener ${ports.tcp} 127.0.0.1`, `listener ${ports.tls} 127.0.0.1`] }, async (closed) => {
            const client = await RawStomp.open(closed)
            client.send('CONNECT', { login: 'guest', passcode: 'guest' })
            await client.expect('ERROR', { message: 'Not authorized' })
            await client.ended()
        })
    })
})

describe('access', () => {
    /* Frames behind CONNECT come while the password is still being checked. */
    test('password and ACL files count for STOMP too', async () => {
        const passwords = path.join(scratchDir(), 'stomp-passwords')
        const acl = path.join(scratchDir(), 'stomp-acl')
        const { code, stderr } = await run(executable, ['passwd', passwords, 'ann'], { input: 'secret\n' }).done
        assert.equal(code, 0, stderr)
        fs.writeFileSync(acl, 'user ann\ntopic readwrite ann/#\ntopic readwrite $queue/ann\ntopic deny ann/secret\n')
        const listeners = (ports) => [`listener ${ports.tcp} 127.0.0.1`, `listener ${ports.tls} 127.0.0.1`]
        await withBroker({ config: [`password_file ${passwords}`, `acl_file ${acl}`], listeners }, async (own) => {
            for (const login of [{ login: 'ann', passcode: 'wrong' }, { login: 'eve', passcode: 'secret' }]) {
                const client = await RawStomp.open(own)
                client.write(frame('CONNECT', login) + frame('SEND', { destination: '/topic/ann.x' }))
                await client.expect('ERROR', { message: 'Bad User Name or Password' })
                await client.ended()
            }
            const enter = async () => {
                const client = await RawStomp.open(own, 'ws')
                client.write(frame('CONNECT', { 'accept-version': '1.2', login: 'ann', passcode: 'secret' }) +
                    frame('SUBSCRIBE', { id: 1, destination: '/topic/ann.#' }) +
                    frame('SEND', { destination: '/topic/ann.x', receipt: 'early' }, 'hello'))
                await client.expect('CONNECTED')
                await client.until(() => (client.frames.length === 2 ? true : undefined), 'what was sent early')
                assert.deepEqual(client.frames.splice(0).map((f) => f.command).sort(), ['MESSAGE', 'RECEIPT'])
                return client
            }
            const refusals = [
                ['SEND', { destination: '/topic/other' }], ['SEND', { destination: '/queue/other' }],
                ['SUBSCRIBE', { id: 2, destination: '/topic/other' }], ['SUBSCRIBE', { id: 2, destination: '/queue/other' }],
            ]
            for (const [command, headers] of refusals) {
                const client = await enter()
                client.send(command, headers)
                assert.match((await client.expect('ERROR')).headers.message, /not authorized/i)
                await client.ended()
            }
            const client = await enter()
            await client.ask('SUBSCRIBE', { id: 2, destination: '/queue/ann' })
            client.send('SEND', { destination: '/queue/ann', 'reply-to': '/temp-queue/r' }, 'ask')
            const question = await client.expect('MESSAGE', { subscription: '2' }, 'ask')
            client.send('SEND', { destination: question.headers['reply-to'] }, 'answer')
            await client.expect('MESSAGE', { subscription: '/temp-queue/r' }, 'answer')
            fs.writeFileSync(acl, 'user ann\ntopic readwrite nothing\n')
            await own.reload([`password_file ${passwords}`, `acl_file ${acl}`])
            client.send('SEND', { destination: '/topic/ann.x' }, 'not any more')
            assert.match((await client.expect('ERROR')).headers.message, /not authorized/i)
        })
    })
})

describe('a receipt', () => {
    test('is a promise that outlives kill -9', async () => {
        const config = ['persistence true', `persistence_location ${fs.mkdtempSync(path.join(scratchDir(), 'stomp-'))}/`]
        const durable = { id: 'd', durable: 'true', 'auto-delete': 'false', destination: '/topic/kept', ack: 'client-individual' }
        const first = await startBroker({ config })
        const reader = await RawStomp.connect(first)
        await reader.ask('SUBSCRIBE', durable)
        await reader.ask('SUBSCRIBE', { id: 'q', destination: '/queue/kept', ack: 'client' })
        const sender = await RawStomp.connect(first)
        const count = 50
        for (let i = 0; i < count; i++) {
            sender.send('SEND', { destination: '/queue/kept', receipt: i }, `job ${i}`)
            sender.send('SEND', { destination: '/topic/kept' }, `news ${i}`)
        }
        sender.send('DISCONNECT', { receipt: 'last' })
        for (let i = 0; i < count; i++) {
            await sender.expect('RECEIPT', { 'receipt-id': String(i) })
        }
        await sender.expect('RECEIPT', { 'receipt-id': 'last' })
        first.child.kill('SIGKILL')
        await first.exit
        await withBroker({ config }, async (second) => {
            const again = await RawStomp.connect(second)
            await again.ask('SUBSCRIBE', durable)
            await again.ask('SUBSCRIBE', { id: 'q', destination: '/amq/queue/kept' })
            await again.until(() => (again.frames.length >= 2 * count ? true : undefined), 'all of them')
            const texts = again.frames.map((f) => f.text)
            for (const what of ['job', 'news']) {
                assert.deepEqual(texts.filter((text) => text.startsWith(what)),
                    Array.from({ length: count }, (_, i) => `${what} ${i}`))
            }
        })
    })
})

describe('topics', () => {
    scene('reach MQTT and come from it, text as text and bytes as bytes', async (stomp, mqtt) => {
        const client = await stomp({}, 'ws')
        const other = await mqtt()
        const name = unique('cross')
        await client.ask('SUBSCRIBE', { id: 'a', destination: `/topic/${name}.*` })
        await other.subscribeAsync(`${name}/#`)
        client.send('SEND', {
            destination: `/topic/${name}.text`, 'content-type': 'text/plain;charset=utf-8', colour: 'bl\\cue',
        }, 'grün')
        let message = await client.expect('MESSAGE', {
            subscription: 'a', destination: `/topic/${name}.text`, 'content-type': 'text/plain;charset=utf-8',
            colour: 'bl\\cue', 'content-length': '5',
        }, 'grün')
        assert.equal(message.isBinary, false)
        const [got] = await other.received(1)
        assert.equal(got.text, 'grün')
        assert.equal(got.packet.properties.contentType, 'text/plain;charset=utf-8')
        assert.deepEqual({ ...got.packet.properties.userProperties }, { colour: 'bl:ue' })

        const bytes = Buffer.from([0, 1, 0xff, 0, 0xfe])
        await other.publishAsync(`${name}/bytes`, bytes, {
            qos: 1,
            properties: { contentType: 'application/octet-stream', userProperties: { 'a:b': 'c\nd' }, correlationData: Buffer.from('17') },
        })
        message = await client.expect('MESSAGE', {
            destination: `/topic/${name}.bytes`, 'content-type': 'application/octet-stream', 'a\\cb': 'c\\nd',
            'correlation-id': '17', 'content-length': '5',
        })
        assert.deepEqual(message.body, bytes)
        assert.equal(message.isBinary, true)

        client.write(frame('SEND', { destination: `/topic/${name}.nul`, 'content-length': 3 }, 'a\0b'))
        await client.expect('MESSAGE', { 'content-length': '3' }, 'a\0b')
    })

    scene('a retained message is there for a new subscription', async (stomp, mqtt) => {
        const name = unique('last')
        const other = await mqtt()
        await other.publishAsync(`${name}/v1.0`, 'value', { qos: 1, retain: true })
        const client = await stomp()
        client.send('SUBSCRIBE', { id: 1, destination: `/topic/${name}.#` })
        await client.expect('MESSAGE', { destination: `/topic/${name}.v1%2E0`, retain: 'true' }, 'value')
        await client.ask('SEND', { destination: `/topic/${name}.mine`, retain: 'true' }, 'kept')
        await other.subscribeAsync(`${name}/mine`)
        const [got] = await other.received(1)
        assert.equal(got.text, 'kept')
        assert.equal(got.packet.retain, true)
        assert.deepEqual(got.packet.properties?.userProperties, undefined)
    })

    scene('each subscription gets a message, also two to one destination', async (stomp) => {
        const client = await stomp()
        const name = unique('twice')
        for (const [id, destination] of [['1', `/topic/${name}.x`], ['2', `/topic/${name}.x`],
            ['3', `/topic/${name}/*`], ['4', `${name}/x`], ['5', `/exchange/amq.topic/${name}.#`]]) {
            await client.ask('SUBSCRIBE', { id, destination })
        }
        client.send('SEND', { destination: `/topic/${name}.x` }, 'once')
        const got = new Map()
        for (let i = 0; i < 5; i++) {
            const message = await client.expect('MESSAGE', {}, 'once')
            got.set(message.headers.subscription, message.headers.destination)
        }
        assert.deepEqual([...got].sort(), [
            ['1', `/topic/${name}.x`], ['2', `/topic/${name}.x`], ['3', `/topic/${name}/x`],
            ['4', `${name}/x`], ['5', `/topic/${name}.x`],
        ])
        await client.ask('UNSUBSCRIBE', { id: '2' })
        await client.ask('SEND', { destination: `/topic/${name}.x` }, 'again')
        const ids = client.frames.map((f) => f.headers.subscription)
        while (ids.length < 4) {
            ids.push((await client.expect('MESSAGE', {}, 'again')).headers.subscription)
        }
        assert.deepEqual(ids.sort(), ['1', '3', '4', '5'])
    })

    scene('1.0 needs no id and escapes nothing', async (stomp, mqtt) => {
        const client = await stomp({ 'accept-version': '1.0' })
        const name = unique('old')
        await client.ask('SUBSCRIBE', { destination: `/topic/${name}` })
        const other = await mqtt()
        await other.publishAsync(name, 'x', { properties: { userProperties: { a: 'b\\c:d\ne' } } })
        const message = await client.expect('MESSAGE', { destination: `/topic/${name}`, a: 'b\\c:d e' })
        assert.equal(message.headers.subscription, undefined)
        assert.equal(message.headers.ack, undefined)
        await client.ask('UNSUBSCRIBE', { destination: `/topic/${name}` })
        await other.publishAsync(name, 'y', { qos: 1 })
        await client.ask('BEGIN', { transaction: 't' })
        assert.deepEqual(client.frames, [])
    })

    scene('what cannot be is refused in words', async (stomp) => {
        const cases = [
            ['SUBSCRIBE', { destination: '/topic/a' }, /id is missing/],
            ['SUBSCRIBE', { id: 1 }, /destination is missing/],
            ['SUBSCRIBE', { id: 1, destination: '/topic/a.#.b' }, /# may only be its last level/],
            ['SUBSCRIBE', { id: 1, destination: '/topic/a', selector: 'x = 1' }, /selector is not supported/],
            ['SUBSCRIBE', { id: 1, destination: '/topic/a', ack: 'perhaps' }, /ack must be/],
            ['SUBSCRIBE', { id: 1, destination: '/exchange/logs/a' }, /amq\.topic/],
            ['SUBSCRIBE', { id: 1, destination: '$reply/#' }, /not authorized/],
            ['SUBSCRIBE', { id: 1, destination: '/amq/queue/not-there' }, /no such queue/],
            ['SUBSCRIBE', { id: 1, destination: '/temp-queue/x' }, /reply-to/],
            ['SEND', { destination: '/topic/a.#' }, /wildcard/],
            ['SEND', { destination: '/topic/$SYS.broker.x' }, /not authorized/],
            ['SEND', { destination: '/amq/queue/not-there' }, /no such queue/],
            ['SEND', { destination: '/topic/a', expires: 'soon' }, /milliseconds/],
            ['SEND', { destination: '/topic/a', transaction: 'none' }, /no such transaction/],
            ['SEND', {}, /destination is missing/],
            ['ACK', { id: 'x' }, /ack header/],
            ['COMMIT', { transaction: 'none' }, /no such transaction/],
            ['BEGIN', {}, /transaction header is missing/],
            ['CONNECT', {}, /connected already/],
            ['SHOUT', {}, /no such command/],
        ]
        for (const [command, headers, message] of cases) {
            const client = await stomp()
            client.send(command, { ...headers, receipt: 'the one' })
            const error = await client.expect('ERROR', { 'receipt-id': 'the one' })
            assert.match(error.headers.message, message)
            await client.ended()
        }
    })
})

describe('frames', () => {
    scene('many in a message and one over many, with padding between', async (stomp) => {
        const client = await stomp({}, 'ws')
        const name = unique('cut')
        client.write(`\n${frame('SUBSCRIBE', { id: 1, destination: `/topic/${name}` })}\r\n\n` +
            `${frame('SEND', { destination: `/topic/${name}` }, 'one')}${frame('SEND', { destination: `/topic/${name}` }, 'two')}`)
        await client.expect('MESSAGE', {}, 'one')
        await client.expect('MESSAGE', {}, 'two')
        const body = randomBytes(50_000).toString('hex')
        const text = frame('SEND', { destination: `/topic/${name}` }, body)
        for (let at = 0; at < text.length; at += 8192) {
            client.write(text.slice(at, at + 8192))
        }
        const message = await client.expect('MESSAGE', { 'content-length': String(body.length) })
        assert.equal(message.text, body)
    })

    scene('a megabyte of bytes comes back', async (stomp) => {
        const client = await stomp({}, 'tls')
        const name = unique('large')
        const body = randomBytes(1024 * 1024)
        await client.ask('SUBSCRIBE', { id: 1, destination: `/topic/${name}` })
        client.send('SEND', { destination: `/topic/${name}`, 'content-length': body.length }, body)
        assert.deepEqual((await client.expect('MESSAGE')).body, body)
    })

    test('have limits', async () => {
        await withBroker({ config: ['max_packet_size 20000', 'message_size_limit 10000', 'max_subscriptions 3'] }, async (small) => {
            const large = async (headers, body) => {
                const client = await RawStomp.connect(small)
                client.send('SEND', { destination: '/topic/a', ...headers }, body)
                const error = await client.expect('ERROR')
                await client.ended()
                return error.headers.message
            }
            assert.match(await large({}, 'x'.repeat(20001)), /max_packet_size/)
            assert.match(await large({ 'content-length': 20001 }, ''), /max_packet_size/)
            assert.match(await large({}, 'x'.repeat(10001)), /message_size_limit/)
            assert.match(await large({ x: 'y'.repeat(17000) }, ''), /headers/)
            assert.match(await large(Array.from({ length: 129 }, (_, i) => [`h${i}`, '']), ''), /headers/)
            const client = await RawStomp.connect(small)
            for (let id = 0; id < 3; id++) {
                await client.ask('SUBSCRIBE', { id, destination: '/topic/a' })
            }
            client.send('SUBSCRIBE', { id: 3, destination: '/topic/a' })
            assert.match((await client.expect('ERROR')).headers.message, /too many subscriptions/)
        })
    })
})

describe('acknowledgements', () => {
    scene('client-individual: what was not acknowledged goes to the next consumer', async (stomp) => {
        const [a, b] = [await stomp(), await stomp()]
        const queue = `/queue/${unique('jobs')}`
        await a.ask('SUBSCRIBE', { id: 1, destination: queue, ack: 'client-individual' })
        for (const text of ['one', 'two', 'three']) {
            await b.ask('SEND', { destination: queue }, text)
        }
        const [one, two, three] = [await a.next(), await a.next(), await a.next()]
        assert.deepEqual([one, two, three].map((m) => m.text), ['one', 'two', 'three'])
        assert.equal(one.headers.redelivered, undefined)
        await a.ask('ACK', { id: two.headers.ack })
        await a.disconnect()
        await b.ask('SUBSCRIBE', { id: 1, destination: queue, ack: 'client-individual' })
        await b.expect('MESSAGE', { redelivered: 'true' }, 'one')
        const last = await b.expect('MESSAGE', { redelivered: 'true' }, 'three')
        await b.ask('NACK', { id: last.headers.ack, requeue: 'false' })
        assert.deepEqual(b.frames, [])
    })

    scene('client: cumulative, for ACK and NACK', async (stomp) => {
        const client = await stomp({ 'accept-version': '1.1' })
        const queue = `/queue/${unique('cumulative')}`
        await client.ask('SUBSCRIBE', { id: 's', destination: queue, ack: 'client' })
        const got = []
        for (let i = 0; i < 6; i++) {
            client.send('SEND', { destination: queue }, String(i))
            got.push(await client.expect('MESSAGE', { subscription: 's' }, String(i)))
            assert.equal(got[i].headers.ack, undefined)
        }
        await client.ask('ACK', { 'message-id': got[2].headers['message-id'], subscription: 's' })
        client.send('NACK', { 'message-id': got[4].headers['message-id'], subscription: 's' })
        await client.expect('MESSAGE', { redelivered: 'true' }, '3')
        const again = await client.expect('MESSAGE', { redelivered: 'true' }, '4')
        await client.ask('ACK', { 'message-id': again.headers['message-id'], subscription: 's' })
        await client.ask('UNSUBSCRIBE', { id: 's' })
        await client.ask('SUBSCRIBE', { id: 't', destination: queue })
        assert.deepEqual(client.frames.map((f) => f.text), [])
    })

    scene('NACK prefers another consumer', async (stomp) => {
        const [a, b, p] = [await stomp(), await stomp(), await stomp()]
        const queue = `/queue/${unique('nack')}`
        for (const client of [a, b]) {
            await client.ask('SUBSCRIBE', { id: 1, destination: queue, ack: 'client-individual', 'prefetch-count': 1 })
        }
        await p.ask('SEND', { destination: queue }, 'hot')
        const first = await Promise.race([a, b].map((c) => c.until(() => (c.frames.length ? c : undefined), 'hot')))
        const second = first === a ? b : a
        first.send('NACK', { id: first.frames.shift().headers.ack })
        await second.expect('MESSAGE', { redelivered: 'true' }, 'hot')
    })

    scene('prefetch-count limits what is on its way', async (stomp) => {
        const client = await stomp()
        const queue = `/queue/${unique('prefetch')}`
        await client.ask('SUBSCRIBE', { id: 1, destination: queue, ack: 'client-individual', 'prefetch-count': 2 })
        for (let i = 0; i < 5; i++) {
            await client.ask('SEND', { destination: queue }, String(i))
        }
        assert.deepEqual(client.frames.map((f) => f.text), ['0', '1'])
        client.send('ACK', { id: client.frames[0].headers.ack })
        await client.until(() => (client.frames.length === 3 ? true : undefined), 'the third')
        assert.equal(client.frames[2].text, '2')
    })

    scene('late and repeated ones do no harm', async (stomp) => {
        const client = await stomp()
        const queue = `/queue/${unique('late')}`
        await client.ask('SUBSCRIBE', { id: 1, destination: queue, ack: 'client' })
        client.send('SEND', { destination: queue }, 'x')
        const { ack } = (await client.expect('MESSAGE')).headers
        await client.ask('ACK', { id: ack })
        await client.ask('ACK', { id: ack })
        await client.ask('UNSUBSCRIBE', { id: 1 })
        await client.ask('ACK', { id: ack })
        await client.ask('UNSUBSCRIBE', { id: 1 })
    })
})

describe('queues', () => {
    scene('keep messages while nobody is there', async (stomp) => {
        const queue = `/queue/${unique('later')}`
        const sender = await stomp()
        await sender.ask('SEND', { destination: queue, persistent: 'true' }, 'for later')
        await sender.disconnect()
        const reader = await stomp()
        await reader.ask('SUBSCRIBE', { id: 1, destination: queue.replace('/queue/', '/amq/queue/') })
        await reader.expect('MESSAGE', { destination: queue, persistent: 'true' }, 'for later')
    })

    scene('are shared by consumers, MQTT clients too', async (stomp, mqtt) => {
        const name = unique('shared')
        const [a, b, p] = [await stomp(), await stomp(), await stomp()]
        for (const client of [a, b]) {
            await client.ask('SUBSCRIBE', { id: 1, destination: `/queue/${name}` })
        }
        for (let i = 0; i < 20; i++) {
            await p.ask('SEND', { destination: `/queue/${name}` }, String(i))
        }
        await Promise.all([a, b].map((c) => c.until(() => (c.frames.length === 10 ? true : undefined), 'half of them')))
        const all = [...a.frames, ...b.frames].map((f) => Number(f.text)).sort((x, y) => x - y)
        assert.deepEqual(all, Array.from({ length: 20 }, (_, i) => i))
        await a.disconnect()
        await b.disconnect()
        const other = await mqtt(5)
        await other.publishAsync(`$queue/${name}`, 'from mqtt', { qos: 1 })
        await other.subscribeAsync(`$share/queue/$queue/${name}`, { qos: 1 })
        const [got] = await other.received(1)
        assert.equal(got.text, 'from mqtt')
        assert.equal(got.packet.qos, 1)
    })

    scene('expire what is too old', async (stomp) => {
        const queue = `/queue/${unique('stale')}`
        const client = await stomp()
        await client.ask('SEND', { destination: queue, expiration: 1 }, 'stale')
        await client.ask('SEND', { destination: queue, expires: Date.now() - 1000 }, 'stale')
        await client.ask('SEND', { destination: queue, expires: Date.now() + 60_000 }, 'fresh')
        await delay(20)
        await client.ask('SUBSCRIBE', { id: 1, destination: queue })
        const fresh = await client.expect('MESSAGE', {}, 'fresh')
        assert.ok(Number(fresh.headers.expiration) > 50_000 && Number(fresh.headers.expiration) <= 60_000)
    })

    scene('temp-queues bring answers, to MQTT clients as well', async (stomp, mqtt) => {
        const [asker, answerer] = [await stomp(), await stomp()]
        const service = unique('service')
        await answerer.ask('SUBSCRIBE', { id: 1, destination: `/queue/${service}` })
        asker.send('SEND', { destination: `/queue/${service}`, 'reply-to': '/temp-queue/mine', 'correlation-id': 7 }, 'ask')
        const question = await answerer.expect('MESSAGE', { 'correlation-id': '7' }, 'ask')
        assert.match(question.headers['reply-to'], /^\/reply-queue\/[0-9a-f]{32}$/)
        answerer.send('SEND', { destination: question.headers['reply-to'], 'correlation-id': 7 }, 'answer')
        await asker.expect('MESSAGE', { subscription: '/temp-queue/mine', 'correlation-id': '7' }, 'answer')
        const other = await mqtt()
        await other.subscribeAsync(`rpc/${service}`)
        asker.send('SEND', { destination: `/topic/rpc.${service}`, 'reply-to': '/temp-queue/mine' }, 'ask')
        const [got] = await other.received(1)
        await other.publishAsync(got.packet.properties.responseTopic, 'mqtt answers')
        await asker.expect('MESSAGE', { subscription: '/temp-queue/mine' }, 'mqtt answers')
        await assert.rejects(other.subscribeAsync('$reply/#'))
    })

    test('are told when they are full, and keep what they have', async () => {
        await withBroker({ config: ['max_queued_messages 2'] }, async (small) => {
            const client = await RawStomp.connect(small)
            await client.ask('SEND', { destination: '/queue/q' }, '1')
            await client.ask('SEND', { destination: '/queue/q' }, '2')
            client.send('SEND', { destination: '/queue/q' }, '3')
            assert.match((await client.expect('ERROR')).headers.message, /queue is full/)
            const reader = await RawStomp.connect(small)
            await reader.ask('SUBSCRIBE', { id: 1, destination: '/queue/q' })
            await reader.expect('MESSAGE', {}, '1')
            await reader.expect('MESSAGE', {}, '2')
        })
    })
})

describe('durable subscriptions', () => {
    const ways = {
        RabbitMQ: () => {
            const id = unique('durable')
            return { connect: {}, subscribe: { id, durable: 'true', 'auto-delete': 'false' }, end: { id, durable: 'true', 'auto-delete': 'false' } }
        },
        ActiveMQ: () => {
            const name = unique('durable')
            return { connect: { 'client-id': unique('client') }, subscribe: { id: 1, 'activemq.subscriptionName': name }, end: { id: 1, 'activemq.subscriptionName': name } }
        },
    }
    for (const [way, make] of Object.entries(ways)) {
        scene(`${way}'s way: what came meanwhile is there, unacknowledged ones again`, async (stomp) => {
            const { connect: headers, subscribe, end } = make()
            const destination = `/topic/${unique('news')}`
            const sender = await stomp()
            let reader = await stomp(headers)
            await reader.ask('SUBSCRIBE', { ...subscribe, destination, ack: 'client-individual' })
            await sender.ask('SEND', { destination }, 'seen')
            await sender.ask('SEND', { destination }, 'not acknowledged')
            await reader.ask('ACK', { id: (await reader.expect('MESSAGE', {}, 'seen')).headers.ack })
            await reader.expect('MESSAGE', {}, 'not acknowledged')
            reader.destroy()
            await sender.ask('SEND', { destination }, 'missed')
            reader = await stomp(headers)
            await reader.ask('SUBSCRIBE', { ...subscribe, destination, ack: 'auto' })
            await reader.expect('MESSAGE', { redelivered: 'true' }, 'not acknowledged')
            await reader.expect('MESSAGE', {}, 'missed')
            await reader.disconnect()
            await sender.ask('SEND', { destination }, 'again')
            reader = await stomp(headers)
            await reader.ask('SUBSCRIBE', { ...subscribe, destination })
            await reader.expect('MESSAGE', {}, 'again')
            await reader.ask('UNSUBSCRIBE', end)
            await sender.ask('SEND', { destination }, 'for nobody')
            await reader.ask('SUBSCRIBE', { ...subscribe, destination })
            assert.deepEqual(reader.frames, [])
        })
    }

    scene('the newer of two connections has it', async (stomp) => {
        const subscribe = { id: unique('d'), durable: 'true', 'auto-delete': 'false', destination: `/topic/${unique('t')}` }
        const [a, b] = [await stomp(), await stomp()]
        await a.ask('SUBSCRIBE', subscribe)
        await b.ask('SUBSCRIBE', subscribe)
        assert.match((await a.expect('ERROR')).headers.message, /another connection/)
        await a.ended()
        await b.ask('SEND', { destination: subscribe.destination }, 'x')
        await b.expect('MESSAGE', {}, 'x')
    })
})

describe('transactions', () => {
    scene('COMMIT does it all, ABORT nothing', async (stomp) => {
        const client = await stomp()
        const [queue, topic] = [`/queue/${unique('tx')}`, `/topic/${unique('tx')}`]
        await client.ask('SUBSCRIBE', { id: 'q', destination: queue, ack: 'client-individual' })
        await client.ask('SUBSCRIBE', { id: 't', destination: topic })
        await client.ask('BEGIN', { transaction: 'one' })
        await client.ask('SEND', { destination: topic, transaction: 'one' }, '1')
        await client.ask('SEND', { destination: queue, transaction: 'one' }, '2')
        await client.ask('BEGIN', { transaction: 'two' })
        await client.ask('SEND', { destination: topic, transaction: 'two' }, 'never')
        await client.ask('ABORT', { transaction: 'two' })
        assert.deepEqual(client.frames, [])
        client.send('COMMIT', { transaction: 'one', receipt: 'c' })
        const got = [await client.next(), await client.next(), await client.next()]
        assert.deepEqual(got.map((f) => f.command).sort(), ['MESSAGE', 'MESSAGE', 'RECEIPT'])
        const message = got.find((f) => f.text === '2')
        assert.ok(got.find((f) => f.text === '1'))
        await client.ask('BEGIN', { transaction: 'ack' })
        await client.ask('ACK', { id: message.headers.ack, transaction: 'ack' })
        await client.ask('ABORT', { transaction: 'ack' })
        await client.ask('UNSUBSCRIBE', { id: 'q' })
        await client.ask('SUBSCRIBE', { id: 'q', destination: queue, ack: 'client-individual' })
        const again = await client.expect('MESSAGE', { redelivered: 'true' }, '2')
        await client.ask('BEGIN', { transaction: 'ack' })
        await client.ask('ACK', { id: again.headers.ack, transaction: 'ack' })
        await client.ask('COMMIT', { transaction: 'ack' })
        await client.ask('UNSUBSCRIBE', { id: 'q' })
        await client.ask('SUBSCRIBE', { id: 'q', destination: queue })
        assert.deepEqual(client.frames, [])
    })

    scene('end with the connection', async (stomp) => {
        const topic = `/topic/${unique('lost')}`
        const [a, b] = [await stomp(), await stomp()]
        await b.ask('SUBSCRIBE', { id: 1, destination: topic })
        await a.ask('BEGIN', { transaction: 't' })
        await a.ask('SEND', { destination: topic, transaction: 't' }, 'never')
        await a.disconnect()
        await b.ask('SEND', { destination: topic }, 'after')
        await b.expect('MESSAGE', {}, 'after')
    })
})

describe('heart-beats', () => {
    scene('go out when nothing else does, as messages of their own', async (stomp) => {
        const client = await stomp({ 'heart-beat': '0,1000' }, 'ws')
        assert.equal(client.connected.headers['heart-beat'], '1000,0')
        await client.until(() => (client.beats >= 2 ? true : undefined), 'two heart-beats')
    })

    scene('are expected, and their end is the end', async (stomp) => {
        const client = await stomp({ 'heart-beat': '1000,0' })
        const beats = setInterval(() => client.write('\n'), 500)
        await delay(2500)
        assert.equal(client.closed, false)
        clearInterval(beats)
        assert.match((await client.expect('ERROR')).headers.message, /heart-beat/)
        await client.ended()
    })
})

describe('the operator', () => {
    scene('sees who comes and goes', async (stomp) => {
        const from = broker.log.length
        const client = await stomp({ 'client-id': 'watched', login: 'somebody' }, 'ws')
        await client.disconnect()
        await broker.logged(/client "watched" \(user "somebody"\) connected from .* over WebSocket as STOMP 1\.2|"watched".* connected from .* over WebSocket as STOMP 1\.2/, from)
        await broker.logged(/"watched".* disconnected: the client sent DISCONNECT/, from)
    })

    test('finds them in $SYS', async () => {
        await withBroker({ config: ['sys_interval 1'] }, async (own) => {
            const client = await RawStomp.connect(own)
            for (let id = 0; id < 3; id++) {
                await client.ask('SUBSCRIBE', { id, destination: `/queue/q${id}` })
            }
            await client.ask('SUBSCRIBE', { id: 'sys', destination: '/topic/$SYS.broker.#' })
            const figures = {}
            const wanted = { 'clients.connected': '1', 'clients.total': '1', 'stomp.clients.connected': '1', 'queues.count': '3' }
            while (Object.entries(wanted).some(([name, value]) => figures[name] !== value)) {
                const { headers, text } = await client.expect('MESSAGE')
                figures[headers.destination.replace('/topic/$SYS.broker.', '')] = text
            }
        })
    })

    test('can open a listener for STOMP alone', async () => {
        const listeners = (ports) => [`listener ${ports.tcp} 127.0.0.1`, 'protocol stomp', `listener ${ports.tls} 127.0.0.1`, 'protocol mqtt']
        await withBroker({ config: ['allow_anonymous true'], listeners }, async (own) => {
            for (const options of [undefined, { protocols: [] }]) {
                const client = await RawStomp.connect(own, 'ws', {}, options)
                await client.disconnect()
            }
            const client = await RawStomp.connect(own)
            await client.disconnect()
            await assert.rejects(connect(own, 'ws', 5))
            await assert.rejects(connect(own, 'tcp', 5))
            const refused = await RawStomp.open({ ports: { tcp: own.ports.tls } })
            refused.send('CONNECT')
            await refused.ended()
        })
    })
})
