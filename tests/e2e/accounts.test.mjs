/* Accounts, keys, billing, caps and /admin over HTTP: shapes, refusals, isolation, rates, what a restart keeps. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import http from 'node:http'
import { before, describe } from 'node:test'
import { later } from './lib/clean.mjs'
import { run, startGateway, until } from './lib/gateway.mjs'
import { digitsOf, nano } from './lib/money.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const ADMIN = 'admin-token-0123456789'
const shared = cleanUps()
let up, g, n = 0
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url, retries: 0 }],
    models: ['gpt-4o', { name: 'vendor/model-1', call_cap: '0.5' }, { name: 'dear', call_cap: '0.0625' }, 'hidden'],
    groups: { plain: 'models gpt-*,vendor/*,dear;' }, tiers: { trial: 'rpm 1000;' },
    top: { admin_token: `"${ADMIN}"` },
    billing: { signup: 'on', signup_credit: '5', signup_tier: 'trial', signup_group: 'plain', signup_rate: '1000/h' },
  })
})

const ask = (method, path, o = {}) => g.req({ method, path, ...o })
const register = (email, password = 'correct horse', o = {}) => ask('POST', '/auth/register', { body: { email, password }, ...o })
const login = (email, password, o = {}) => ask('POST', '/auth/login', { body: { email, password }, ...o })
const admin = (method, path, body, key = ADMIN) => g.req({ port: g.admin, method, path, body, key })
async function member(email = `m${++n}@example.com`) {
  const r = await register(email)
  assert.equal(r.status, 200, r.text)
  return { email, password: 'correct horse', token: r.json.token, key: r.json.api_key }
}
function refused(r, status, like = /./) {
  assert.equal(r.status, status, r.text)
  assert.deepEqual(Object.keys(r.json), ['detail'])
  assert.match(r.json.detail, like)
}
const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
const part = (x) => Buffer.from(typeof x === 'string' ? x : JSON.stringify(x)).toString('base64url')

describe('registering', () => {
  test('answers token, key, balance and message, and each of them works', async () => {
    const r = await register('  Dev@Example.COM ', 'mypass')
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(Object.keys(r.json), ['token', 'api_key', 'balance', 'message'])
    assert.equal(digitsOf(r.text, 'balance'), '5')
    assert.equal(r.json.message, 'Registration successful! $5.00 free credit granted.')
    assert.match(r.json.api_key, /^sk-[0-9A-Za-z]{32}$/)
    const c = claimsOf(r.json.token)
    assert.equal(c.exp - c.iat, 86400)
    assert.equal((await g.chat(r.json.api_key)).status, 200)
    for (const key of [r.json.token, r.json.api_key])
      assert.equal((await ask('GET', '/billing/balance', { key })).json.email, 'dev@example.com')
    const a = await g.ctl('account', 'show', 'dev@example.com')
    assert.equal(a.tier, 'trial')
    assert.equal(a.group, 'plain')
    assert.equal((await login('DEV@example.com', 'mypass')).status, 200)
    await g.audit()
  })
  test('bad input: 400', async () => {
    for (const body of [undefined, {}, { email: 'a@example.com' }, { password: 'long enough' }, { email: 5, password: 'long enough' },
      { email: 'no address', password: 'long enough' }, { email: 'a@b@c', password: 'long enough' }, { email: 'x@example.com', password: '12345' },
      { email: 'x@example.com', password: 'ééééé' }, { email: 'x@example.com', password: 123456789 }, { email: 'x@example.com', password: 'x'.repeat(1025) },
      { email: `${'x'.repeat(300)}@example.com`, password: 'long enough' }])
      refused(await ask('POST', '/auth/register', { body }), 400)
    assert.equal((await register('six@example.com', 'éééééé')).status, 200)
    assert.equal((await register('long@example.com', 'x'.repeat(1024))).status, 200)
    assert.equal((await login('long@example.com', 'x'.repeat(1024))).status, 200)
    assert.equal((await login('long@example.com', `${'x'.repeat(1023)}y`)).status, 401)
  })
  test('however it is typed it is one address: case, blanks, letters beyond ASCII; what cannot be seen is refused', async () => {
    const m = await member('J\u00fcrgen.\u00d6@B\u00fccher.Example')
    for (const email of ['j\u00fcrgen.\u00f6@b\u00fccher.example', ' J\u00dcRGEN.\u00d6@B\u00dcCHER.EXAMPLE\u00a0', '\tJ\u00fcrgen.\u00f6@b\u00fccher.Example\r\n']) {
      refused(await register(email), 400, /already registered/)
      assert.equal((await login(email, m.password)).status, 200, JSON.stringify(email))
    }
    assert.equal((await ask('GET', '/billing/balance', { key: m.key })).json.email, 'j\u00fcrgen.\u00f6@b\u00fccher.example')
    for (const hidden of ['\u202e', '\u200b', '\u0000', '\u001b[2J', '\u009b2J', '\ufeff', ' ', '\u00a0']) refused(await register(`a${hidden}b@example.com`), 400)
    assert.equal((await login('a\u0000b@example.com', 'whatever')).status, 401)
  })
  test('a known email: 400, also when both come at once', async () => {
    await member('twice@example.com')
    refused(await register('TWICE@example.com'), 400, /already registered/)
    const all = await Promise.all(Array.from({ length: 6 }, () => register('race@example.com')))
    assert.deepEqual(all.map((r) => r.status).sort(), [200, 400, 400, 400, 400, 400])
    await g.audit()
  })
  test('switched off: 403; without credit the message promises none', async (t) => {
    const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], billing: { signup: 'off' } })
    refused(await other.req({ path: '/auth/register', body: { email: 'a@example.com', password: 'long enough' } }), 403)
    refused(await other.req({ path: '/auth/login', body: { email: 'a@example.com', password: 'long enough' } }), 401)
    await other.reload({ billing: { signup: 'on' } })
    const r = await other.req({ path: '/auth/register', body: { email: 'a@example.com', password: 'long enough' } })
    assert.equal(r.json.message, 'Registration successful!')
    assert.equal(r.json.balance, 0)
    refused(await other.req({ port: other.admin, path: '/admin/accounts', key: 'anything' }), 404)
  })
})

describe('logging in', () => {
  test('answers token and balance', async () => {
    const m = await member()
    const r = await login(m.email, m.password)
    assert.deepEqual(Object.keys(r.json), ['token', 'balance'])
    assert.equal(r.json.balance, 5)
    assert.notEqual(claimsOf(r.json.token).jti, claimsOf(m.token).jti)
    for (const body of [{}, { email: m.email }, { email: m.email, password: 5 }]) refused(await ask('POST', '/auth/login', { body }), 400)
  })
  test('tells nothing of which emails exist: the same answer, after the same time; of suspended ones and such without a password too', async (t) => {
    const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { trusted_proxies: '127.0.0.0/8' },
      billing: { signup: 'on', signup_rate: '1000/h' } })
    const KINDS = ['known', 'unknown', 'suspended', 'passwordless'], PEOPLE = 6, EACH = 4 // failures an account: one below the limit
    for (let a = 0; a < PEOPLE; a++) {
      for (const kind of ['known', 'suspended']) await other.req({ path: '/auth/register', body: { email: `${kind}${a}@example.com`, password: 'long enough' } })
      await other.ctl('account', 'suspend', `suspended${a}@example.com`)
      await other.ctl('account', 'create', '--email', `passwordless${a}@example.com`)
    }
    const times = Object.fromEntries(KINDS.map((k) => [k, []])), texts = new Set()
    let address = 0
    for (let i = 0; i < PEOPLE * EACH; i++) for (const kind of KINDS) {
      const headers = { 'X-Forwarded-For': `10.0.${address >> 8}.${address++ & 255}` }
      const start = performance.now()
      const r = await other.req({ path: '/auth/login', headers, body: { email: `${kind}${i % PEOPLE}@example.com`, password: 'wrong one' } })
      times[kind].push(performance.now() - start)
      assert.equal(r.status, 401)
      texts.add(r.text)
    }
    assert.equal(texts.size, 1)
    // How often one of the first kind takes longer than one of the second: 0.5 where nothing tells them apart; with 24 of each it
    // strays further than 0.3 from there once in 3,000 runs.
    const longer = (x, y) => x.reduce((n, a) => n + y.reduce((m, c) => m + (a > c ? 1 : a === c ? 0.5 : 0), 0), 0) / (x.length * y.length)
    const median = (l) => [...l].sort((x, y) => x - y)[l.length >> 1].toFixed(1)
    t.diagnostic(KINDS.map((k) => `${k} ${median(times[k])} ms`).join(', '))
    for (const kind of KINDS.slice(1)) assert.ok(Math.abs(longer(times.known, times[kind]) - 0.5) < 0.3, `known against ${kind}: ${longer(times.known, times[kind])}`)
    for (const kind of KINDS) assert.ok(median(times[kind]) > 3, 'a slow hash was made')
  })
  test('hashes are made beside the loops: what else is asked meanwhile does not wait for them', async (t) => {
    const other = await startGateway(t, { workers: 1, upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { trusted_proxies: '127.0.0.0/8' }, billing: { signup: 'on', signup_rate: '1000/h' } })
    const m = (await other.req({ path: '/auth/register', body: { email: 'a@example.com', password: 'long enough' } })).json
    let done = 0
    const logins = Array.from({ length: 40 }, (_, i) => other.req({ path: '/auth/login', headers: { 'X-Forwarded-For': `10.9.0.${i}` }, body: { email: `x${i}@example.com`, password: 'wrong one' } })
      .then((r) => { done++; return r.status }))
    const before = []
    for (let i = 0; i < 10; i++) { // each a way to the worker's and the ledger's loop and back
      assert.equal((await other.req({ path: '/billing/balance', key: m.token })).status, 200)
      assert.equal((await other.chat(m.api_key)).status, 402)
      before.push(done)
    }
    for (const s of await Promise.all(logins)) assert.equal(s, 401)
    assert.ok(before[2] < 40, `the third round came before the last of forty hashes: ${before}`)
  })
  test('five failures an account, ten an address, in a minute; then 429, also with the right password', async (t) => {
    const other = await startGateway(t, { workers: 3, upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { trusted_proxies: '127.0.0.0/8' },
      billing: { signup: 'on', signup_rate: '3/h' } })
    const post = (path, body, from) => other.req({ path, body, headers: { 'X-Forwarded-For': from } })
    assert.equal((await post('/auth/register', { email: 'a@example.com', password: 'long enough' }, '10.1.1.1')).status, 200)
    const statuses = (await Promise.all(Array.from({ length: 12 }, (_, i) => post('/auth/login', { email: 'a@example.com', password: 'wrong!' }, `10.2.0.${i}`)))).map((r) => r.status)
    assert.equal(statuses.filter((s) => s === 401).length, 5, `all at once: ${statuses}`)
    const right = await post('/auth/login', { email: 'A@example.com', password: 'long enough' }, '10.3.0.1')
    refused(right, 429)
    assert.ok(Number(right.headers['retry-after']) >= 1 && Number(right.headers['retry-after']) <= 60)
    for (let i = 0; i < 10; i++) assert.equal((await post('/auth/login', { email: `nobody${i}@example.com`, password: 'wrong!' }, '10.4.0.1')).status, 401)
    refused(await post('/auth/login', { email: 'nobody@example.com', password: 'wrong!' }, '10.4.0.1'), 429)
    assert.equal((await post('/auth/login', { email: 'nobody@example.com', password: 'wrong!' }, '10.4.0.2')).status, 401)
    // those that succeed do not count
    assert.equal((await post('/auth/register', { email: 'b@example.com', password: 'long enough' }, '10.1.1.1')).status, 200)
    for (let i = 0; i < 12; i++) assert.equal((await post('/auth/login', { email: 'b@example.com', password: 'long enough' }, '10.5.0.1')).status, 200)
    // three registrations an hour and address; a /64 is one
    assert.equal((await post('/auth/register', { email: 'c@example.com', password: 'long enough' }, '10.1.1.1')).status, 200)
    const fourth = await post('/auth/register', { email: 'd@example.com', password: 'long enough' }, '10.1.1.1')
    refused(fourth, 429)
    assert.ok(Number(fourth.headers['retry-after']) > 3500)
    for (let i = 0; i < 3; i++) assert.equal((await post('/auth/register', { email: `v6-${i}@example.com`, password: 'long enough' }, `2001:db8:1:2::${i}`)).status, 200)
    refused(await post('/auth/register', { email: 'v6-9@example.com', password: 'long enough' }, '2001:db8:1:2:ffff::9'), 429)
    // behind two proxies, one of which writes IPv4 addresses as IPv6
    for (let i = 0; i < 5; i++) assert.equal((await post('/auth/register', { email: `two-${i}@example.com`, password: 'long enough' }, `10.6.0.${i}, ::ffff:127.0.0.9`)).status, 200)
  })
  test('what a client says of its address counts only from a trusted proxy', async (t) => {
    const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], billing: { signup: 'on', signup_rate: '3/h' } })
    const post = (p, body, i) => other.req({ path: p, body, headers: { 'X-Forwarded-For': `10.7.0.${i}`, 'X-Real-IP': `10.7.0.${i}`, Forwarded: `for=10.7.0.${i}` } })
    for (let i = 0; i < 5; i++) assert.equal((await post('/auth/register', { email: `x${i}@example.com`, password: 'long enough' }, i)).status, i < 3 ? 200 : 429)
    for (let i = 0; i < 12; i++) assert.equal((await post('/auth/login', { email: `nobody${i}@example.com`, password: 'wrong one' }, i)).status, i < 10 ? 401 : 429)
  })
  test('a suspended account gets no token, and its old one opens nothing', async () => {
    const m = await member()
    await g.ctl('account', 'suspend', m.email)
    refused(await login(m.email, m.password), 403)
    for (const key of [m.token, m.key]) refused(await ask('GET', '/billing/balance', { key }), 403)
    refused(await ask('GET', '/api-keys', { key: m.token }), 403)
    await g.ctl('account', 'resume', m.email)
    assert.equal((await ask('GET', '/api-keys', { key: m.token })).status, 200)
  })
})

describe('tokens', () => {
  test('forged, unsigned, of another algorithm, without end: 401', async () => {
    const m = await member(), c = claimsOf(m.token), [head, claims, mac] = m.token.split('.')
    const none = part({ alg: 'none', typ: 'JWT' })
    const hmac = (text, key) => createHmac('sha256', key).update(text).digest('base64url')
    const flipped = (mac[0] === 'A' ? 'B' : 'A') + mac.slice(1)
    const bad = ['', 'x', '.', '..', 'a.b.c', `${head}.${claims}`, `${head}.${claims}.`, `${none}.${claims}.`, `${none}.${claims}.${mac}`, `${head}.${claims}.${flipped}`,
      `${head}.${claims}.${mac}.${mac}`, `${head}.${claims}.${mac.slice(0, -4)}`, `${head}.${part({ ...c, sub: 'acct_00000001' })}.${mac}`,
      `${part({ alg: 'RS256' })}.${claims}.${mac}`, `${part({ alg: 'HS512' })}.${claims}.${mac}`, `${part({ alg: 'hs256' })}.${claims}.${mac}`,
      `${head}.${claims}.${hmac(`${head}.${claims}`, '')}`, `${head}.${claims}.${hmac(`${head}.${claims}`, 'secret')}`, `${'A'.repeat(9000)}.${claims}.${mac}`]
    for (const key of bad) assert.equal((await ask('GET', '/api-keys', { key })).status, 401, key.slice(0, 80))
    assert.equal((await ask('GET', '/api-keys', { key: m.token })).status, 200)
  })
  test('with a configured secret others can sign; theirs are held to the same rules; they end', async (t) => {
    const secret = 'a configured secret'
    const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'],
      billing: { signup: 'on', jwt_secret: `"${secret}"`, jwt_ttl: '1s' } })
    const r = await other.req({ path: '/auth/register', body: { email: 'a@example.com', password: 'long enough' } })
    const sub = claimsOf(r.json.token).sub, now = Math.floor(Date.now() / 1000)
    const sign = (c, h = { alg: 'HS256' }) => { const text = `${part(h)}.${part(c)}`; return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}` }
    const status = async (key) => (await other.req({ path: '/api-keys', key })).status
    assert.equal(await status(sign({ sub, iat: now, exp: now + 100 })), 200)
    assert.equal(await status(sign({ sub, iat: now - 200, exp: now - 100 })), 401)
    assert.equal(await status(sign({ sub, iat: now })), 401)
    assert.equal(await status(sign({ sub, iat: now, exp: 'never' })), 401)
    assert.equal(await status(sign({ sub, iat: now, exp: null })), 401)
    assert.equal(await status(sign({ sub, iat: now + 1000, exp: now + 2000 })), 401)
    assert.equal(await status(sign({ sub: 'acct_0000zzzz', iat: now, exp: now + 100 })), 401)
    assert.equal(await status(sign({ sub: 'a@example.com', iat: now, exp: now + 100 })), 401)
    assert.equal(await status(sign({ sub, iat: now, exp: now + 100 }, { alg: 'none' })), 401)
    assert.equal(await status(sign({ sub, iat: now, exp: now + 100 }, { alg: 'HS256', crit: ['x'], x: 1 })), 401)
    await until(async () => await status(r.json.token) === 401, 'the end of a token of one second')
  })
})

describe('keys', () => {
  test('listed masked, made whole once, revoked for good', async () => {
    const m = await member()
    const made = await ask('POST', '/api-keys?name=production%20%E2%9C%93', { key: m.token })
    assert.equal(made.status, 200, made.text)
    assert.deepEqual(Object.keys(made.json), ['id', 'name', 'key', 'status', 'models', 'limit', 'spent', 'expires_at', 'created_at', 'last_used_at'])
    assert.equal(made.json.name, 'production ✓')
    const list = (await ask('GET', '/api-keys', { key: m.token })).json
    assert.deepEqual(Object.keys(list), ['keys'])
    assert.deepEqual(list.keys.map((k) => k.name), ['default', 'production ✓'])
    const k = list.keys[1]
    assert.equal(k.key, `${made.json.key.slice(0, 7)}...${made.json.key.slice(-4)}`)
    assert.ok(!JSON.stringify(list).includes(made.json.key) && !JSON.stringify(list).includes(m.key))
    assert.equal((await g.chat(made.json.key)).status, 200)
    for (let i = 0; i < 2; i++) {
      const gone = await ask('DELETE', `/api-keys/${k.id}`, { key: m.token })
      assert.equal(gone.status, 200, gone.text)
      assert.deepEqual(Object.keys(gone.json), ['id', 'status', 'message'])
      assert.deepEqual([gone.json.id, gone.json.status], [k.id, 'revoked'])
      for (let j = 0; j < 6; j++) assert.equal((await g.chat(made.json.key)).status, 403)
    }
    refused(await ask('GET', '/billing/balance', { key: made.json.key }), 403)
    assert.equal((await ask('GET', '/api-keys', { key: m.token })).json.keys[1].status, 'revoked')
    assert.equal((await g.chat(m.key)).status, 200, 'the other key goes on')
  })
  test('name, models, limit and expiry from a JSON body; rates are the plan\'s', async () => {
    const m = await member()
    const r = await ask('POST', '/api-keys', { key: m.token, body: { name: 'a', models: ['gpt-4*', 'x'], limit: 0.000001, expires: '30d', rpm: 1000000 } })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(r.json.models, ['gpt-4*', 'x'])
    assert.equal(digitsOf(r.text, 'limit'), '0.000001')
    assert.ok(Math.abs(Date.parse(r.json.expires_at) - Date.now() - 30 * 86400e3) < 60e3)
    assert.equal((await g.ctl('key', 'show', r.json.id)).rpm, null)
    assert.equal((await g.chat(r.json.key)).status, 402)
    assert.equal((await g.chat(r.json.key, { model: 'vendor/model-1' })).status, 403)
    for (const body of [{ limit: -1 }, { limit: 'much' }, { expires: 'soon' }, { models: [5] }, { models: [''] }, { name: 'x'.repeat(300) }, { name: { a: 1 } }])
      refused(await ask('POST', '/api-keys', { key: m.token, body }), 400)
    assert.equal((await ask('POST', '/api-keys', { key: m.token })).json.name, 'default')
  })
  test('one account fills no table: a thousand active keys, 64 KiB of model lists, then 400; others go on', async () => {
    const m = await member(), other = await member()
    const make = (body, who = m) => ask('POST', '/api-keys', { key: who.token, body })
    let made = 1, lists = 0
    for (const long = 'x'.repeat(1900); ; lists++) {
      const r = await make({ models: [`${lists}-${long}`] })
      if (r.status === 400) { refused(r, 400, /65536 bytes/); break }
      assert.equal(r.status, 200, r.text)
      made++
    }
    assert.equal(lists, Math.floor(65536 / 1902.5))
    assert.equal((await make({ models: [`other-${'x'.repeat(1900)}`] }, other)).status, 200)
    while (made < 1000) made += (await Promise.all(Array.from({ length: Math.min(50, 1000 - made) }, () => make({})))).filter((r) => r.status === 200).length
    const all = await Promise.all(Array.from({ length: 20 }, () => make({})))
    for (const r of all) refused(r, 400, /1000 active keys/)
    const { keys } = (await ask('GET', '/api-keys', { key: m.token })).json
    assert.equal(keys.length, 1000)
    await ask('DELETE', `/api-keys/${keys.find((k) => k.models).id}`, { key: m.token })
    assert.equal((await make({ models: [`again-${'x'.repeat(1890)}`] })).status, 200)
    refused(await make({}), 400, /1000 active keys/)
    assert.equal((await make({}, other)).status, 200)
  })
  test('texts of every kind come back as they went', async () => {
    const m = await member()
    for (const name of ["'; DROP TABLE keys;--", '<script>alert(1)</script>', '"}{"', '\\u0000\\', '{{7*7}}', '../../etc/passwd', '%s%n%x', '\u202e\ufeff', '😀', 'a\r\nX: y', '$(id)']) {
      const r = await ask('POST', '/api-keys', { key: m.token, body: { name } })
      assert.equal(r.json?.name, name, r.text)
      const q = await ask('POST', `/api-keys?name=${encodeURIComponent(name)}`, { key: m.token })
      assert.equal(q.json?.name, name, q.text)
    }
    const names = (await ask('GET', '/api-keys', { key: m.token })).json.keys.map((k) => k.name)
    assert.ok(names.includes('a\r\nX: y') && names.includes("'; DROP TABLE keys;--"))
  })
  test('a revoked key fails on its next request, whichever worker has the connection', async () => {
    const m = await member(), k = (await ask('POST', '/api-keys', { key: m.token })).json
    const agents = Array.from({ length: 12 }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }))
    const each = () => Promise.all(agents.map((agent) => g.chat(k.key, {}, { agent })))
    for (const r of await each()) assert.equal(r.status, 200)
    for (let round = 0; round < 3; round++) for (const r of await each()) assert.equal(r.status, 200)
    assert.equal((await ask('DELETE', `/api-keys/${k.id}`, { key: m.token })).status, 200)
    for (const r of await each()) assert.equal(r.json.error?.code, 'key_revoked', r.text)
    for (const a of agents) a.destroy()
  })
  test('a key\'s spending limit holds to the digit, however many calls come at once', async () => {
    const m = await member(), k = (await ask('POST', '/api-keys', { key: m.token, body: { limit: 0.0125, models: ['gpt-4o'] } })).json
    for (let round = 0; round < 4; round++) {
      const all = await Promise.all(Array.from({ length: 40 }, () => g.chat(k.key, { max_tokens: 156 })))
      for (const r of all) if (r.status !== 200) assert.equal(r.json.error.code, 'key_limit_exceeded', r.text)
    }
    await g.settled(claimsOf(m.token).sub)
    const shown = await g.ctl('key', 'show', k.id)
    const { usage } = await g.ctl('usage', '--key', k.id, '--limit', '1000')
    const spent = usage.reduce((n2, u) => n2 + nano(u.cost), 0n)
    assert.equal(nano(shown.spent), spent)
    assert.ok(spent <= nano('0.0125') && spent > nano('0.0125') - nano('0.0025'), `${shown.spent} of 0.0125`)
    assert.equal((await g.chat(m.key)).status, 200, 'the account has its money still')
    await g.audit()
  })
  test('an expired key: 403 from that second on', async () => {
    const m = await member()
    let k
    for (let ms = 2000; ; ms *= 2) { // a call and its answer, before it ends
      k = (await ask('POST', '/api-keys', { key: m.token, body: { expires: new Date(Date.now() + ms).toISOString() } })).json
      const { status } = await g.chat(k.key)
      if (Date.now() >= Date.parse(k.expires_at)) continue
      assert.equal(status, 200)
      break
    }
    const r = await until(async () => { const x = await g.chat(k.key); return x.status !== 200 && x }, 'the end of the key')
    assert.deepEqual([r.status, r.json.error.code], [403, 'key_expired'])
    assert.ok(Date.now() >= Date.parse(k.expires_at))
    assert.equal((await ask('GET', '/api-keys', { key: m.token })).json.keys.find((x) => x.id === k.id).status, 'expired')
    refused(await ask('GET', '/billing/balance', { key: k.key }), 403)
  })
  test('an API key, another\'s credential, none: 401', async () => {
    const m = await member()
    const id = (await ask('GET', '/api-keys', { key: m.token })).json.keys[0].id
    for (const key of [undefined, m.key, id, claimsOf(m.token).sub, m.email, ADMIN]) {
      refused(await ask('GET', '/api-keys', { key }), 401)
      refused(await ask('POST', '/api-keys', { key }), 401)
      refused(await ask('DELETE', `/api-keys/${id}`, { key }), 401)
      if (key !== m.key) refused(await ask('GET', '/billing/balance', { key }), 401)
    }
  })
})

describe('isolation', () => {
  test('every id with every credential: only one\'s own', async () => {
    const people = [await member(), await member()]
    for (const p of people) {
      p.sub = claimsOf(p.token).sub
      p.ids = [(await ask('GET', '/api-keys', { key: p.token })).json.keys[0].id, (await ask('POST', '/api-keys?name=second', { key: p.token })).json.id]
      assert.equal((await g.chat(p.key)).status, 200)
      p.usage = await g.usage(p.sub)
    }
    for (const [i, me] of people.entries()) {
      const you = people[1 - i]
      const mine = (await ask('GET', '/api-keys', { key: me.token })).text
      for (const id of [...you.ids, you.sub, you.key, you.email]) assert.ok(!mine.includes(id))
      for (const id of [...you.ids, you.key, you.sub, 'key_00000000', 'key_zzzzzzzz', 'key_', '..', '%00', '*'])
        refused(await ask('DELETE', `/api-keys/${encodeURIComponent(id)}`, { key: me.token }), 404)
      for (const key of [me.token, me.key]) {
        const all = await ask('GET', '/billing/usage', { key })
        assert.deepEqual([...new Set(all.json.usage.map((u) => u.account))], [me.sub])
        for (const query of [`account=${you.sub}`, `cursor=${you.usage[0].id}`, `account=${you.email}&limit=1000`])
          for (const u of (await ask('GET', `/billing/usage?${query}`, { key })).json.usage) assert.equal(u.account, me.sub)
        for (const id of you.ids) refused(await ask('GET', `/billing/usage?key=${id}`, { key }), 404)
        assert.equal((await ask('GET', `/billing/usage?key=${me.ids[0]}`, { key })).json.usage.length, all.json.usage.length)
        assert.equal((await ask('GET', `/billing/usage?key=${me.ids[1]}`, { key })).json.usage.length, 0)
        assert.equal((await ask('GET', `/billing/balance?account=${you.sub}&email=${you.email}`, { key })).json.email, me.email)
        refused(await admin('GET', '/admin/accounts', undefined, key), 401)
      }
      assert.equal((await g.chat(you.key)).status, 200, 'still there')
      you.usage = await g.usage(you.sub, you.usage.length + 1)
    }
  })
})

describe('billing', () => {
  test('who asks right after a call finds it in the figures', async (t) => {
    const m = await member(), agent = new http.Agent({ keepAlive: true, maxSockets: 1 }), CALLS = 40
    later(t, () => agent.destroy())
    let spent = 0n, missed = 0
    for (let i = 1; i <= CALLS; i++) {
      spent += nano((await g.chat(m.key, {}, { agent })).headers['x-tollgate-cost'])
      const there = i % 2 ? nano((await ask('GET', '/v1/key', { key: m.key, agent })).json.spent) === spent
        : (await ask('GET', '/billing/usage', { key: m.key, agent })).json.usage.length === i
      missed += there ? 0 : 1
    }
    assert.ok(missed <= CALLS / 4, `${missed} of ${CALLS}`) // left to its own time a group of charges waits for 8 ms
  })
  test('the balance falls by what the records say, to the digit', async () => {
    const m = await member()
    for (let i = 0; i < 3; i++) await g.chat(m.key)
    await until(async () => (await ask('GET', '/billing/usage', { key: m.token })).json.usage.length === 3, 'the records')
    const used = await ask('GET', '/billing/usage?limit=2', { key: m.key })
    assert.deepEqual(Object.keys(used.json), ['usage', 'next_cursor'])
    assert.equal(used.json.usage.length, 2)
    const rest = (await ask('GET', `/billing/usage?cursor=${used.json.next_cursor}`, { key: m.token })).json
    assert.equal(rest.usage.length, 1)
    assert.equal(rest.next_cursor, null)
    const all = [...used.json.usage, ...rest.usage]
    assert.equal(new Set(all.map((u) => u.id)).size, 3)
    for (const u of all) {
      assert.equal(typeof u.cost, 'number')
      assert.equal(typeof u.uncollected, 'number')
      assert.equal(u.model, 'gpt-4o')
      assert.match(u.time, /^\d{4}-\d\d-\d\dT.*Z$/)
    }
    const spent = all.reduce((sum, u) => sum + Math.round(u.cost * 1e9), 0)
    const left = await until(async () => {
      const r = await ask('GET', '/billing/balance', { key: m.token })
      return Math.round(r.json.balance * 1e9) === 5e9 - spent && r
    }, 'the settled balance')
    assert.deepEqual(Object.keys(left.json), ['balance', 'email'])
    assert.equal((await ask('GET', '/billing/usage?model=gpt-4o', { key: m.key })).json.usage.length, 3)
    assert.equal((await ask('GET', '/billing/usage?model=hidden', { key: m.key })).json.usage.length, 0)
    assert.equal((await ask('GET', '/billing/usage?since=2000-01-01&until=2001-01-01', { key: m.key })).json.usage.length, 0)
    for (const query of ['limit=0', 'limit=-1', 'limit=many', 'cursor=x', 'since=yesterday']) refused(await ask('GET', `/billing/usage?${query}`, { key: m.key }), 400)
    assert.equal((await ask('GET', '/billing/usage?limit=99999999', { key: m.key })).json.usage.length, 3)
    assert.equal((await ask('GET', '/api/billing/balance', { key: m.key })).status, 200)
  })
})

test('pages stay what they were while new records come', async (t) => {
  const m = await member()
  for (let i = 0; i < 3; i++) await Promise.all(Array.from({ length: 10 }, () => g.chat(m.key, { max_tokens: 5 })))
  const all = (await until(async () => { const u = (await ask('GET', '/billing/usage?limit=100', { key: m.token })).json.usage; return u.length === 30 && u }, 'the records')).map((u) => u.id)
  assert.deepEqual(all, [...all].sort().reverse(), 'newest first')
  let stop = false
  t.after(() => { stop = true })
  const more = Promise.all(Array.from({ length: 3 }, async () => { while (!stop) await g.chat(m.key, { max_tokens: 5 }) }))
  const seen = []
  for (let cursor = ''; cursor !== null;) {
    const r = (await ask('GET', `/billing/usage?limit=4${cursor && `&cursor=${cursor}`}`, { key: m.token })).json
    seen.push(...r.usage.map((u) => u.id))
    cursor = r.next_cursor
    if (seen.length > 500) assert.fail('pages without end')
    await new Promise((r2) => setTimeout(r2, 5))
  }
  stop = true
  await more
  assert.equal(new Set(seen).size, seen.length, 'none twice')
  assert.deepEqual(seen.slice(-30), all, 'none left out')
})

describe('caps', () => {
  const cap = (m, model, body, method = body ? 'PUT' : 'GET') => ask(method, `/v1/models/${model}/cap`, { key: m.token, body })
  test('set, shown, obeyed at once, removed', async () => {
    const m = await member()
    assert.deepEqual((await cap(m, 'gpt-4o')).json, { model: 'gpt-4o', cap: null, call_cap: null })
    assert.equal((await g.chat(m.key)).status, 200)
    let r = await cap(m, 'gpt-4o', { cap: 0.000000001 })
    assert.equal(r.status, 200, r.text)
    assert.equal(digitsOf(r.text, 'cap'), '0.000000001')
    const over = await g.chat(m.key)
    assert.equal(over.status, 402)
    assert.equal(over.json.error.code, 'call_cap_exceeded')
    assert.equal((await g.ctl('cap', 'list')).caps.length, 1)
    r = await cap(m, 'gpt-4o', { cap: 5e-2 })
    assert.equal(digitsOf(r.text, 'cap'), '0.05')
    assert.equal((await g.chat(m.key)).status, 200)
    assert.deepEqual((await cap(m, 'gpt-4o', { cap: null })).json, { model: 'gpt-4o', cap: null, call_cap: null })
    for (const id of ['vendor/model-1', 'vendor%2Fmodel-1']) {
      assert.equal((await cap(m, id)).json.call_cap, 0.5)
      assert.equal((await cap(m, id, { cap: 0.75 })).json.call_cap, 0.5, 'the lower one')
      assert.equal((await cap(m, id, { cap: 0.25 })).json.call_cap, 0.25)
      assert.equal((await cap(m, id, { cap: null })).json.call_cap, 0.5)
    }
  })
  test('a refusal says which cap it is, and how high', async () => {
    const m = await member(), big = (model, key = m.key) => g.chat(key, { model, messages: [{ role: 'user', content: 'x'.repeat(100000) }] })
    const said = async (r) => { assert.equal(r.status, 402, r.text); assert.equal(r.json.error.code, 'call_cap_exceeded'); return r.json.error.message }
    assert.equal(await said(await big('dear')), 'The cost cap per call for this model, $0.0625 set by the operator, does not allow this request.')
    await cap(m, 'dear', { cap: 0.5 })
    assert.match(await said(await big('dear')), /\$0\.0625 set by the operator/)
    await cap(m, 'dear', { cap: 0.03125 })
    assert.match(await said(await big('dear')), /\$0\.03125 set for this account/)
    const key = (await ask('POST', '/api-keys', { key: m.token })).json
    await g.ctl('cap', 'set', key.id, 'dear', '0.015625')
    assert.match(await said(await big('dear', key.key)), /\$0\.015625 set for this API key/)
    assert.match(await said(await big('dear')), /set for this account/)
  })
  test('refusals are in OpenAI\'s shape; another\'s cap is not touched', async () => {
    const m = await member(), other = await member()
    await cap(m, 'gpt-4o', { cap: 0 })
    assert.equal((await cap(other, 'gpt-4o')).json.cap, null)
    assert.equal((await g.chat(other.key)).status, 200)
    for (const [model, body, status, code] of [['gpt-4o', {}, 400, 'missing_field'], ['gpt-4o', { cap: -1 }, 400, 'invalid_value'], ['gpt-4o', { cap: 'x' }, 400, 'invalid_value'],
      ['gpt-4o', { cap: 1e-10 }, 400, 'invalid_value'], ['gpt-4o', { cap: true }, 400, 'invalid_value'], ['nothing', { cap: 1 }, 404, 'model_not_found'],
      ['hidden', { cap: 1 }, 404, 'model_not_found']]) {
      const r = await cap(m, model, body)
      assert.equal(r.status, status, r.text)
      assert.equal(r.json.error.code, code)
      assert.deepEqual(Object.keys(r.json.error), ['message', 'type', 'param', 'code'])
    }
    const r = await ask('GET', '/v1/models/gpt-4o/cap', { key: m.key })
    assert.equal(r.status, 401)
    assert.equal(r.json.error.type, 'authentication_error')
    assert.equal(r.headers['x-should-retry'], 'false')
  })
})

describe('/admin', () => {
  test('accounts, keys, credits and usage as tollctl shows them', async () => {
    const made = await admin('POST', '/admin/accounts', { email: 'shop@example.com', credit: '2.5', tier: 'trial' })
    assert.equal(made.status, 200, made.text)
    assert.deepEqual(made.json, await g.ctl('account', 'show', 'shop@example.com'))
    refused(await admin('POST', '/admin/accounts', { email: 'shop@example.com' }), 409)
    refused(await admin('POST', '/admin/accounts', { email: 'shop2@example.com', tier: 'none such' }), 400)
    assert.ok((await admin('GET', '/admin/accounts?limit=1000')).json.accounts.some((a) => a.id === made.json.id))
    assert.deepEqual((await admin('GET', '/admin/accounts/shop%40example.com')).json, made.json)
    refused(await admin('GET', '/admin/accounts/acct_0000zzzz'), 404)
    const key = (await admin('POST', '/admin/keys', { account: made.json.id, name: 'till', models: ['gpt-4o'], rpm: 7 })).json
    assert.equal(key.rpm, 7)
    assert.equal((await g.chat(key.key)).status, 200)
    assert.deepEqual((await admin('GET', `/admin/keys?account=${made.json.id}`)).json.keys.map((k) => k.id), [key.id])
    assert.equal((await admin('POST', `/admin/keys/${key.id}`, { name: 'till 2' })).json.name, 'till 2')
    await g.usage(made.json.id)
    const usage = await admin('GET', `/admin/usage?account=${made.json.id}`)
    assert.deepEqual(usage.json, await g.ctl('usage', '--account', made.json.id))
    assert.equal((await admin('GET', `/admin/usage?account=${made.json.id}&by=model`)).json.usage[0].requests, 1)
    assert.equal((await admin('POST', `/admin/accounts/${made.json.id}`, { status: 'suspended', group: 'plain' })).json.status, 'suspended')
    assert.equal((await g.chat(key.key)).status, 403)
    assert.equal((await admin('POST', `/admin/accounts/${made.json.id}`, { status: 'active' })).json.group, 'plain')
    for (const status of ['dead', '', 5]) refused(await admin('POST', `/admin/keys/${key.id}`, { status }), 400, /status/)
    assert.equal((await admin('POST', `/admin/keys/${key.id}`, { status: 'active', rpm: 8 })).json.rpm, 8)
    assert.equal((await admin('POST', `/admin/keys/${key.id}`, { status: 'revoked' })).json.status, 'revoked')
    refused(await admin('POST', `/admin/keys/${key.id}`, { status: 'active' }), 400, /stays/)
    assert.equal((await admin('DELETE', `/admin/keys/${key.id}`)).json.status, 'revoked')
    assert.equal((await g.chat(key.key)).status, 403)
  })
  test('an amount is a number however JSON writes it, and exact', async () => {
    const m = await member()
    const post = (path, text, key) => g.req({ method: 'POST', path, body: text, key })
    for (const [written, meant] of [['1e-05', 0.00001], ['2.5E-1', 0.25], ['1e-9', 1e-9], ['12e0', 12], ['0.10', 0.1], ['"0.3"', 0.3]]) {
      const r = await post('/api-keys', `{"limit":${written}}`, m.token)
      assert.equal(r.json?.limit, meant, r.text)
    }
    for (const written of ['1e-10', '-1e-5', '1e400', '"1e-5"', '""', 'true', '[1]'])
      refused(await post('/api-keys', `{"limit":${written}}`, m.token), 400, /limit/)
    const credited = await g.req({ method: 'POST', port: g.admin, path: '/admin/credits', key: ADMIN, body: `{"account":"${m.email}","amount":7e-06}` })
    assert.equal(credited.json?.amount, '0.000007', credited.text)
  })
  test('a list of models that names none makes no key that may call all', async () => {
    const m = await member()
    for (const models of [[5], [null], ['gpt-4o', ''], [['a']], [{}], ',', ' , ', {}, true]) {
      refused(await admin('POST', '/admin/keys', { account: m.email, models }), 400, /models/)
      refused(await ask('POST', '/api-keys', { key: m.token, body: { models } }), 400, /models/)
    }
    for (const models of [',', ' ']) assert.equal((await g.ctlRaw('key', 'create', '--account', m.email, '--models', models)).code, 1)
    assert.equal((await g.ctl('key', 'list', '--account', m.email)).keys.length, 1)
  })
  test('debits, a key\'s record, a balance, keys of another gateway', async () => {
    const a = (await admin('POST', '/admin/accounts', { email: `back${++n}@example.com`, credit: '2.5' })).json
    const debit = { account: a.email, amount: '2', reason: 'charge-back', idempotency_key: `back-${n}` }
    const d = await admin('POST', '/admin/debits', debit)
    assert.equal(d.status, 200, d.text)
    assert.deepEqual([d.json.amount, d.json.balance, d.json.reason], ['2', '0.5', 'charge-back'])
    assert.deepEqual((await admin('POST', '/admin/debits', debit)).json, d.json, 'again: once')
    refused(await admin('POST', '/admin/debits', { account: a.id, amount: '1' }), 402)
    refused(await admin('POST', '/admin/credits', debit), 409)
    assert.equal((await admin('POST', '/admin/debits', { account: a.id, amount: '1', force: true })).json.balance, '-0.5')
    assert.deepEqual((await admin('GET', `/admin/accounts/${a.id}/balance`)).json, await g.ctl('balance', a.id))
    refused(await admin('GET', '/admin/accounts/acct_0000zzzz/balance'), 404)
    const old = Array.from({ length: 3 }, (_, i) => `old-gateway-${n}-${i}-abcdefghijklmnop`)
    assert.deepEqual((await admin('POST', '/admin/keys', { account: a.id, keys: [...old, old[0], 'short'] })).json, { imported: 3, skipped: 2 })
    const shown = await admin('GET', `/admin/keys/${encodeURIComponent(old[1])}`)
    assert.deepEqual(shown.json, await g.ctl('key', 'show', old[1]))
    assert.ok(!shown.text.includes(old[1]))
    refused(await admin('GET', '/admin/keys/key_0000zzzz'), 404)
    for (const keys of ['x', [], {}, null]) assert.equal((await admin('POST', '/admin/keys', { account: a.id, keys })).status, keys === null ? 200 : 400)
    await g.audit()
  })
  test('a webhook that comes again and again credits once', async () => {
    const m = await member()
    const body = { account: m.email, amount: '10', reason: 'payment 4711', idempotency_key: 'pay-4711' }
    const all = await Promise.all(Array.from({ length: 100 }, () => admin('POST', '/admin/credits', body)))
    for (const r of all) assert.deepEqual([r.status, r.json], [200, all[0].json])
    assert.equal((await ask('GET', '/billing/balance', { key: m.key })).json.balance, 15)
    refused(await admin('POST', '/admin/credits', { ...body, account: (await member()).email }), 409)
    refused(await admin('POST', '/admin/credits', { account: m.email, amount: -5 }), 400)
    refused(await admin('POST', '/admin/credits', { amount: 5 }), 400)
    refused(await admin('POST', '/admin/credits', { ...body, idempotency_key: '' }), 400, /idempotency_key/)
    assert.equal((await ask('GET', '/billing/balance', { key: m.key })).json.balance, 15)
  })
  test('another token, or the public listener: nothing', async () => {
    for (const key of [null, '', 'x', ADMIN.slice(0, -1), `${ADMIN}x`])
      for (const [method, p] of [['GET', '/admin/accounts'], ['POST', '/admin/credits'], ['GET', '/admin/usage'], ['DELETE', '/admin/keys/key_00000001']])
        refused(await admin(method, p, undefined, key), 401)
    assert.equal((await ask('GET', '/admin/accounts', { key: ADMIN })).status, 404)
  })
})

test('what was acknowledged outlives kill -9: account, keys, revocation, token', async (t) => {
  const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], billing: { signup: 'on', signup_credit: '1', signup_rate: '100/h' } })
  const r = (await other.req({ path: '/auth/register', body: { email: 'a@example.com', password: 'long enough' } })).json
  const second = (await other.req({ method: 'POST', path: '/api-keys?name=second', key: r.token })).json
  await other.req({ method: 'DELETE', path: `/api-keys/${second.id}`, key: r.token })
  await other.req({ method: 'PUT', path: '/v1/models/gpt-4o/cap', key: r.token, body: { cap: 0.5 } })
  await other.killAll()
  await other.start()
  const keys = (await other.req({ path: '/api-keys', key: r.token })).json.keys
  assert.deepEqual(keys.map((k) => [k.name, k.status]), [['default', 'active'], ['second', 'revoked']])
  assert.equal((await other.req({ path: '/v1/models/gpt-4o/cap', key: r.token })).json.cap, 0.5)
  assert.equal((await other.req({ path: '/billing/balance', key: r.api_key })).json.balance, 1)
  assert.equal((await other.req({ path: '/auth/login', body: { email: 'a@example.com', password: 'long enough' } })).status, 200)
  assert.equal((await other.chat(second.key)).status, 403)
  await other.audit()
})

test('an upstart of the day: a million free tokens, by the documented curl lines', async (t) => {
  const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: [{ name: 'deepseek-chat', price: 'input 0.25 output 0.25' }],
    billing: { unit: 'tokens', signup: 'on', signup_credit: '1000000', models_public: 'on' } })
  const base = `http://127.0.0.1:${other.port}`
  const curl = async (...args) => { const r = await run('curl', ['-s', ...args]); return { text: r.stdout, json: JSON.parse(r.stdout) } }
  const body = '{"email":"dev@example.com","password":"mypassword"}'
  const reg = await curl('-X', 'POST', `${base}/auth/register`, '-H', 'Content-Type: application/json', '-d', body)
  assert.match(reg.json.token, /^eyJhbGciOiJIUzI1NiIs/)
  assert.match(reg.json.api_key, /^sk-/)
  assert.equal(digitsOf(reg.text, 'balance'), '1000000')
  assert.equal(reg.json.message, 'Registration successful! 1,000,000 free tokens granted.')
  const log = await curl('-X', 'POST', `${base}/auth/login`, '-H', 'Content-Type: application/json', '-d', body)
  assert.deepEqual(Object.keys(log.json), ['token', 'balance'])
  assert.equal(log.json.balance, 1000000)
  const bearer = (k) => ['-H', `Authorization: Bearer ${k}`]
  assert.equal((await curl(`${base}/api-keys`, ...bearer(log.json.token))).json.keys.length, 1)
  const made = (await curl('-X', 'POST', `${base}/api-keys?name=production`, ...bearer(log.json.token))).json
  assert.equal(made.name, 'production')
  const chat = await curl(`${base}/v1/chat/completions`, '-H', 'Content-Type: application/json', ...bearer(made.key), '-d',
    '{"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello!"}]}')
  assert.equal(chat.json.object, 'chat.completion')
  const used = await until(async () => {
    const u = (await curl(`${base}/billing/usage?limit=10`, ...bearer(made.key))).json.usage
    return u.length === 1 && u[0]
  }, 'the record')
  assert.ok(Number.isInteger(used.cost) && used.cost > 0)
  await until(async () => (await curl(`${base}/billing/balance`, ...bearer(reg.json.api_key))).json.balance === 1000000 - used.cost, 'the balance')
  assert.equal((await curl('-X', 'DELETE', `${base}/api-keys/${made.id}`, ...bearer(log.json.token))).json.status, 'revoked')
  assert.ok((await curl('-X', 'DELETE', `${base}/api-keys/key_abc123`, ...bearer(log.json.token))).json.detail)
  assert.equal((await curl(`${base}/v1/models`)).json.object, 'list')
})

test('killed while people register: each is whole or absent, and the acknowledged are there', async (t) => {
  const other = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], billing: { signup: 'on', signup_credit: '1', signup_rate: '1000/h' } })
  const acknowledged = [], asked = []
  for (let round = 0; round < 4; round++) {
    const all = Array.from({ length: 24 }, (_, i) => {
      const email = `r${round}-${i}@example.com`
      asked.push(email)
      return other.req({ path: '/auth/register', body: { email, password: 'long enough' } }).then((r) => r.status === 200 && acknowledged.push({ email, ...r.json }), () => {})
    })
    const enough = acknowledged.length + 1 + 3 * round
    await until(() => acknowledged.length >= enough, 'some registrations')
    await other.killAll()
    await Promise.all(all)
    await other.start()
  }
  for (const a of acknowledged) assert.equal((await other.req({ path: '/billing/balance', key: a.api_key })).json.email, a.email)
  const { accounts } = await other.ctl('account', 'list')
  assert.ok(accounts.length >= acknowledged.length && accounts.length <= asked.length)
  const { keys } = await other.ctl('key', 'list')
  assert.deepEqual(keys.map((k) => k.account).sort(), accounts.map((a) => a.id).sort(), 'one key each')
  for (const a of accounts) assert.equal(a.balance, '1')
  await other.audit()
})
