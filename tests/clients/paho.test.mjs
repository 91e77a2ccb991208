/* python3-paho-mqtt over tcp, tls, ws and wss; paho_client.py holds the client's side. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { after, before, describe, test } from 'node:test'
import { run, startBroker, testCertificate, transports } from './harness.mjs'

const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'paho_client.py')

let broker

before(async () => (broker = await startBroker()))
after(async () => broker?.stop())

describe('paho', { concurrency: 3 }, () => {
    for (const version of ['3.1', '3.1.1', '5']) {
        for (const transport of transports) {
            test(`MQTT ${version} over ${transport}`, async () => {
                /* Debian's own interpreter, because the package installs paho for that one. */
                const result = await run('/usr/bin/python3', [
                    script, transport, `${broker.ports[transport]}`, version, testCertificate().cert,
                ]).done
                assert.equal(result.code, 0, result.stdout + result.stderr)
            })
        }
    }
})
