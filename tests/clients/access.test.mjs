/* Who gets in and what they may read and write: password and ACL files, over tcp and ws. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import {
    clientId, connect, connectPacket, cut, drained, executable, freePort, isMosquitto, rawConnection, reconnect, run,
    scratchDir, withBroker, within,
} from './harness.mjs'

/* What argon2(1) makes of "secret". */
const argon2id = '$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHQ$zh7Wnv7JCpAGLQz9ZrfxMp4acgi/bGM/'
let fileNext = 0

function scratch(text = '') {
    const file = path.join(scratchDir(), `access-${++fileNext}`)
    fs.writeFileSync(file, text)
    return file
}

async function passwd(file, user, password, ...args) {
    const { code, stderr } = await run(executable, ['passwd', ...args, file, user], { input: `${password}\n` }).done
    assert.equal(code, 0, stderr)
}

async function passwordFile(users, ...args) {
    const file = path.join(scratchDir(), `passwords-${++fileNext}`)
    for (const [user, password] of Object.entries(users)) {
        await passwd(file, user, password, ...args)
    }
    return file
}

function listeners(ports) {
    return [`listener ${ports.tcp} 127.0.0.1`, `listener ${ports.tls} 127.0.0.1`]
}

/* The error with which mqtt.js reports a refusal. */
async function refused(broker, transport, version, options) {
    return connect(broker, transport, version, options).then(
        () => assert.fail('it was let in'),
        (error) => error.code
    )
}

const skip = isMosquitto

describe('passwords', { skip }, () => {
    test('the right ones let in, over tcp and ws, from 3.1 to 5', async () => {
        const file = await passwordFile({ ann: 'secret', 'bob smith': 'pass:word' })
        fs.appendFileSync(file, `# by hand\ncarl:${argon2id}\n`)
        await withBroker({ config: [`password_file ${file}`], listeners }, async (broker) => {
            for (const transport of ['tcp', 'ws']) {
                for (const version of ['3.1', '3.1.1', 5]) {
                    const enter = (username, password) => connect(broker, transport, version, { username, password })
                    const fails = (username, password) => refused(broker, transport, version, { username, password })
                    for (const who of [['ann', 'secret'], ['bob smith', 'pass:word'], ['carl', 'secret']]) {
                        const client = await enter(...who)
                        await drained(client)
                        await client.endAsync()
                    }
                    const wrong = version === 5 ? 0x86 : 4
                    assert.equal(await fails('ann', 'wrong'), wrong)
                    assert.equal(await fails('ann', undefined), wrong)
                    assert.equal(await fails('eve', 'secret'), wrong)
                    assert.equal(await fails('carl', 'Secret'), wrong)
                    assert.equal(await fails(undefined, undefined), version === 5 ? 0x87 : 5)
                }
            }
        })
    })

    test('anonymous clients are let in beside them when they may', async () => {
        const file = await passwordFile({ ann: 'secret' })
        await withBroker({ config: [`password_file ${file}`] }, async (broker) => {
            await (await connect(broker, 'tcp', 5)).endAsync()
            await (await connect(broker, 'tcp', 5, { username: 'ann', password: 'secret' })).endAsync()
            assert.equal(await refused(broker, 'tcp', 5, { username: 'ann', password: 'x' }), 0x86)
        })
    })

    test('mosquitto_pub and mosquitto_sub log in', async () => {
        const file = await passwordFile({ ann: 'secret' })
        await withBroker({ config: [`password_file ${file}`], listeners }, async (broker) => {
            const to = ['-h', '127.0.0.1', '-p', `${broker.ports.tcp}`, '-u', 'ann', '-t', 'a/b']
            const sub = run('stdbuf', ['-oL', 'mosquitto_sub', ...to, '-P', 'secret', '-d', '-C', '1'])
            await sub.prints('Subscribed (mid')
            const pub = await run('mosquitto_pub', [...to, '-P', 'secret', '-m', 'hello', '-q', '1']).done
            assert.equal(pub.code, 0, pub.stderr)
            assert.match((await sub.done).stdout, /^hello$/m)
            const wrong = await run('mosquitto_pub', [...to, '-P', 'wrong', '-m', 'hello']).done
            assert.notEqual(wrong.code, 0)
            assert.match(wrong.stderr, /bad user name or password/i)
        })
    })

    test('what a client sends behind CONNECT waits for the answer', async () => {
        const file = await passwordFile({ ann: 'secret' }, '--iterations', '200000')
        const config = [`password_file ${file}`, 'allow_anonymous true', 'io_threads 2']
        await withBroker({ config, listeners }, async (broker) => {
            const watcher = await connect(broker, 'tcp', 5)
            await watcher.subscribeAsync('early')
            const link = await rawConnection(broker, 'tcp')
            const name = Buffer.from('ann')
            const text = (value) => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)])
            const body = Buffer.concat([text('MQTT'), Buffer.from([4, 0xc2, 0, 0]), text('early-1'), text(name), text('secret')])
            link.send(Buffer.concat([
                Buffer.from([0x10, body.length]), body,
                Buffer.from([0x30, 8]), text('early'), Buffer.from('x'), Buffer.from([0xc0, 0]),
            ]))
            assert.deepEqual([...await link.has(6)], [0x20, 2, 0, 0, 0xd0, 0])
            assert.equal((await watcher.received(1))[0].text, 'x')
            link.cut()
            await watcher.endAsync()
        })
    })

    test('three hundred at once all get in while others are served; some leave before', async () => {
        const file = await passwordFile({ ann: 'secret' }, '--iterations', '1000')
        const config = [`password_file ${file}`, 'allow_anonymous true', 'io_threads 2']
        await withBroker({ config, listeners }, async (broker) => {
            const watcher = await connect(broker, 'tcp', 5)
            const leavers = await Promise.all([...Array(40)].map(() => rawConnection(broker, 'tcp')))
            for (const link of leavers) {
                link.send(connectPacket(clientId(), { version: 4, user: 'ann' })) /* without a password */
            }
            const many = [...Array(300)].map((_, i) =>
                connect(broker, i % 2 ? 'tcp' : 'ws', 5, { username: 'ann', password: 'secret', connectTimeout: 30_000 }))
            await drained(watcher)
            const clients = await Promise.all(many)
            await Promise.all(clients.map((client) => client.endAsync()))
            await Promise.all(leavers.map((link) => within(link.closed, 'refusal')))
            await watcher.endAsync()
        })
    })

    test('a client that leaves and a broker that stops do not wait for a check', async () => {
        const file = await passwordFile({ ann: 'secret' }, '--iterations', '300000')
        await withBroker({ config: [`password_file ${file}`, 'io_threads 2'], listeners }, async (broker) => {
            const login = { username: 'ann', password: 'secret' }
            const doomed = [...Array(20)].map(() => connect(broker, 'tcp', 5, login).catch(() => undefined))
            const gone = await rawConnection(broker, 'tcp')
            gone.send(connectPacket(clientId(), { version: 4, user: 'ann' }))
            gone.cut()
            await broker.logged(/connected from/) /* the first check is over, others are not */
            broker.child.kill('SIGTERM')
            await Promise.all(doomed)
        })
    })

    test('a reload takes over a changed file, and keeps the old one when it is broken', async () => {
        const file = await passwordFile({ ann: 'secret', bob: 'word' })
        const config = [`password_file ${file}`]
        await withBroker({ config, listeners }, async (broker) => {
            const ann = await connect(broker, 'tcp', 5, { username: 'ann', password: 'secret' })
            const bob = await connect(broker, 'ws', 5, { username: 'bob', password: 'word' })
            const good = fs.readFileSync(file, 'utf8')
            fs.writeFileSync(file, `${good}carl\n`)
            await broker.reload(config, new RegExp(`Error: ${file}:3: .*no colon[^]*was not reloaded`))
            await drained(ann)
            await (await connect(broker, 'tcp', 5, { username: 'bob', password: 'word' })).endAsync()
            fs.writeFileSync(file, good)
            await passwd(file, 'carl', 'new')
            await passwd(file, 'bob', '', '-D')
            const left = once(bob, 'disconnect')
            await broker.reload(config)
            assert.equal((await within(left, 'DISCONNECT'))[0].reasonCode, 0x87)
            await broker.logged(/client .* disconnected: its entry in the password file was changed or removed/)
            await drained(ann)
            await (await connect(broker, 'tcp', 5, { username: 'carl', password: 'new' })).endAsync()
            assert.equal(await refused(broker, 'tcp', 5, { username: 'bob', password: 'word' }), 0x86)
            await ann.endAsync()
        })
    })

    test('per_listener_settings gives each listener its own file', async () => {
        const one = await passwordFile({ ann: 'one' })
        const two = await passwordFile({ ann: 'two' })
        const own = (ports) => [
            'per_listener_settings true',
            `listener ${ports.tcp} 127.0.0.1`, `password_file ${one}`,
            `listener ${ports.tls} 127.0.0.1`, `password_file ${two}`, 'protocol mqtt',
        ]
        await withBroker({ listeners: own }, async (broker) => {
            const at = (port, password) => connect(
                { url: () => `mqtt://127.0.0.1:${port}` }, 'tcp', 5, { username: 'ann', password })
            await (await at(broker.ports.tcp, 'one')).endAsync()
            await (await at(broker.ports.tls, 'two')).endAsync()
            await assert.rejects(at(broker.ports.tcp, 'two'))
        })
    })
})

describe('mistakes in the files', { skip }, () => {
    for (const key of ['password_file', 'acl_file']) {
        test(`${key}: file and line, at the start and in --check-config`, async () => {
            const file = scratch('# nothing\n\nnonsense\n')
            const config = scratch(`allow_anonymous true\nlistener ${await freePort()} 127.0.0.1\n${key} ${file}\n`)
            for (const more of [[], ['--check-config']]) {
                const { code, stderr } = await run(executable, ['-c', config, ...more]).done
                assert.equal(code, 1)
                assert.match(stderr, new RegExp(`Error: ${file}:3: .*nonsense|Error: ${file}:3: .*no colon`))
            }
        })

        test(`${key}: a file that is not there`, async () => {
            const config = scratch(`allow_anonymous true\nlistener ${await freePort()} 127.0.0.1\n${key} /nowhere/x\n`)
            const { code, stderr } = await run(executable, ['-c', config]).done
            assert.equal(code, 1)
            assert.match(stderr, /Error: \/nowhere\/x: cannot be read: No such file/)
        })
    }
})

const acl = `
topic read public/#
topic write inbox

user ann
topic readwrite home/#
topic deny home/safe/#
topic read $SYS/broker/version

pattern write devices/%c/state
pattern readwrite users/%u/#
`

for (const ioThreads of [0, 2]) describe(`acl_file with ${ioThreads} I/O threads`, { skip }, () => {
    async function withAcl(body) {
        const file = await passwordFile({ ann: 'secret', root: 'secret' })
        const config = [`password_file ${file}`, 'allow_anonymous true', `io_threads ${ioThreads}`]
        const rights = scratch(`${acl}user root\ntopic #\n`)
        await withBroker({ config: [...config, `acl_file ${rights}`] }, async (broker) => {
            const as = (username, transport, version, options) =>
                connect(broker, transport, version, { username, password: 'secret', ...options })
            const root = await as('root', 'tcp', 5)
            await body(broker, as, root, rights, [...config, `acl_file ${rights}`])
            await root.endAsync()
        })
    }

    for (const transport of ['tcp', 'ws']) {
        test(`publishing over ${transport}`, async () => {
            await withAcl(async (broker, as, root) => {
                await root.subscribeAsync('#', { qos: 2 })
                const id = clientId()
                const ann = await as('ann', transport, 5, { clientId: id })
                for (const topic of ['home/x', `devices/${id}/state`, 'users/ann/x/y']) {
                    await ann.publishAsync(topic, 'yes', { qos: 1 })
                    await ann.publishAsync(topic, 'yes', { qos: 2 })
                }
                for (const topic of ['home/safe/x', 'devices/other/state', 'users/bob/x', 'inbox', 'public/x']) {
                    for (const qos of [1, 2]) {
                        await assert.rejects(ann.publishAsync(topic, 'no', { qos }), { code: 0x87 })
                    }
                    await ann.publishAsync(topic, 'no', { qos: 0 })
                }
                /* Before MQTT 5 there is no refusal: acknowledged and dropped. */
                const old = await as('ann', transport, '3.1.1')
                for (const qos of [0, 1, 2]) {
                    await old.publishAsync('inbox', 'no', { qos })
                }
                await old.publishAsync('home/last', 'yes', { qos: 1 })
                const nobody = await connect(broker, transport, 5)
                await nobody.publishAsync('inbox', 'yes', { qos: 1 })
                await assert.rejects(nobody.publishAsync('users//x', 'no', { qos: 1 }), { code: 0x87 })
                await drained(root)
                assert.equal(root.inbox.length, 8)
                assert.ok(root.inbox.every((m) => m.text === 'yes'))
                await broker.logged(/refused to publish.*topic="home\/safe\/x"/)
                await Promise.all([ann.endAsync(), old.endAsync(), nobody.endAsync()])
            })
        })

        test(`subscribing over ${transport}: nothing leaks`, async () => {
            await withAcl(async (broker, as, root) => {
                const options = { retain: true, qos: 1 }
                const topics = ['public/a', 'home/a', 'home/safe/a', 'users/ann/a', 'users/bob/a', 'inbox']
                for (const topic of topics) {
                    await root.publishAsync(topic, 'old', options)
                }
                for (const version of ['3.1.1', 5]) {
                    const ann = await as('ann', transport, version, { clean: false, properties: version === 5 ? { sessionExpiryInterval: 100 } : undefined })
                    const grants = await ann.subscribeAsync(
                        ['#', 'home/safe/x', 'users/+/#', 'inbox', '$SYS/#', '$share/g/inbox'], { qos: 1 }
                    ).catch((error) => error.packet ?? assert.fail(error))
                    const granted = Array.isArray(grants) ? grants.map((g) => g.qos) : grants.granted
                    const no = version === 5 ? 0x87 : 0x80
                    assert.deepEqual(granted, [1, no, 1, no, 1, no])
                    for (const topic of topics) {
                        await root.publishAsync(topic, 'live', { qos: 1 })
                    }
                    const seen = () => ann.inbox.filter((m) => !m.topic.startsWith('$SYS'))
                    await ann.received(4)
                    await ann.publishAsync('users/ann/end', 'end', { qos: 1 })
                    await until(() => seen().some((m) => m.text === 'end'))
                    assert.deepEqual([...new Set(seen().map((m) => m.topic))].sort(),
                        ['home/a', 'users/ann/a', 'users/ann/end'])
                    assert.ok(ann.inbox.some((m) => m.topic === '$SYS/broker/version'))
                    assert.ok(ann.inbox.every((m) => !m.topic.startsWith('$SYS') || m.topic === '$SYS/broker/version'))
                    /* Neither while it is away. */
                    await cut(ann)
                    ann.inbox.length = 0
                    for (const topic of topics) {
                        await root.publishAsync(topic, 'away', { qos: 1 })
                    }
                    await reconnect(ann)
                    await ann.received(2)
                    await ann.publishAsync('users/ann/end', 'end', { qos: 1 })
                    await until(() => seen().some((m) => m.text === 'end'))
                    assert.deepEqual(seen().map((m) => `${m.topic} ${m.text}`),
                        ['home/a away', 'users/ann/a away', 'users/ann/end end'])
                    await ann.endAsync()
                }
            })
        })
    }

    test('a will that may not be published is dropped, and another one is not', async () => {
        await withAcl(async (broker, as, root) => {
            await root.subscribeAsync('#')
            const will = (topic) => ({ will: { topic, payload: 'gone', qos: 1, retain: false } })
            await cut(await as('ann', 'tcp', 5, will('inbox')))
            await broker.logged(/refused to publish.*topic="inbox"/)
            await cut(await as('ann', 'ws', '3.1.1', will('home/will')))
            assert.equal((await root.received(1))[0].topic, 'home/will')
        })
    })

    test('a reload applies to clients that are connected', async () => {
        await withAcl(async (broker, as, root, rights, config) => {
            const ann = await as('ann', 'tcp', 5)
            await ann.subscribeAsync('#')
            await root.publishAsync('home/x', '1')
            await ann.received(1)
            fs.writeFileSync(rights, 'user root\ntopic #\nuser ann\ntopic read other\n')
            await broker.reload(config)
            await root.publishAsync('home/x', '2')
            await root.publishAsync('other', '3')
            assert.equal((await ann.received(2))[1].text, '3')
            await assert.rejects(ann.publishAsync('home/x', 'no', { qos: 1 }), { code: 0x87 })
            fs.writeFileSync(rights, 'topic everything a b c\n')
            await broker.reload(config, new RegExp(`Error: ${rights}:1: .*everything[^]*was not reloaded`))
            await root.publishAsync('other', '4')
            await ann.received(3)
            await broker.reload(config.slice(0, -1))
            await ann.publishAsync('home/x', '5', { qos: 1 })
            await ann.received(4)
            await ann.endAsync()
        })
    })

    async function until(condition) {
        for (const deadline = Date.now() + 15_000; !condition();) {
            assert.ok(Date.now() < deadline, 'it takes too long')
            await new Promise((resolve) => setTimeout(resolve, 5))
        }
    }
})

describe('dunlin passwd', { skip }, () => {
    test('changes one entry and nothing else', async () => {
        const file = scratch('# head\nann:$6$x\n\nbob:y')
        fs.chmodSync(file, 0o640)
        await passwd(file, 'ann', 'secret')
        await passwd(file, 'carl', 'secret')
        const lines = fs.readFileSync(file, 'utf8').split('\n')
        assert.deepEqual([lines[0], lines[2], lines[3], lines[5]], ['# head', '', 'bob:y', ''])
        assert.match(lines[1], /^ann:\$7\$10000\$[\w+/]{16}\$[\w+/]{86}==$/)
        assert.match(lines[4], /^carl:\$7\$/)
        assert.equal(fs.statSync(file).mode & 0o777, 0o640)
        await passwd(file, 'ann', '', '-D')
        assert.match(fs.readFileSync(file, 'utf8'), /^# head\n\nbob:y\ncarl:.*\n$/)
        assert.deepEqual(fs.readdirSync(scratchDir()).filter((name) => name.startsWith(`${path.basename(file)}.`)), [])
    })

    test('a new file is for its owner only', async () => {
        const file = path.join(scratchDir(), 'new-passwords')
        await passwd(file, 'ann', 'secret')
        assert.equal(fs.statSync(file).mode & 0o777, 0o600)
    })

    for (const [args, status, pattern] of [
        [['--help'], 0, /Usage: dunlin passwd/],
        [[], 64, /FILE and USER/],
        [['x'], 64, /FILE and USER/],
        [['x', 'y', 'z'], 64, /unexpected argument: z/],
        [['--iterations', '0', 'x', 'y'], 64, /1 to 10000000, not: 0/],
        [['-b'], 64, /a value is missing after: -b/],
        [['-z', 'x', 'y'], 64, /unknown option: -z/],
        [['x', 'a:b'], 64, /no colon/],
        [['-b', '', 'x', 'y'], 64, /1 to 65535/],
        [['/nowhere/x', 'y', '-b', 'p'], 1, /\/nowhere\/x: No such file/],
        [['-D', '/nowhere/x', 'y'], 1, /no such user/],
    ]) {
        test(`${args.join(' ') || 'nothing'} ends with ${status}`, async () => {
            const { code, stdout, stderr } = await run(executable, ['passwd', ...args], { input: '' }).done
            assert.equal(code, status, stderr)
            assert.match(stdout + stderr, pattern)
        })
    }
})
