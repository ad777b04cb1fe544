/* What a disk does to a ledger, under load: full, read-only, failing; and a ring that fills. New billable calls get 503 in time,
 * what runs goes on to its end, and afterwards the books are right to the call: as soon as there is room again, or after a restart
 * where only that can help. CHAOS_SEED repeats the choices of the load. The failing commits need a build with steps. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { Books, startLoop, startProvider } from './lib/chaos.mjs'
import { random, seeded } from './lib/random.mjs'
import { STEPS_BUILD, lateness, startGateway, until, withSteps } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { lockableDisk, smallDisk } from './lib/disk.mjs'
import { test } from './lib/test.mjs'

const SEED = seeded(process.env.CHAOS_SEED).seed
const CLIENTS = 40, CREDIT = '100000'

async function world(t, { onlyWhole, ...o } = {}) {
  const p = await startProvider(t)
  const g = await startGateway(t, {
    workers: 2, ...o, upstreams: [{ name: 'mock', url: p.url, retries: 1, cooldown: '1s' }], models: ['whole', 'stream', 'long'], tiers: { busy: 'concurrency 100;' },
    top: { access_log: 'off', ...o.top },
  })
  const books = new Books(g, p), tenants = []
  for (let i = 0; i < 4; i++) tenants.push(await g.tenant({ credit: CREDIT, tier: 'busy', ...(i % 2 && { limit: CREDIT }) }))
  for (const k of tenants) books.credit(k.account, nano(CREDIT))
  const rnd = random(SEED)
  const mix = () => { const r = rnd(); return r < 0.5 || onlyWhole ? { model: 'whole', stream: false } : { model: r < 0.85 ? 'stream' : 'long', stream: true, leave: rnd() < 0.15 } }
  const loop = startLoop({ port: g.port, keys: tenants, clients: CLIENTS, rnd, mix, prefix: 'f-' })
  t.after(() => loop.stop())
  await until(() => loop.facts.size > 100, 'load')
  return { g, p, books, loop, rnd }
}

/* Waits until billable calls are shed, and only shed: what was running ends, and not one new call is served. */
async function shed(loop, since = performance.now()) {
  const first = await until(() => loop.statuses[503] > 0 && performance.now(), 'a call that is shed')
  await until(() => { loop.statuses[200] = 0; return new Promise((r) => setTimeout(() => r(loop.statuses[200] === 0), 150)) }, 'nothing but 503')
  return first - since
}
const serves = (loop, ms = 20000) => { loop.statuses[200] = 0; return until(() => loop.statuses[200] > 20, 'service again', ms) }

test('a full disk, and deaths of a worker and of the ledger while it is full', async (t) => {
  const disk = smallDisk(t)
  if (!disk) return t.skip('mounting a small disk needs root')
  const { g, books, loop } = await world(t, { top: { state_dir: path.join(disk.dir, 'state') } })
  disk.fill()
  await shed(loop)
  const s = await g.ctl('status')
  process.kill(s.workers[0].pid, 'SIGKILL')
  process.kill(s.ledger.pid, 'SIGKILL')
  await until(async () => { const n = await g.ctl('status'); return n.workers.length === 2 && n.ledger.pid && n.ledger.pid !== s.ledger.pid }, 'new processes')
  disk.empty()
  await serves(loop)
  await loop.stop()
  await books.check(loop)
})

test('a full disk, the end of all, and a start with other sizes: nothing goes with the earlier segment', async (t) => {
  const disk = smallDisk(t)
  if (!disk) return t.skip('mounting a small disk needs root')
  const { g, books, loop } = await world(t, { top: { state_dir: path.join(disk.dir, 'state') } })
  disk.fill()
  await shed(loop)
  await g.killAll()
  await loop.stop()
  writeFileSync(g.conf, g.config.replace('max_keys 4000', 'max_keys 5000'))
  await g.start({ wait: false })
  await until(() => g.exit, 'an end')
  assert.equal(g.exit.code, 1, 'no start while what the rings hold cannot be committed')
  assert.match(g.errorLog() + g.output, /could not be settled/)
  disk.empty()
  await g.start()
  await books.check(loop)
})

test('a read-only state_dir: the running ledger goes on, the next one cannot start; all is booked after a restart', async (t) => {
  const disk = lockableDisk(t)
  if (!disk) return t.skip('a read-only mount needs root')
  const { g, books, loop } = await world(t, { top: { state_dir: disk.dir } })
  disk.lock()
  const { workers, ledger } = await g.ctl('status')
  process.kill(ledger.pid, 'SIGKILL')
  await shed(loop)
  process.kill(workers[0].pid, 'SIGKILL') // and nobody settles it for now
  assert.match(g.errorLog(), /database cannot be opened.*Read-only file system/)
  assert.equal((await g.req({ path: '/v1/models' })).status, 401, 'workers answer')
  assert.match((await g.adminGet('/readyz')).text, /ledger stuck/)
  await loop.stop()
  assert.equal((await g.stop()).code, 1, 'it says that not all is committed')
  await g.start({ wait: false })
  await g.ended
  assert.equal(g.exit.code, 1, 'no start on a read-only state_dir')
  assert.match(g.errorLog() + g.output, /Read-only file system/)
  disk.unlock()
  await g.start()
  await books.check(loop)
})

for (const [what, fault] of [['a commit', 'commit:5:60-60'], ['a sync', 'sync:5:10-10']]) {
  test(`${what} that fails with an I/O error: the ledger stops for good, and all is booked after a restart`, withSteps, async (t) => {
    const { g, books, loop } = await world(t, { program: STEPS_BUILD, env: { TOLLGATE_FAULTS: fault } })
    await shed(loop)
    assert.match(g.output, new RegExp(`steps: fails at ${fault.split(':')[0]}`))
    assert.match(g.errorLog(), /ledger: the disk of state_dir failed \(.*Input\/output error/)
    assert.match(g.errorLog(), /stopped for good/)
    process.kill((await g.ctl('status')).workers[1].pid, 'SIGKILL')
    await loop.stop()
    g.env = {}
    assert.equal((await g.stop()).code, 1)
    await g.start()
    await books.check(loop)
  })
}
test('commits that find no room for a while: 503 meanwhile, service again by itself', withSteps, async (t) => {
  const { g, books, loop } = await world(t, { program: STEPS_BUILD, env: { TOLLGATE_FAULTS: 'commit:28:60-62' } })
  await until(() => loop.statuses[503] > 0, 'a call that is shed')
  assert.match(g.output, /steps: fails at commit/)
  await serves(loop)
  await loop.stop()
  await books.check(loop)
})

test('a ring that fills: not one call more than it has places, 503 in time, all of it booked', async (t) => {
  const { g, p, books, loop } = await world(t, { workers: 1, onlyWhole: true }) // one ring, of 1,024 records
  const { pid } = (await g.ctl('status')).ledger
  process.kill(pid, 'SIGSTOP')
  const from = loop.facts.size, arrived = p.arrived
  const late = lateness(t)
  let took
  try { took = await shed(loop) } finally { process.kill(pid, 'SIGCONT') }
  assert.ok(took < 2500 + late(), `shed after ${took} ms`)
  const admitted = p.arrived - arrived
  assert.ok(admitted > 100 && admitted <= 1024 + CLIENTS, `${admitted} calls admitted meanwhile`)
  await serves(loop)
  await loop.stop()
  await books.check(loop)
  t.diagnostic(`shed ${Math.round(took)} ms after the ledger stopped, ${admitted} calls admitted meanwhile, ${loop.facts.size - from} answered in all`)
})
