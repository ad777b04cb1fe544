/* SIGHUP under load: no failed request, streams end whole, the same processes, no growth, each call at the price that it was admitted
 * at, and the new configuration at once. RELOADS (12) and RELOAD_MS (250); `make chaos` takes 60, one a second.
 * And the other signals: SIGUSR1, SIGTERM with a drain, SIGQUIT. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { before, describe } from 'node:test'
import { Books, startLoop, startProvider } from './lib/chaos.mjs'
import { later } from './lib/clean.mjs'
import { random } from './lib/random.mjs'
import { freePort, lateness, startGateway, until } from './lib/gateway.mjs'
import { request } from './lib/http.mjs'
import { cost, nano } from './lib/money.mjs'
import { chat, hangs, newGate, sse, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const RELOADS = Number(process.env.RELOADS ?? 12), RELOAD_MS = Number(process.env.RELOAD_MS ?? 250)

const shared = cleanUps()
let up, base
before(async () => {
  up = await startUpstream(shared)
  up.on('long', sse({ tokens: 100, every: 100 })) // ten seconds
  base = { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'long', 'brief'] }
})

/* The configuration of the i-th reload: other prices, models, tiers, upstreams and listeners than the one before. */
const PRICES = (i) => ({ input: '2.75', output: `${11 + i}` })
function changed(p, i, extra) {
  return {
    upstreams: [{ name: 'mock', url: p.url, retries: 1, connect_timeout: `${3 + (i % 5)}s` }, ...(i % 3 ? [{ name: `other-${i % 4}`, url: p.url }] : [])],
    models: [...['whole', 'stream', 'slow'].map((name) => ({ name, price: PRICES(i) })), `model-${i % 7}`, ...(i % 3 ? [{ name: 'elsewhere', route: `other-${i % 4} as whole` }] : [])],
    tiers: { busy: `rpm ${1000000 + i}; concurrency ${100 + i};`, [`tier-${i % 3}`]: `rpm ${i + 1};` },
    listen: i % 2 ? [`127.0.0.1:${extra}`] : [],
  }
}
/* Each was charged by the prices that stood when it was admitted: between its sending and its first byte. */
async function pricedByTheirSnapshot(g, loop, written) {
  let old = 0
  for (const u of (await g.ctl('usage', '--limit', 100000)).usage) {
    const f = loop.facts.get(u.request_id)
    if (!f || u.estimated) continue
    const mine = written.findIndex((_, i) => cost({ input: u.input_tokens, output: u.output_tokens }, PRICES(i)) === nano(u.cost))
    const last = written.findLastIndex((at) => at <= f.came), first = written.findLastIndex((at) => at <= f.sent - 2000)
    assert.ok(mine >= Math.max(first, 0) && mine <= last, `${u.request_id}: price ${mine}, not one of ${first} to ${last}`)
    if (written.findLastIndex((at) => at <= f.got) > mine + 1) old++
  }
  return old
}

describe('SIGHUP', () => {
  test(`${RELOADS} under load, ${RELOAD_MS} ms apart: prices, models, tiers, upstreams and listeners change`, { timeout: 180000 + RELOADS * RELOAD_MS * 3 }, async (t) => {
    const p = await startProvider(t), extra = await freePort()
    const g = await startGateway(t, { ...changed(p, 0, extra), top: { access_log: 'off' } })
    const books = new Books(g, p), keys = []
    for (let i = 0; i < 4; i++) { keys.push(await g.tenant({ credit: '1000', tier: 'busy' })); books.credit(keys[i].account, nano('1000')) }
    const rnd = random(1), mix = (r, i) => (i < 8 ? { model: 'slow', stream: true } : r() < 0.5 ? { model: 'whole' } : { model: 'stream', stream: true })
    const loop = startLoop({ port: g.port, keys, clients: 24, rnd, mix, prefix: 'h-', fresh: 3 })
    t.after(() => loop.stop())
    await until(() => loop.facts.size > 100, 'load')
    const pids = g.processes().map((x) => x.pid)
    const written = [0] // when the i-th configuration was put there
    let half, taken
    for (let i = 1; i <= RELOADS; i++) {
      written.push(performance.now())
      g.write(changed(p, i, extra))
      process.kill(g.pid, 'SIGHUP')
      await new Promise((r) => setTimeout(r, RELOAD_MS))
      const reached = await request({ port: extra, path: '/v1/models', key: keys[0].key }).then((r) => r.status, () => 0)
      await until(async () => (await request({ port: extra, path: '/v1/models', key: keys[0].key }).then((r) => r.status, () => 0)) === (i % 2 ? 200 : 0), `the listener to ${i % 2 ? 'come' : 'go'} (${reached})`)
      if (i === RELOADS >> 1) { half = g.resources(); taken = p.connections }
    }
    const end = g.resources(), more = p.connections - taken
    await loop.stop()
    assert.deepEqual(loop.failed, [])
    await books.check(loop)
    const idle = g.resources()
    const old = await pricedByTheirSnapshot(g, loop, written)
    assert.deepEqual(g.processes().map((x) => x.pid), pids, 'the same processes')
    const grown = []
    for (const pid of pids) {
      const a = half[pid], b = end[pid]
      for (const kind of Object.keys(b.fds)) if (!kind.startsWith('socket')) assert.ok(b.fds[kind] <= (a.fds[kind] ?? 0) + (kind.includes('snapshot') ? 1 : 0), `${pid}: ${JSON.stringify([a.fds, b.fds])}`)
      assert.ok((b.fds.socket ?? 0) <= (a.fds.socket ?? 0) + 6, `${pid}: ${JSON.stringify([a.fds, b.fds])}`)
      for (const [name, n] of Object.entries(idle[pid].maps)) if (name.includes('snapshot')) assert.equal(n, 1, `${pid}: ${n} times ${name}`) // the current one
      for (const [name, n] of Object.entries(b.maps)) if (!name.includes('snapshot')) assert.ok(n <= (a.maps[name] ?? 0) + 2, `${pid}: ${a.maps[name]} and ${n} times ${name}`)
      assert.ok(b.anonymous_kb <= a.anonymous_kb + 1500, `${pid}: ${a.anonymous_kb} and ${b.anonymous_kb} kB`)
      grown.push(b.anonymous_kb - a.anonymous_kb)
    }
    assert.ok(more <= 10, `${more} new connections to the provider in the second half`)
    assert.ok(old > 0, 'streams outlived reloads')
    t.diagnostic(`${loop.calls} calls, none failed; ${old} outlived two reloads or more; second half: memory of each process ${grown.join(', ')} kB, ${more} new upstream connections`)
  })
  test('the next request sees the new prices and models; one that runs keeps its own', async (t) => {
    const g = await startGateway(t, base)
    const k = await g.tenant()
    const { gate, open } = newGate()
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
  test('while it drains its admin listener says so, and holds nothing up', async (t) => {
    const g = await startGateway(t, { ...base, top: { drain_timeout: '60s' } })
    const k = await g.tenant(), { gate, open } = newGate(), n = up.of('brief').length
    up.on('brief', async (c) => { await gate; return chat()(c) })
    const held = g.chat(k.key, { model: 'brief' })
    await until(() => up.of('brief').length > n, 'the call upstream')
    process.kill(g.pid, 'SIGTERM')
    await until(() => g.req({ path: '/api/status' }).then(() => false, (e) => e.code === 'ECONNREFUSED'), 'a closed door')
    for (const [at, status, text] of [['/readyz', 503, /^draining$/], ['/healthz', 200, /^ok$/], ['/metrics', 200, /tollgate_connections_open/]]) {
      const r = await g.adminGet(at)
      assert.equal(r.status, status)
      assert.match(r.text, text)
    }
    const silent = net.connect(g.admin, '127.0.0.1').on('error', () => {})
    later(t, () => silent.destroy())
    await once(silent, 'connect')
    open()
    assert.equal((await held).status, 200)
    const ends = performance.now(), late = lateness(t)
    assert.deepEqual(await g.ended, { code: 0, signal: null })
    assert.ok(performance.now() - ends < 10000 + late())
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
    const begin = performance.now(), late = lateness(t)
    process.kill(g.pid, 'SIGQUIT')
    await g.ended
    assert.ok(performance.now() - begin < 3000 + late())
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
    assert.deepEqual(g.processes(), [])
  })
})
