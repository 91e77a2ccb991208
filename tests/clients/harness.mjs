/*
 * harness: starts the broker under test on ports of its own, and stops it again.
 *
 * The tests speak to a real process over real sockets. Which one is chosen by the environment:
 *   DUNLIN   path of the executable; default build/dunlin at the top of the tree
 *   DUNLIN_CONFIG  configuration lines for every Dunlin of the run, such as `io_threads 2`, where a
 *            test does not say otherwise
 *   BROKER   `mosquitto` runs Debian's mosquitto instead, so that a test can be compared with what
 *            another broker does
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import mqtt from 'mqtt'
import WebSocket from 'ws'

const here = path.dirname(fileURLToPath(import.meta.url))

export const isMosquitto = process.env.BROKER === 'mosquitto'
export const transports = ['tcp', 'tls', 'ws', 'wss']

export const executable = isMosquitto
    ? '/usr/sbin/mosquitto'
    : path.resolve(process.env.DUNLIN ?? path.join(here, '../../build/dunlin'))
const everyConfig = isMosquitto ? [] : (process.env.DUNLIN_CONFIG ?? '').split('\n').filter(Boolean)

/* A build with sanitizers, whose memory says nothing. */
export const isInstrumented = /build-(asan|tsan|fuzz)/.test(executable)
const startTimeoutMs = 20_000
const stopTimeoutMs = 20_000

let scratch

/* A directory that lives as long as this process. */
export function scratchDir() {
    if (!scratch) {
        scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'dunlin-clients-'))
        process.on('exit', () => fs.rmSync(scratch, { recursive: true, force: true }))
    }
    return scratch
}

let certificate

/* A self-signed certificate for localhost and 127.0.0.1, made once for each test process. */
export function testCertificate() {
    if (!certificate) {
        const cert = path.join(scratchDir(), 'cert.pem')
        const key = path.join(scratchDir(), 'key.pem')
        execFileSync(
            'openssl',
            ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                '-days', '2', '-subj', '/CN=localhost', '-addext',
                'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert],
            { stdio: 'ignore' }
        )
        certificate = { cert, key, pem: fs.readFileSync(cert) }
    }
    return certificate
}

/*
 * Makes a certificate and returns { cert, key } as paths and { pem }. `issuer` is what an earlier
 * call returned; without one it signs itself. An authority may sign others.
 */
export function issueCertificate(name, { issuer, authority = false, subject, names } = {}) {
    const base = path.join(scratchDir(), name)
    const [cert, key, settings] = [`${base}.pem`, `${base}.key`, `${base}.cnf`]
    fs.writeFileSync(settings, ['[req]', 'prompt = no', 'distinguished_name = dn', '[dn]',
        ...(subject ?? [`CN = ${name}`]), '[ext]', `basicConstraints = CA:${authority}`,
        `subjectAltName = ${names ?? `DNS:${name}`}`, ''].join('\n'))
    execFileSync(
        'openssl',
        ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
            '-days', '2', '-config', settings, '-extensions', 'ext', '-keyout', key, '-out', cert,
            ...(issuer ? ['-CA', issuer.cert, '-CAkey', issuer.key] : [])],
        { stdio: 'ignore' }
    )
    return { cert, key, pem: fs.readFileSync(cert) }
}

/*
 * Ports come from below the range that the kernel hands out for outgoing connections, and from a
 * slice that depends on the process id, so that test files which run at the same time do not meet.
 */
let portNext = 10_000 + ((process.pid * 24) % 22_000)

export async function freePort() {
    for (;;) {
        const port = portNext
        portNext = port >= 32_000 ? 10_000 : port + 1
        const probe = net.createServer()
        const free = await new Promise((resolve) => {
            probe.once('error', () => resolve(false))
            probe.listen(port, '127.0.0.1', () => resolve(true))
        })
        if (free) {
            probe.close()
            await once(probe, 'close')
            return port
        }
    }
}

function accepts(port) {
    return new Promise((resolve) => {
        const socket = net.connect(port, '127.0.0.1')
        socket.once('connect', () => {
            socket.destroy()
            resolve(true)
        })
        socket.once('error', () => resolve(false))
    })
}

export function delay(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms))
}

/* Fails with `what` in the message when `promise` takes longer than `ms`. */
export function within(promise, what, ms = 15_000) {
    let timer
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms: ${what}`)), ms)
    })
    return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function listenerLines(ports, mosquittoStyle) {
    const { cert, key } = testCertificate()
    const tls = [`certfile ${cert}`, `keyfile ${key}`]
    const listener = (port, protocol, more = []) => [
        `listener ${port} 127.0.0.1`,
        ...(mosquittoStyle ? [`protocol ${protocol}`] : []),
        ...more,
    ]
    const lines = [...listener(ports.tcp, 'mqtt'), ...listener(ports.tls, 'mqtt', tls)]
    if (mosquittoStyle) {
        lines.push(...listener(ports.ws, 'websockets'), ...listener(ports.wss, 'websockets', tls))
    }
    return lines
}

/*
 * Starts a broker and resolves once every listener accepts.
 *
 * Unless `mosquittoStyle`, Dunlin gets two listeners that find out by themselves what a client
 * speaks (one of them with a certificate); with it, four listeners with a `protocol` each, which is
 * all that mosquitto knows. `config` is a list of further configuration lines. `listeners`, given
 * the ports, returns all listener lines instead, and then nobody is let in unless `config` says so.
 * `wrapper` is a program and its arguments that start the broker, `env` adds to its environment.
 */
export async function startBroker({
    config = [], mosquittoStyle = isMosquitto, args = [], listeners, wrapper = [], env,
} = {}) {
    let failure
    for (let attempt = 0; attempt < 3; attempt++) {
        const tcp = await freePort()
        const tls = await freePort()
        const ports = mosquittoStyle
            ? { tcp, tls, ws: await freePort(), wss: await freePort() }
            : { tcp, tls, ws: tcp, wss: tls }
        const file = path.join(scratchDir(), `broker-${tcp}.conf`)
        const configure = (changed) => {
            const lines = listeners
                ? [...changed, ...listeners(ports)]
                : ['allow_anonymous true', ...(isMosquitto ? ['user root'] : []), ...changed,
                    ...listenerLines(ports, mosquittoStyle)]
            const isSet = (line) => lines.some((other) => other.split(' ')[0] === line.split(' ')[0])
            fs.writeFileSync(file, [...lines, ...everyConfig.filter((line) => !isSet(line))].join('\n') + '\n')
        }
        configure(config)
        const [program, ...rest] = [...wrapper, executable, '-c', file, ...args]
        const broker = new Broker(() => spawn(program, rest, {
            stdio: ['ignore', 'pipe', 'pipe'],
            env: { ...process.env, ...env },
        }), ports)
        broker.configure = configure
        try {
            await broker.accepting()
            return broker
        } catch (error) {
            /* Another program may have taken a port between the probe and the bind. */
            failure = error
        }
    }
    throw failure
}

/* Starts a broker, runs `body(broker)` and stops it; a failure comes with the broker's log. */
export async function withBroker(options, body) {
    const broker = await startBroker(options)
    try {
        await body(broker)
    } catch (error) {
        error.message += `\n--- log ---\n${broker.log.slice(-4000)}`
        broker.child.kill('SIGKILL')
        throw error
    }
    await broker.stop()
}

class Broker {
    constructor(launch, ports) {
        this.launch = launch
        this.ports = ports
        this.log = ''
        this.begin()
    }

    begin() {
        const child = this.launch()
        this.child = child
        this.exit = new Promise((resolve) => {
            child.once('error', (error) => resolve({ error }))
            child.once('close', (code, signal) => resolve({ code, signal }))
        })
        child.stdout?.on('data', (chunk) => (this.log += chunk))
        child.stderr?.on('data', (chunk) => (this.log += chunk))
        this.killOnExit = () => child.kill('SIGKILL')
        process.once('exit', this.killOnExit)
        this.exit.then(() => process.off('exit', this.killOnExit))
    }

    get pid() {
        return this.child.pid
    }

    async accepting() {
        const deadline = Date.now() + startTimeoutMs
        let ended
        this.exit.then((how) => (ended = how))
        for (const port of new Set(Object.values(this.ports))) {
            while (!ended && !(await accepts(port))) {
                if (Date.now() > deadline) {
                    this.child.kill('SIGKILL')
                    throw new Error(`broker does not accept on port ${port}:\n${this.log}`)
                }
                await delay(10)
            }
        }
        if (ended) {
            const why = ended.error ?? `exit code ${ended.code}, signal ${ended.signal}`
            throw new Error(`broker ended at start (${why}):\n${this.log}`)
        }
    }

    url(transport, host = '127.0.0.1') {
        const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[transport]
        const where = transport.startsWith('ws') ? '/mqtt' : ''
        return `${scheme}://${host}:${this.ports[transport]}${where}`
    }

    /* Resolves when the log, from character `from` on, has a match for `pattern`. */
    async logged(pattern, from = 0) {
        const deadline = Date.now() + 15_000
        for (;;) {
            const found = this.log.slice(from).match(pattern)
            if (found) {
                return found
            }
            if (Date.now() > deadline) {
                throw new Error(`the broker did not log ${pattern}`)
            }
            await delay(10)
        }
    }

    /* The same for at least `count` matches of a global pattern. */
    async loggedTimes(pattern, count) {
        const deadline = Date.now() + 15_000
        while ((this.log.match(pattern) ?? []).length < count) {
            if (Date.now() > deadline) {
                throw new Error(`the broker did not log ${pattern} ${count} times`)
            }
            await delay(10)
        }
    }

    /* Writes `config`, the lines that startBroker got, anew and reloads it. */
    async reload(config, outcome = /: reloaded\n/) {
        const from = this.log.length
        this.configure(config)
        this.child.kill('SIGHUP')
        await this.logged(outcome, from)
    }

    /* Kills the broker, as a crash does, and starts it again with the same files and ports. */
    async crash() {
        this.child.kill('SIGKILL')
        await this.exit
        this.begin()
        await this.accepting()
    }

    /* Stops it as an operator does, and starts it again with the same files and ports. */
    async restart() {
        await this.stop()
        this.begin()
        await this.accepting()
    }

    /* Asks the broker to end as an operator does; anything but exit code 0 fails the test. */
    async stop() {
        this.child.kill('SIGTERM')
        let how
        try {
            how = await within(this.exit, 'broker to end after SIGTERM', stopTimeoutMs)
        } catch (error) {
            this.child.kill('SIGKILL')
            throw new Error(`${error.message}\n${this.log}`)
        }
        if (how.code !== 0) {
            throw new Error(`broker ended with code ${how.code}, signal ${how.signal}:\n${this.log}`)
        }
    }
}

/* --- mqtt.js clients --- */

export const versions = {
    '3.1': { protocolId: 'MQIsdp', protocolVersion: 3 },
    '3.1.1': { protocolId: 'MQTT', protocolVersion: 4 },
    5: { protocolId: 'MQTT', protocolVersion: 5 },
}

let clientNext = 0

/* MQTT 3.1 allows at most 23 characters. */
export function clientId(prefix = 'c') {
    return `${prefix}-${process.pid}-${++clientNext}`.slice(0, 23)
}

export function topicName(what) {
    return `t/${process.pid}/${++clientNext}/${what}`
}

/*
 * Connects an mqtt.js client. `client.inbox` collects what arrives, in order, and
 * `client.received(n)` resolves with the first n messages. Does not reconnect unless told to.
 */
export async function connect(broker, transport, version, options = {}) {
    const client = mqtt.connect(broker.url(transport), {
        ...versions[version],
        clientId: clientId(),
        ca: [testCertificate().pem],
        reconnectPeriod: 0,
        connectTimeout: 10_000,
        ...options,
    })
    watch(client)
    const [connack] = await within(connected(client), `connect over ${transport} as ${version}`)
    client.connack = connack
    return client
}

async function connected(client) {
    const stop = new AbortController()
    try {
        return await Promise.race([
            once(client, 'connect', stop),
            once(client, 'close', stop).then(() => {
                throw client.lastError ?? new Error('closed before CONNACK')
            }),
        ])
    } finally {
        stop.abort()
    }
}

function watch(client) {
    client.inbox = []
    const waiting = new Set()
    client.on('message', (topic, payload, packet) => {
        client.inbox.push({ topic, payload, text: payload.toString(), packet })
        waiting.forEach((check) => check())
    })
    client.on('error', (error) => (client.lastError = error))
    client.received = (count, ms) =>
        within(
            new Promise((resolve) => {
                const check = () => {
                    if (client.inbox.length >= count) {
                        waiting.delete(check)
                        resolve(client.inbox.slice(0, count))
                    }
                }
                waiting.add(check)
                check()
            }),
            `${count} messages`,
            ms
        ).catch((error) => {
            const got = client.inbox.slice(-5).map((m) => `${m.topic}: ${m.text.slice(0, 40)}`)
            throw new Error(`${error.message}; got ${client.inbox.length}: ${got.join(' | ')}`)
        })
}

/* Cuts the network connection under a client, as a failing network does. */
export async function cut(client) {
    const closed = once(client, 'close')
    client.stream.destroy()
    await within(closed, 'client to notice that it was cut')
}

/* Connects a client again that `cut` or the broker had disconnected. */
export async function reconnect(client) {
    const again = connected(client)
    client.reconnect()
    const [connack] = await within(again, 'reconnection')
    client.connack = connack
}

/*
 * Everything that was sent to `client` before this call has arrived when it resolves: the broker
 * sends one client's messages in order, so a marker that the client sends itself comes last.
 */
export async function drained(client) {
    const topic = topicName('drained')
    await client.subscribeAsync(topic, { qos: 1 })
    const marker = new Promise((resolve) => {
        const look = (name) => {
            if (name === topic) {
                client.off('message', look)
                resolve()
            }
        }
        client.on('message', look)
    })
    await client.publishAsync(topic, '', { qos: 1 })
    await within(marker, 'marker message')
    client.inbox = client.inbox.filter((m) => m.topic !== topic)
    await client.unsubscribeAsync(topic)
}

/* --- connections without an MQTT library --- */

export function connectPacket(id, { version = 5, keepAlive = 0, user } = {}) {
    const text = (value) => {
        const bytes = Buffer.from(value)
        return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
    }
    const body = Buffer.concat([
        text(version === 3 ? 'MQIsdp' : 'MQTT'),
        Buffer.from([version, user === undefined ? 0x02 : 0x82, keepAlive >> 8, keepAlive & 255]),
        Buffer.from(version === 5 ? [0] : []), text(id), ...(user === undefined ? [] : [text(user)]),
    ])
    return packet(0x10, body)
}

/* One MQTT packet of up to 2 MB. */
export function packet(first, body) {
    const bytes = [first]
    let left = body.length
    do {
        bytes.push((left & 127) | (left > 127 ? 128 : 0))
        left >>= 7
    } while (left > 0)
    return Buffer.concat([Buffer.from(bytes), body])
}

/*
 * Opens a connection that carries what the test says and nothing else. `received` is all that came,
 * `has(n)` resolves when n bytes have, `closed` when it has ended. `silent` does not read.
 */
export async function rawConnection(broker, transport, { silent = false, ...options } = {}) {
    const port = broker.ports[transport]
    const ca = testCertificate().pem
    const link = { received: Buffer.alloc(0), isClosed: false }
    if (transport.startsWith('ws')) {
        link.socket = new WebSocket(broker.url(transport), ['mqtt'], { ca, ...options })
        link.send = (bytes) => link.socket.send(bytes)
    } else {
        link.socket = transport === 'tls'
            ? tls.connect({ port, host: '127.0.0.1', ca, ...options })
            : net.connect({ port, host: '127.0.0.1', ...options })
        link.send = (bytes) => link.socket.write(bytes)
    }
    const opened = { tcp: 'connect', tls: 'secureConnect', ws: 'open', wss: 'open' }[transport]
    link.closed = new Promise((resolve) => link.socket.once('close', (...how) => {
        link.isClosed = true
        resolve(how)
    }))
    if (!silent) {
        link.socket.on(transport.startsWith('ws') ? 'message' : 'data', (chunk) => {
            link.received = Buffer.concat([link.received, chunk])
        })
    }
    link.has = async (count) => {
        const deadline = Date.now() + 15_000
        while (link.received.length < count) {
            if (link.isClosed || Date.now() > deadline) {
                throw new Error(`${link.received.length} of ${count} bytes came, closed: ${link.isClosed}`)
            }
            await delay(5)
        }
        return link.received
    }
    await within(once(link.socket, opened), `connection over ${transport}`)
    link.socket.on('error', () => {})
    const network = link.socket._socket ?? link.socket
    link.port = network.localPort
    link.cut = () => network.destroy()
    return link
}

/* Runs a program to its end; resolves with its output and exit code. */
export function run(program, args, { input, timeoutMs = 20_000, env } = {}) {
    const child = spawn(program, args, { env: { ...process.env, ...env } })
    const result = { child, stdout: '', stderr: '' }
    child.stdout.on('data', (chunk) => (result.stdout += chunk))
    child.stderr.on('data', (chunk) => (result.stderr += chunk))
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    result.done = new Promise((resolve, reject) => {
        child.once('error', reject)
        child.once('close', (code, signal) => {
            clearTimeout(timer)
            resolve({ code, signal, stdout: result.stdout, stderr: result.stderr })
        })
    })
    /* Resolves when the program has printed `text`. */
    result.prints = (text) =>
        within(
            new Promise((resolve, reject) => {
                const look = () => (result.stdout + result.stderr).includes(text) && resolve()
                child.stdout.on('data', look)
                child.stderr.on('data', look)
                child.once('close', () => reject(new Error(
                    `${program} ended before it printed "${text}": ${result.stdout}${result.stderr}`)))
                look()
            }),
            `${program} to print "${text}"`
        )
    return result
}
