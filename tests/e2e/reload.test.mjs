/* SIGHUP under load: no failed request, streams end whole, the same worker processes, and the new configuration at once.
 * And the other signals: SIGUSR1, SIGTERM with a drain, SIGQUIT. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { after, before, describe } from 'node:test'
import { cleanUp, startGateway, until } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { chat, hangs, sse, startUpstream } from './upstream.mjs'
import { test } from './lib/test.mjs'

const shared = []
let up, base
before(async () => {
  up = await startUpstream()
  shared.push(() => up.close())
  up.on('long', sse({ tokens: 100, every: 100 })) // ten seconds
  base = { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'long', 'brief'] }
})
after(() => cleanUp(shared))

describe('SIGHUP', () => {
  test('twenty under load, with ten-second streams running', { timeout: 60000 }, async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant({ credit: '1000' })
    const pids = await g.workers()
    const streams = Array.from({ length: 6 }, () => g.stream(k.key, { model: 'long' }))
    for (const s of streams) assert.equal((await s.head).status, 200)
    let stop = false, calls = 0
    t.after(() => { stop = true })
    const bad = []
    const agents = Array.from({ length: 8 }, (_, i) => (i % 2 ? new http.Agent({ keepAlive: true, maxSockets: 1 }) : false))
    const load = agents.map(async (agent) => {
      while (!stop) {
        try { const r = await g.chat(k.key, {}, { agent }); calls++; if (r.status !== 200) bad.push(r.text) } catch (e) { bad.push(e.message) }
      }
    })
    for (let i = 0; i < 20; i++) {
      process.kill(g.pid, 'SIGHUP')
      await new Promise((r) => setTimeout(r, 250))
    }
    const ended = await Promise.all(streams.map((s) => s.all()))
    stop = true
    await Promise.all(load)
    for (const a of agents) if (a) a.destroy()
    assert.deepEqual(bad, [])
    assert.ok(calls > 200, `${calls} calls`)
    for (const e of ended) { assert.equal(e.at(-1), '[DONE]'); assert.equal(e.filter((x) => x.choices?.[0]?.delta?.content?.startsWith('word')).length, 100) }
    assert.deepEqual(await g.workers(), pids)
    await g.settled(k.account)
    await g.audit()
  })
  test('the next request sees the new prices and models; one that runs keeps its own', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    let open
    const gate = new Promise((resolve) => { open = resolve })
    up.on('gated-reload', sse({ tokens: 1, gate, gateAt: 1 }))
    await g.reload({ models: [...base.models, 'gated-reload'] })
    await until(async () => (await g.req({ path: '/v1/models/gated-reload', key: k.key })).status === 200, 'the new model')
    const s = g.stream(k.key, { model: 'gated-reload' })
    await s.head
    const r = await g.reload({ models: ['gpt-4o', { name: 'gated-reload', price: { input: '1000', output: '1000' } }] })
    assert.equal(r.code, 0, r.stderr)
    await until(async () => (await g.req({ path: '/v1/models/long', key: k.key })).status === 404, 'the reload')
    open()
    await s.all()
    const [u] = await g.usage(k.account)
    assert.ok(nano(u.cost) < nano('0.001'), `the old price: ${u.cost}`)
  })
  test('a configuration with an error changes nothing and says why', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    writeFileSync(g.conf, g.config.replace('base_url', 'base_ulr'))
    const r = await g.ctlRaw('--json', 'reload')
    assert.equal(r.code, 1)
    assert.match(r.stdout + r.stderr, /gateway\.conf:\d+:\d+: .*base_ur?l/)
    process.kill(g.pid, 'SIGHUP')
    await until(() => /gateway\.conf:\d+:\d+/.test(g.errorLog() + g.output), 'the reason in the log')
    assert.equal((await g.chat(k.key)).status, 200)
  })
  test('what cannot change while running is refused', async (t) => {
    const g = await startGateway(t, base)
    writeFileSync(g.conf, g.config.replace('max_active 512', 'max_active 1024'))
    const r = await g.ctlRaw('--json', 'reload')
    assert.equal(r.code, 1)
    assert.match(r.stdout + r.stderr, /needs a restart/)
  })
  test('more and fewer workers', async (t) => {
    const g = await startGateway(t, { ...base, workers: 1 })
    const k = await g.tenant()
    const [first] = await g.workers()
    await g.reload({ workers: 3 })
    await until(async () => (await g.workers()).length === 3, 'three workers')
    assert.ok((await g.workers()).includes(first))
    await g.reload({ workers: 1 })
    await until(async () => (await g.workers()).length === 1, 'one worker')
    assert.equal((await g.chat(k.key)).status, 200)
  })
})

describe('the other signals', () => {
  test('SIGUSR1 reopens the logs', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    await g.chat(k.key)
    await until(() => g.accessLog().length === 1, 'the first line')
    renameSync(path.join(g.dir, 'access.jsonl'), path.join(g.dir, 'access.1'))
    process.kill(g.pid, 'SIGUSR1')
    await until(() => existsSync(path.join(g.dir, 'access.jsonl')), 'a new file')
    await until(async () => { await g.chat(k.key); return g.accessLog().length > 0 }, 'lines in it')
    const line = g.accessLog()[0]
    assert.equal(line.model, 'gpt-4o')
    assert.equal(line.status, 200)
    assert.ok(readFileSync(path.join(g.dir, 'access.1'), 'utf8').trim().split('\n').length >= 1)
  })
  test('SIGTERM drains: streams end whole, new connections are refused, exit 0', async (t) => {
    const g = await startGateway(t, { ...base, top: { drain_timeout: '20s' } })
    const k = await g.tenant()
    up.on('brief', sse({ tokens: 20, every: 50 }))
    const streams = Array.from({ length: 4 }, () => g.stream(k.key, { model: 'brief' }))
    for (const s of streams) await s.next()
    process.kill(g.pid, 'SIGTERM')
    await until(async () => { try { return (await g.adminGet('/readyz')).status === 503 } catch { return true } }, 'not ready')
    for (const s of streams) assert.equal((await s.all()).at(-1), '[DONE]')
    assert.deepEqual(await g.ended, { code: 0, signal: null })
    await g.start()
    const b = await g.settled(k.account)
    assert.ok(nano(b.balance) < nano('100'))
    assert.equal((await g.usage(k.account, 4)).length, 4)
    await g.audit()
  })
  test('Ctrl-C reaches all of the group and is a drain all the same', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    up.on('brief', sse({ tokens: 10, every: 50 }))
    const s = g.stream(k.key, { model: 'brief' })
    await s.next()
    process.kill(-g.pid, 'SIGINT')
    assert.equal((await s.all()).at(-1), '[DONE]')
    assert.deepEqual(await g.ended, { code: 0, signal: null })
  })
  test('a drain that takes too long is ended: an error event, what was delivered is charged', async (t) => {
    const g = await startGateway(t, { ...base, top: { drain_timeout: '1s' } })
    const k = await g.tenant()
    const s = g.stream(k.key, { model: 'long' })
    for (let i = 0; i < 3; i++) await s.next()
    process.kill(g.pid, 'SIGTERM')
    await s.all().catch(() => {})
    assert.ok(!s.text.includes('[DONE]'))
    assert.equal((await g.ended).code, 0)
    await g.start()
    const [u] = await g.usage(k.account)
    assert.ok(nano(u.cost) > 0n)
    assert.equal(u.estimated, true)
    assert.equal((await g.balance(k.account)).held, '0')
    await g.audit()
  })
  test('SIGQUIT ends at once; what was delivered is still charged', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    up.on('hang-after', sse({ tokens: 20, hangAt: 10 }))
    await g.reload({ models: [...base.models, 'hang-after'] })
    const s = g.stream(k.key, { model: 'hang-after' })
    for (let i = 0; i < 8; i++) await s.next()
    const begin = performance.now()
    process.kill(g.pid, 'SIGQUIT')
    await g.ended
    assert.ok(performance.now() - begin < 3000)
    await s.all().catch(() => {})
    await g.start()
    const [u] = await g.usage(k.account)
    assert.ok(nano(u.cost) > 0n)
    await g.audit()
  })
  test('SIGTERM with nothing running ends at once and leaves no process', async (t) => {
    const g = await startGateway(t, base)
    up.on('gpt-4o', chat()).on('nothing', hangs())
    const all = g.processes()
    assert.ok(all.length >= 4, 'master, ledger, two workers')
    process.kill(g.pid, 'SIGTERM')
    assert.equal((await g.ended).code, 0)
    await until(() => g.processes().length === 0, 'no process left', 3000)
  })
})
