#!/usr/bin/env node
/*
 * soak: many idle WebSocket clients beside traffic, and whether the broker keeps them all.
 *
 * usage: soak.mjs [--clients 5000] [--seconds 300] [--rate 200] [--keepalive 60] [--tls]
 * Every client is mqtt.js with one subscription of its own. One publisher sends `rate` messages a
 * second at QoS 1 round the clients, so that each is idle for clients/rate seconds between two;
 * one more pair of clients is kept busy with 64-byte messages of its own. Prints a line every ten
 * seconds; fails when a client is disconnected, a message is lost or late by LATE_MS, or the
 * broker's memory grows by more than GROWTH between the first and the last fifth of the time.
 * Not part of `./dev test`, because it takes minutes.
 */
import fs from 'node:fs'
import { parseArgs } from 'node:util'
import { clientId, connect, delay, startBroker } from './harness.mjs'

const LATE_MS = 2000
const GROWTH = 1.02
const CONNECTING_AT_ONCE = 100

const { values } = parseArgs({
    options: {
        clients: { type: 'string', default: '5000' },
        seconds: { type: 'string', default: '300' },
        rate: { type: 'string', default: '200' },
        keepalive: { type: 'string', default: '60' },
        tls: { type: 'boolean', default: false },
    },
})
const clientCount = Number(values.clients)
const seconds = Number(values.seconds)
const rate = Number(values.rate)
const transport = values.tls ? 'wss' : 'ws'

const broker = await startBroker({ config: ['max_connections -1'] })

let stopping = false
let crashed = false
broker.exit.then(() => (crashed = !stopping))

function residentKiB() {
    const status = fs.readFileSync(`/proc/${broker.pid}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? NaN)
}

const totals = { dropped: 0, received: 0, sent: 0, lateMs: 0 }
const drops = []

async function idleClient(i) {
    const client = await connect(broker, transport, i % 2 ? '5' : '3.1.1', {
        keepalive: Number(values.keepalive),
        clientId: clientId('idle'),
    })
    client.on('close', () => {
        if (!stopping) {
            totals.dropped++
            drops.push(`client ${i}: ${client.lastError?.message ?? 'closed by the broker'}`)
        }
    })
    client.on('message', (topic, payload) => {
        totals.received++
        totals.lateMs = Math.max(totals.lateMs, Date.now() - Number(payload))
        client.inbox.length = 0
    })
    await client.subscribeAsync(`soak/${i}`, { qos: 1 })
    return client
}

const before = residentKiB()
const clients = []
for (let i = 0; i < clientCount; i += CONNECTING_AT_ONCE) {
    const batch = Math.min(CONNECTING_AT_ONCE, clientCount - i)
    clients.push(...(await Promise.all(Array.from({ length: batch }, (_, k) => idleClient(i + k)))))
}
const perClient = ((residentKiB() - before) / clientCount).toFixed(2)
console.log(`${clientCount} clients connected; broker at ${residentKiB()} KiB, ${perClient} KiB a client`)

const publisher = await connect(broker, 'tcp', '5')
const busySender = await connect(broker, 'tcp', '3.1.1')
const busyReceiver = await connect(broker, transport, '5')
const busy = { sent: 0, received: 0 }
busyReceiver.on('message', () => {
    busy.received++
    busyReceiver.inbox.length = 0
})
await busyReceiver.subscribeAsync('busy', { qos: 0 })

const samples = []
const start = Date.now()
let reported = 0
while (!crashed && Date.now() - start < seconds * 1000) {
    const elapsed = (Date.now() - start) / 1000
    while (totals.sent < elapsed * rate) {
        publisher.publish(`soak/${totals.sent % clientCount}`, `${Date.now()}`, { qos: 1 })
        totals.sent++
    }
    for (let i = 0; i < 20; i++) {
        busySender.publish('busy', 'x'.repeat(64))
        busy.sent++
    }
    samples.push(residentKiB())
    if (elapsed - reported >= 10) {
        reported = elapsed
        console.log(`${elapsed.toFixed(0)} s: broker ${samples.at(-1)} KiB, ${totals.received}/${totals.sent} ` +
            `delivered, latest by ${totals.lateMs} ms, ${totals.dropped} clients lost`)
    }
    await delay(20)
}

/* What is still under way gets as long as a message may take. */
for (const end = Date.now() + LATE_MS; totals.received < totals.sent && Date.now() < end; ) {
    await delay(20)
}
stopping = true
const fifth = Math.max(1, Math.floor(samples.length / 5))
const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length
const growth = mean(samples.slice(-fifth)) / mean(samples.slice(0, fifth))
const failures = [
    crashed && `the broker ended by itself: ${broker.log.slice(-1000)}`,
    totals.dropped > 0 && `${totals.dropped} clients were disconnected: ${drops.slice(0, 5).join('; ')}`,
    totals.received !== totals.sent && `${totals.sent - totals.received} messages did not arrive`,
    busy.received !== busy.sent && `${busy.sent - busy.received} busy messages did not arrive`,
    totals.lateMs > LATE_MS && `a message took ${totals.lateMs} ms`,
    growth > GROWTH && `memory grew by a factor of ${growth.toFixed(3)}`,
].filter(Boolean)
console.log(`${totals.received} and ${busy.received} messages in ${seconds} s, latest by ${totals.lateMs} ms; ` +
    `memory x${growth.toFixed(3)}, at most ${Math.max(...samples)} KiB`)
await broker.stop().catch((error) => failures.push(error.message.slice(0, 2000)))
console.log(failures.length ? failures.join('\n') : 'soak: passed')
process.exit(failures.length ? 1 : 0)
