/* tollctl: every command, its JSON, its table, its exit codes (0 done, 1 refused, 2 usage). */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { folder } from './lib/clean.mjs'
import { TOLLCTL, run, startGateway, until } from './lib/gateway.mjs'
import { decimal, nano } from './lib/money.mjs'
import { chat, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g
before(async () => {
  up = await startUpstream(shared)
  up.otherwise = chat()
  g = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url }, { name: 'second', url: up.url }], models: ['gpt-4o', 'gpt-4o-mini', { name: 'two', route: ['mock as two', 'second as two'] }],
    tiers: { free: 'rpm 20;' }, groups: { resale: 'models *; ratio 2;' } })
})

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/
let serial = 0
const email = () => `ctl${++serial}@example.com`
async function refused(...args) {
  const r = await g.ctlRaw('--json', ...args)
  assert.equal(r.code, 1, `${args.join(' ')}: ${r.stdout}${r.stderr}`)
  assert.ok(r.json.error.code && r.json.error.message)
  return r.json.error
}

describe('accounts', () => {
  test('create, show, list, set, suspend, resume', async () => {
    const e = email()
    const a = await g.ctl('account', 'create', '--email', e, '--tier', 'free', '--group', 'resale', '--credit', '5.25')
    assert.match(a.id, /^acct_/)
    assert.deepEqual([a.email, a.tier, a.group, a.status, a.balance, a.held], [e, 'free', 'resale', 'active', '5.25', '0'])
    assert.match(a.created_at, TIME)
    assert.deepEqual(await g.ctl('account', 'show', a.id), await g.ctl('account', 'show', e), 'by id or by email')
    const { accounts } = await g.ctl('account', 'list')
    assert.ok(accounts.some((x) => x.id === a.id && x.balance === '5.25'))
    assert.equal((await g.ctl('account', 'set', e, '--tier', 'default')).tier, 'default')
    assert.equal((await g.ctl('account', 'suspend', e)).status, 'suspended')
    assert.equal((await g.ctl('account', 'resume', e)).status, 'active')
  })
  test('refusals', async () => {
    const e = email()
    await g.ctl('account', 'create', '--email', e)
    await refused('account', 'create', '--email', e)
    await refused('account', 'create', '--email', 'no email')
    await refused('account', 'create', '--email', email(), '--tier', 'no-such-tier')
    await refused('account', 'show', 'acct_nothing')
    await refused('balance', 'nobody@example.com')
  })
})

describe('keys', () => {
  test('create prints the key once; show, list, set, revoke never', async () => {
    const a = await g.ctl('account', 'create', '--email', email(), '--credit', '10')
    const k = await g.ctl('key', 'create', '--account', a.id, '--name', 'prod', '--models', 'gpt-*,two', '--limit', '2.5', '--expires', '2099-01-01', '--rpm', '7', '--tpm', '900', '--concurrency', '3')
    assert.match(k.key, /^sk-[A-Za-z0-9]{32}$/)
    assert.match(k.id, /^key_/)
    for (const f of ['id', 'account', 'name', 'prefix', 'status', 'models', 'limit', 'spent', 'expires_at', 'created_at', 'last_used_at']) assert.ok(f in k, f)
    assert.deepEqual([k.account, k.name, k.status, k.limit, k.spent, k.last_used_at], [a.id, 'prod', 'active', '2.5', '0', null])
    assert.match(k.expires_at, /^2099-01-01T00:00:00/)
    assert.ok(k.key.startsWith(k.prefix))
    const shown = await g.ctlRaw('--json', 'key', 'show', k.id)
    assert.ok(!shown.stdout.includes(k.key))
    assert.ok(!('key' in shown.json))
    assert.equal((await g.ctl('key', 'show', k.key)).id, k.id, 'a whole key names it too')
    const { keys } = await g.ctl('key', 'list', '--account', a.id)
    assert.deepEqual(keys.map((x) => x.id), [k.id])
    const set = await g.ctl('key', 'set', k.id, '--rpm', '9', '--name', 'later')
    assert.equal(set.name, 'later')
    assert.equal((await g.req({ path: '/v1/models', key: k.key })).headers['x-ratelimit-limit'], '9')
    assert.equal((await g.ctl('key', 'revoke', k.id)).status, 'revoked')
    assert.equal((await g.ctl('key', 'revoke', k.id)).status, 'revoked', 'again')
  })
  test('import takes any prefix and skips what is known', async () => {
    const a = await g.ctl('account', 'create', '--email', email(), '--credit', '1')
    const dir = folder(shared)
    const mine = Array.from({ length: 20 }, (_, i) => `old-gateway-${i}-${Math.random().toString(36).slice(2)}${'x'.repeat(12)}`)
    writeFileSync(path.join(dir, 'keys'), mine.join('\n') + '\n')
    assert.deepEqual(await g.ctl('key', 'import', '--account', a.id, path.join(dir, 'keys')), { imported: 20, skipped: 0 })
    assert.deepEqual(await g.ctl('key', 'import', '--account', a.id, path.join(dir, 'keys')), { imported: 0, skipped: 20 })
    assert.equal((await g.chat(mine[13])).status, 200)
    await refused('key', 'import', '--account', a.id, path.join(dir, 'nothing'))
  })
  test('the ledger keeps no key', async () => {
    const t = await g.tenant()
    const { readdirSync, readFileSync } = await import('node:fs')
    for (const f of readdirSync(path.join(g.dir, 'state'), { recursive: true })) {
      const p = path.join(g.dir, 'state', String(f))
      if (statSync(p).isFile()) assert.ok(!readFileSync(p).includes(t.key), p)
    }
    assert.ok(!readFileSync(g.shm).includes(t.key), 'nor shared memory')
  })
})

describe('money', () => {
  test('credit, debit, balance; an idempotency key counts once', async () => {
    const a = await g.ctl('account', 'create', '--email', email())
    const c = await g.ctl('credit', a.id, '12.345678901', '--reason', 'invoice 7', '--idempotency-key', 'i-1')
    assert.deepEqual([c.account, c.amount, c.balance, c.reason, c.idempotency_key], [a.id, '12.345678901', '12.345678901', 'invoice 7', 'i-1'])
    assert.match(c.created_at, TIME)
    assert.deepEqual(await g.ctl('credit', a.id, '12.345678901', '--reason', 'invoice 7', '--idempotency-key', 'i-1'), c)
    const d = await g.ctl('debit', a.id, '2.3', '--reason', 'refund')
    assert.equal(d.balance, '10.045678901')
    await refused('debit', a.id, '100')
    assert.equal((await g.ctl('debit', a.id, '11', '--force')).balance, '-0.954321099')
    assert.deepEqual(await g.ctl('balance', a.id), { account: a.id, unit: 'usd', balance: '-0.954321099', held: '0', available: '-0.954321099' })
    for (const bad of ['1e3', '1.0000000001', '-5', 'abc', '', '0x10', '1,5', '99999999999999999999']) {
      const r = await g.ctlRaw('--json', 'credit', a.id, bad)
      assert.ok(r.code === 1 || r.code === 2, `${bad}: ${r.code}`)
    }
    assert.equal((await g.balance(a.id)).balance, '-0.954321099')
    await g.audit()
  })
  test('a credit counts from the next request on', async () => {
    const t = await g.tenant({ credit: null })
    assert.equal((await g.chat(t.key)).status, 402)
    await g.ctl('credit', t.account, '1')
    for (let i = 0; i < 4; i++) assert.equal((await g.chat(t.key)).status, 200)
  })
  test('usage: newest first, filters, pages, sums by day, model and account, CSV', async () => {
    const t = await g.tenant({ group: 'resale' })
    let list
    for (const [i, model] of ['gpt-4o', 'gpt-4o-mini', 'gpt-4o'].entries()) {
      await g.chat(t.key, { model }, { headers: { 'X-Request-Id': `id-${model}` } })
      list = await g.usage(t.account, i + 1) // two workers' calls within one commit have no order
    }
    assert.deepEqual(list.map((u) => u.model), ['gpt-4o', 'gpt-4o-mini', 'gpt-4o'])
    for (const f of ['id', 'time', 'request_id', 'account', 'key', 'model', 'upstream', 'dialect', 'status', 'stream', 'input_tokens', 'cached_tokens', 'cache_write_tokens',
      'output_tokens', 'reasoning_tokens', 'images', 'cost', 'uncollected', 'estimated', 'ttfb_ms', 'duration_ms']) assert.ok(f in list[0], f)
    assert.deepEqual([list[0].account, list[0].key, list[0].upstream, list[0].request_id, list[0].dialect], [t.account, t.id, 'mock', 'id-gpt-4o', 'openai'])
    assert.match(list[0].time, TIME)
    assert.equal((await g.ctl('usage', '--account', t.account, '--model', 'gpt-4o-mini')).usage.length, 1)
    assert.equal((await g.ctl('usage', '--key', t.id, '--since', '1d')).usage.length, 3)
    assert.equal((await g.ctl('usage', '--account', t.account, '--until', '2020-01-01')).usage.length, 0)
    const page = await g.ctl('usage', '--account', t.account, '--limit', '2')
    assert.equal(page.usage.length, 2)
    assert.ok(page.next_cursor)
    const sum = decimal(list.reduce((n, u) => n + nano(u.cost), 0n))
    for (const by of ['day', 'account']) {
      const rows = (await g.ctl('usage', '--account', t.account, '--by', by)).usage
      assert.equal(rows.length, 1)
      assert.deepEqual([rows[0].requests, rows[0].cost, rows[0].input_tokens, rows[0].output_tokens], [3, sum, 72, 468])
    }
    const models = (await g.ctl('usage', '--account', t.account, '--by', 'model')).usage
    assert.deepEqual(models.map((m) => [m.model, m.requests]).sort(), [['gpt-4o', 2], ['gpt-4o-mini', 1]])
    const csv = (await g.ctlRaw('usage', '--account', t.account, '--csv')).stdout.trim().split('\n')
    assert.equal(csv.length, 4)
    assert.match(csv[0], /^id,time,/)
  })
  test('caps', async () => {
    const t = await g.tenant()
    await g.ctl('cap', 'set', t.account, 'gpt-4o', '0.5')
    await g.ctl('cap', 'set', t.key, 'two', '0.25')
    assert.equal((await g.ctl('cap', 'list')).caps.filter((c) => JSON.stringify(c).includes('0.5') || JSON.stringify(c).includes('0.25')).length >= 2, true)
    await g.ctl('cap', 'remove', t.account, 'gpt-4o')
    await refused('cap', 'set', t.account, 'gpt-4o', 'much')
  })
  test('audit, and a backup that is whole while calls go on', async (tt) => {
    const t = await g.tenant({ credit: '50' })
    let stop = false
    tt.after(() => { stop = true })
    const load = Array.from({ length: 4 }, async () => { while (!stop) await g.chat(t.key, { max_tokens: 10 }) })
    await g.usage(t.account, 10)
    const file = path.join(g.dir, 'backup.db')
    await g.ctl('backup', file)
    stop = true
    await Promise.all(load)
    assert.ok(existsSync(file) && statSync(file).size > 4096)
    assert.equal(statSync(file).mode & 0o077, 0, 'nobody else may read it')
    const a = await g.audit()
    assert.ok(a.accounts > 0 && a.entries > 0 && a.usage_records > 0)
    // Restored into another folder it opens, audits clean, and knows the keys.
    const { mkdirSync, copyFileSync, readdirSync } = await import('node:fs')
    const other = await startGateway(tt, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'gpt-4o-mini', 'two'], tiers: { free: 'rpm 20;' }, groups: { resale: 'models *; ratio 2;' } })
    await other.stop()
    const state = path.join(other.dir, 'state')
    const data = readdirSync(state).find((f) => /\.mdb$|\.db$/.test(f) && !/lock/.test(f))
    mkdirSync(state, { recursive: true })
    copyFileSync(file, path.join(state, data))
    rmSync(other.shm, { force: true })
    await other.start()
    await other.audit()
    assert.equal((await other.chat(t.key)).status, 200)
  })
})

test('a backup takes no place but a file\'s, and none of the ledger\'s own', async () => {
  const at = (name) => path.join(g.dir, name), kind = (f) => { const s = lstatSync(f); return [s.ino, s.mode] }
  assert.equal((await run('mkfifo', [at('pipe')])).code, 0)
  symlinkSync(at('elsewhere'), at('link'))
  for (const f of [at('pipe'), at('link'), path.join(g.dir, 'state', 'lock'), path.join(g.dir, 'state', 'ledger.mdb')]) {
    const before = kind(f)
    assert.equal((await refused('backup', f)).code, 'invalid_value', f)
    assert.deepEqual(kind(f), before, f)
  }
  assert.ok(!existsSync(at('elsewhere')))
})

describe('the rest', () => {
  test('status, model list, upstream list, drain, enable', async () => {
    const s = await g.ctl('status')
    assert.ok(s.version && s.pid === g.pid && Number.isInteger(s.uptime_seconds))
    assert.equal(s.workers.length, 2)
    for (const w of s.workers) for (const f of ['pid', 'generation', 'connections', 'in_flight']) assert.ok(Number.isInteger(w[f]), f)
    assert.ok(s.ledger && Array.isArray(s.upstreams))
    const { models } = await g.ctl('model', 'list')
    assert.ok(JSON.stringify(models).includes('gpt-4o-mini'))
    const { upstreams } = await g.ctl('upstream', 'list')
    assert.equal(upstreams.length, 2)
    const t = await g.tenant()
    await g.ctl('upstream', 'drain', 'mock')
    for (let i = 0; i < 6; i++) assert.equal((await g.chat(t.key, { model: 'two' })).headers['x-tollgate-upstream'], 'second')
    assert.equal((await g.chat(t.key)).status, 503)
    await g.ctl('upstream', 'enable', 'mock')
    await until(async () => (await g.chat(t.key)).status === 200, 'the upstream back')
    await refused('upstream', 'drain', 'nothing')
  })
  test('reload and stop', async (t) => {
    const o = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'] })
    await o.ctl('reload')
    const good = o.config
    writeFileSync(o.conf, `worker 3;\n${good}bogus 1;\n`)
    const said = await o.ctlRaw('reload')
    assert.equal(said.code, 1)
    assert.match(said.stderr, /^tollctl: \S+:1:1: .*`workers`\?\ntollctl: \S+:\d+:1: .*bogus[^\n]*\n$/)
    assert.match((await o.ctlRaw('--json', 'reload')).json.error.message, /^\S+:1:1: [^\n]+\n\S+:\d+:1: [^\n]+[^\n]$/)
    writeFileSync(o.conf, good)
    assert.equal((await o.ctlRaw('stop')).code, 0)
    assert.deepEqual(await o.ended, { code: 0, signal: null })
  })
  test('tables for people: the same facts without --json', async () => {
    for (const args of [['account', 'list'], ['key', 'list'], ['status'], ['model', 'list'], ['upstream', 'list'], ['usage'], ['audit'], ['cap', 'list']]) {
      const r = await g.ctlRaw(...args)
      assert.equal(r.code, 0, `${args.join(' ')}: ${r.stderr}`)
      assert.ok(r.stdout.length > 0, args.join(' '))
      assert.throws(() => JSON.parse(r.stdout), `${args.join(' ')} prints a table`)
    }
  })
  test('usage errors are exit 2 and say how it goes', async () => {
    for (const args of [[], ['nonsense'], ['account'], ['account', 'frobnicate'], ['credit'], ['credit', 'a'], ['key', 'create'], ['key', 'create', '--nope', '1'], ['cap', 'set', 'x'], ['usage', '--limit', '0'], ['--json', 'usage', '--limit', 'many']]) {
      const r = await g.ctlRaw(...args)
      assert.equal(r.code, 2, `${args.join(' ')}: ${r.code} ${r.stderr}`)
      assert.ok(r.stderr.length > 0)
      assert.equal(r.stdout, '')
    }
  })
  test('nobody at the socket: exit 1 and a plain word', async () => {
    const r = await run(TOLLCTL, ['-s', '/tmp/tg-no-such-socket', 'status'])
    assert.equal(r.code, 1)
    assert.match(r.stderr, /tg-no-such-socket/)
  })
  test('the control socket is its owner\'s alone', () => {
    assert.equal(statSync(g.control).mode & 0o777, 0o600)
  })
})
