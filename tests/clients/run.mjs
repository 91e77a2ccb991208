#!/usr/bin/env node
/*
 * Runs test files in parallel, each in a process of its own with its own broker.
 *
 * usage: run.mjs [FILE...]      default: every *.test.mjs beside this script
 * Prints what failed, then one line for each file; the last line is `N passed, N failed`.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const parallel = Math.max(2, os.cpus().length)
const fileTimeoutMs = 240_000

function testFiles() {
    return fs.readdirSync(here).filter((name) => name.endsWith('.test.mjs')).sort()
}

function runFile(file) {
    return new Promise((resolve) => {
        const child = spawn(process.execPath, ['--test-reporter=tap', path.resolve(here, file)], {
            stdio: ['ignore', 'pipe', 'pipe'],
        })
        let output = ''
        child.stdout.on('data', (chunk) => (output += chunk))
        child.stderr.on('data', (chunk) => (output += chunk))
        const timer = setTimeout(() => child.kill('SIGTERM'), fileTimeoutMs)
        child.once('close', (code) => {
            clearTimeout(timer)
            resolve({ file, output, ...tally(output, code) })
        })
    })
}

/* The last `# pass N` and `# fail N` are the reporter's; a file that broke counts as a failure. */
function tally(output, code) {
    const last = (name) => Number(output.match(new RegExp(`^# ${name} (\\d+)$`, 'gm'))?.at(-1)?.split(' ')[2] ?? 0)
    const failed = last('fail') + last('cancelled')
    return { passed: last('pass'), failed: code !== 0 && failed === 0 ? 1 : failed }
}

function report({ file, output, passed, failed }, seconds) {
    if (failed > 0) {
        console.log(output.split('\n').filter((line) => !/^\s*(ok |duration_ms)/.test(line)).join('\n'))
    }
    console.log(`${file}: ${passed} passed, ${failed} failed (${seconds.toFixed(1)} s)`)
}

const queue = process.argv.length > 2 ? process.argv.slice(2) : testFiles()
const total = { passed: 0, failed: 0 }

async function worker() {
    for (let file = queue.shift(); file; file = queue.shift()) {
        const start = performance.now()
        const result = await runFile(file)
        report(result, (performance.now() - start) / 1000)
        total.passed += result.passed
        total.failed += result.failed
    }
}

await Promise.all(Array.from({ length: parallel }, worker))
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0)
