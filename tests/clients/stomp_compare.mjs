#!/usr/bin/env node
/*
 * stomp_compare: the same STOMP conversations with any broker, for docs/from-rabbitmq.md.
 *
 * usage: BROKER=127.0.0.1:61613 LOGIN=guest PASSCODE=guest stomp_compare.mjs > one.txt
 *        ./with_broker.mjs ./stomp_compare.mjs PORT > other.txt; diff one.txt other.txt
 *
 * Prints what the broker answers, without what differs from run to run. Says nothing about right and
 * wrong.
 */
import { delay } from './harness.mjs'
import { RawStomp, frame } from './stomp_raw.mjs'

const port = (process.argv[2] ?? process.env.BROKER ?? '1883').split(':').at(-1)
const broker = { ports: { tcp: Number(port) } }
const login = { login: process.env.LOGIN ?? 'guest', passcode: process.env.PASSCODE ?? 'guest' }
const quietMs = 400
const run = process.pid

/* What depends on the run. */
function normal(value) {
    return value.replace(/session-[\w-]+|auto-[0-9a-f]+/g, 'SESSION').replace(/T_\S+|\d+-\d+-\d+/g, 'ID')
        .replace(/amq\.gen-[\w-]+|[0-9a-f]{32}/g, 'GENERATED').replaceAll(String(run), 'RUN')
}

function show(who, found) {
    const headers = Object.entries(found.headers).sort().map(([name, value]) => `${name}:${normal(value)}`)
    const body = found.command === 'ERROR' ? '' : ` ${JSON.stringify(found.text)}`
    console.log(`  ${who} ${found.command} ${headers.join(' ')}${body}`)
}

async function heard(clients) {
    await delay(quietMs)
    for (const [who, client] of Object.entries(clients)) {
        client.frames.splice(0).forEach((found) => show(who, found))
        if (client.closed && !client.told) {
            client.told = true
            console.log(`  ${who} is closed`)
        }
    }
}

/* Each line is [who, command, headers, body]; ACKs name a header of the last MESSAGE. */
async function scene(name, version, lines) {
    console.log(`${name}`)
    const clients = {}
    const last = {}
    for (const [who, command, headers = {}, body] of lines) {
        if (!clients[who]) {
            clients[who] = await RawStomp.open(broker)
            clients[who].send('CONNECT', { 'accept-version': version, host: '/', ...login })
            await clients[who].expect('CONNECTED')
        }
        const client = clients[who]
        const filled = Object.fromEntries(Object.entries(headers).map(([key, value]) =>
            [key, String(value).replace('LAST.ack', last[who]?.ack).replace('LAST.message-id', last[who]?.['message-id'])
                .replace('LAST.reply-to', last[who]?.['reply-to'])]))
        if (command === 'CUT') {
            client.destroy()
            delete clients[who]
            await delay(quietMs)
            continue
        }
        client.write(frame(command, filled, body))
        await delay(quietMs)
        for (const [name, { frames }] of Object.entries(clients)) {
            frames.forEach((found) => found.command === 'MESSAGE' && (last[name] = found.headers))
        }
        await heard(clients)
    }
    Object.values(clients).forEach((client) => client.destroy())
    await delay(quietMs / 2)
}

async function connects() {
    console.log('CONNECT')
    for (const headers of [{ 'accept-version': '1.0,1.1,1.2' }, {}, { 'accept-version': '1.2', 'heart-beat': '10000,10000' },
        { 'accept-version': '1.2', 'heart-beat': '0,500' }, { 'accept-version': '2.0' }]) {
        const client = await RawStomp.open(broker)
        client.send('CONNECT', { host: '/', ...login, ...headers })
        await heard({ [JSON.stringify(headers)]: client })
        client.destroy()
    }
}

const topic = (name) => `/topic/cmp.${run}.${name}`
const queue = (name) => `/queue/cmp-${run}-${name}`
const individual = { ack: 'client-individual' }

await connects()
await scene('a topic and a receipt', '1.2', [
    ['A', 'SUBSCRIBE', { id: 1, destination: topic('*'), receipt: 's' }],
    ['A', 'SEND', { destination: topic('x'), 'content-type': 'text/plain', foo: 'b\\car', persistent: 'true', priority: 4, receipt: 'r' }, 'hello'],
    ['A', 'SEND', { destination: `/exchange/amq.topic/cmp.${run}.y`, 'correlation-id': 7, expiration: 60000 }, 'exchange'],
    ['A', 'UNSUBSCRIBE', { id: 1, receipt: 'u' }],
    ['A', 'DISCONNECT', { receipt: 'd' }],
])
await scene('two subscriptions to one topic', '1.1', [
    ['A', 'SUBSCRIBE', { id: 1, destination: topic('two') }],
    ['A', 'SUBSCRIBE', { id: 2, destination: topic('two') }],
    ['A', 'SEND', { destination: topic('two') }, 'both'],
])
await scene('1.0 without an id', '1.0', [
    ['A', 'SUBSCRIBE', { destination: topic('old') }],
    ['A', 'SEND', { destination: topic('old') }, 'x'],
    ['A', 'UNSUBSCRIBE', { destination: topic('old'), receipt: 'u' }],
])
await scene('a queue keeps, redelivers, takes NACK', '1.2', [
    ['A', 'SEND', { destination: queue('q'), receipt: 'r' }, 'one'],
    ['A', 'SEND', { destination: queue('q') }, 'two'],
    ['A', 'CUT'],
    ['B', 'SUBSCRIBE', { id: 1, destination: queue('q'), ...individual, 'prefetch-count': 1 }],
    ['B', 'NACK', { id: 'LAST.ack', receipt: 'n' }],
    ['B', 'ACK', { id: 'LAST.ack', receipt: 'a' }],
    ['B', 'CUT'],
    ['C', 'SUBSCRIBE', { id: 1, destination: queue('q') }],
])
await scene('cumulative acknowledgement', '1.1', [
    ['A', 'SUBSCRIBE', { id: 's', destination: queue('c'), ack: 'client' }],
    ['A', 'SEND', { destination: queue('c') }, '1'],
    ['A', 'SEND', { destination: queue('c') }, '2'],
    ['A', 'ACK', { subscription: 's', 'message-id': 'LAST.message-id', receipt: 'a' }],
    ['A', 'UNSUBSCRIBE', { id: 's', receipt: 'u' }],
    ['A', 'SUBSCRIBE', { id: 's', destination: queue('c') }],
])
await scene('an acknowledgement twice', '1.2', [
    ['A', 'SUBSCRIBE', { id: 1, destination: queue('t'), ...individual }],
    ['A', 'SEND', { destination: queue('t') }, 'x'],
    ['A', 'ACK', { id: 'LAST.ack', receipt: 'a' }],
    ['A', 'ACK', { id: 'LAST.ack', receipt: 'b' }],
])
await scene('transactions', '1.2', [
    ['A', 'SUBSCRIBE', { id: 1, destination: queue('tx') }],
    ['A', 'BEGIN', { transaction: 't', receipt: 'b' }],
    ['A', 'SEND', { destination: queue('tx'), transaction: 't', receipt: 's' }, 'in t'],
    ['A', 'COMMIT', { transaction: 't', receipt: 'c' }],
    ['A', 'BEGIN', { transaction: 't' }],
    ['A', 'SEND', { destination: queue('tx'), transaction: 't' }, 'never'],
    ['A', 'ABORT', { transaction: 't', receipt: 'a' }],
])
await scene('a temp-queue', '1.2', [
    ['B', 'SUBSCRIBE', { id: 1, destination: queue('service') }],
    ['A', 'SEND', { destination: queue('service'), 'reply-to': '/temp-queue/mine' }, 'ask'],
    ['B', 'SEND', { destination: 'LAST.reply-to' }, 'answer'],
])
await scene('a durable subscription', '1.2', [
    ['A', 'SUBSCRIBE', { id: `d${run}`, destination: topic('d'), durable: 'true', 'auto-delete': 'false', receipt: 's' }],
    ['A', 'CUT'],
    ['B', 'SEND', { destination: topic('d') }, 'missed'],
    ['A', 'SUBSCRIBE', { id: `d${run}`, destination: topic('d'), durable: 'true', 'auto-delete': 'false' }],
    ['A', 'UNSUBSCRIBE', { id: `d${run}`, durable: 'true', 'auto-delete': 'false', receipt: 'u' }],
])
for (const [name, version, ...line] of [
    ['a path-like topic', '1.2', 'SUBSCRIBE', { id: 1, destination: '/topic/a/b', receipt: 'r' }],
    ['no prefix', '1.2', 'SUBSCRIBE', { id: 1, destination: 'a/b', receipt: 'r' }],
    ['# in the middle', '1.2', 'SUBSCRIBE', { id: 1, destination: '/topic/a.#.b', receipt: 'r' }],
    ['another exchange', '1.2', 'SUBSCRIBE', { id: 1, destination: '/exchange/amq.fanout', receipt: 'r' }],
    ['a queue that is not there', '1.2', 'SUBSCRIBE', { id: 1, destination: '/amq/queue/none', receipt: 'r' }],
    ['a selector', '1.2', 'SUBSCRIBE', { id: 1, destination: topic('sel'), selector: 'a=1', receipt: 'r' }],
    ['no id', '1.2', 'SUBSCRIBE', { destination: topic('noid'), receipt: 'r' }],
    ['an unknown ack mode', '1.2', 'SUBSCRIBE', { id: 1, destination: topic('ack'), ack: 'never', receipt: 'r' }],
    ['a subscription that is not there', '1.2', 'UNSUBSCRIBE', { id: 9, receipt: 'r' }],
    ['a transaction that is not there', '1.2', 'COMMIT', { transaction: 'none', receipt: 'r' }],
    ['an unknown command', '1.2', 'SHOUT', { receipt: 'r' }],
    ['SEND without a destination', '1.2', 'SEND', { receipt: 'r' }],
    ['SEND to a wildcard', '1.2', 'SEND', { destination: '/topic/a.*', receipt: 'r' }],
    ['SEND to a temp-queue', '1.2', 'SEND', { destination: '/temp-queue/x', receipt: 'r' }],
    ['an escape that is none', '1.2', 'SEND', { destination: topic('e'), a: '\\t', receipt: 'r' }],
    ['an empty line inside CONNECT again', '1.2', 'CONNECT', { receipt: 'r' }],
]) {
    await scene(name, version, [['A', ...line]])
}
process.exit(0)
