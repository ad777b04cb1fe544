/* kill -9 at random moments under a closed loop of 200 clients, of workers, the ledger, the master, or everything at once. After
 * each of them, once idle: the audit finds no difference, nothing is held, every place is free and not one more, and every call
 * has the one record that it should: with the provider's figures where it ended, else marked as an estimate that lies between what
 * the client has and what the provider sent. CHAOS_KILLS (16) says how many, half of them on two workers and half on four;
 * `make chaos` asks for 1,000. CHAOS_SEED repeats a run's choices. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, describe } from 'node:test'
import { STEPS_BUILD, TOLLGATE, run, startGateway, until, withSteps } from './lib/gateway.mjs'
import { Books, Client, quantiles, startLoop, startProvider } from './lib/chaos.mjs'
import { random, seeded } from './lib/random.mjs'
import { nano } from './lib/money.mjs'
import { chat, sse, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const KILLS = Number(process.env.CHAOS_KILLS ?? 16)
const SEED = seeded(process.env.CHAOS_SEED).seed
const CLIENTS = 200, TENANTS = 10, PLACES = 18 // of a key: two fewer than it has clients
const CREDIT = '100000'

const shared = cleanUps()
let up
before(async () => {
  up = await startUpstream(shared)
  up.on('whole', chat())
})

const WORKER = { worker: (g, s, rnd) => kill([s.workers[Math.floor(rnd() * s.workers.length)].pid]), workers: (g, s) => kill(s.workers.map((w) => w.pid)) }
const KINDS = ['worker', 'worker', 'workers', 'ledger', 'worker and ledger', 'master', 'everything']
function kill(pids) {
  for (const p of pids) try { process.kill(p, 'SIGKILL') } catch { /* gone */ }
  return pids
}
/* Kills, and waits until all processes are there again. */
async function killOne(g, what, rnd, n, mark) {
  if (what === 'everything' || what === 'master') {
    mark()
    if (what === 'everything') await g.killAll()
    else { kill([g.pid]); await g.ended }
    await g.start() // at once: the new one waits for what is left of the old
    return
  }
  const s = await g.ctl('status')
  mark()
  const gone = what === 'ledger' ? [] : WORKER[what.split(' ')[0]](g, s, rnd)
  if (what.includes('ledger')) kill([s.ledger.pid])
  await until(async () => {
    const now = await g.ctl('status')
    return now.workers.length === n && !now.workers.some((w) => gone.includes(w.pid)) && now.ledger.state === 'up' && (!what.includes('ledger') || now.ledger.pid !== s.ledger.pid)
  }, 'all processes')
}

/* All places of one key are free, and there is not one more. */
async function places(g, p, loop, { key, account }) {
  const id = (i) => `${loop.prefix}gate-${i}`
  const clients = Array.from({ length: PLACES + 1 }, () => new Client(g.port))
  const calls = clients.slice(0, PLACES).map((c, i) => c.call({ key, id: id(i), model: 'gate' }))
  await until(() => p.waiting.size === PLACES, `${PLACES} calls at the provider`)
  assert.equal((await clients[PLACES].call({ key, id: id(PLACES), model: 'gate' })).status, 429)
  p.open()
  for (const [i, r] of (await Promise.all(calls)).entries()) {
    assert.equal(r.status, 200)
    loop.note(id(i), account, r)
  }
  for (const c of clients) c.close()
}
describe('kill -9', () => {
  for (const workers of [2, 4]) test(`${KILLS / 2} times under load, ${CLIENTS} clients, ${workers} workers (seed ${SEED})`, { timeout: 180000 + KILLS * 6000 }, async (t) => {
    const rnd = random(SEED + workers)
    const p = await startProvider(t)
    const g = await startGateway(t, {
      workers, upstreams: [{ name: 'mock', url: p.url, retries: 1, cooldown: '1s' }, { name: 'faulty', url: p.url, retries: 0, cooldown: '1s' }],
      models: ['whole', 'stream', 'long', 'gate', { name: 'fails', route: 'faulty' }], tiers: { busy: `concurrency ${PLACES}; rpm 100000000; tpm 1000000000000;` },
      top: { access_log: 'off' },
    })
    const tenants = []
    for (let i = 0; i < TENANTS; i++) tenants.push(await g.tenant({ credit: CREDIT, tier: 'busy', ...(i % 2 && { limit: CREDIT }) }))
    const books = new Books(g, p)
    for (const k of tenants) books.credit(k.account, nano(CREDIT))
    const ends = {}, statuses = {}, service = {}, restored = {}
    let calls = 0, loop
    t.after(() => loop?.stop())
    for (let i = 0; i < KILLS / 2; i++) {
      const what = KINDS[Math.floor(rnd() * KINDS.length)]
      const since = new Date(Date.now() - 2000).toISOString()
      loop = startLoop({ port: g.port, keys: tenants, clients: CLIENTS, rnd, prefix: `k${i}-` })
      try {
        await new Promise((r) => setTimeout(r, 100 + rnd() * 200))
        await killOne(g, what, rnd, workers, () => loop.now());
        (restored[what] ??= []).push(performance.now() - loop.mark);
        (service[what] ??= []).push(await until(() => loop.firstAfter, 'service') - loop.mark)
        if (rnd() < 0.3) await new Promise((r) => setTimeout(r, rnd() * 100))
        await loop.stop()
        await books.idle()
        await places(g, p, loop, tenants[Math.floor(rnd() * TENANTS)])
        await books.check(loop, since)
      } catch (e) {
        await loop.stop()
        e.message = `after kill ${i + 1} (${what}), seed ${SEED}: ${e.message}\n${g.log()}`
        throw e
      }
      calls += loop.calls
      for (const f of loop.facts.values()) ends[f.end] = (ends[f.end] ?? 0) + 1
      for (const [k, n] of Object.entries(loop.statuses)) statuses[k] = (statuses[k] ?? 0) + n
    }
    t.diagnostic(`${calls} calls: ${JSON.stringify(ends)}, statuses ${JSON.stringify(statuses)}`)
    t.diagnostic(books.report())
    for (const what of Object.keys(service)) t.diagnostic(`${what}: first new call answered after ms ${JSON.stringify(quantiles(service[what]))}, all processes back after ${JSON.stringify(quantiles(restored[what]))}`)
    assert.ok(books.sum.exact > KILLS && books.sum.estimated > 0, 'there was load')
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
    await until(() => g.processes().length === 0, 'the end of the workers')
    assert.ok(g.exists(), 'the shared memory stays')
    await g.start()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
    assert.equal((await g.usage(k.account, 2)).length, 2)
    await g.audit()
  })
  test('the very first record, not committed yet when all died: the next server takes calls at once', withSteps, async (t) => {
    const g = await startGateway(t, { program: STEPS_BUILD, env: { TOLLGATE_STEPS: 'drain.built:1~300' }, workers: 1, upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const k = await g.tenant()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
    await g.killAll()
    await g.start({ wait: false })
    const first = await until(() => g.chat(k.key, { model: 'whole' }).catch(() => false), 'an answer')
    assert.equal(first.status, 200, first.text)
    assert.equal((await g.usage(k.account, 2)).length, 2)
    await g.audit()
  })
  test('a second master on the same state is refused while the first runs', async (t) => {
    const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const r = await run(TOLLGATE, ['-c', g.conf], { ms: 30000 })
    assert.notEqual(r.code, 0)
    assert.ok((r.stdout + r.stderr).length > 0)
    assert.equal((await g.adminGet('/readyz')).status, 200)
  })
  test('a worker that is stopped (hung) is killed and replaced', async (t) => {
    const g = await startGateway(t, { workers: 2, upstreams: [{ name: 'mock', url: up.url }], models: ['whole'] })
    const pids = await g.workers()
    process.kill(pids[0], 'SIGSTOP')
    await until(async () => { const now = await g.workers(); return now.length === 2 && !now.includes(pids[0]) }, 'a replacement', 60000)
    const k = await g.tenant()
    assert.equal((await g.chat(k.key, { model: 'whole' })).status, 200)
  })
  for (const alone of [true, false]) {
    test(`a worker that runs in a circle is noticed${alone ? '' : ' at once where another has died'}, killed and replaced, its calls settled`, withSteps, async (t) => {
      const p = await startProvider(t)
      const g = await startGateway(t, { program: STEPS_BUILD, env: { TOLLGATE_STEPS: 'hold.held:60!' }, workers: 3, upstreams: [{ name: 'mock', url: p.url }], models: ['whole', 'stream', 'long'], tiers: { busy: 'concurrency 100;' } })
      const books = new Books(g, p), k = await g.tenant({ credit: CREDIT, tier: 'busy' }), before = await g.workers()
      books.credit(k.account, nano(CREDIT))
      const loop = startLoop({ port: g.port, keys: [k], clients: 20, rnd: random(SEED) })
      t.after(() => loop.stop())
      await until(() => g.output.includes('steps: hangs at hold.held'), 'a worker that hangs')
      const begin = performance.now()
      if (!alone) { // it is not the one that hangs, which takes all the time that it gets
        const busy = (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')[11]
        const was = before.map(busy)
        await new Promise((r) => setTimeout(r, 200))
        const idlest = before.map((pid, i) => [busy(pid) - was[i], pid]).sort((a, b) => a[0] - b[0])[0][1]
        process.kill(idlest, 'SIGKILL')
      }
      const gone = alone ? 1 : 2
      await until(async () => { const now = await g.workers(); return now.length === 3 && before.filter((x) => !now.includes(x)).length === gone }, 'a replacement')
      const ms = Math.round(performance.now() - begin)
      assert.match(g.errorLog(), alone ? /is killed: it has not turned for 5 s/ : /is killed: the ledger waits for it to turn/)
      await loop.stop()
      await books.check(loop)
      t.diagnostic(`replaced after ${ms} ms`)
    })
  }
})
