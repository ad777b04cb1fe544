/* kill -9 at random moments under load, of a worker, the ledger, the master, or everything at once. After each of them,
 * once idle: the audit finds no difference, nothing is held, every place is free, and every answer that a client got
 * whole has been charged, once. CHAOS_KILLS (24) says how many; `make chaos` asks for 200. CHAOS_SEED repeats a run's choices. */
import assert from 'node:assert/strict'
import { after, before, describe } from 'node:test'
import { cleanUp, startGateway, until } from './lib/gateway.mjs'
import { digitsOf, nano } from './lib/money.mjs'
import { chat, sse, startUpstream, status } from './upstream.mjs'
import { test } from './lib/test.mjs'

const KILLS = Number(process.env.CHAOS_KILLS ?? 24)
const SEED = Number(process.env.CHAOS_SEED ?? Date.now() % 1_000_000)
const LOADERS = 12
const CREDIT = '1000'

const shared = []
let up
before(async () => {
  up = await startUpstream()
  shared.push(() => up.close())
  up.on('whole', chat()).on('stream', sse({ tokens: 12, every: 3 })).on('long', sse({ tokens: 60, every: 8 })).on('fails', status(500))
})
after(() => cleanUp(shared))

function random(seed) { // mulberry32
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/* Clients that call until they are told to stop; what they saw is added up in `seen`. */
function load(t, g, tenants, rnd, seen) {
  let stop = false
  t.after(() => { stop = true })
  const one = async (i) => {
    const tenant = tenants[i % tenants.length]
    while (!stop) {
      const r = rnd()
      const id = `r-${i}-${seen.next++}`
      const o = { headers: { 'X-Request-Id': id } }
      try {
        if (r < 0.45) {
          const a = await g.chat(tenant.key, { model: 'whole', max_tokens: 200 }, o)
          if (a.status === 200) seen.whole.push([tenant.account, id, nano(digitsOf(a.text, 'cost_usd'))])
          else { seen.statuses[a.status] = (seen.statuses[a.status] ?? 0) + 1; await new Promise((w) => setTimeout(w, 5)) }
        } else if (r < 0.95) {
          const s = g.stream(tenant.key, { model: r < 0.75 ? 'stream' : 'long', max_tokens: 200 }, o)
          const head = await s.head
          if (head.status !== 200) { seen.statuses[head.status] = (seen.statuses[head.status] ?? 0) + 1; await s.all().catch(() => {}); continue }
          if (rnd() < 0.3) { for (let n = 0; n < 3; n++) await s.next(); s.abort(); continue }
          const list = await s.all()
          if (list.at(-1) === '[DONE]') seen.whole.push([tenant.account, id, nano(digitsOf(s.text, 'cost_usd'))])
        } else await g.chat(tenant.key, { model: 'fails', max_tokens: 10 }, o)
      } catch { // the connection died with its process
        seen.cut++
        await new Promise((w) => setTimeout(w, 3))
      }
    }
  }
  const all = Array.from({ length: LOADERS }, (_, i) => one(i))
  return { stop: () => { stop = true; return Promise.all(all) } }
}
async function killOne(g, what, rnd) {
  if (what === 'everything') { await g.killAll(); await g.start(); return }
  if (what === 'master') {
    process.kill(g.pid, 'SIGKILL')
    await g.ended
    await g.start() // at once: the new one waits for what is left of the old
    return
  }
  const s = await g.ctl('status')
  if (what === 'ledger') {
    process.kill(s.ledger.pid, 'SIGKILL')
    await until(async () => { const n = (await g.ctl('status')).ledger.pid; return n && n !== s.ledger.pid }, 'a new ledger', 15000)
    return
  }
  const victims = rnd() < 0.2 ? s.workers : [s.workers[Math.floor(rnd() * s.workers.length)]]
  for (const v of victims) try { process.kill(v.pid, 'SIGKILL') } catch { /* gone */ }
  await until(async () => {
    const w = (await g.ctl('status')).workers
    return w.length === 2 && victims.every((v) => !w.some((x) => x.pid === v.pid))
  }, 'a new worker', 15000)
}
/* What must be true once nothing runs any more. */
async function verify(g, tenants, seen) {
  for (const t of tenants) {
    const b = await g.settled(t.account, 10000)
    assert.equal(b.available, b.balance)
    const charged = nano(CREDIT) - nano(b.balance)
    const whole = seen.whole.filter(([a]) => a === t.account).reduce((n, [, , c]) => n + c, 0n)
    assert.ok(charged >= whole, `${t.account}: charged ${charged}, but its clients got answers for ${whole}`)
  }
  await until(async () => (await g.audit()) || true, 'a clean audit', 5000)
}

describe('kill -9', () => {
  test(`${KILLS} times under load (seed ${SEED})`, { timeout: 60000 + KILLS * 6000 }, async (t) => {
    const rnd = random(SEED)
    const g = await startGateway(t, {
      workers: 2, upstreams: [{ name: 'mock', url: up.url, retries: 1, cooldown: '1s' }, { name: 'faulty', url: up.url, retries: 0, cooldown: '1s' }],
      models: ['whole', 'stream', 'long', { name: 'fails', route: 'faulty' }], tiers: { busy: 'concurrency 6; rpm 100000; tpm 1000000000;' },
    })
    const tenants = []
    for (let i = 0; i < 4; i++) tenants.push(await g.tenant({ credit: CREDIT, tier: 'busy', limit: CREDIT }))
    const seen = { whole: [], statuses: {}, cut: 0, next: 0 }
    const tally = {}
    for (let i = 0; i < KILLS; i++) {
      const what = ['worker', 'worker', 'ledger', 'master', 'everything'][Math.floor(rnd() * 5)]
      tally[what] = (tally[what] ?? 0) + 1
      const running = load(t, g, tenants, rnd, seen)
      await new Promise((r) => setTimeout(r, 30 + rnd() * 150))
      try {
        await killOne(g, what, rnd)
        if (rnd() < 0.3) await new Promise((r) => setTimeout(r, rnd() * 100))
      } finally { await running.stop() }
      try { await verify(g, tenants, seen) } catch (e) {
        e.message = `after kill ${i + 1} (${what}), seed ${SEED}: ${e.message}\n${g.log()}`
        throw e
      }
    }
    t.diagnostic(`${JSON.stringify(tally)}; ${seen.whole.length} whole answers, ${seen.cut} cut, others ${JSON.stringify(seen.statuses)}`)
    assert.ok(seen.whole.length > KILLS * 3, 'there was load')
    // Each of the last whole answers has one record, with the cost that the client was told.
    for (const t of tenants) {
      const records = new Map()
      for (const u of (await g.ctl('usage', '--account', t.account, '--limit', 1000)).usage) {
        assert.ok(!records.has(u.request_id), `two records of ${u.request_id}`)
        records.set(u.request_id, u)
      }
      for (const [, id, c] of seen.whole.filter(([a]) => a === t.account).slice(-60)) {
        assert.ok(records.has(id), `no record of ${id}`)
        assert.equal(nano(records.get(id).cost), c)
      }
    }
    // All six places of each key are free.
    for (const t of tenants) {
      const list = await Promise.all(Array.from({ length: 6 }, () => g.chat(t.key, { model: 'whole', max_tokens: 20 })))
      assert.deepEqual(list.map((r) => r.status), [200, 200, 200, 200, 200, 200])
    }
  })

  test('a worker killed in mid-stream: the client is cut, pays for what it got, its place is free', async (t) => {
    const g = await startGateway(t, { workers: 1, upstreams: [{ name: 'mock', url: up.url }], models: ['held-open', 'whole'], tiers: { one: 'concurrency 1;' } })
    up.on('held-open', sse({ tokens: 20, hangAt: 9 }))
    const k = await g.tenant({ tier: 'one' })
    const s = g.stream(k.key, { model: 'held-open' })
    for (let i = 0; i < 8; i++) await s.next()
    const [pid] = await g.workers()
    process.kill(pid, 'SIGKILL')
    await assert.rejects(s.all())
    const [u] = await g.usage(k.account)
    assert.equal(u.estimated, true)
    assert.ok(nano(u.cost) > 0n)
    await until(async () => (await g.chat(k.key, { model: 'whole' })).status === 200, 'a free place')
    await g.audit()
  })
  test('a worker killed before anything was delivered: nothing is charged', async (t) => {
    const g = await startGateway(t, { workers: 1, upstreams: [{ name: 'mock', url: up.url }], models: ['mute'] })
    up.on('mute', (c) => c.hang())
    const k = await g.tenant()
    const call = g.chat(k.key, { model: 'mute' }).catch((e) => e)
    await until(async () => (await g.balance(k.account)).held !== '0', 'a hold')
    process.kill((await g.workers())[0], 'SIGKILL')
    assert.ok((await call) instanceof Error)
    assert.equal((await g.settled(k.account)).balance, '100')
  })
  test('the master killed: its workers end too, and a new one takes over the accounts and the shared memory', async (t) => {
    const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const k = await g.tenant()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
    process.kill(g.pid, 'SIGKILL')
    await g.ended
    await until(() => g.processes().length === 0, 'the end of the workers', 5000)
    assert.ok(g.exists(), 'the shared memory stays')
    await g.start()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
    assert.equal((await g.usage(k.account, 2)).length, 2)
    await g.audit()
  })
  test('a second master on the same state is refused while the first runs', async (t) => {
    const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const { run, TOLLGATE } = await import('./lib/gateway.mjs')
    const r = await run(TOLLGATE, ['-c', g.conf], { ms: 30000 })
    assert.notEqual(r.code, 0)
    assert.ok((r.stdout + r.stderr).length > 0)
    assert.equal((await g.adminGet('/readyz')).status, 200)
  })
  test('a worker that is stopped (hung) is killed and replaced', { timeout: 90000 }, async (t) => {
    const g = await startGateway(t, { workers: 2, upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const pids = await g.workers()
    process.kill(pids[0], 'SIGSTOP')
    await until(async () => { const now = await g.workers(); return now.length === 2 && !now.includes(pids[0]) }, 'a replacement', 60000)
    const k = await g.tenant()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
  })
})
