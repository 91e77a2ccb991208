/* mosquitto_pub and mosquitto_sub, as Debian ships them, over tcp and tls. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { run, startBroker, testCertificate, topicName } from './harness.mjs'

let broker

before(async () => (broker = await startBroker()))
after(async () => broker?.stop())

function address(transport, version) {
    return [
        '-h', '127.0.0.1', '-p', `${broker.ports[transport]}`, '-V', version,
        ...(transport === 'tls' ? ['--cafile', testCertificate().cert] : []),
    ]
}

function publish(to, args, options) {
    return run('mosquitto_pub', [...to, ...args], options).done
}

async function published(to, args, options) {
    const { code, stderr } = await publish(to, args, options)
    assert.equal(code, 0, stderr)
}

/* Starts mosquitto_sub and waits until the broker has granted its subscription. */
async function subscriber(to, args) {
    const sub = run('stdbuf', ['-oL', 'mosquitto_sub', ...to, '-d', '-F', 'got %q %r %t %p', ...args])
    await sub.prints('Subscribed (mid')
    return sub
}

function got(result) {
    return result.stdout.split('\n').filter((line) => line.startsWith('got '))
}

for (const version of ['mqttv31', 'mqttv311', 'mqttv5']) {
    for (const transport of ['tcp', 'tls']) {
        describe(`mosquitto clients, ${version} over ${transport}`, { concurrency: 4 }, () => {
            for (const qos of [0, 1, 2]) {
                test(`a message at QoS ${qos}`, async () => {
                    const to = address(transport, version)
                    const topic = topicName('mosquitto')
                    const sub = await subscriber(to, ['-t', topic, '-q', `${qos}`, '-C', '2'])
                    await published(to, ['-t', topic, '-q', `${qos}`, '-m', 'hello'])
                    await published(to, ['-t', topic, '-q', `${qos}`, '-s'], { input: 'world' })
                    const result = await sub.done
                    assert.equal(result.code, 0, result.stderr)
                    assert.deepEqual(got(result), [`got ${qos} 0 ${topic} hello`, `got ${qos} 0 ${topic} world`])
                })
            }

            test('a message for each line of a file', async () => {
                const to = address(transport, version)
                const topic = topicName('lines')
                const lines = [...Array(200).keys()].map((i) => `line ${i}`)
                const sub = await subscriber(to, ['-t', topic, '-q', '1', '-C', '200'])
                await published(to, ['-t', topic, '-q', '1', '-l'], { input: lines.join('\n') + '\n' })
                assert.deepEqual(got(await sub.done), lines.map((line) => `got 1 0 ${topic} ${line}`))
            })

            test('retained messages, and clearing them', async () => {
                const to = address(transport, version)
                const root = topicName('retained')
                await published(to, ['-t', `${root}/a`, '-q', '1', '-r', '-m', 'kept'])
                const filter = ['-t', `${root}/+`, '-q', '1', '-W', '10']
                const first = await (await subscriber(to, [...filter, '-C', '1'])).done
                assert.deepEqual(got(first), [`got 1 1 ${root}/a kept`])
                await published(to, ['-t', `${root}/a`, '-q', '1', '-r', '-n'])
                await published(to, ['-t', `${root}/b`, '-q', '1', '-r', '-m', 'other'])
                const second = await (await subscriber(to, [...filter, '-C', '1'])).done
                assert.deepEqual(got(second), [`got 1 1 ${root}/b other`])
            })

            test('the will of a client that was killed', async () => {
                const to = address(transport, version)
                const [topic, other] = [topicName('will'), topicName('other')]
                const watcher = await subscriber(to, ['-t', topic, '-q', '1', '-C', '1'])
                const will = ['--will-topic', topic, '--will-payload', 'gone', '--will-qos', '1']
                const victim = await subscriber(to, ['-t', other, ...will])
                victim.child.kill('SIGKILL')
                await victim.done
                assert.deepEqual(got(await watcher.done), [`got 1 0 ${topic} gone`])
            })

            test('a persistent session', async () => {
                const to = address(transport, version)
                const topic = topicName('session')
                const id = `mos-${process.pid}-${transport}-${version}`.slice(0, 23)
                const session = ['-i', id, '-c', '-t', topic, '-q', '1']
                if (version === 'mqttv5') {
                    session.push('-x', '300')
                }
                const once = await run('mosquitto_sub', [...to, ...session, '-E']).done
                assert.equal(once.code, 0, once.stderr)
                for (const text of ['one', 'two', 'three']) {
                    await published(to, ['-t', topic, '-q', '1', '-m', text])
                }
                const result = await run('mosquitto_sub', [...to, ...session, '-C', '3']).done
                assert.equal(result.stdout, 'one\ntwo\nthree\n')
            })
        })
    }
}

test('mosquitto_rr gets an answer over MQTT 5', async () => {
    const to = address('tcp', 'mqttv5')
    const [question, answer] = [topicName('question'), topicName('answer')]
    const echo = await subscriber(to, ['-t', question, '-C', '1'])
    const asked = run('mosquitto_rr', [...to, '-t', question, '-e', answer, '-m', 'there?', '-W', '15'])
    assert.deepEqual(got(await echo.done), [`got 0 0 ${question} there?`])
    await published(to, ['-t', answer, '-m', 'here'])
    const result = await asked.done
    assert.equal(result.code, 0, result.stderr)
    assert.equal(result.stdout, 'here\n')
})

test('a client that does not trust the certificate goes away, others stay', async () => {
    const to = address('tls', 'mqttv311')
    const stranger = [...to.slice(0, -1), '/etc/ssl/certs/ca-certificates.crt']
    assert.notEqual((await publish(stranger, ['-t', 'x', '-m', 'y'])).code, 0)
    await published(to, ['-t', 'x', '-m', 'y'])
})
