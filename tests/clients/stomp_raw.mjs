/*
 * stomp_raw: a STOMP client that does what it is told, over tcp, tls, ws or wss, and shows every
 * frame as it came: for what no library would send.
 */
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import WebSocket from 'ws'
import { testCertificate, within } from './harness.mjs'

const NUL = 0
const LF = 10

export const subprotocols = ['v12.stomp', 'v11.stomp', 'v10.stomp']

/* A frame as text or, with a body of bytes, as bytes. Headers are an object or a list of pairs and
 * go out as they stand. */
export function frame(command, headers = {}, body = '') {
    const pairs = Array.isArray(headers) ? headers : Object.entries(headers)
    const head = [command, ...pairs.map(([name, value]) => `${name}:${value}`), '', ''].join('\n')
    if (typeof body === 'string') {
        return `${head}${body}\0`
    }
    return Buffer.concat([Buffer.from(head), body, Buffer.from([NUL])])
}

/* Takes one frame off `bytes`: [frame, rest], or null while it is not complete. */
export function parse(bytes) {
    const headEnd = bytes.indexOf('\n\n')
    if (headEnd < 0) {
        return null
    }
    const [command, ...lines] = bytes.subarray(0, headEnd).toString().split('\n')
    const headers = {}
    for (const line of lines) {
        const colon = line.indexOf(':')
        headers[line.slice(0, colon)] ??= line.slice(colon + 1)
    }
    const start = headEnd + 2
    const length = headers['content-length']
    const end = length === undefined ? bytes.indexOf(NUL, start) : start + Number(length)
    if (end < 0 || end >= bytes.length) {
        return null
    }
    if (bytes[end] !== NUL) {
        throw new Error(`no NUL behind the body of ${command}`)
    }
    const body = bytes.subarray(start, end)
    return [{ command, headers, body, text: body.toString() }, bytes.subarray(end + 1)]
}

export class RawStomp {
    constructor() {
        this.frames = []
        this.beats = 0
        this.closed = false
        this.rest = Buffer.alloc(0)
        this.waiting = []
    }

    static async open(broker, transport = 'tcp', { protocols = subprotocols, path = '/ws' } = {}) {
        const client = new RawStomp()
        const port = broker.ports[transport]
        const ca = [testCertificate().pem]
        if (transport === 'tcp' || transport === 'tls') {
            client.socket = transport === 'tcp'
                ? net.connect({ port, host: '127.0.0.1', noDelay: true })
                : tls.connect({ port, host: '127.0.0.1', ca, servername: 'localhost' })
            client.socket.on('data', (data) => client.take(data))
            client.write = (data) => client.socket.write(data)
            client.destroy = () => client.socket.destroy()
            await within(once(client.socket, transport === 'tcp' ? 'connect' : 'secureConnect'), transport)
        } else {
            const url = `${transport}://localhost:${port}${path}`
            client.socket = new WebSocket(url, protocols, { ca, family: 4 })
            client.socket.on('message', (data, isBinary) => client.message(data, isBinary))
            client.write = (data) => client.socket.send(data)
            client.destroy = () => client.socket.terminate()
            await within(once(client.socket, 'open'), transport)
        }
        client.socket.on('error', () => {})
        client.socket.on('close', (code) => {
            client.closed = true
            client.closeCode = code
            client.settle()
        })
        return client
    }

    /* Opens and connects; resolves when CONNECTED is there, which is then client.connected. */
    static async connect(broker, transport = 'tcp', headers = {}, options = {}) {
        const client = await RawStomp.open(broker, transport, options)
        client.send('CONNECT', { 'accept-version': '1.2', host: '/', ...headers })
        client.connected = await client.expect('CONNECTED')
        return client
    }

    send(command, headers, body) {
        this.write(frame(command, headers, body))
    }

    /* One WebSocket message is one frame, or one heart-beat, of the right type. */
    message(data, isBinary) {
        const before = this.frames.length + this.beats
        this.take(data)
        if (this.frames.length + this.beats !== before + 1 || this.rest.length !== 0) {
            throw new Error(`not one frame in a message: ${data}`)
        }
        if (this.frames.length !== 0) {
            this.frames.at(-1).isBinary = isBinary
        }
        this.settle()
    }

    take(data) {
        this.rest = Buffer.concat([this.rest, data])
        for (;;) {
            while (this.rest.length !== 0 && this.rest[0] === LF) {
                this.rest = this.rest.subarray(1)
                this.beats++
            }
            const parsed = parse(this.rest)
            if (parsed === null) {
                break
            }
            this.frames.push(parsed[0])
            this.rest = parsed[1]
        }
        if (this.socket instanceof net.Socket) {
            this.settle()
        }
    }

    settle() {
        this.waiting = this.waiting.filter((check) => !check())
    }

    until(check, what) {
        return within(new Promise((resolve) => {
            const done = () => {
                const value = check()
                if (value !== undefined) {
                    resolve(value)
                }
                return value !== undefined
            }
            if (!done()) {
                this.waiting.push(done)
            }
        }), what)
    }

    /* The next frame; undefined when the connection ended before. */
    async next(what = 'a frame') {
        const found = await this.until(
            () => (this.frames.length !== 0 ? this.frames.shift() : this.closed ? 'closed' : undefined),
            what
        )
        return found === 'closed' ? undefined : found
    }

    /* The next frame, which must be of that command and have these headers. */
    async expect(command, headers = {}, text) {
        const found = await this.next(command)
        const shown = JSON.stringify(found && { ...found, body: undefined })
        if (found?.command !== command || (text !== undefined && found.text !== text)) {
            throw new Error(`expected ${command} ${text ?? ''}, got ${shown}`)
        }
        for (const [name, value] of Object.entries(headers)) {
            if (found.headers[name] !== value) {
                throw new Error(`expected ${name}:${value} in ${shown}`)
            }
        }
        return found
    }

    async ended() {
        await this.until(() => this.closed || undefined, 'the connection to be closed')
        if (this.frames.length !== 0) {
            throw new Error(`unexpected ${JSON.stringify(this.frames)}`)
        }
    }

    receipts = 0

    /* Sends a frame with a receipt and waits for it; what comes before is kept in this.frames. */
    async ask(command, headers = {}, body) {
        const receipt = `r-${++this.receipts}`
        this.send(command, { ...headers, receipt }, body)
        await this.until(() => {
            const at = this.frames.findIndex((f) => f.headers['receipt-id'] === receipt || f.command === 'ERROR')
            if (at < 0 && this.closed) {
                throw new Error('closed before the receipt')
            }
            return at < 0 ? undefined : at
        }, `receipt of ${command}`)
        const at = this.frames.findIndex((f) => f.headers['receipt-id'] === receipt || f.command === 'ERROR')
        const [answer] = this.frames.splice(at, 1)
        if (answer.command !== 'RECEIPT') {
            throw new Error(`${command} was answered ${answer.text}`)
        }
    }

    async disconnect() {
        if (!this.closed) {
            await this.ask('DISCONNECT')
            await this.until(() => this.closed || undefined, 'the end after DISCONNECT')
        }
    }
}
