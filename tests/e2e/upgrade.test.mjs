/* SIGUSR2: the binary at the same path takes over in place. No failed request, streams end whole, the same process id; and
 * where the new binary cannot, the old one goes on. */
import assert from 'node:assert/strict'
import { chmodSync, copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe } from 'node:test'
import { cleanUp, startGateway, until } from './lib/gateway.mjs'
import { test } from './lib/test.mjs'
import { sse, startUpstream } from './upstream.mjs'

const build = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../..', process.env.B ?? 'build')
const shared = []
let up, bin
before(async () => {
  up = await startUpstream()
  shared.push(() => up.close())
  up.on('long', sse({ tokens: 40, every: 100 }))
  bin = mkdtempSync(path.join(os.tmpdir(), 'tg-bin-'))
  shared.push(() => rmSync(bin, { recursive: true, force: true }))
})
after(() => cleanUp(shared))

/* A server from a copy of the binary, so that the file can be replaced. */
async function startCopy(t, name, top = {}) {
  const program = path.join(bin, name)
  copyFileSync(path.join(build, 'tollgate'), program)
  const g = await startGateway(t, { program, upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'long'], top })
  await until(async () => (await g.ctl('status')).state === 'up', 'all its workers') // ready is earlier: with the first
  return g
}
function replace(g, make) {
  make(`${g.o.program}.new`)
  chmodSync(`${g.o.program}.new`, 0o755)
  renameSync(`${g.o.program}.new`, g.o.program)
}

/* Calls on kept and on new connections until stop(), which gives what went wrong. */
function load(t, g, key) {
  let stop = false, calls = 0
  t.after(() => { stop = true })
  const bad = []
  const agents = Array.from({ length: 6 }, (_, i) => (i % 2 ? new http.Agent({ keepAlive: true, maxSockets: 1 }) : false))
  const running = agents.map(async (agent) => {
    while (!stop) {
      try { const r = await g.chat(key, {}, { agent }); calls++; if (r.status !== 200) bad.push(r.text) } catch (e) { bad.push(e.message) }
    }
  })
  return async () => {
    stop = true
    await Promise.all(running)
    for (const a of agents) if (a) a.destroy()
    return { bad, calls }
  }
}

describe('SIGUSR2', () => {
  test('three under load, with streams running', { timeout: 60000 }, async (t) => {
    const g = await startCopy(t, 'three')
    const k = await g.tenant({ credit: '1000' })
    const first = await g.workers()
    const streams = Array.from({ length: 4 }, () => g.stream(k.key, { model: 'long' }))
    for (const s of streams) assert.equal((await s.head).status, 200)
    const stop = load(t, g, k.key)
    for (let i = 0; i < 3; i++) {
      const { pid } = (await g.ctl('status')).ledger
      replace(g, (to) => copyFileSync(path.join(build, 'tollgate'), to))
      if (i === 0) process.kill(g.pid, 'SIGUSR2')
      else await until(async () => (await g.ctlRaw('upgrade')).code === 0, 'room beside the workers that drain', 15000)
      await until(async () => { const s = await g.ctl('status'); return s.state === 'up' && s.ledger.state === 'up' && s.ledger.pid !== pid }, 'the new ledger', 15000)
    }
    const ended = await Promise.all(streams.map((s) => s.all()))
    const { bad, calls } = await stop()
    assert.deepEqual(bad, [])
    assert.ok(calls > 50, `${calls} calls`)
    for (const e of ended) assert.equal(e.at(-1), '[DONE]')
    assert.equal((await g.ctl('status')).pid, g.pid, 'the same process')
    await until(async () => { const now = await g.workers(); return now.length === first.length && now.every((p) => !first.includes(p)) }, 'the old workers to drain')
    await g.settled(k.account)
    await g.audit()
  })
  test('a new binary that says no, or cannot even run: the old one goes on, no request fails', async (t) => {
    const g = await startCopy(t, 'refusing')
    const k = await g.tenant({ credit: '1000' })
    const workers = await g.workers()
    const stop = load(t, g, k.key)
    for (const text of ['#!/bin/sh\nexit 1\n', 'no program at all']) {
      replace(g, (to) => writeFileSync(to, text))
      const r = await g.ctlRaw('--json', 'upgrade')
      assert.equal(r.code, 1, r.stdout + r.stderr)
      assert.equal(r.json.error.code, 'upgrade_refused')
    }
    const { bad } = await stop()
    assert.deepEqual(bad, [])
    assert.deepEqual(await g.workers(), workers)
    assert.match(g.errorLog(), /upgrade refused: the new binary's probe says no/)
    await g.settled(k.account)
    await g.audit()
  })
  test('a configuration that is wrong refuses the upgrade', async (t) => {
    const g = await startCopy(t, 'wrong')
    writeFileSync(g.conf, `${g.config}\nnonsense 1;\n`)
    const r = await g.ctlRaw('--json', 'upgrade')
    assert.equal(r.code, 1, r.stdout + r.stderr)
    assert.match(g.errorLog(), /nonsense/)
    writeFileSync(g.conf, g.config)
    assert.equal((await g.ctl('upgrade')).upgraded, true)
    await g.audit()
  })
})
