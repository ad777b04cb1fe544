/* kill -9 of the ledger, the master or everything at once while people register, make and revoke keys, and are credited and debited (tollctl and
 * /admin, with idempotency keys). After each kill: what was acknowledged is there, what was not is whole or absent, and asking again with the
 * same idempotency key gives one effect. BOOKS_KILLS (24) says how many; CHAOS_SEED repeats a run's choices. Then the same with deaths at each
 * named step of a commit and of what follows it (skipped where `make steps-build` was not run). */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { STEPS_BUILD, startGateway, until, withSteps } from './lib/gateway.mjs'
import { decimal, nano } from './lib/money.mjs'
import { startUpstream } from './upstream.mjs'
import { random, seeded } from './lib/random.mjs'
import { cleanUps, test } from './lib/test.mjs'

const KILLS = Number(process.env.BOOKS_KILLS ?? 24)
const SEED = seeded(process.env.CHAOS_SEED).seed
const ADMIN = 'admin-token-0123456789', LANES = 8, SIGNUP = '1'

const shared = cleanUps()
let up
before(async () => { up = await startUpstream(shared) })

const options = (o) => ({ upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { admin_token: ADMIN, trusted_proxies: '127.0.0.1' },
  billing: { signup: 'on', signup_credit: SIGNUP, signup_rate: '100000/h' }, ...o })
const pause = (ms) => new Promise((r) => setTimeout(r, ms))

/* What was acknowledged, what was asked and not answered, and the doing of it. */
function books(g, rnd) {
  const b = { accounts: [], open: [], done: {}, lost: {} }
  let serial = 0
  const pick = (list) => list[Math.floor(rnd() * list.length)]
  const count = (into, what) => { into[what] = (into[what] ?? 0) + 1 }
  const from = () => ({ 'X-Forwarded-For': `10.${serial >> 16 & 255}.${serial >> 8 & 255}.${serial++ & 255}` })
  const post = (p, body, key, o) => g.req({ method: 'POST', path: p, body, key, headers: from(), ...o })
  const joined = (email, token, key) => {
    const a = { email, token, sub: JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).sub, money: nano(SIGNUP), keys: new Map([['default', 'active']]), ids: new Map(), secrets: new Map() }
    if (key) a.secrets.set('default', key)
    b.accounts.push(a)
  }
  /* Each gives true: acknowledged; else it is open. A refusal that is not the server's failing is a failed test. */
  const unavailable = (r) => assert.ok([500, 502, 503].includes(r.status), `${r.status} ${r.text}`)
  const deeds = {
    async register(o) {
      const r = await post('/auth/register', { email: o.email, password: 'long enough' })
      if (r.status === 200) { joined(o.email, r.json.token, r.json.api_key); return true }
      unavailable(r)
    },
    async key(o) {
      const r = await post('/api-keys', { name: o.name, limit: 0.5 }, o.account.token)
      if (r.status === 200) { o.account.keys.set(o.name, 'active'); o.account.ids.set(o.name, r.json.id); o.account.secrets.set(o.name, r.json.key); return true }
      unavailable(r)
    },
    async revoke(o) {
      const r = await g.req({ method: 'DELETE', path: `/api-keys/${o.account.ids.get(o.name)}`, key: o.account.token })
      if (r.status === 200) { o.account.keys.set(o.name, 'revoked'); return true }
      unavailable(r)
    },
    async move(o) { // a credit or debit, by tollctl or /admin
      if (o.admin) {
        const r = await post(`/admin/${o.what}s`, { account: o.account.email, amount: o.amount, idempotency_key: o.idem, reason: 'books' }, ADMIN, { port: g.admin })
        if (r.status !== 200) return unavailable(r)
        assert.equal(r.json.amount, o.amount)
      } else {
        const r = await g.ctlRaw('--json', o.what, o.account.email, o.amount, '--idempotency-key', o.idem)
        if (r.code !== 0) { assert.ok(!r.json || ['unavailable', 'unreachable', 'starting', 'busy'].includes(r.json.error.code), r.stdout); return false }
        assert.equal(r.json.amount, o.amount)
      }
      o.account.money += o.what === 'credit' ? nano(o.amount) : -nano(o.amount)
      return true
    },
  }
  /* One more deed. */
  b.step = async () => {
    const n = ++serial, r = rnd(), account = b.accounts.length ? pick(b.accounts) : null
    let kind = 'register', o = { email: `u${n}@example.com` }
    const mine = account && [...account.ids.keys()].filter((k) => account.keys.get(k) === 'active')
    if (account && r < 0.3) [kind, o] = ['key', { account, name: `k${n}` }]
    else if (account && r < 0.45 && mine.length) { [kind, o] = ['revoke', { account, name: pick(mine) }]; account.keys.set(o.name, 'going') }
    else if (account && r < 0.9) [kind, o] = ['move', { account, what: r < 0.7 ? 'credit' : 'debit', admin: rnd() < 0.85, amount: r < 0.7 ? `0.0${n % 9 + 1}` : '0.001', idem: `i${n}` }]
    if (await deeds[kind](o).catch((e) => { if (e instanceof assert.AssertionError) throw e })) { count(b.done, o.what ?? kind); return true }
    b.open.push({ kind, o })
    count(b.lost, o.what ?? kind)
    return false
  }
  const keysOf = async (a) => { const r = await g.req({ path: '/api-keys', key: a.token }); assert.equal(r.status, 200, r.text); return r.json.keys }
  const again = (kind, o) => until(() => deeds[kind](o), `a second ${kind}`)
  /* Finds out what became of that which was not acknowledged: all of it or nothing; and does it (again). */
  b.settle = async () => {
    const touched = new Set()
    for (const { kind, o } of b.open.splice(0)) {
      if (kind === 'register') {
        const r = await until(async () => { const x = await post('/auth/login', { email: o.email, password: 'long enough' }); return x.status !== 503 && x }, 'an answer to a login')
        if (r.status === 200) joined(o.email, r.json.token)
        else { assert.equal(r.status, 401, r.text); await again(kind, o) }
        touched.add(b.accounts.at(-1))
        continue
      }
      if (kind === 'key') {
        const found = (await until(() => keysOf(o.account), 'the keys')).filter((k) => k.name === o.name)
        assert.ok(found.length <= 1)
        if (found.length) { assert.equal(found[0].limit, 0.5); o.account.keys.set(o.name, 'active'); o.account.ids.set(o.name, found[0].id) }
      } else await again(kind, o)
      touched.add(o.account)
    }
    return touched
  }
  b.check = async (accounts) => {
    for (const a of accounts) {
      assert.deepEqual((await keysOf(a)).map((k) => [k.name, k.status]).sort(), [...a.keys].sort(), `keys of ${a.email}`)
      assert.equal((await g.balance(a.sub)).balance, decimal(a.money), `balance of ${a.email}`)
      for (const [name, secret] of a.secrets) assert.equal((await g.req({ path: '/billing/balance', key: secret })).status, a.keys.get(name) === 'active' ? 200 : 403, `key ${name} of ${a.email}`)
    }
  }
  b.whole = async () => {
    const { accounts } = await g.ctl('account', 'list')
    assert.equal(accounts.length, b.accounts.length, 'no account but those')
    await b.check(b.accounts)
    await g.audit()
  }
  b.sample = (n) => Array.from({ length: Math.min(n, b.accounts.length) }, () => pick(b.accounts))
  return b
}
/* Deeds in several lanes until stop(); a lane whose deed failed waits a moment. */
function busy(b) {
  let stop = false, failure
  const all = Array.from({ length: LANES }, async () => { try { while (!stop) if (!await b.step()) await pause(5) } catch (e) { failure = e; stop = true } })
  return async () => { stop = true; await Promise.all(all); if (failure) throw failure }
}
const ready = (g) => until(async () => { const r = await g.ctlRaw('--json', 'account', 'list'); return r.code === 0 }, 'a ledger')

test(`killed ${KILLS} times at any moment`, { timeout: 180000 + KILLS * 4000 }, async (t) => {
  const g = await startGateway(t, options()), rnd = random(SEED), b = books(g, rnd), tally = {}
  for (let i = 0; i < KILLS; i++) {
    const r = rnd(), what = r < 0.5 ? 'ledger' : r < 0.85 ? 'everything' : 'master'
    tally[what] = (tally[what] ?? 0) + 1
    const end = busy(b)
    try {
      await pause(rnd() * 60)
      if (what === 'ledger') { const pid = (await g.ctl('status')).ledger.pid; await pause(rnd() * 20); process.kill(pid, 'SIGKILL') }
      else if (what === 'everything') { await g.killAll(); await g.start() }
      else { process.kill(g.pid, 'SIGKILL'); await g.ended; await g.start() }
      await ready(g)
      await end()
      await b.check(new Set([...await b.settle(), ...b.sample(3)]))
      if (i % 20 === 19) await g.audit()
    } catch (e) {
      await end().catch(() => {})
      e.message = `after kill ${i + 1} (${what}), seed ${SEED}: ${e.message}\n${g.log()}`
      throw e
    }
  }
  await b.whole()
  t.diagnostic(`seed ${SEED}: ${JSON.stringify(tally)}; acknowledged ${JSON.stringify(b.done)}; not ${JSON.stringify(b.lost)}`)
  assert.ok(Object.values(b.lost).reduce((x, y) => x + y, 0) > KILLS / 4, 'kills came amid deeds')
})

describe('the ledger dies every so often at', { ...withSteps, concurrency: true }, () => {
  const STEPS = ['commit.written', 'commit.done', 'publish.begun', 'publish.ended', 'credit.named', 'credit.word', 'debit.word']
  for (const step of STEPS) test(step, async (t) => {
    const g = await startGateway(t, options({ program: STEPS_BUILD, env: { TOLLGATE_STEPS: `${step}:${step.startsWith('publish') ? 60 : 25}+` }, workers: 1 }))
    const b = books(g, random(SEED)), deaths = () => (g.output.match(/steps: killed at/g) ?? []).length
    const end = busy(b)
    await until(() => deaths() >= 3, 'three deaths', 60000).finally(end)
    const died = deaths()
    await ready(g)
    await b.settle()
    await until(async () => { await b.whole(); return true }, 'books that are right')
    t.diagnostic(`${died} deaths; acknowledged ${JSON.stringify(b.done)}; not ${JSON.stringify(b.lost)}`)
  })
})
