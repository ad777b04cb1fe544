/* Death at each named step: a build of the server that knows them (make steps-build) is told by TOLLGATE_KILL_AT where a process
 * gets its SIGKILL: in the middle of a hold, of settling a call, of a credit, or of the recovery from another death. After each, once
 * idle, the books are right and nothing is held. Skipped where build/steps is not there. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe } from 'node:test'
import { BUILD, cleanUp, startGateway, until } from './lib/gateway.mjs'
import { digitsOf, nano } from './lib/money.mjs'
import { chat, sse, startUpstream } from './upstream.mjs'
import { test } from './lib/test.mjs'

const TOLLGATE = path.join(BUILD, 'steps', 'tollgate')
const CREDIT = '1000'
/* Steps that a worker passes with every call, and those of the ledger with every credit or after another death. */
const WORKER = ['hold.id', 'hold.stored', 'hold.prep', 'hold.concurrency', 'hold.key', 'hold.account', 'hold.held', 'settle.seq', 'settle.payload', 'settle.pushed',
  'settle.account', 'settle.key', 'settle.concurrency', 'free', 'pause.idle', 'pause.wake']
const LEDGER = ['credit.named', 'credit.word', 'credit.unnamed', 'debit.word', 'recover.tail', 'recover.published']
const RECOVERY = ['recover.raised', 'recover.seq', 'recover.pushed', 'recover.payload', 'recover.reset', 'recompute.word', 'recover.freed', 'recover.fallen', 'recover.clean']

const shared = []
let up
before(async () => {
  up = await startUpstream()
  shared.push(() => up.close())
  up.on('whole', chat()).on('stream', sse({ tokens: 8, every: 2 }))
})
after(() => cleanUp(shared))

async function trial(t, env, { killWorker = false } = {}) {
  const g = await startGateway(t, {
    program: TOLLGATE, env, workers: 2, upstreams: [{ name: 'mock', url: up.url, retries: 1, cooldown: '1s' }], models: ['whole', 'stream'], tiers: { busy: 'concurrency 8;' },
  })
  const tenant = await until(() => g.tenant({ credit: CREDIT, tier: 'busy', limit: CREDIT }), 'an account', 10000)
  let seen = 0n, credited = nano(CREDIT), stop = false, deaths = 0
  t.after(() => { stop = true })
  const loaders = Array.from({ length: 6 }, async (_, i) => {
    while (!stop) {
      try {
        if (i % 2) {
          const r = await g.chat(tenant.key, { model: 'whole', max_tokens: 100 })
          if (r.status === 200) seen += nano(digitsOf(r.text, 'cost_usd'))
        } else {
          const s = g.stream(tenant.key, { model: 'stream', max_tokens: 100 })
          if ((await s.all()).at(-1) === '[DONE]') seen += nano(digitsOf(s.text, 'cost_usd'))
        }
      } catch { deaths++; await new Promise((w) => setTimeout(w, 5)) }
    }
  })
  const first = await g.ctl('status')
  if (killWorker) process.kill(first.workers[0].pid, 'SIGKILL')
  for (let i = 0; i < 4; i++) { // credits and debits, so that the ledger's own steps are passed
    const c = await until(async () => { const r = await g.ctlRaw('--json', 'credit', tenant.account, '1', '--idempotency-key', `c${i}`); return r.code === 0 && r.json }, 'a credit', 10000)
    assert.equal(c.amount, '1')
    credited += nano('1')
    await new Promise((w) => setTimeout(w, 60))
  }
  const d = await g.ctlRaw('--json', 'debit', tenant.account, '2', '--idempotency-key', 'd')
  const died = await until(() => / (killed by|died|signal)/i.test(g.errorLog()), 'a death', 4000).catch(() => false)
  stop = true
  await Promise.all(loaders)
  await until(async () => { const s = await g.ctl('status'); return s.workers.length === 2 && s.ledger.pid }, 'all processes back', 15000)
  const debited = (await until(() => g.ctl('debit', tenant.account, '2', '--idempotency-key', 'd'), 'the debit', 10000)) && nano('2')
  const b = await g.settled(tenant.account, 15000)
  const charged = credited - debited - nano(b.balance)
  assert.ok(charged >= seen, `charged ${charged}, answers for ${seen}\n${g.log()}`)
  await until(async () => (await g.audit()) || true, 'a clean audit', 5000)
  const all = await Promise.all(Array.from({ length: 8 }, () => g.chat(tenant.key, { model: 'whole', max_tokens: 20 })))
  assert.deepEqual(all.map((r) => r.status), Array(8).fill(200), 'every place is free')
  return { died, deaths, first: d.code }
}

describe('death at', { skip: !existsSync(TOLLGATE) && 'make steps-build' }, () => {
  for (const step of WORKER) test(step, async (t) => {
    const r = await trial(t, { TOLLGATE_KILL_AT: `${step}:40` })
    assert.ok(r.died, 'a process died there')
  })
  for (const step of LEDGER) test(step, async (t) => { await trial(t, { TOLLGATE_KILL_AT: `${step}:2` }) })
  for (const step of RECOVERY) test(`${step}, after another death`, async (t) => { await trial(t, { TOLLGATE_KILL_AT: `${step}:2` }, { killWorker: true }) })
})
