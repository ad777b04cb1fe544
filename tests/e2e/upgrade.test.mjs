/* SIGUSR2: the binary at the same path takes over in place. No failed request, streams end whole, the same process id; and
 * where the new binary cannot, the old one goes on. UPGRADES (3) says how many; `make chaos` takes fifty. */
import assert from 'node:assert/strict'
import { chmodSync, closeSync, copyFileSync, openSync, readSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { Books, quantiles, startLoop, startProvider } from './lib/chaos.mjs'
import { random, seeded } from './lib/random.mjs'
import { folder } from './lib/clean.mjs'
import { STEPS_BUILD, TOLLGATE, startGateway, until, withSteps } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { cleanUps, test } from './lib/test.mjs'

const UPGRADES = Number(process.env.UPGRADES ?? 3)
const SEED = seeded(process.env.CHAOS_SEED).seed
const shared = cleanUps()
let p, bin
before(async () => {
  p = await startProvider(shared)
  p.slow = 10 // streams of a second
  bin = folder(shared)
})

/* A server from a copy of the binary, so that the file can be replaced. */
async function startCopy(t, name, o = {}) {
  const program = path.join(bin, name)
  copyFileSync(TOLLGATE, program)
  const g = await startGateway(t, { program, upstreams: [{ name: 'mock', url: p.url, retries: 1 }], models: ['whole', 'stream', 'slow'], ...o })
  await until(async () => (await g.ctl('status')).state === 'up', 'all its workers') // ready is earlier: with the first
  return g
}
function replace(g, make) {
  make(`${g.o.program}.new`)
  chmodSync(`${g.o.program}.new`, 0o755)
  renameSync(`${g.o.program}.new`, g.o.program)
}
/* A binary that is like the real one when it is probed, and does `before` first when it is to take over. */
const badly = (real, before) => `#!/bin/sh\ncase "$*" in *--probe*) ;; *) ${before} ;; esac\nexec ${real} "$@"\n`

/* Calls on kept and on new connections, short and long, until stop(), which says what failed and compares the books. */
async function load(t, g) {
  const books = new Books(g, p), k = await g.tenant({ credit: '1000' })
  books.credit(k.account, nano('1000'))
  const mix = (r, i) => (i < 4 ? { model: 'slow', stream: true } : r() < 0.6 ? { model: 'whole' } : { model: 'stream', stream: true })
  const loop = startLoop({ port: g.port, keys: [k], clients: 16, rnd: random(1), mix, prefix: 'u-', fresh: 3 })
  t.after(() => loop.stop())
  await until(() => loop.facts.size > 50, 'load')
  return { loop, books, ...k, async stop() {
    await loop.stop()
    assert.deepEqual(loop.failed, [])
    await books.check(loop)
  } }
}
const upgraded = (g, ledger) => until(async () => { const s = await g.ctl('status'); return s.state === 'up' && s.ledger.state === 'up' && s.ledger.pid !== ledger.pid }, 'the new ledger')

describe('SIGUSR2', () => {
  test(`${UPGRADES} under load to a rebuilt binary and back, with streams running`, { timeout: 180000 + UPGRADES * 10000 }, async (t) => {
    const g = await startCopy(t, 'many', { top: { drain_timeout: '30s', access_log: 'off' } }), first = g.pid
    const other = withSteps.skip ? TOLLGATE : STEPS_BUILD // a build with steps and no orders: the same program, other code
    const running = await load(t, g), took = []
    let half
    for (let i = 0; i < UPGRADES; i++) {
      const { ledger } = await g.ctl('status')
      replace(g, (to) => copyFileSync(i % 2 ? TOLLGATE : other, to))
      const begin = performance.now()
      if (i % 2 === 0) {
        await until(async () => { const w = (await g.ctl('status')).workers; return w.length === 2 }, 'room beside the workers that drain')
        process.kill(g.pid, 'SIGUSR2')
      } else await until(async () => (await g.ctlRaw('upgrade')).code === 0, 'room beside the workers that drain')
      await upgraded(g, ledger)
      took.push(performance.now() - begin)
      if (i === UPGRADES >> 1) half = g.resources()[first]
    }
    await until(async () => (await g.ctl('status')).workers.length === 2, 'the old workers to drain')
    const end = g.resources()[first]
    await running.stop()
    assert.equal((await g.ctl('status')).pid, first, 'the same process')
    assert.equal(g.processes().length, 5, 'master, resolver, ledger, two workers')
    for (const kind of Object.keys(end.fds)) assert.ok(end.fds[kind] <= (half.fds[kind] ?? 0) + (kind === 'socket' ? 4 : 0), JSON.stringify([half.fds, end.fds]))
    t.diagnostic(`${running.loop.calls} calls, none failed; an upgrade took ms ${JSON.stringify(quantiles(took))}; the master's descriptors: ${JSON.stringify(end.fds)}`)
  })

  test(`${UPGRADES * 2} upgrades and reloads with a death in the middle of each (seed ${SEED})`, { timeout: 180000 + UPGRADES * 20000 }, async (t) => {
    const g = await startCopy(t, 'dying', { top: { drain_timeout: '1s', access_log: 'off' } }), first = g.pid, rnd = random(SEED)
    const running = await load(t, g), tally = {}
    for (let i = 0; i < UPGRADES * 2; i++) {
      const s = await g.ctl('status'), what = rnd() < 0.5 ? 'upgrade' : 'reload', whom = rnd() < 0.5 ? 'ledger' : 'worker'
      tally[`${what}, ${whom}`] = (tally[`${what}, ${whom}`] ?? 0) + 1
      if (what === 'reload') g.write({ models: [...g.o.models.slice(0, 3), `new-${i}`] }) // a name that the ledger has to register
      const victim = whom === 'ledger' ? s.ledger.pid : s.workers[Math.floor(rnd() * s.workers.length)].pid
      const die = () => { try { process.kill(victim, 'SIGKILL') } catch { /* gone */ } }, after = rnd() * 60 - 10
      if (after < 0) die()
      process.kill(g.pid, what === 'upgrade' ? 'SIGUSR2' : 'SIGHUP')
      await new Promise((r) => setTimeout(r, Math.max(after, 0)))
      die()
      await until(async () => {
        const n = await g.ctl('status')
        return n.state === 'up' && n.ledger.state === 'up' && n.workers.length === 2 && !n.workers.some((w) => w.pid === victim) && n.ledger.pid !== victim
      }, `all processes after ${what} ${i} and the death of the ${whom}`).catch((e) => { throw new Error(`${e.message}\n${g.log()}`) })
      if (what === 'reload') await until(async () => (await g.req({ path: `/v1/models/new-${i}`, key: running.key })).status === 200, 'the new model')
    }
    await running.loop.stop()
    assert.equal((await g.ctl('status')).pid, first, 'the same process')
    assert.equal(g.processes().length, 5, 'master, resolver, ledger, two workers')
    await running.books.check(running.loop)
    for (const f of running.loop.failed) assert.match(f, /: cut /, f) // nothing else failed than connections of those that died
    t.diagnostic(`${JSON.stringify(tally)}; ${running.loop.calls} calls, ${running.loop.failed.length} failed with their process`)
  })

  test('a new binary that says no, or cannot even run: the old one goes on, no request fails', async (t) => {
    const g = await startCopy(t, 'refusing'), workers = await g.workers(), running = await load(t, g)
    for (const text of ['#!/bin/sh\nexit 1\n', 'no program at all']) {
      replace(g, (to) => writeFileSync(to, text))
      const r = await g.ctlRaw('--json', 'upgrade')
      assert.equal(r.code, 1, r.stdout + r.stderr)
      assert.equal(r.json.error.code, 'upgrade_refused')
    }
    await running.stop()
    assert.deepEqual(await g.workers(), workers)
    assert.match(g.errorLog(), /upgrade refused: the new binary's probe says no/)
  })

  test('a new binary that fails after it took over: back to the old one, no request fails', async (t) => {
    const g = await startCopy(t, 'failing'), workers = await g.workers(), running = await load(t, g)
    const after = async (what, ms = 20000) => {
      const r = await g.ctlRaw('--json', 'upgrade')
      assert.equal(r.code, 1, r.stdout + r.stderr)
      assert.equal(r.json?.error.code ?? 'upgrade_failed', 'upgrade_failed', what)
      await until(async () => { const s = await g.ctl('status'); return s.state === 'up' && s.ledger.state === 'up' && s.workers.length === 2 }, what, ms)
      assert.deepEqual(await g.workers(), workers, what)
    }
    // Its configuration is gone between the probe and the start, for a second.
    replace(g, (to) => writeFileSync(to, badly(TOLLGATE, `mv ${g.conf} ${g.conf}.away; (sleep 1; mv ${g.conf}.away ${g.conf}) &`)))
    await after('the configuration back')
    assert.match(g.output, /the old binary cannot use the configuration/)
    if (!withSteps.skip) {
      replace(g, (to) => writeFileSync(to, badly(STEPS_BUILD, 'export TOLLGATE_STEPS=recover.raised:1+'))) // its ledger dies as it starts, each time
      await after('a ledger that cannot start')
      replace(g, (to) => writeFileSync(to, badly(STEPS_BUILD, 'export TOLLGATE_STEPS=pause.idle:1+'))) // its workers do
      await after('workers that cannot start')
    }
    replace(g, (to) => copyFileSync(TOLLGATE, to))
    const { ledger } = await g.ctl('status')
    assert.equal((await g.ctl('upgrade')).upgraded, true)
    await upgraded(g, ledger)
    await running.stop()
  })

  test('what needs a restart refuses the upgrade before anything is touched', async (t) => {
    const g = await startCopy(t, 'restart'), running = await load(t, g), workers = await g.workers()
    for (const [from, to, why] of [[`control ${g.control}`, `control ${g.control}2`, /control needs a restart/], ['max_keys 4000', 'max_keys 5000', /max_keys and max_active need a restart/], ['/state;', '/other;', /state_dir needs a restart/]]) {
      assert.ok(g.config.includes(from), from)
      writeFileSync(g.conf, g.config.replace(from, to))
      assert.equal((await g.ctlRaw('--json', 'upgrade')).json.error.code, 'upgrade_refused')
      assert.match(g.errorLog(), why)
    }
    writeFileSync(g.conf, g.config)
    await running.stop()
    assert.deepEqual(await g.workers(), workers)
  })

  test('shared memory of another layout: refused live, and cold unless something in it is not booked', async (t) => {
    const g = await startCopy(t, 'layout'), running = await load(t, g)
    // The segment says that another version made it: what a binary of another layout meets.
    const layout = (n) => { const fd = openSync(g.shm, 'r+'), b = Buffer.alloc(4); b.writeUInt32LE(n); const was = Buffer.alloc(4); readSync(fd, was, 0, 4, 8); writeSync(fd, b, 0, 4, 8); closeSync(fd); return was.readUInt32LE() }
    const ours = layout(999)
    assert.equal((await g.ctlRaw('--json', 'upgrade')).json.error.code, 'upgrade_refused')
    assert.match(g.errorLog(), /another layout: this needs a restart/)
    layout(ours)
    await running.loop.stop()
    process.kill((await g.ctl('status')).ledger.pid, 'SIGSTOP') // so that something is left
    const one = await g.chat(running.key, { model: 'whole', messages: [{ role: 'user', content: 'u-last' }] }, { headers: { 'X-Request-Id': 'u-last' } })
    assert.equal(one.status, 200)
    running.loop.note('u-last', running.account, { end: 'whole', status: 200, text: one.text })
    await g.killAll()
    layout(999)
    await g.start({ wait: false })
    assert.equal((await g.ended).code, 1)
    assert.match(g.errorLog() + g.output, /only the version that made it can book/)
    layout(ours)
    await g.start()
    await running.stop()
    const before = await g.balance(running.account)
    await g.stop()
    layout(999) // and now it holds nothing
    await g.start()
    assert.match(g.errorLog(), /shared memory .*: \d+ bytes, new\n[^]*, new\n/)
    assert.deepEqual(await g.balance(running.account), before)
    assert.equal((await g.chat(running.key, { model: 'whole' })).status, 200)
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
