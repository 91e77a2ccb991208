#!/usr/bin/env node
/*
 * Starts the broker under test, runs a command against it, and stops it.
 *
 * usage: with_broker.mjs COMMAND [ARGUMENT...]
 * An argument that is PORT becomes the port of a listener that speaks MQTT and WebSocket, TLSPORT
 * that of the one with a certificate; WSPORT is for mosquitto, which has no listener for both.
 * Fails if the command fails or the broker does not end with exit code 0.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { startBroker } from './harness.mjs'

const broker = await startBroker()
const values = { PORT: broker.ports.tcp, WSPORT: broker.ports.ws, TLSPORT: broker.ports.tls }
const [command, ...rest] = process.argv.slice(2).map((arg) => `${values[arg] ?? arg}`)
const child = spawn(command, rest, { stdio: ['ignore', 'inherit', 'inherit'] })
const [code] = await once(child, 'close')
try {
    await broker.stop()
    process.exitCode = code ?? 1
} catch (error) {
    console.log(error.message)
    process.exitCode = 1
}
