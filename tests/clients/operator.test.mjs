/* What an operator sees: starting, the log, signals and certificates. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { describe, test } from 'node:test'
import tls from 'node:tls'
import {
    connect, connectPacket, delay, drained, executable, freePort, isMosquitto, issueCertificate, packet,
    rawConnection, run, scratchDir, startBroker, testCertificate, topicName, transports, withBroker, within,
} from './harness.mjs'

const skip = isMosquitto

function scratch(name, ...lines) {
    const file = path.join(scratchDir(), name)
    fs.writeFileSync(file, lines.join('\n') + '\n')
    return file
}

test('clients that ask get Response Information', { skip }, () =>
    withBroker({ config: ['response_information reply/%c/%u/'] }, async (broker) => {
        async function given(clientId, properties) {
            const client = await connect(broker, 'ws', 5, { clientId, username: 'ann', properties })
            const { responseInformation } = client.connack.properties ?? {}
            await client.endAsync()
            return responseInformation
        }
        assert.equal(await given('asks', { requestResponseInformation: true }), 'reply/asks/ann/')
        assert.equal(await given('asks', { requestResponseInformation: false }), undefined)
        assert.equal(await given('asks', {}), undefined)
        const long = 'x'.repeat(1100)
        assert.equal(await given(long, { requestResponseInformation: true }), undefined)
    }))

/* --- starting --- */

describe('the broker refuses to start', { skip }, () => {
    async function refuses(lines, ...patterns) {
        const file = scratch(`refused-${await freePort()}.conf`, ...lines)
        const began = performance.now()
        const { code, stdout, stderr } = await run(executable, ['-c', file]).done
        assert.notEqual(code, 0)
        assert.ok(performance.now() - began < 5000, 'it takes long')
        const errors = (stdout + stderr).split('\n').filter((line) => line.includes('Error: '))
        assert.equal(errors.length, 1, `one line: ${stdout}${stderr}`)
        for (const pattern of patterns) {
            assert.match(errors[0], pattern)
        }
        return file
    }

    const listener = (port, cert, key) => [
        'allow_anonymous true', `listener ${port} 127.0.0.1`, `certfile ${cert}`, `keyfile ${key}`,
    ]

    test('without the certfile', async () => {
        const { key } = testCertificate()
        await refuses(listener(await freePort(), '/nowhere/cert.pem', key),
            /\/nowhere\/cert\.pem.*no such file/i)
    })

    test('without the keyfile', async () => {
        const { cert } = testCertificate()
        await refuses(listener(await freePort(), cert, '/nowhere/key.pem'),
            /\/nowhere\/key\.pem.*no such file/i)
    })

    test('with a certfile that is none', async () => {
        const broken = scratch('no-certificate.pem', 'hello')
        await refuses(listener(await freePort(), broken, testCertificate().key),
            /no-certificate\.pem: .{5,}/)
    })

    test('with a keyfile that is none', async () => {
        const broken = scratch('no-key.pem', 'hello')
        await refuses(listener(await freePort(), testCertificate().cert, broken), /no-key\.pem: .{5,}/)
    })

    test('with the key of another certificate', async () => {
        const other = issueCertificate('other')
        await refuses(listener(await freePort(), testCertificate().cert, other.key),
            /other\.key.*does not belong.*cert\.pem/)
    })

    test('with a certfile but no keyfile', async () => {
        await refuses(listener(await freePort(), testCertificate().cert, 'x').slice(0, 3), /certfile.*keyfile/)
    })

    test('on a port in use', async () => {
        const server = net.createServer().listen(0, '127.0.0.1')
        await once(server, 'listening')
        const { port } = server.address()
        try {
            await refuses(['allow_anonymous true', `listener ${port} 127.0.0.1`],
                new RegExp(`127\\.0\\.0\\.1.*${port}.*in use`))
        } finally {
            server.close()
        }
    })

    test('with a log file that cannot be opened', async () => {
        await refuses([`listener ${await freePort()} 127.0.0.1`, 'log_dest file /nowhere/dunlin.log'],
            /\/nowhere\/dunlin\.log.*no such file/i)
    })

    test('without its configuration file', async () => {
        const { code, stderr } = await run(executable, ['-c', '/nowhere/dunlin.conf']).done
        assert.notEqual(code, 0)
        assert.match(stderr, /Error: \/nowhere\/dunlin\.conf.*no such file/i)
    })
})

describe('the command line', { skip }, () => {
    test('--check-config reports every mistake with its place', async () => {
        const file = scratch('mistakes.conf', 'allow_anonymous maybe', '', 'max_conections 5', 'listener 99999')
        const { code, stderr } = await run(executable, ['-c', file, '--check-config']).done
        assert.notEqual(code, 0)
        const lines = stderr.split('\n').filter((line) => line.includes('Error: '))
            .map((line) => line.slice(line.indexOf('Error: ')))
        assert.equal(lines.length, 3, stderr)
        assert.ok(lines[0].startsWith(`Error: ${file}:1: `) && lines[0].includes('allow_anonymous'))
        assert.equal(lines[1],
            `Error: ${file}:3: unknown key "max_conections"; did you mean "max_connections"?`)
        assert.ok(lines[2].startsWith(`Error: ${file}:4: `))
    })

    test('--check-config accepts a good file and opens nothing', async () => {
        const server = net.createServer().listen(0, '127.0.0.1')
        await once(server, 'listening')
        const file = scratch('good.conf', 'allow_anonymous true', `listener ${server.address().port} 127.0.0.1`)
        const { code, stderr } = await run(executable, ['-c', file, '--check-config']).done
        server.close()
        assert.equal(code, 0, stderr)
        assert.doesNotMatch(stderr, /Error|Warning/)
    })

    test('a key that is not served is a warning, or an error when it protects something', async () => {
        const file = scratch('unserved.conf', 'memory_limit 5', 'psk_file /etc/keys')
        const { code, stderr } = await run(executable, ['-c', file, '--check-config']).done
        assert.notEqual(code, 0)
        assert.match(stderr, new RegExp(`Warning: ${file}:1: .*memory_limit`))
        assert.match(stderr, new RegExp(`Error: ${file}:2: .*psk_file`))
    })

    for (const [args, status, pattern] of [
        [['--help'], 0, /usage: .*--check-config/is],
        [['--version'], 0, /^dunlin \d+\.\d+/],
        [['--no-such-option'], 64, /unknown option.*--no-such-option/],
        [['stray'], 64, /stray/],
        [['-c'], 64, /-c/],
        [['-p', '70000'], 64, /70000/],
    ]) {
        test(`${args.join(' ')} ends with ${status}`, async () => {
            const { code, stdout, stderr } = await run(executable, args).done
            assert.equal(code, status)
            assert.match(status === 0 ? stdout : stderr, pattern)
            assert.equal(status === 0 ? stderr : stdout, '')
        })
    }
})

describe('a listener without allow_anonymous', { skip }, () => {
    const closed = { listeners: ({ tcp, tls: secure }) => [`listener ${tcp}`, `listener ${secure} 127.0.0.1`] }

    for (const transport of ['tcp', 'ws']) {
        test(`lets nobody in over ${transport}`, () =>
            withBroker(closed, async (broker) => {
                assert.match(broker.log, /Warning: .*nobody can log in/i)
                for (const [version, user, answer] of [
                    [5, undefined, /^20..0087.*4e6f7420617574686f72697a6564$/], // "Not authorized"
                    [5, 'ann', /^20..0087/], [4, undefined, /^20020005$/], [3, 'ann', /^20020005$/],
                ]) {
                    const link = await rawConnection(broker, transport)
                    link.send(connectPacket('x', { version, user }))
                    await within(link.closed, 'close')
                    assert.match(link.received.toString('hex'), answer)
                }
                assert.equal(broker.log.match(/client "x" refused: /g).length, 4)
                assert.doesNotMatch(broker.log, / connected from /)
            }))
    }
})

/* --- the log --- */

/* What happens to a client, and the reason that the log gives. */
const departures = {
    normal: [/sent DISCONNECT/, (link) => link.send(Buffer.from('e000', 'hex'))],
    cut: [/peer closed the connection/, (link) => link.cut()],
    reset: [/reset/i, (link) => (link.socket._socket ?? link.socket).resetAndDestroy()],
    silent: [/keep alive timed out/, () => {}, { keepAlive: 1 }],
    taken: [/another connection uses its client id/, async (link, broker, id) => {
        const other = await rawConnection(broker, 'tcp')
        other.send(connectPacket(id))
        await other.has(4)
        other.send(Buffer.from('e000', 'hex'))
        await within(other.closed, 'close')
    }],
    twice: [/protocol error/i, (link, broker, id) => link.send(connectPacket(id))],
    malformed: [/malformed/i, (link) => link.send(Buffer.from('f1ff', 'hex'))],
}

const names = { tcp: 'TCP', tls: 'TLS', ws: 'WebSocket', wss: 'WebSocket with TLS' }
const versionNames = { 3: 'MQTT 3.1', 4: 'MQTT 3.1.1', 5: 'MQTT 5.0' }
const prefix = 'clientid_prefixes op-'

/* Lets every kind of client come and go; resolves with what to find in the log, by client id. */
async function comeAndGo(broker) {
    const expected = {}
    async function visit(id, transport, version, reason, leave, options = {}) {
        const link = await rawConnection(broker, transport)
        expected[id] = { port: link.port, transport: names[transport], protocol: versionNames[version], reason }
        link.send(connectPacket(id, { version, ...options }))
        await link.has(4)
        const from = broker.log.length
        await leave(link, broker, id)
        await broker.logged(new RegExp(`${id}\\b.*disconnected|client_disconnected.*${id}\\b`), from)
        link.cut()
        await within(link.closed, 'close')
    }
    for (const [name, [reason, leave, options]] of Object.entries(departures)) {
        await Promise.all(transports.filter((transport) => !(name === 'reset' && transport !== 'tcp')).map(
            (transport, i) => visit(`op-${name}-${transport}`, transport, [5, 4, 3][i % 3], reason, leave, options)))
    }
    for (const transport of ['ws', 'wss']) {
        await visit(`op-closed-${transport}`, transport, 5, /WebSocket close 1001: tab gone/,
            (link) => link.socket.close(1001, 'tab gone'))
    }
    return expected
}

describe('one line for each client that comes and each that goes', { skip }, () => {
    test('plain', async () => {
        let expected
        let log
        await withBroker({ config: [prefix] }, async (broker) => {
            expected = await comeAndGo(broker)
            log = broker
        })
        const lines = log.log.split('\n')
        for (const [id, { port, transport, protocol, reason }] of Object.entries(expected)) {
            const own = lines.filter((line) => new RegExp(`:${port}\\b`).test(line))
            assert.equal(own.length, 2, `${id}: ${own.join('\n')}`)
            const keepAlive = id.startsWith('op-silent') ? 'keep alive 1 s' : 'no keep alive'
            assert.ok(own[0].endsWith(`: client "${id}" connected from 127.0.0.1:${port} over ${transport} ` +
                `as ${protocol} (clean start, ${keepAlive})`), own[0])
            const [, why, where] = own[1].match(/" disconnected: (.*) \((MQTT.*), after [\d.]+ s\)$/)
            assert.match(why, reason, id)
            assert.equal(where, `${protocol} over ${transport}, 127.0.0.1:${port}`)
        }
        const takeovers = lines.filter((line) => /op-taken/.test(line)).length
        assert.equal(takeovers, 4 * 4)
    })

    test('JSON', async () => {
        let expected
        let log
        await withBroker({ config: [prefix, 'log_format json'] }, async (broker) => {
            expected = await comeAndGo(broker)
            log = broker
        })
        const lines = log.log.trim().split('\n').map((line) => JSON.parse(line))
        for (const [id, { port, transport, protocol, reason }] of Object.entries(expected)) {
            const own = lines.filter((line) => line.address?.endsWith(`:${port}`))
            assert.deepEqual(own.map((line) => line.event), ['client_connected', 'client_disconnected'], id)
            for (const line of own) {
                assert.deepEqual([line.client_id, line.transport, line.protocol, line.address, line.level],
                    [id, transport, protocol, `127.0.0.1:${port}`, 'notice'])
                assert.match(line.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
            }
            assert.match(own[1].reason, reason, id)
            assert.equal(typeof own[1].connected_seconds, 'number')
        }
    })

    test('those that never became clients', async () => {
        let log
        await withBroker({ config: [prefix] }, async (broker) => {
            log = broker
            const attempt = async (transport, bytes) => {
                const link = await rawConnection(broker, transport)
                link.send(bytes)
                await within(link.closed, 'close')
                return link.port
            }
            const http = (line) => Buffer.from(`${line}\r\nHost: x\r\n\r\n`)
            const found = [
                [await attempt('tcp', connectPacket('stranger')), /client "stranger" refused: .*not authori[sz]ed/i],
                [await attempt('ws', connectPacket('stranger')), /client "stranger" refused: .*not authori[sz]ed/i],
                [await attempt('tcp', Buffer.from('c000', 'hex')), /unknown protocol|not CONNECT/],
                [await attempt('ws', Buffer.from('c000', 'hex')), /the first packet was not CONNECT/],
                [await attempt('tcp', Buffer.from([0x80, 0x2e, 1])), /unknown protocol/],
                [await attempt('tcp', Buffer.from('SSH-2.0-x\r\n')), /malformed HTTP request/],
                [await attempt('tcp', http('GET / HTTP/1.1')), /does not open a WebSocket/],
                [await attempt('tls', http('POST / HTTP/1.1')), /method is not GET/],
                [await attempt('tcp', Buffer.from('160301002a', 'hex')), /TLS on a listener without TLS/],
            ]
            for (const [port, pattern] of found) {
                await broker.logged(new RegExp(`:${port}\\b`)) // the threads report each in its time
                const own = broker.log.split('\n').filter((line) => line.includes(`:${port}`))
                assert.equal(own.length, 1, own.join('\n'))
                assert.match(own[0], pattern)
            }
        })
        /* A port probe that leaves without a word, as health checks do, is no event. */
        assert.doesNotMatch(log.log, /peer closed/)
    })
})

const plainLine = new RegExp(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}: /.source +
    /(dunlin |listening on |client "op-|connection |SIGTERM: |stopped$)/.source)

test('text of clients cannot forge a line', { skip }, async () => {
    const hostile = [
        'op-\n2026-01-01T00:00:00+0000: client "root" connected', 'op-"quoted\\', 'op-\x1b[2J\x1b[31mred',
        'op-\r\n{"event":"client_connected"}', 'op-\u2028\u202egnol', `op-${'x'.repeat(5000)}`, 'op-}{,"a":1',
    ]
    for (const format of ['plain', 'json']) {
        let log
        const ports = []
        await withBroker({ config: [prefix, `log_format ${format}`] }, async (broker) => {
            log = broker
            for (const transport of ['tcp', 'ws']) {
                for (const id of hostile) {
                    const link = await rawConnection(broker, transport)
                    ports.push(link.port)
                    link.send(connectPacket(id, { version: 4, user: id }))
                    await Promise.race([link.has(4), link.closed])
                    if (transport === 'ws') {
                        link.socket.close(4000, '\n\x1b[31m"forged"')
                    }
                    link.cut()
                    await within(link.closed, 'close')
                }
            }
        })
        assert.doesNotMatch(log.log, /[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]/)
        const lines = log.log.trim().split('\n')
        for (const line of lines) {
            if (format === 'json') {
                assert.equal(typeof JSON.parse(line).message, 'string')
            } else {
                assert.match(line, plainLine)
            }
            assert.ok(line.length < 5000)
        }
        for (const port of ports) {
            assert.ok(lines.filter((line) => line.includes(`:${port}`)).length <= 2)
        }
    }
})

/* --- signals --- */

/* The common name that a TLS client sees on the broker's certificate. */
async function servedName(port, options = {}) {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
    await within(once(socket, 'secureConnect'), 'TLS handshake')
    const { CN } = socket.getPeerCertificate().subject
    socket.destroy()
    return CN
}

const secureListeners = (cert, key, more = []) => ({ tcp, tls: secure }) => [
    `listener ${tcp} 127.0.0.1`, `listener ${secure} 127.0.0.1`, `certfile ${cert}`, `keyfile ${key}`, ...more,
]
const anyone = ['allow_anonymous true']

async function talks(client) {
    const topic = topicName('talks')
    await client.subscribeAsync(topic, { qos: 1 })
    await client.publishAsync(topic, 'x', { qos: 1 })
    await drained(client)
    assert.ok(client.inbox.some((message) => message.topic === topic))
}

describe('SIGHUP', { skip }, () => {
    test('serves new certificates to new connections while old ones live on', async () => {
        const [cert, key] = ['cert', 'key'].map((name) => path.join(scratchDir(), `served-${name}.pem`))
        const install = (from) => {
            fs.copyFileSync(from.cert, cert)
            fs.copyFileSync(from.key, key)
        }
        install(issueCertificate('first.example'))
        await withBroker({ config: anyone, listeners: secureListeners(cert, key) }, async (broker) => {
            const options = { rejectUnauthorized: false }
            const clients = [await connect(broker, 'tls', '5', options), await connect(broker, 'wss', '3.1.1', options)]
            assert.equal(await servedName(broker.ports.tls), 'first.example')
            install(issueCertificate('second.example'))
            await broker.reload(anyone)
            assert.equal(await servedName(broker.ports.tls), 'second.example')
            fs.writeFileSync(key, 'half a key')
            await broker.reload(anyone, /Error: .*served-key\.pem/)
            assert.equal(await servedName(broker.ports.tls), 'second.example')
            for (const client of clients) {
                await talks(client)
                await client.endAsync()
            }
            await broker.loggedTimes(/" disconnected: /g, 2)
            assert.equal(broker.log.match(/" disconnected: /g).length, 2)
        })
    })

    test('applies a changed limit to new clients, and keeps to what others were told', () =>
        withBroker({}, async (broker) => {
            const large = packet(0x30, Buffer.concat([Buffer.from('00016100', 'hex'), Buffer.alloc(2000)]))
            const open = async () => {
                const link = await rawConnection(broker, 'tcp')
                link.send(connectPacket('limited'))
                await link.has(4)
                return link
            }
            const link = await open()
            link.send(Buffer.concat([large, Buffer.from('c000', 'hex')]))
            await link.has(link.received.length + 2)
            assert.equal(link.received.subarray(-2).toString('hex'), 'd000')
            await broker.reload(['max_packet_size 1000'])
            const before = link.received.length
            link.send(Buffer.concat([large, Buffer.from('c000', 'hex')]))
            await link.has(before + 2)
            assert.equal(link.received.subarray(-2).toString('hex'), 'd000')
            link.cut()
            const informed = await open()
            assert.ok(informed.received.includes(Buffer.from('27000003e8', 'hex')), 'Maximum Packet Size 1000')
            informed.send(large)
            await within(informed.closed, 'close')
            const farewell = informed.received.subarray(informed.received.lastIndexOf(0xe0))
            assert.equal(farewell[2], 0x95)
        }))

    test('opens the log file again', () => {
        const file = path.join(scratchDir(), 'rotated.log')
        const config = [`log_dest file ${file}`, 'log_dest stderr']
        return withBroker({ config }, async (broker) => {
            const client = await connect(broker, 'tcp', '5')
            fs.renameSync(file, `${file}.1`)
            await broker.reload(config)
            const late = await connect(broker, 'ws', '5')
            await broker.logged(new RegExp(`"${late.options.clientId}" connected`))
            const [before, after] = [`${file}.1`, file].map((name) => fs.readFileSync(name, 'utf8'))
            assert.ok(before.includes(client.options.clientId) && !before.includes(late.options.clientId))
            assert.ok(after.includes(late.options.clientId) && !after.includes(client.options.clientId))
            await talks(client)
            await Promise.all([client.endAsync(), late.endAsync()])
        })
    })

    test('keeps the old configuration when the new one is broken', () =>
        withBroker({ config: ['max_packet_size 3000'] }, async (broker) => {
            const client = await connect(broker, 'tcp', '5')
            const failed = /was not reloaded/
            await broker.reload(['max_packet_size 1000', 'max_packetsize 5'], failed)
            assert.match(broker.log, /Error: .*\.conf:\d+: unknown key "max_packetsize"/)
            const another = await connect(broker, 'ws', '5')
            assert.equal(another.connack.properties.maximumPacketSize, 3000)
            await talks(client)
            /* A listener more needs a restart, and the log says so. */
            await broker.reload([`listener ${await freePort()} 127.0.0.1`], /restart/)
            await talks(client)
            await broker.reload(['max_packet_size 2000'])
            await talks(client)
            await Promise.all([client.endAsync(), another.endAsync()])
        }))

    test('applies the list of origins', () => {
        let wanted = 'https://a.example'
        const make = ({ tcp, tls: other }) => [
            `listener ${tcp} 127.0.0.1`, `websockets_origin ${wanted}`, `listener ${other} 127.0.0.1`,
        ]
        return withBroker({ config: anyone, listeners: make }, async (broker) => {
            const enter = (origin) => rawConnection(broker, 'ws', { origin }).then((link) => link.cut())
            await enter('https://a.example')
            wanted = 'https://b.example'
            await broker.reload(anyone)
            await enter('https://b.example')
            await assert.rejects(enter('https://a.example'))
        })
    })
})

/* A client that leaves more unread than the kernel takes, so that the broker holds some for it. */
async function stuckClient(broker, transport) {
    const stuck = await rawConnection(broker, transport, { silent: true })
    stuck.socket.pause()
    const topic = topicName('stuck')
    const name = Buffer.from(topic)
    stuck.send(connectPacket('stuck'))
    stuck.send(packet(0x82, Buffer.concat([Buffer.from([0, 1, 0, 0, name.length]), name, Buffer.from([0])])))
    const client = await connect(broker, 'tcp', '5')
    await talks(client)
    for (let i = 0; i < 24; i++) {
        await client.publishAsync(topic, Buffer.alloc(1_000_000), { qos: 1 })
    }
    return stuck
}

describe('SIGTERM', { skip }, () => {
    for (const transport of ['tcp', 'wss']) {
        test(`waits for a client that does not read, but not for long, over ${transport}`, async () => {
            const broker = await startBroker()
            const stuck = await stuckClient(broker, transport)
            await broker.stop()
            assert.match(broker.log, /client "stuck" disconnected: the broker stops/)
            stuck.cut()
        })
    }

    test('the second time ends the broker at once', async () => {
        const broker = await startBroker()
        const stuck = await stuckClient(broker, 'tcp')
        broker.child.kill('SIGTERM')
        await broker.logged(/SIGTERM: stopping/)
        await delay(200)
        assert.equal(broker.child.exitCode, null, 'the first one waits')
        const began = performance.now()
        await broker.stop()
        assert.ok(performance.now() - began < 4000, 'the second one does not')
        stuck.cut()
    })

    test('during connections that shake hands', async () => {
        const broker = await startBroker()
        const half = [net.connect(broker.ports.tls, '127.0.0.1'), net.connect(broker.ports.tcp, '127.0.0.1')]
        half[0].write(Buffer.from('1603010100', 'hex'))
        half[1].write('GET / HT')
        half.forEach((socket) => socket.on('error', () => {}))
        await talks(await connect(broker, 'tcp', '5'))
        const began = performance.now()
        await broker.stop()
        assert.ok(performance.now() - began < 5000)
    })
})

/* --- TLS --- */

describe('client certificates', { skip }, () => {
    const authority = () => issueCertificate('machines', { authority: true })
    const client = (issuer) => {
        const { cert, key } = issueCertificate('machine', { issuer, subject: ['O = Works', 'CN = machine 7'] })
        return { cert: fs.readFileSync(cert), key: fs.readFileSync(key) }
    }

    for (const [setting, user] of [
        ['use_identity_as_username', /user "machine 7"/],
        ['use_subject_as_username', /user "(?=.*CN=machine 7)(?=.*O=Works)/],
    ]) {
        test(setting, async () => {
            const ca = authority()
            const { cert, key } = testCertificate()
            const listeners = secureListeners(cert, key,
                [`cafile ${ca.cert}`, 'require_certificate true', `${setting} true`])
            await withBroker({ listeners }, async (broker) => {
                for (const transport of ['tls', 'wss']) {
                    const machine = await connect(broker, transport, '5', client(ca))
                    const line = await broker.logged(new RegExp(`"${machine.options.clientId}" connected.*`))
                    assert.match(line[0], user)
                    await talks(machine)
                    await machine.endAsync()
                }
            })
        })
    }

    test('a client without one, or with one of a stranger, is refused', async () => {
        const ca = authority()
        const { cert, key } = testCertificate()
        const listeners = secureListeners(cert, key, [`cafile ${ca.cert}`, 'require_certificate true'])
        await withBroker({ config: anyone, listeners }, async (broker) => {
            const stranger = issueCertificate('strangers', { authority: true })
            for (const transport of ['tls', 'wss']) {
                await assert.rejects(connect(broker, transport, '5'))
                await assert.rejects(connect(broker, transport, '5', client(stranger)))
            }
            await broker.logged(/connection refused.*client certificate/)
            await broker.loggedTimes(/connection refused/g, 4)
            assert.equal(broker.log.match(/connection refused/g).length, 4)
            assert.doesNotMatch(broker.log, / connected from /)
        })
    })

    test('a resumed session keeps the user', async () => {
        const ca = authority()
        const { cert, key } = testCertificate()
        const listeners = secureListeners(cert, key,
            [`cafile ${ca.cert}`, 'require_certificate true', 'use_identity_as_username true'])
        await withBroker({ listeners }, async (broker) => {
            const options = { ...client(ca), maxVersion: 'TLSv1.2' }
            const first = await rawConnection(broker, 'tls', options)
            const session = first.socket.getSession()
            first.cut()
            const again = await rawConnection(broker, 'tls', { ...options, session })
            assert.ok(again.socket.isSessionReused())
            again.send(connectPacket('resumed'))
            await again.has(4)
            await broker.logged(/"resumed" connected.*user "machine 7"/)
            again.cut()
        })
    })
})

describe('TLS', { skip }, () => {
    test('chooses a certificate by name', async () => {
        const [a, b] = ['a.example', 'b.example'].map((name) => issueCertificate(name))
        const wild = issueCertificate('wild.example', { names: 'DNS:*.wild.example' })
        const more = [b, wild].flatMap(({ cert, key }) => [`certfile ${cert}`, `keyfile ${key}`])
        await withBroker({ config: anyone, listeners: secureListeners(a.cert, a.key, more) }, async (broker) => {
            for (const [servername, name] of [
                ['a.example', 'a.example'], ['b.example', 'b.example'], ['B.EXAMPLE', 'b.example'],
                ['x.wild.example', 'wild.example'], ['unknown.example', 'a.example'], [undefined, 'a.example'],
            ]) {
                assert.equal(await servedName(broker.ports.tls, { servername }), name, servername)
            }
        })
    })

    test('agrees on ALPN', () =>
        withBroker({}, async (broker) => {
            for (const [offer, chosen] of [[['mqtt'], 'mqtt'], [['h2', 'http/1.1'], 'http/1.1'], [undefined, false]]) {
                const link = await rawConnection(broker, 'tls', { ALPNProtocols: offer })
                assert.equal(link.socket.alpnProtocol, chosen)
                link.send(connectPacket('alpn'))
                await link.has(4)
                link.cut()
            }
        }))

    test('resumes sessions, with tickets and without', () =>
        withBroker({}, async (broker) => {
            const { SSL_OP_NO_TICKET } = (await import('node:crypto')).constants
            for (const secureOptions of [0, SSL_OP_NO_TICKET]) {
                const options = { secureOptions, maxVersion: 'TLSv1.2' }
                const first = await rawConnection(broker, 'tls', options)
                assert.ok(!first.socket.isSessionReused())
                const session = first.socket.getSession()
                first.cut()
                const again = await rawConnection(broker, 'tls', { ...options, session })
                assert.ok(again.socket.isSessionReused())
                again.send(connectPacket('again'))
                await again.has(4)
                again.cut()
            }
        }))

    test('speaks nothing older than TLS 1.2', () =>
        withBroker({}, async (broker) => {
            const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }
            await assert.rejects(rawConnection(broker, 'tls', old))
        }))

    test('sends a chain', async () => {
        const root = issueCertificate('root', { authority: true })
        const intermediate = issueCertificate('intermediate', { issuer: root, authority: true })
        const leaf = issueCertificate('leaf', { issuer: intermediate, names: 'DNS:localhost,IP:127.0.0.1' })
        const chain = scratch('chain.pem', leaf.pem, intermediate.pem)
        await withBroker({ config: anyone, listeners: secureListeners(chain, leaf.key) }, async (broker) => {
            for (const transport of ['wss', 'tls']) {
                const client = await connect(broker, transport, '5', { ca: [root.pem] })
                await talks(client)
                await client.endAsync()
            }
        })
    })
})

/* --- when something goes wrong --- */

describe('a reload that fails', { skip }, () => {
    test('opens the log file again', () => {
        const file = path.join(scratchDir(), 'rotated-anyway.log')
        const config = [`log_dest file ${file}`, 'log_dest stderr']
        return withBroker({ config }, async (broker) => {
            fs.renameSync(file, `${file}.1`)
            await broker.reload([...config, 'nonsense'], /was not reloaded/)
            assert.match(fs.readFileSync(file, 'utf8'), /was not reloaded/)
        })
    })

    test('says so at its end, and what needs a restart', async () => {
        const [cert, key] = ['cert', 'key'].map((name) => path.join(scratchDir(), `failing-${name}.pem`))
        fs.copyFileSync(testCertificate().cert, cert)
        fs.copyFileSync(testCertificate().key, key)
        let more = []
        const listeners = (ports) => secureListeners(cert, key, more)(ports)
        await withBroker({ config: anyone, listeners }, async (broker) => {
            const last = () => broker.log.trimEnd().split('\n').at(-1)
            more = ['socket_domain ipv4']
            await broker.reload(anyone, /restart\n.*was not reloaded\n/)
            assert.match(last(), /the configuration was not reloaded/)
            more = []
            fs.writeFileSync(cert, 'half a certificate')
            await broker.reload(anyone, /was not reloaded\n/)
            /* The mistake is in the second listener, which begins in line 3. */
            assert.match(broker.log, /Error: .*\.conf:3: .*failing-cert\.pem/)
            assert.match(last(), /the configuration was not reloaded/)
            fs.copyFileSync(testCertificate().cert, cert)
            await broker.reload(anyone)
        })
    })
})

test('a silent client does not hold up the stop', { skip }, async () => {
    const broker = await startBroker()
    const links = []
    for (const transport of ['tcp', 'tcp']) {
        const link = net.connect({ port: broker.ports[transport], host: '127.0.0.1', allowHalfOpen: true })
        link.on('error', () => {})
        link.write(connectPacket(`silent-${links.length}`))
        await once(link, 'data')
        links.push(link)
    }
    const began = performance.now()
    await broker.stop()
    assert.ok(performance.now() - began < 4000, `took ${performance.now() - began} ms`)
    links.forEach((link) => link.destroy())
})

test('a log that nobody reads does not hold up the broker', { skip }, () =>
    withBroker({ config: ['log_type all'] }, async (broker) => {
        broker.child.stderr.pause()
        for (let i = 0; i < 1500; i++) {
            const link = net.connect(broker.ports.tcp, '127.0.0.1')
            link.write(connectPacket(`chatty-${i}`))
            await within(once(link, 'data'), 'CONNACK')
            link.destroy()
        }
        broker.child.stderr.resume()
        await delay(100)
        const client = await connect(broker, 'tcp', '5')
        await broker.logged(/Warning: lines lost here, because the log could not be written: \d+\n/)
        await client.endAsync()
    }))
