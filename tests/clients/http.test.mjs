/* The HTTP API: publishing, retained messages, logins, limits and the protocol itself. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
    connect, delay, drained, executable, isMosquitto, run, scratchDir, startBroker, testCertificate, topicName,
    withBroker, within,
} from './harness.mjs'
import { api, checkAnswer, mismatch, operation } from './openapi.mjs'

const skip = isMosquitto

/* One request; resolves with { status, headers, body, json }. */
function request(broker, method, target, { body, headers = {}, transport = 'tcp', agent = false } = {}) {
    const client = transport === 'tls' ? https : http
    return within(new Promise((resolve, reject) => {
        const req = client.request({
            host: '127.0.0.1', port: broker.ports[transport], method, path: target, agent, ca: testCertificate().pem,
            headers: { ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }), ...headers },
        }, (res) => {
            const chunks = []
            res.on('data', (chunk) => chunks.push(chunk))
            res.on('end', () => {
                const whole = Buffer.concat(chunks)
                let json
                try {
                    json = JSON.parse(whole.toString())
                } catch {
                    json = undefined
                }
                const answer = { status: res.statusCode, headers: res.headers, body: whole, json }
                try {
                    checkAnswer(method, target, answer)
                    resolve(answer)
                } catch (error) {
                    reject(error)
                }
            })
        })
        req.on('error', reject)
        req.end(body)
    }), `${method} ${target}`)
}

function publish(broker, message, query = '', options = {}) {
    return request(broker, 'POST', `/api/v1/publish${query}`, { body: JSON.stringify(message), ...options })
}

function basic(user, password) {
    return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` }
}

/* Opens a stream of events. `events(n)` resolves with the first n, whose data fits the description. */
async function subscribe(broker, topics, { transport = 'tcp', lastEventId, headers = {} } = {}) {
    const client = transport === 'tls' ? https : http
    const query = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join('&')
    const req = client.get({
        host: '127.0.0.1', port: broker.ports[transport], path: `/api/v1/subscribe?${query}`, agent: false,
        ca: testCertificate().pem, headers: { ...headers, ...(lastEventId ? { 'last-event-id': lastEventId } : {}) },
    })
    req.on('error', () => {})
    const [res] = await within(once(req, 'response'), 'stream')
    assert.equal(res.statusCode, 200)
    assert.equal(res.headers['content-type'], 'text/event-stream')
    const stream = { list: [], cut: () => req.destroy() }
    stream.ended = new Promise((resolve) => res.once('close', resolve))
    let text = ''
    res.on('error', () => {})
    res.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
            const lines = Object.fromEntries(text.slice(0, end).split('\n').map((line) => line.split(/: (.*)/s)))
            if (lines.data) {
                const data = JSON.parse(lines.data)
                assert.equal(mismatch(data, { $ref: '#/components/schemas/Event' }), undefined)
                stream.list.push({ id: lines.id, data })
            }
        }
    })
    stream.events = async (count) => {
        for (const deadline = Date.now() + 15_000; stream.list.length < count;) {
            assert.ok(Date.now() < deadline, `${stream.list.length} of ${count} events: ${JSON.stringify(stream.list.slice(-3))}`)
            await delay(5)
        }
        return stream.list.slice(0, count)
    }
    return stream
}

/* Sends bytes and resolves with everything that comes until the connection ends. */
async function exchange(broker, ...pieces) {
    const socket = net.connect(broker.ports.tcp, '127.0.0.1')
    let text = ''
    socket.on('data', (chunk) => (text += chunk))
    socket.on('error', () => {})
    const closed = once(socket, 'close')
    await once(socket, 'connect')
    for (const piece of pieces) {
        socket.write(piece)
        await delay(2)
    }
    await within(closed, 'end of the connection')
    return text
}

for (const ioThreads of [0, 2]) describe(`HTTP with ${ioThreads} I/O threads`, { skip }, () => {
    let broker

    before(async () => (broker = await startBroker({
        config: ['max_packet_size 100000', 'message_size_limit 50000', `io_threads ${ioThreads}`],
    })))
    after(async () => broker?.stop())

    for (const transport of ['tcp', 'tls']) {
        test(`a message goes to all who want it, over ${transport}`, async () => {
            const topic = topicName('http')
            const clients = await Promise.all(['tcp', 'ws'].flatMap((over) =>
                ['3.1.1', 5].map((version) => connect(broker, over, version))))
            for (const client of clients) {
                await client.subscribeAsync(topic, { qos: 2 })
            }
            const answer = await publish(broker, { topic, payload: 'hello', qos: 2 }, '', { transport })
            assert.equal(answer.status, 200)
            assert.deepEqual(answer.json, { topic, matched: 4 })
            for (const client of clients) {
                const [message] = await client.received(1)
                assert.equal(message.text, 'hello')
                assert.equal(message.packet.qos, 2)
            }
            await Promise.all(clients.map((client) => client.endAsync()))
        })
    }

    test('payloads of every kind, with properties', async () => {
        const topic = topicName('kinds')
        const client = await connect(broker, 'tcp', 5)
        await client.subscribeAsync(topic, { qos: 1 })
        await publish(broker, { topic, payload: 'grüß\nGott' })
        await publish(broker, { topic, payload: { a: [1, true, null, 'x'] } })
        await publish(broker, { topic, payload: 7.5 })
        await publish(broker, { topic, payload_base64: 'AP8Q' })
        await publish(broker, {
            topic, payload: 'p', qos: 1, expiry: 100,
            properties: {
                content_type: 'text/x', response_topic: 'r/t', correlation_data: 'AAE=',
                user: { one: '1', many: ['a', 'b'] },
            },
        })
        const got = await client.received(5)
        assert.deepEqual(got.slice(0, 3).map((m) => m.text), ['grüß\nGott', '{"a":[1,true,null,"x"]}', '7.5'])
        assert.deepEqual([...got[3].payload], [0, 255, 16])
        assert.equal(got[0].packet.properties.payloadFormatIndicator, true)
        assert.equal(got[1].packet.properties.contentType, 'application/json')
        assert.equal(got[3].packet.properties?.payloadFormatIndicator, undefined)
        const { properties } = got[4].packet
        assert.equal(properties.contentType, 'text/x')
        assert.equal(properties.responseTopic, 'r/t')
        assert.deepEqual([...properties.correlationData], [0, 1])
        assert.deepEqual({ ...properties.userProperties }, { one: '1', many: ['a', 'b'] })
        assert.ok(properties.messageExpiryInterval > 90 && properties.messageExpiryInterval <= 100)
        await client.endAsync()
    })

    test('a batch keeps its order and says what became of each', async () => {
        const topic = topicName('batch')
        const client = await connect(broker, 'ws', 5)
        await client.subscribeAsync(`${topic}/+`, { qos: 1 })
        const messages = [...Array(500).keys()].map((i) => ({ topic: `${topic}/${i % 7}`, payload: i, qos: 1 }))
        messages[3].topic = '$SYS/x'
        for (const body of [messages, { messages }]) {
            const answer = await publish(broker, body)
            assert.equal(answer.status, 200)
            assert.equal(answer.json.results.length, 500)
            assert.deepEqual(answer.json.results[0], { topic: `${topic}/0`, matched: 1 })
            assert.equal(answer.json.results[3].error, 'not_allowed')
        }
        const got = await client.received(998)
        const expected = [...Array(500).keys()].filter((i) => i !== 3).map(String)
        assert.deepEqual(got.slice(0, 499).map((m) => m.text), expected)
        await client.endAsync()
    })

    test('wait=acked counts acknowledgements, and stops waiting', async () => {
        const topic = topicName('acked')
        const quick = await connect(broker, 'tcp', 5)
        await quick.subscribeAsync(topic, { qos: 1 })
        const both = async (query) => (await publish(broker, { topic, payload: 'x', qos: 2 }, query)).json
        assert.deepEqual(await both('?wait=acked'), { topic, matched: 1, acknowledged: 1 })
        const slow = await connect(broker, 'tcp', 5, { customHandleAcks: (_t, _m, _p, done) => setTimeout(() => done(0), 300) })
        await slow.subscribeAsync(topic, { qos: 1 })
        const zero = await connect(broker, 'tcp', 5)
        await zero.subscribeAsync(topic, { qos: 0 })
        assert.deepEqual(await both('?wait=acked&timeout=10'), { topic, matched: 3, acknowledged: 3 })
        const began = performance.now()
        const hasty = await both('?wait=acked&timeout=0')
        assert.equal(hasty.matched, 3)
        assert.ok(hasty.acknowledged < 3)
        assert.ok(performance.now() - began < 200)
        assert.deepEqual((await publish(broker, { topic: topicName('nobody'), payload: 'x' }, '?wait=acked')).json.matched, 0)
        await Promise.all([quick, slow, zero].map((client) => client.endAsync()))
    })

    test('whoever leaves while it waits is forgotten', async () => {
        const topic = topicName('leaves')
        const away = await connect(broker, 'tcp', 5, { clean: false, properties: { sessionExpiryInterval: 100 } })
        await away.subscribeAsync(topic, { qos: 1 })
        await away.endAsync()
        const body = JSON.stringify({ topic, payload: 'x', qos: 1 })
        for (let i = 0; i < 3; i++) {
            const socket = net.connect(broker.ports.tcp, '127.0.0.1')
            await once(socket, 'connect')
            socket.write(`POST /api/v1/publish?wait=acked&timeout=60 HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
            await delay(20)
            socket.destroy()
        }
        assert.equal((await publish(broker, { topic, payload: 'x', qos: 1 })).json.matched, 1)
    })

    test('a key is published once', async () => {
        const topic = topicName('key')
        const client = await connect(broker, 'tcp', 5)
        await client.subscribeAsync(topic, { qos: 1 })
        const message = { topic, payload: 'once', idempotency_key: `k-${topic}` }
        assert.deepEqual((await publish(broker, message)).json, { topic, matched: 1 })
        assert.deepEqual((await publish(broker, message)).json, { topic, matched: 1, duplicate: true })
        const headers = { 'idempotency-key': `h-${topic}` }
        const target = `/api/v1/topics/${topic}`
        assert.equal((await request(broker, 'POST', target, { body: 'once', headers })).json.duplicate, undefined)
        assert.equal((await request(broker, 'POST', target, { body: 'once', headers })).json.duplicate, true)
        await drained(client)
        assert.equal(client.inbox.length, 2)
        await client.endAsync()
    })

    test('a topic takes a body and gives its retained message', async () => {
        const topic = `${topicName('topic')}/grüße mehr`
        const target = `/api/v1/topics/${encodeURIComponent(topic)}`
        const client = await connect(broker, 'tcp', 5)
        await client.subscribeAsync(topic, { qos: 2 })
        assert.equal((await request(broker, 'GET', target)).status, 404)
        const body = Buffer.from([0, 1, 2, 255])
        const posted = await request(broker, 'POST', `${target}?qos=2&retain=true&expiry=50`,
            { body, headers: { 'content-type': 'image/png' } })
        assert.deepEqual(posted.json, { topic, matched: 1 })
        const [message] = await client.received(1)
        assert.deepEqual([message.topic, [...message.payload], message.packet.qos], [topic, [...body], 2])
        assert.equal(message.packet.properties.contentType, 'image/png')
        const got = await request(broker, 'GET', target)
        assert.deepEqual([got.status, got.headers['content-type'], [...got.body]], [200, 'image/png', [...body]])
        const head = await request(broker, 'HEAD', target)
        assert.deepEqual([head.status, head.headers['content-length'], head.body.length], [200, '4', 0])
        await request(broker, 'POST', `${target}?retain=true`, { body: '' })
        assert.equal((await request(broker, 'GET', target)).status, 404)
        await client.publishAsync(topic, 'from mqtt', { retain: true, qos: 1, properties: { payloadFormatIndicator: true } })
        const text = await request(broker, 'GET', target)
        assert.deepEqual([text.headers['content-type'], text.body.toString()], ['text/plain; charset=utf-8', 'from mqtt'])
        await client.endAsync()
    })

    test('large bodies, up to the limits', async () => {
        const topic = topicName('large')
        const target = `/api/v1/topics/${topic}`
        const body = 'x'.repeat(50_000)
        assert.equal((await request(broker, 'POST', `${target}?retain=true`, { body })).status, 200)
        assert.equal((await request(broker, 'GET', target)).body.toString(), body)
        const large = await request(broker, 'POST', target, { body: `${body}x` })
        assert.deepEqual([large.status, large.json.error], [413, 'payload_too_large'])
        const larger = await request(broker, 'POST', target, { body: 'x'.repeat(100_001) })
        assert.deepEqual([larger.status, larger.json.error], [413, 'body_too_large'])
    })

    for (const [what, method, target, body, status, error] of [
        ['an unknown path', 'GET', '/api/v1/nothing', undefined, 404, 'not_found'],
        ['a wrong method', 'PUT', '/api/v1/publish', '{}', 405, 'method_not_allowed'],
        ['a wrong method at a topic', 'DELETE', '/api/v1/topics/a', undefined, 405, 'method_not_allowed'],
        ['no JSON', 'POST', '/api/v1/publish', 'hello', 400, 'bad_message'],
        ['no body', 'POST', '/api/v1/publish', '', 400, 'bad_message'],
        ['a NUL in a text', 'POST', '/api/v1/publish', '{"topic":"a","payload":"\\u0000"}', 400, 'bad_message'],
        ['a member twice', 'POST', '/api/v1/publish', '{"topic":"a","topic":"b","payload":""}', 400, 'bad_message'],
        ['a topic with a wildcard', 'POST', '/api/v1/publish', '{"topic":"a/#","payload":""}', 400, 'bad_message'],
        ['no topic', 'POST', '/api/v1/publish', '{"payload":""}', 400, 'bad_message'],
        ['no payload', 'POST', '/api/v1/publish', '{"topic":"a"}', 400, 'bad_message'],
        ['two payloads', 'POST', '/api/v1/publish', '{"topic":"a","payload":"","payload_base64":""}', 400, 'bad_message'],
        ['bad base64', 'POST', '/api/v1/publish', '{"topic":"a","payload_base64":"A"}', 400, 'bad_message'],
        ['a bad QoS', 'POST', '/api/v1/publish', '{"topic":"a","payload":"","qos":3}', 400, 'bad_message'],
        ['a misspelt member', 'POST', '/api/v1/publish', '{"topic":"a","payload":"","retian":true}', 400, 'bad_message'],
        ['an empty batch', 'POST', '/api/v1/publish', '[]', 400, 'bad_message'],
        ['a bad message in a batch', 'POST', '/api/v1/publish', '[{"topic":"a","payload":""},{}]', 400, 'bad_message'],
        ['deep JSON', 'POST', '/api/v1/publish', '['.repeat(50_000), 400, 'bad_message'],
        ['$SYS', 'POST', '/api/v1/topics/$SYS/x', 'x', 403, 'not_allowed'],
        ['a wildcard in a path', 'GET', '/api/v1/topics/a/%23', undefined, 400, 'bad_topic'],
        ['a bad escape in a path', 'GET', '/api/v1/topics/a%2', undefined, 400, 'bad_topic'],
        ['no topic in a path', 'GET', '/api/v1/topics/', undefined, 400, 'bad_topic'],
        ['bad UTF-8 in a path', 'GET', '/api/v1/topics/%ff', undefined, 400, 'bad_topic'],
        ['a bad parameter', 'POST', '/api/v1/topics/a?qos=3', 'x', 400, 'bad_parameter'],
        ['an unknown parameter', 'POST', '/api/v1/publish?qos=1', '{}', 400, 'bad_parameter'],
        ['a long timeout', 'POST', '/api/v1/publish?wait=acked&timeout=61', '{}', 400, 'bad_parameter'],
    ]) {
        test(`${what} is ${status}`, async () => {
            const answer = await request(broker, method, target, { body })
            assert.deepEqual([answer.status, answer.json.error], [status, error], answer.body.toString())
            assert.ok(answer.json.message.length > 5)
            if (status === 405) {
                assert.match(answer.headers.allow, /POST/)
            }
        })
    }

    for (const [what, query, status, error] of [
        ['no topic', '', 400, 'bad_parameter'],
        ['a bad filter', '?topic=a/%23/b', 400, 'bad_parameter'],
        ['a bad escape', '?topic=%2', 400, 'bad_parameter'],
        ['a shared subscription', '?topic=$share/g/a', 400, 'bad_parameter'],
        ['QoS 2', '?topic=a&qos=2', 400, 'bad_parameter'],
        ['many topics', `?${'topic=a&'.repeat(33)}`, 400, 'bad_parameter'],
    ]) {
        test(`a stream of ${what} is ${status}`, async () => {
            const answer = await request(broker, 'GET', `/api/v1/subscribe${query}`)
            assert.deepEqual([answer.status, answer.json.error], [status, error])
        })
    }

    for (const transport of ['tcp', 'tls']) {
        test(`a stream has what is retained and what comes, over ${transport}`, async () => {
            const topic = topicName('stream')
            const mqtt = await connect(broker, 'ws', 5)
            await mqtt.publishAsync(`${topic}/a`, 'old', { retain: true, qos: 1 })
            const stream = await subscribe(broker, [`${topic}/+`, topicName('other')], { transport })
            await mqtt.publishAsync(`${topic}/b`, 'zwei\nZeilen "ü"', { qos: 2, properties: { contentType: 'text/x' } })
            await mqtt.publishAsync(`${topic}/b`, Buffer.from([0, 255]), { qos: 0 })
            const events = await stream.events(3)
            assert.deepEqual(events.map((e) => e.data), [
                { topic: `${topic}/a`, payload: 'old', qos: 1, retain: true },
                { topic: `${topic}/b`, payload: 'zwei\nZeilen "ü"', content_type: 'text/x', qos: 2, retain: false },
                { topic: `${topic}/b`, payload_base64: 'AP8=', qos: 0, retain: false },
            ])
            assert.match(events[1].id, /^[0-9a-f]{32}-[0-9a-f]+$/)
            assert.equal(events[2].id, undefined)
            await broker.logged(/client "http\/[0-9a-f]{32}" connected from .* as HTTP event stream/)
            stream.cut()
            await broker.logged(/client "http\/[0-9a-f]{32}" disconnected: .*HTTP event stream/)
            await mqtt.endAsync()
        })
    }

    test('a stream goes on where it was cut, without a gap and without a repetition', async () => {
        const topic = topicName('resume')
        const mqtt = await connect(broker, 'tcp', 5)
        const send = async (from, to) => {
            for (let i = from; i < to; i++) {
                await mqtt.publishAsync(topic, `${i}`, { qos: 1 })
            }
        }
        const texts = (events) => events.map((e) => Number(e.data.payload))
        const range = (from, to) => [...Array(to - from).keys()].map((i) => i + from)
        let stream = await subscribe(broker, [topic])
        await send(0, 100)
        const all = await stream.events(100)
        stream.cut()
        await send(100, 120)
        /* It had seen all but the last seven. */
        stream = await subscribe(broker, [topic], { lastEventId: all[92].id })
        assert.deepEqual(texts(await stream.events(27)), range(93, 120))
        /* A second connection goes on, and the first, which still stands, ends. */
        const last = (await stream.events(27))[26].id
        const second = await subscribe(broker, [topic], { lastEventId: last })
        await within(stream.ended, 'end of the first')
        await send(120, 125)
        assert.deepEqual(texts(await second.events(5)), range(120, 125))
        second.cut()
        /* Ids that are none of a session begin anew, with a secret of the broker's. */
        const foreign = `${'0'.repeat(32)}-1`
        const fresh = await subscribe(broker, [topic], { lastEventId: foreign })
        await send(125, 126)
        const [event] = await fresh.events(1)
        assert.equal(event.data.payload, '125')
        assert.ok(!event.id.startsWith('0'.repeat(32)))
        fresh.cut()
        await mqtt.endAsync()
    })

    test('one connection serves many requests, pipelined in order', async () => {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
        for (let i = 0; i < 20; i++) {
            assert.equal((await request(broker, 'GET', '/healthz', { agent })).headers.connection, 'keep-alive')
        }
        assert.equal(Object.values(agent.freeSockets)[0].length, 1)
        agent.destroy()
        const topic = topicName('pipe')
        const post = (i) => `POST /api/v1/topics/${topic}-${i} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n`
        const text = await exchange(broker, [...Array(30).keys()].map(post).join('') +
            'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        const topics = [...text.matchAll(/"topic":"[^"]*-(\d+)"/g)].map((m) => Number(m[1]))
        assert.deepEqual(topics, [...Array(30).keys()])
        assert.match(text, /Connection: close\r\n\r\n\{"status":"ok"\}$/)
    })

    test('a head that comes byte by byte, and a body that waits for 100 Continue', async () => {
        const topic = topicName('bytes')
        const whole = `POST /api/v1/topics/${topic} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi`
        assert.match(await exchange(broker, ...whole), /^HTTP\/1\.1 200 OK\r\n[^]*"matched":0\}$/)
        const curl = await run('curl', ['-s', '-i', '-H', 'Expect: 100-continue', '--data-binary', '@-',
            `http://127.0.0.1:${broker.ports.tcp}/api/v1/topics/${topic}`], { input: 'x'.repeat(2000) }).done
        assert.match(curl.stdout, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/)
    })

    test('what is no HTTP is answered and closed', async () => {
        const bad = async (text, pattern) => assert.match(await exchange(broker, text), pattern)
        await bad('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nHELLO\r\n', /200 OK[^]*400 Bad Request[^]*bad_request/)
        await bad('POST /api/v1/publish HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', /400 Bad Request/)
        await bad(`GET /healthz HTTP/1.1\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`, /431 /)
        await bad(`GET /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`, /200 OK[^]*431 /)
    })

    test('the description knows every path and what is wrong with an answer', async () => {
        assert.deepEqual(Object.keys(api.paths), ['/healthz', '/readyz', '/api/v1/publish',
            '/api/v1/subscribe', '/api/v1/ws', '/api/v1/topics/{topic}'])
        assert.ok(operation('POST', '/api/v1/topics/a/b?qos=1'))
        assert.equal(operation('DELETE', '/api/v1/publish'), undefined)
        const result = { $ref: '#/components/schemas/Result' }
        assert.equal(mismatch({ topic: 'a', matched: 1 }, result), undefined)
        for (const wrong of [{ matched: 1 }, { topic: 1 }, { topic: 'a', matched: -1 }, { topic: 'a', other: 1 }, [], null]) {
            assert.ok(mismatch(wrong, result), JSON.stringify(wrong))
        }
        assert.throws(() => checkAnswer('GET', '/healthz', { status: 404, headers: {}, json: {} }))
        /* Every message that it calls good is taken, with each member that it names. */
        const message = {
            topic: topicName('described'), payload: { any: 'thing' }, qos: 1, retain: false, expiry: 1, idempotency_key: `d-${ioThreads}`,
            properties: { content_type: 'a/b', response_topic: 'r', correlation_data: '', user: {} },
        }
        assert.deepEqual(Object.keys(message).sort(),
            Object.keys(api.components.schemas.Message.properties).filter((name) => name !== 'payload_base64').sort())
        assert.equal((await publish(broker, message)).status, 200)
    })

    test('other paths and upgrades are as they were', async () => {
        assert.equal((await request(broker, 'GET', '/')).status, 426)
        assert.equal((await request(broker, 'GET', '/healthzz')).status, 426)
        assert.equal((await request(broker, 'POST', '/api/v2/x', { body: 'x' })).status, 405)
        for (const target of ['/healthz', '/api/v1/publish']) {
            const client = await connect({ url: () => `ws://127.0.0.1:${broker.ports.ws}${target}` }, 'ws', 5)
            await drained(client)
            await client.endAsync()
        }
    })

    test('without http_cors_origin no page of another origin gets in', async () => {
        const headers = { origin: 'https://evil.example' }
        const answer = await publish(broker, { topic: 'a', payload: 'x' }, '', { headers })
        assert.deepEqual([answer.status, answer.json.error], [403, 'origin_not_allowed'])
        const preflight = await request(broker, 'OPTIONS', '/api/v1/publish', { headers })
        assert.equal(preflight.headers['access-control-allow-origin'], undefined)
        const own = { origin: `http://127.0.0.1:${broker.ports.tcp}` }
        assert.equal((await publish(broker, { topic: 'a', payload: 'x' }, '', { headers: own })).status, 200)
    })
})

describe('HTTP and access', { skip }, () => {
    test('logins and rights', async () => {
        const passwords = path.join(scratchDir(), 'http-passwords')
        const acl = path.join(scratchDir(), 'http-acl')
        await run(executable, ['passwd', '-b', 'päss:wörd', passwords, 'ann']).done
        fs.writeFileSync(acl, 'user ann\ntopic write w/#\ntopic read r/#\npattern write %c/x\ntopic readwrite both\n')
        const config = [`password_file ${passwords}`, `acl_file ${acl}`, 'allow_anonymous true']
        const listeners = (ports) => [
            `listener ${ports.tcp} 127.0.0.1`, 'http_cors_origin https://a.example https://b.example',
            `listener ${ports.tls} 127.0.0.1`, 'protocol mqtt',
        ]
        await withBroker({ config, listeners }, async (broker) => {
            const ann = { headers: basic('ann', 'päss:wörd') }
            const post = async (topic, options) =>
                (await request(broker, 'POST', `/api/v1/topics/${topic}?retain=1`, { body: 'x', ...options })).status
            const get = async (topic, options) => (await request(broker, 'GET', `/api/v1/topics/${topic}`, options)).status
            assert.equal(await post('w/1', ann), 200)
            assert.equal(await post('r/1', ann), 403)
            assert.equal(await post('/x', ann), 403)
            assert.equal(await get('w/1', ann), 403)
            assert.equal(await get('r/1', ann), 404)
            assert.equal(await post('both', ann), 200)
            assert.equal(await get('both', ann), 200)
            assert.equal(await post('w/1', {}), 403) /* anonymous */
            for (const headers of [basic('ann', 'wrong'), basic('eve', 'x'), { authorization: 'Bearer x' }, { authorization: 'Basic ?' }]) {
                const answer = await request(broker, 'POST', '/api/v1/topics/w/1', { body: 'x', headers })
                assert.equal(answer.status, 401)
                assert.match(answer.headers['www-authenticate'], /^Basic realm=/)
                assert.equal(answer.json.error, 'not_logged_in')
            }
            await broker.logged(/HTTP request refused .*user="eve"/)
            /* On one connection with two users, pipelined: each has the rights of its own. */
            const auth = (headers) => `Authorization: ${headers.authorization}\r\n`
            const one = (headers, last) => 'POST /api/v1/topics/w/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n' +
                `${headers ? auth(headers) : ''}${last ? 'Connection: close\r\n' : ''}\r\nx`
            const text = await exchange(broker,
                one(ann.headers) + one() + one(ann.headers) + one(basic('ann', 'no')) + one(ann.headers, true))
            assert.deepEqual([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map((m) => Number(m[1])), [200, 403, 200, 401, 200])
            /* A stream gets what its user may read, and ends with the user's entry. */
            const denied = await request(broker, 'GET', '/api/v1/subscribe?topic=w/1', ann)
            assert.deepEqual([denied.status, denied.json.error], [403, 'not_allowed'])
            const stream = await subscribe(broker, ['#'], ann)
            const mqtt = await connect(broker, 'tcp', 5, { username: 'ann', password: 'päss:wörd' })
            await mqtt.publishAsync('w/1', 'no', { qos: 1 })
            await mqtt.publishAsync('both', 'yes', { qos: 1 })
            assert.deepEqual((await stream.events(2)).map((e) => `${e.data.topic} ${e.data.payload}`), ['both x', 'both yes'])
            await mqtt.endAsync()
            /* A reload counts for the next request of the same connection. */
            const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
            assert.equal(await post('w/1', { ...ann, agent }), 200)
            await run(executable, ['passwd', '-b', 'new', passwords, 'ann']).done
            await broker.reload(config)
            assert.equal(await post('w/1', { ...ann, agent }), 401)
            await within(stream.ended, 'end of the stream')
            agent.destroy()
            /* Health needs no login; pages of the listed origins may use the API. */
            const origin = 'https://b.example'
            assert.equal((await request(broker, 'GET', '/healthz', {})).status, 200)
            assert.equal((await request(broker, 'GET', '/readyz', {})).status, 200)
            const preflight = await request(broker, 'OPTIONS', '/api/v1/publish', { headers: { origin } })
            assert.equal(preflight.status, 204)
            assert.equal(preflight.headers['access-control-allow-origin'], origin)
            assert.match(preflight.headers['access-control-allow-headers'], /Authorization/)
            const allowed = await publish(broker, { topic: 'w/1', payload: 'x' }, '', { headers: { origin, ...basic('ann', 'new') } })
            assert.deepEqual([allowed.status, allowed.headers['access-control-allow-origin']], [200, origin])
        })
    })

    test('a listener without anonymous clients asks for a login', async () => {
        const passwords = path.join(scratchDir(), 'http-passwords-2')
        await run(executable, ['passwd', '-b', 'secret', passwords, 'ann']).done
        const listeners = (ports) => [`listener ${ports.tcp} 127.0.0.1`, `listener ${ports.tls} 127.0.0.1`]
        await withBroker({ config: [`password_file ${passwords}`], listeners }, async (broker) => {
            assert.equal((await publish(broker, { topic: 'a', payload: 'x' })).status, 401)
            const headers = basic('ann', 'secret')
            assert.equal((await publish(broker, { topic: 'a', payload: 'x' }, '', { headers })).status, 200)
        })
    })

    test('what was answered survives kill -9', async () => {
        const folder = fs.mkdtempSync(path.join(scratchDir(), 'http-store-'))
        const config = ['persistence true', `persistence_location ${folder}`]
        const first = await startBroker({ config })
        const topic = topicName('durable')
        const messages = [...Array(50).keys()].map((i) => ({ topic: `${topic}/${i}`, payload: i, retain: true, qos: 1 }))
        const answers = await Promise.all(messages.map((message) => publish(first, message)))
        first.child.kill('SIGKILL')
        await first.exit
        assert.ok(answers.every((answer) => answer.status === 200))
        await withBroker({ config }, async (second) => {
            for (const { topic: name, payload } of messages) {
                assert.equal((await request(second, 'GET', `/api/v1/topics/${name}`)).body.toString(), `${payload}`)
            }
        })
    })

    test('time limits: a request that does not come, and a broker that stops', async () => {
        await withBroker({ config: ['connect_timeout 1'] }, async (broker) => {
            const text = await exchange(broker, 'POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{')
            assert.match(text, /^HTTP\/1\.1 408 Request Timeout/)
            const topic = topicName('stops')
            const away = await connect(broker, 'tcp', 5, { clean: false, properties: { sessionExpiryInterval: 100 } })
            await away.subscribeAsync(topic, { qos: 1 })
            await away.endAsync()
            const waiting = publish(broker, { topic, payload: 'x', qos: 1 }, '?wait=acked&timeout=60')
            await delay(100)
            broker.child.kill('SIGTERM')
            assert.deepEqual((await waiting).json, { topic, matched: 1, acknowledged: 0 })
        })
    })
})
