/* Death at each named step: a build of the server that knows them (make steps-build) is told by TOLLGATE_STEPS where a process
 * gets its SIGKILL: in the middle of a hold, of settling a call, of publishing a key, of a commit, a credit, or of the recovery from
 * another death. A group of steps at a time, under everything that passes them; then, once idle, the books are right, nothing is
 * held, every place is free, and every step of the group has been died at. The first test reads the steps out of the code, so that
 * a new one without a place here is a failure. STEPS_ONLY=NAME,... tries these alone; the last test lets
 * processes die everywhere for STORM_S (3) seconds; CHAOS_SEED repeats the choices of the load.
 * Skipped where build/steps is not there. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { describe } from 'node:test'
import { Books, Client, startLoop, startProvider } from './lib/chaos.mjs'
import { random, seeded } from './lib/random.mjs'
import { STEPS_BUILD, root, startGateway, until, withSteps } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { test } from './lib/test.mjs'

const SEED = seeded(process.env.CHAOS_SEED).seed
const ONLY = process.env.STEPS_ONLY?.split(','), STORM_S = Number(process.env.STORM_S ?? 3)

/* step: the passage at which to die, counted over all processes from the start of the server on. `with`: further orders. */
const GROUPS = [
  { name: 'a hold', steps: { 'hold.used': 4, 'hold.id': 40, 'hold.prep': 80, 'hold.concurrency': 120, 'hold.key': 160, 'hold.account': 240 } },
  { name: 'a hold that is taken or refused', steps: { 'hold.stored': 40, 'hold.held': 80, 'hold.refused': 1, 'refuse.concurrency': 3, free: 120, 'deliver.slot': 160 }, with: 'hold.key:1~4' },
  { name: 'settling', steps: { 'settle.seq': 40, 'settle.payload': 80, 'settle.pushed': 120, 'settle.account': 160, 'settle.key': 120, 'settle.concurrency': 240 } },
  { name: 'a charge beyond its hold', steps: { 'settle.extra_key': 4, 'settle.extra_account': 10, 'settle.extra_back': 2, 'deliver.client': 300, 'pause.idle': 400, 'pause.wake': 600 } },
  { name: 'a pause, a first limit', steps: { 'pause.ack': 2, 'recover.published': 2, 'recompute.adopt_slot': 2, 'recompute.adopt_record': 1 }, with: 'commit.written:8~15' },
  { name: 'credits, debits, limits', steps: { 'credit.named': 6, 'credit.word': 4, 'credit.key': 2, 'credit.unnamed': 9, 'debit.word': 2 } },
  { name: 'publishing and commits', steps: { 'publish.begun': 12, 'publish.ended': 20, 'commit.written': 40, 'commit.done': 60, 'drain.built': 30, 'drain.tail': 60 } },
  { name: 'a recovery, as it begins', steps: { 'recover.probe': 1, 'recover.raised': 4, 'recover.seq': 1, 'recover.payload': 2, 'recover.pushed': 3 }, kills: true },
  { name: 'a recovery, as it ends', steps: { 'recompute.word': 2, 'recover.freed': 2, 'recover.fallen': 5, 'recover.clean': 3, 'recover.tail': 12 }, kills: true },
  { name: 'a recovery of half-pushed records', steps: { 'recover.reset': 1 }, with: 'settle.seq:60+', kills: true },
]
/* Again and again, each at its own pace: most recoveries meet another death. */
const STORM = { name: 'a storm', steps: {}, kills: true, with: 'settle.payload:150+,hold.account:310+,deliver.slot:510+,free:730+,recover.payload:7+,recover.freed:23+,recompute.word:19+,'
  + 'recover.fallen:17+,commit.written:90+,commit.done:130+,drain.tail:77+,credit.word:5+' }
/* Steps that the server does not pass, and where they are died at instead. */
const ELSEWHERE = { 'lower.stored': 'tests/stress', 'lower.account': 'tests/stress', 'lower.key': 'tests/stress', 'pause.over': 'a mutation alone' }

function stepsOfTheCode() {
  const found = new Set()
  for (const folder of ['shm', 'master', 'worker'])
    for (const f of readdirSync(path.join(root, folder), { recursive: true }).filter((n) => n.endsWith('.c')))
      for (const m of readFileSync(path.join(root, folder, f), 'utf8').matchAll(/SHM_STEP\("([^"]+)"\)/g)) found.add(m[1])
  return [...found].sort()
}
test('every step that the code names has its place here', () => {
  assert.deepEqual([...GROUPS.flatMap((g) => Object.keys(g.steps)), ...Object.keys(ELSEWHERE)].sort(), stepsOfTheCode())
})

/* Credits, debits, first and further limits, audits, and deaths from outside: what passes the steps that no call passes.
 * Each is tried again until it is acknowledged, under one idempotency key. */
async function busy(g, books, world, i, rnd, kills) {
  const done = (...args) => until(async () => { const r = await g.ctlRaw('--json', ...args); return r.code === 0 && r.json }, args.join(' '), 45000) // a ledger that dies as it starts is started after up to 10 s
  const move = async (what, account, amount) => {
    await done(what, account, amount, '--idempotency-key', `${what}${account}${i}`)
    books.credit(account, what === 'credit' ? nano(amount) : -nano(amount))
  }
  const { rich, poor, plain } = world
  await move('credit', poor.account, '0.05')
  await move('debit', rich.account, '0.01')
  const own = await g.key(plain.account, {}).catch(() => null) // unanswered: it may or may not be there, and is not used
  if (own) {
    world.keys.push({ key: own.key, account: plain.account })
    const c = Array.from({ length: 6 }, () => startLoop({ port: g.port, keys: [{ key: own.key, account: plain.account }], clients: 2, rnd, mix: () => ({ model: rnd() < 0.5 ? 'whole' : 'stream', stream: true }), prefix: `${world.prefix}own${i}${world.next++}-` }))
    world.loops.push(...c)
    await new Promise((r) => setTimeout(r, 20 + rnd() * 20))
    await done('key', 'set', own.id, '--limit', '900')
    await done('key', 'set', own.id, '--limit', '800')
    for (const l of c) l.end()
  }
  if (kills) {
    const s = await g.ctl('status').catch(() => null)
    const w = s?.workers[Math.floor(rnd() * s.workers.length)]
    if (w) try { process.kill(w.pid, 'SIGKILL') } catch { /* gone */ }
  }
  await g.ctlRaw('audit') // a pause under load
}

/* Until every step of the group was died at; ms: for so long, and until there was a death each half second on average. The machine may be
 * slow: that either will never come is known after LONG_MS. */
const LONG_MS = 120_000
async function trial(t, group, ms) {
  const rnd = random(SEED), p = await startProvider(t)
  const wanted = Object.keys(group.steps).filter((s) => !ONLY || ONLY.includes(s))
  const orders = (left) => [...left.map((s) => `${s}:${group.steps[s]}`), ...(group.with ? [group.with] : [])].join(',')
  const g = await startGateway(t, {
    program: STEPS_BUILD, env: { TOLLGATE_STEPS: orders(wanted) }, workers: 2, upstreams: [{ name: 'mock', url: p.url, retries: 1, cooldown: '1s' }],
    models: ['whole', 'stream', 'long', 'over', 'gate'], tiers: { busy: 'concurrency 12;' },
  })
  const left = () => wanted.filter((s) => !g.output.includes(`steps: killed at ${s}\n`))
  const books = new Books(g, p)
  const tenant = async (credit, o) => {
    const k = await until(() => g.tenant({ credit, tier: 'busy', ...o }), 'an account')
    books.credit(k.account, nano(credit))
    return k
  }
  const world = { rich: await tenant('1000', { limit: '1000' }), plain: await tenant('1000'), poor: await tenant('0.05', { limit: '1000' }), loops: [], next: 0, prefix: 's-' }
  const second = await until(() => g.key(world.poor.account, { limit: '900' }), 'a key')
  world.keys = [world.rich, world.plain, world.poor, { key: second.key, account: world.poor.account }]
  const mix = (r, i) => {
    const x = r()
    if (i % 4 > 1) return x < 0.3 ? { model: 'over', stream: false } : { model: 'whole', stream: false }
    return x < 0.4 ? { model: 'whole', stream: false } : { model: x < 0.8 ? 'stream' : 'long', stream: true, leave: r() < 0.2 }
  }
  const loop = startLoop({ port: g.port, keys: world.keys.slice(), clients: 16, rnd, mix, prefix: 's-' })
  t.after(() => { loop.stop(); for (const l of world.loops) l.stop() })
  const deaths = () => (g.output.match(/steps: killed at \S+/g) ?? []).length
  const begun = performance.now(), passed = () => performance.now() - begun
  const going = () => (ms ? passed() < ms || deaths() <= ms / 500 : left().length > 0)
  for (let i = 0; going() && passed() < LONG_MS + (ms ?? 0); i++) {
    if (g.exit) { g.env.TOLLGATE_STEPS = orders(left()); await g.start() } // the master passes some of them too
    await busy(g, books, world, i, rnd, group.kills).catch((e) => { if (!g.exit) throw new Error(`${e.message} (seed ${SEED})\n${g.log()}`) })
  }
  await Promise.all([loop, ...world.loops].map((l) => l.stop()))
  assert.deepEqual(left(), [], `every step was died at (seed ${SEED})`)
  for (const l of world.loops) for (const [id, f] of l.facts) loop.facts.set(id, f)
  if (ms) {
    t.diagnostic(`${deaths()} deaths within, ${loop.calls} calls`)
    assert.ok(deaths() > ms / 500, `${deaths()} deaths`)
  }
  if (group.with?.includes('+')) { // who goes on dying disturbs what follows
    g.env = {}
    if (!g.exit) await g.killAll()
    await g.start()
  }
  await until(async () => { const s = await g.ctl('status'); return s.workers.length === 2 && s.ledger.state === 'up' }, 'all processes back')
  await books.check(loop)
  // Every place is free.
  const clients = Array.from({ length: 12 }, () => new Client(g.port)), { key } = world.rich
  const calls = clients.map((c, i) => c.call({ key, id: `s-gate-${i}`, model: 'gate' }))
  await until(() => p.waiting.size === 12, 'twelve calls at the provider')
  p.open()
  for (const r of await Promise.all(calls)) assert.equal(r.status, 200)
  for (const c of clients) c.close()
}

describe('death within', withSteps, () => {
  for (const group of GROUPS) {
    const steps = Object.keys(group.steps)
    if (ONLY && !steps.some((s) => ONLY.includes(s))) continue
    test(`${group.name}: ${steps.join(', ')}`, { timeout: 240000 }, (t) => trial(t, group))
  }
  if (!ONLY) test(`a storm of ${STORM_S} seconds (seed ${SEED})`, { timeout: 240000 + STORM_S * 2000 }, (t) => trial(t, STORM, STORM_S * 1000))
})
