/* What an attacker and a crowd see: limits, slow readers, no descriptors left; and $SYS. */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import net from 'node:net'
import { describe, test } from 'node:test'
import WebSocket from 'ws'
import {
    connect, connectPacket, delay, isMosquitto, packet, rawConnection, topicName, transports, withBroker, within,
} from './harness.mjs'

const skip = isMosquitto

function hex(text) {
    return Buffer.from(text, 'hex')
}

function words(...parts) {
    return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))))
}

function subscribePacket(filters, qos, version = 5) {
    return packet(0x82, words([0, 1], version === 5 ? [0] : [],
        ...filters.flatMap((filter) => [[0, filter.length], filter, [qos]])))
}

/* A plain TCP socket that is given bytes and watched. */
function probe(port, bytes) {
    const socket = net.connect(port, '127.0.0.1')
    const seen = { socket, text: '', began: performance.now() }
    socket.on('error', () => {})
    socket.on('data', (chunk) => (seen.text += chunk.toString('latin1')))
    socket.write(bytes)
    seen.closed = within(new Promise((resolve) => socket.once('close', () => {
        seen.took = performance.now() - seen.began
        resolve()
    })), 'the broker to close the connection')
    return seen
}

function upgrade(more = '') {
    return 'GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
        `Sec-WebSocket-Protocol: mqtt\r\n${more}\r\n`
}

async function eventually(what, condition, ms = 20_000) {
    const deadline = Date.now() + ms
    while (!(await condition())) {
        if (Date.now() > deadline) {
            throw new Error(`never: ${what}`)
        }
        await delay(20)
    }
}

/* Publishes at QoS 1 from one client to another, and waits for it. */
async function passes(from, to, topic) {
    const before = to.inbox.length
    await from.publishAsync(topic, 'x', { qos: 1 })
    await to.received(before + 1)
}

describe('time limits', { skip }, () => {
    test('connect_timeout ends who does not finish his CONNECT', () =>
        withBroker({ config: ['connect_timeout 1'] }, async (broker) => {
            const half = connectPacket('half').subarray(0, 7)
            const links = [await rawConnection(broker, 'tls'), await rawConnection(broker, 'ws')]
            links.forEach((link) => link.send(half))
            const plain = probe(broker.ports.tcp, half)
            await within(Promise.all([plain.closed, ...links.map((link) => link.closed)]), 'close')
            assert.ok(plain.took > 500, 'it was given time')
            await broker.logged(/(closed: no CONNECT in time[^]*){3}/)
        }))

    test('handshake_timeout ends who dribbles his HTTP request', () =>
        withBroker({ config: ['handshake_timeout 1'] }, async (broker) => {
            const slow = probe(broker.ports.ws, 'G')
            let at = 1
            const timer = setInterval(() => slow.socket.write(upgrade()[at++]), 100)
            await slow.closed.finally(() => clearInterval(timer))
            assert.ok(slow.took > 500 && !slow.text.includes('101 '), slow.text)
            await broker.logged(/connection refused .*HTTP request took too long/)
        }))

    test('handshake_timeout ends who stops in the TLS handshake', () =>
        withBroker({ config: ['handshake_timeout 1'] }, async (broker) => {
            const cut = probe(broker.ports.tls, hex('1603010200010001fc0303'))
            await cut.closed
            assert.ok(cut.took > 500)
            await broker.logged(/connection refused .*TLS handshake took too long/)
        }))

    test('a connection without a byte is ended too', () =>
        withBroker({ config: ['handshake_timeout 1', 'connect_timeout 1'] }, async (broker) => {
            await Promise.all([probe(broker.ports.tcp, '').closed, probe(broker.ports.tls, '').closed])
        }))
})

describe('limits', { skip }, () => {
    test('max_connections', () => {
        const listeners = ({ tcp, tls }) => [
            `listener ${tcp} 127.0.0.1`, 'max_connections 2', `listener ${tls} 127.0.0.1`,
        ]
        return withBroker({ config: ['allow_anonymous true'], listeners }, async (broker) => {
            const clients = [await connect(broker, 'tcp', '5'), await connect(broker, 'ws', '5')]
            const refused = new WebSocket(broker.url('ws'), ['mqtt'])
            const [request, response] = await within(new Promise((resolve) => {
                refused.once('unexpected-response', (...args) => resolve(args))
            }), 'HTTP answer')
            assert.equal(response.statusCode, 503)
            request.destroy()
            const plain = probe(broker.ports.tcp, connectPacket('third'))
            await plain.closed
            assert.equal(plain.text, '')
            await broker.logged(/(connection refused .*too many connections[^]*){2}/)
            /* The other listener has room of its own. */
            const elsewhere = net.connect(broker.ports.tls, '127.0.0.1')
            elsewhere.write(connectPacket('elsewhere'))
            await within(new Promise((resolve) => elsewhere.once('data', resolve)), 'CONNACK')
            elsewhere.destroy()
            await clients.pop().endAsync()
            await eventually('room for another', async () => {
                const next = await connect(broker, 'ws', '5').catch(() => null)
                return next !== null && clients.push(next)
            })
            await Promise.all(clients.map((client) => client.endAsync()))
        })
    })

    test('websockets_headers_size', () =>
        withBroker({ config: ['websockets_headers_size 512'] }, async (broker) => {
            const fits = probe(broker.ports.ws, upgrade('X-A: b\r\n'))
            await eventually('101', () => fits.text.startsWith('HTTP/1.1 101 '))
            fits.socket.destroy()
            const large = probe(broker.ports.ws, upgrade(`X-Fill: ${'x'.repeat(600)}\r\n`))
            await large.closed
            assert.match(large.text, /^HTTP\/1\.1 431 /)
            await broker.logged(/connection refused .*too large/)
        }))

    test('max_packet_size', () =>
        withBroker({ config: ['max_packet_size 1000'] }, async (broker) => {
            const publish = (size) => packet(0x30, words([0, 1], 'a', [0], new Uint8Array(size - 7)))
            for (const transport of transports) {
                const link = await rawConnection(broker, transport)
                link.send(connectPacket(`large-${transport}`))
                await link.has(5)
                assert.ok(link.received.includes(hex('27000003e8')), 'Maximum Packet Size in CONNACK')
                const before = link.received.length
                assert.equal(publish(1000).length, 1000)
                link.send(Buffer.concat([publish(1000), hex('c000')]))
                assert.equal((await link.has(before + 2)).subarray(before).toString('hex'), 'd000')
                link.send(publish(1001).subarray(0, 10))
                const [code] = await within(link.closed, 'close')
                const farewell = link.received.subarray(before + 2)
                assert.equal(farewell[2], 0x95)
                assert.ok(farewell.includes('packet larger than max_packet_size'), 'Reason String')
                if (transport.startsWith('ws')) {
                    assert.equal(code, 1009)
                }
            }
            await broker.logged(/(" disconnected: packet larger than max_packet_size[^]*){4}/)
        }))

    test('max_packet_size before CONNECT', () =>
        withBroker({}, async (broker) => {
            const greedy = probe(broker.ports.tcp, hex('10ffffff7f00044d51545405'))
            await greedy.closed
            assert.ok(greedy.took < 8000, 'it does not wait for the rest')
        }))

    test('max_subscriptions', () =>
        withBroker({ config: ['max_subscriptions 3'] }, async (broker) => {
            for (const [version, refused] of [[5, '97'], [4, '80']]) {
                const link = await rawConnection(broker, 'tcp')
                link.send(connectPacket(`sub-${version}`, { version }))
                await link.has(4)
                const before = link.received.length
                link.send(subscribePacket(['a', 'b', 'c', 'd', 'a'], 1, version))
                const answer = (await link.has(before + (version === 5 ? 36 : 9))).subarray(before).toString('hex')
                assert.ok(answer.endsWith(`010101${refused}01`), answer)
                const words = Buffer.from('entry 4: Quota exceeded').toString('hex')
                assert.equal(answer.includes(words), version === 5)
                link.cut()
            }
        }))

    test('max_topic_levels', () =>
        withBroker({ config: ['max_topic_levels 8'] }, async (broker) => {
            const client = await connect(broker, 'tcp', '5')
            await client.subscribeAsync('1/2/3/4/5/6/7/8')
            await assert.rejects(client.subscribeAsync('1/2/3/4/5/6/7/8/9'))
            const closed = new Promise((resolve) => client.once('close', resolve))
            await client.publishAsync('1/2/3/4/5/6/7/8', 'x', { qos: 1 })
            await Promise.race([client.publishAsync('1/2/3/4/5/6/7/8/9', 'x', { qos: 1 }).then(
                () => assert.fail('accepted'), () => {}), closed])
            await client.endAsync(true)
        }))
})

/* Seconds of processor time that the process has used. */
function processorSeconds(pid) {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
}

function residentBytes(pid) {
    return Number(fs.readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s*(\d+) kB/)[1]) * 1024
}

test('without descriptors left, who is there keeps working', { skip }, () =>
    withBroker({ wrapper: ['bash', '-c', 'ulimit -n 64; exec "$@"', 'bash'] }, async (broker) => {
        const [a, b] = [await connect(broker, 'tcp', '5'), await connect(broker, 'wss', '5')]
        const topic = topicName('crowded')
        await a.subscribeAsync(topic, { qos: 1 })
        const crowd = Array.from({ length: 80 }, (_, i) => probe(broker.ports.tcp, connectPacket(`crowd-${i}`)))
        crowd.forEach((one) => one.closed.catch(() => {}))
        const inside = () => crowd.filter((one) => one.text !== '' && !one.socket.destroyed)
        const outside = () => crowd.filter((one) => one.socket.destroyed)
        await eventually('everybody is in or out', () => inside().length + outside().length === crowd.length)
        assert.ok(inside().length >= 30 && outside().length >= 16, `${inside().length} in, ${outside().length} out`)
        await passes(b, a, topic)
        const before = processorSeconds(broker.pid)
        await delay(1000)
        assert.ok(processorSeconds(broker.pid) - before < 0.5, 'it does not spin')
        inside().slice(0, 10).forEach((one) => one.socket.destroy())
        await eventually('room again', async () => {
            const next = await connect(broker, 'tcp', '5', { connectTimeout: 2000 }).catch(() => null)
            await next?.endAsync()
            return next !== null
        })
        await passes(b, a, topic)
        crowd.forEach((one) => one.socket.destroy())
        await Promise.all([a.endAsync(), b.endAsync()])
    }))

/* Resolves with the number that the broker publishes under `topic` below $SYS/broker, when `wanted`. */
function figure(client, topic, wanted = () => true) {
    const name = `$SYS/broker/${topic}`
    let last
    return within(new Promise((resolve) => {
        const look = (at, payload) => {
            last = at === name ? Number(payload.toString()) : last
            if (at === name && wanted(last)) {
                client.off('message', look)
                resolve(last)
            }
        }
        client.on('message', look)
        client.subscribe(name)
    }), topic).catch((error) => {
        throw new Error(`${error.message}; last value ${last}`)
    })
}

/* A subscriber that stops reading once it is subscribed. */
async function deafSubscriber(broker, transport, topic, qos, version = 5) {
    const deaf = await rawConnection(broker, transport, { silent: true })
    deaf.send(Buffer.concat([connectPacket('deaf', { version }), subscribePacket([topic], qos, version)]))
    deaf.socket.pause()
    return deaf
}

describe('a subscriber that does not read', { skip }, () => {
    /* The sanitizer keeps what was freed; a little of that is enough. */
    const env = { ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:quarantine_size_mb=8` }

    async function flood(transport) {
        const config = ['max_queued_bytes 1048576', 'max_queued_messages 100', 'sys_interval 1']
        await withBroker({ config, env }, async (broker) => {
            const topic = topicName('flood')
            const deaf = await deafSubscriber(broker, transport, topic, 0)
            const watcher = await connect(broker, 'tcp', '5')
            await figure(watcher, 'subscriptions/count', (count) => count >= 2)
            const reader = await rawConnection(broker, 'tcp', { silent: true })
            let arrived = 0
            reader.send(connectPacket('reader'))
            reader.send(subscribePacket([topic], 0))
            reader.socket.on('data', (chunk) => (arrived += chunk.length))
            const publisher = await rawConnection(broker, 'tcp')
            publisher.send(connectPacket('flooder'))
            await publisher.has(5)
            await eventually('CONNACK and SUBACK', () => arrived >= 12)
            const payload = 16 * 1024
            const one = packet(0x30, words([0, topic.length], topic, [0], new Uint8Array(payload)))
            const batch = Buffer.concat(Array(16).fill(one))
            const batches = Math.ceil(200e6 / batch.length)
            const before = residentBytes(broker.pid)
            let slowest = 0
            for (let i = 0; i < batches; i++) {
                const wanted = arrived + batch.length
                const began = performance.now()
                publisher.send(batch)
                while (arrived < wanted) {
                    assert.ok(performance.now() - began < 10_000, `the reader waits in batch ${i}`)
                    await new Promise(setImmediate)
                }
                slowest = Math.max(slowest, performance.now() - began)
            }
            const grown = residentBytes(broker.pid) - before
            assert.ok(grown < 64 * 1024 * 1024, `grew by ${grown} bytes`)
            assert.ok(slowest < 5000, `a batch took ${slowest} ms`)
            /* At most the kernel's buffers, some megabytes, and the queue went to the deaf one. */
            const dropped = await figure(watcher, 'publish/messages/dropped', (count) => count > batches * 16 / 2)
            assert.ok(dropped < batches * 16, `dropped ${dropped} of ${batches * 16}`)
            const queued = await figure(watcher, 'store/messages/count')
            assert.ok(queued <= 110, `${queued} queued`)
            deaf.cut()
            reader.cut()
            publisher.cut()
            await watcher.endAsync()
        })
    }

    for (const transport of ['tcp', 'wss']) {
        test(`costs its queue and nobody else a message, over ${transport}`, { timeout: 200_000 },
            () => flood(transport))
    }

    const count = 900
    for (const [name, limit] of [['loses nothing within the limits', 1000], ['loses the rest beyond them', 300]]) {
        test(`${name} at QoS 1`, () => {
            const config = [`max_queued_messages ${limit}`, 'max_inflight_messages 20', 'sys_interval 1']
            return withBroker({ config, env }, async (broker) => {
                const topic = topicName('deaf')
                const [publisher, watcher] = [await connect(broker, 'tcp', '5'), await connect(broker, 'tcp', '3.1.1')]
                const deaf = await deafSubscriber(broker, 'tcp', topic, 1, 4)
                const got = new Set()
                let rest = Buffer.alloc(0)
                await figure(watcher, 'subscriptions/count', (value) => value >= 2)
                const answers = []
                for (let i = 0; i < count; i++) {
                    const payload = words([i >> 8, i & 255], new Uint8Array(1000))
                    answers.push(publisher.publishAsync(topic, payload, { qos: 1 }))
                }
                await within(Promise.all(answers), 'PUBACKs')
                deaf.socket.on('data', (chunk) => {
                    rest = Buffer.concat([rest, chunk])
                    while (rest.length >= 2) { /* each PUBLISH here has a header of 3 bytes */
                        const long = rest[1] & 128
                        const end = 2 + (rest[1] & 127) + (long ? 1 + (rest[2] << 7) : 0)
                        if (rest.length < end) {
                            break
                        }
                        if ((rest[0] & 0xf0) === 0x30) {
                            const at = 3 + 2 + topic.length
                            got.add(rest.readUInt16BE(at + 2))
                            deaf.send(packet(0x40, rest.subarray(at, at + 2)))
                        }
                        rest = rest.subarray(end)
                    }
                })
                deaf.socket.resume()
                if (limit > count) {
                    await eventually('all messages', () => got.size === count)
                } else {
                    const dropped = await figure(watcher, 'publish/messages/dropped', (value) => value > 0)
                    assert.ok(Math.abs(dropped - (count - limit - 20)) <= 1, `${dropped} dropped`)
                    await eventually('the others', () => got.size === count - dropped)
                }
                deaf.cut()
                await Promise.all([publisher.endAsync(), watcher.endAsync()])
            })
        })
    }
})

/* Settings of listeners and of the server itself, which are easily forgotten in a reload. */
describe('SIGHUP applies', { skip }, () => {
    test('websockets_headers_size', () =>
        withBroker({}, async (broker) => {
            await broker.reload(['websockets_headers_size 512'])
            const large = probe(broker.ports.ws, upgrade(`X-Fill: ${'x'.repeat(600)}\r\n`))
            await eventually('an answer', () => large.text.includes('\r\n'))
            large.socket.destroy()
            assert.match(large.text, /^HTTP\/1\.1 431 /)
        }))

    test('handshake_timeout', () =>
        withBroker({ config: ['handshake_timeout 60'] }, async (broker) => {
            await broker.reload(['handshake_timeout 1'])
            await probe(broker.ports.ws, 'GET ').closed
        }))

    test('connect_timeout', () =>
        withBroker({ config: ['connect_timeout 60'] }, async (broker) => {
            await broker.reload(['connect_timeout 1'])
            await probe(broker.ports.tcp, connectPacket('half').subarray(0, 7)).closed
        }))

    test('max_connections', () =>
        withBroker({}, async (broker) => {
            const listener = await connect(broker, 'tcp', '5')
            const listeners = `listener ${broker.ports.tcp} 127.0.0.1`
            const file = broker.child.spawnargs.at(-1)
            const text = fs.readFileSync(file, 'utf8')
            fs.writeFileSync(file, text.replace(listeners, `${listeners}\nmax_connections 1`))
            broker.child.kill('SIGHUP')
            await broker.logged(/: reloaded\n/)
            await assert.rejects(connect(broker, 'tcp', '5'))
            await listener.endAsync()
        }))

    test('sys_interval', () =>
        withBroker({ config: ['sys_interval 0'] }, async (broker) => {
            const client = await connect(broker, 'tcp', '5')
            await client.subscribeAsync('$SYS/#')
            await broker.reload(['sys_interval 1'])
            await client.received(50)
            await broker.reload(['sys_interval 0'])
            const before = client.inbox.length
            await delay(2500)
            assert.ok(client.inbox.length <= before + 50)
            assert.deepEqual(client.inbox.filter((m) => /nan|inf/i.test(m.text)).map((m) => m.topic), [])
            await client.endAsync()
        }))

    test('sys_interval 0 without spoiling the figures', () =>
        withBroker({ config: ['sys_interval 1'] }, async (broker) => {
            const client = await connect(broker, 'tcp', '5')
            await client.subscribeAsync('$SYS/#')
            await client.received(50)
            await broker.reload(['sys_interval 0'])
            await delay(2500)
            const spoiled = client.inbox.filter((m) => /nan|inf/i.test(m.text))
            assert.deepEqual(spoiled.map((m) => `${m.topic} ${m.text}`), [])
            await client.endAsync()
        }))
})

test('$SYS has the figures that mosquitto has', { skip }, () =>
    withBroker({ config: ['sys_interval 1'] }, async (broker) => {
        const [a, b] = [await connect(broker, 'tcp', '5'), await connect(broker, 'wss', '3.1.1')]
        const topic = topicName('counted')
        await a.subscribeAsync([topic, `$share/group/${topic}`], { qos: 1 })
        for (let i = 0; i < 10; i++) {
            await b.publishAsync(topic, 'x'.repeat(100), { qos: 1, retain: true })
        }
        const away = await connect(broker, 'tcp', '5', { clean: false, properties: { sessionExpiryInterval: 60 } })
        await away.endAsync()
        const watcher = await connect(broker, 'tcp', '3.1.1')
        watcher.setMaxListeners(0)
        const checks = []
        const exactly = (n) => (value) => value === n
        const least = (n) => (value) => value >= n
        for (const [name, wanted] of [
            ['clients/connected', exactly(3)], ['clients/active', exactly(3)], ['clients/total', exactly(4)],
            ['clients/disconnected', exactly(1)], ['clients/inactive', exactly(1)], ['clients/maximum', exactly(3)],
            ['clients/expired', exactly(0)], ['shared_subscriptions/count', exactly(1)],
            ['publish/messages/received', exactly(10)], ['publish/bytes/received', least(1000)],
            ['publish/messages/sent', least(20)], ['publish/bytes/sent', least(2000)],
            ['publish/messages/dropped', exactly(0)], ['bytes/received', least(1000)], ['bytes/sent', least(2000)],
            ['messages/received', least(14)], ['messages/sent', least(30)], ['subscriptions/count', least(2)],
            ['load/publish/received/1min', least(1)], ['load/connections/1min', least(0.5)],
            ['load/sockets/15min', least(0.05)],
        ]) {
            checks.push(figure(watcher, name, wanted))
        }
        const wrong = (await Promise.allSettled(checks)).filter(({ status }) => status === 'rejected')
        assert.deepEqual(wrong.map(({ reason }) => reason.message), [])
        /* A client that comes now finds all of them retained. */
        const late = await connect(broker, 'ws', '5')
        await late.subscribeAsync('$SYS/#')
        const loads = ['bytes/received', 'bytes/sent', 'connections', 'messages/received', 'messages/sent',
            'publish/dropped', 'publish/received', 'publish/sent', 'sockets']
        const names = ['bytes/received', 'bytes/sent', 'clients/active', 'clients/connected', 'clients/disconnected',
            'clients/expired', 'clients/inactive', 'clients/maximum', 'clients/total', 'heap/current',
            'messages/received', 'messages/sent', 'messages/stored', 'publish/bytes/received', 'publish/bytes/sent',
            'publish/messages/dropped', 'publish/messages/received', 'publish/messages/sent',
            'retained messages/count', 'shared_subscriptions/count', 'store/messages/bytes', 'store/messages/count',
            'subscriptions/count', 'uptime', 'version',
            ...loads.flatMap((load) => ['1min', '5min', '15min'].map((window) => `load/${load}/${window}`))]
        await delay(1500)
        const retained = late.inbox.filter((m) => m.packet.retain)
        const found = new Map(retained.map((m) => [m.topic.replace('$SYS/broker/', ''), m.text]))
        assert.deepEqual(names.filter((name) => !found.has(name)), [])
        for (const name of names) {
            const form = name === 'version' ? /^dunlin version \d/
                : name === 'uptime' ? /^\d+ seconds$/
                : name.startsWith('load/') ? /^\d+\.\d\d$/ : /^\d+$/
            assert.match(found.get(name), form, name)
        }
        assert.equal(Number(found.get('retained messages/count')) > 50, true)
        /* They are the broker's own: nobody else publishes there. */
        const before = late.inbox.length
        await b.publishAsync('$SYS/broker/version', 'forged', { qos: 0, retain: true })
        await delay(1200)
        assert.ok(!late.inbox.slice(before).some((m) => m.text === 'forged'))
        await Promise.all([a, b, watcher, late].map((client) => client.endAsync()))
    }))

test('max_connections counts who only connects', { skip }, () => {
    const listeners = ({ tcp, tls }) => [
        `listener ${tcp} 127.0.0.1`, 'max_connections 2', `listener ${tls} 127.0.0.1`,
    ]
    return withBroker({ config: ['allow_anonymous true'], listeners }, async (broker) => {
        await delay(100) /* the harness's own look at the port is over */
        const silent = [probe(broker.ports.tcp, ''), probe(broker.ports.tcp, 'GET ')]
        silent.forEach((one) => one.closed.catch(() => {}))
        await delay(100)
        const third = probe(broker.ports.tcp, connectPacket('third'))
        await third.closed
        assert.equal(third.text, '')
        silent[0].socket.destroy()
        await eventually('room for another', async () => {
            const next = await connect(broker, 'tcp', '5').catch(() => null)
            await next?.endAsync()
            return next !== null
        })
        silent[1].socket.destroy()
    })
})

test('running out of descriptors is logged, once', { skip }, () =>
    withBroker({ wrapper: ['bash', '-c', 'ulimit -n 64; exec "$@"', 'bash'] }, async (broker) => {
        const crowd = Array.from({ length: 60 }, () => probe(broker.ports.tcp, ''))
        crowd.forEach((one) => one.closed.catch(() => {}))
        await broker.logged(/Warning: clients are refused: \d+ are connected, and the limit of open files/)
        await eventually('the rest is outside', () => crowd.filter((one) => one.socket.destroyed).length >= 28)
        assert.equal(broker.log.match(/limit of open files/g).length, 1)
        crowd.forEach((one) => one.socket.destroy())
    }))
