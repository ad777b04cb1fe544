/* No account sees, uses or changes what is another's: every path of the server's own table is tried with every credential of one account and
 * every id of the other in every place. And texts of every kind go in and come out as they were, harmless to whoever prints them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { before, describe } from 'node:test'
import { root, startGateway, until } from './lib/gateway.mjs'
import { chat, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const ADMIN = 'admin-token-0123456789', agent = new http.Agent({ keepAlive: true, maxSockets: 32 })
const shared = cleanUps()
let up, g
before(async () => {
  shared.push(() => agent.destroy())
  up = await startUpstream(shared)
  up.otherwise = chat()
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url, retries: 0 }], models: ['gpt-4o', { name: 'emb', kind: 'embedding' }, { name: '*', route: 'mock as *' }],
    top: { admin_token: ADMIN }, billing: { signup: 'on', signup_credit: '5', signup_rate: '1000/h' },
  })
})

const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
const admin = (method, p, body, key = ADMIN) => g.req({ port: g.admin, method, path: p, body, key })

/* The live table: [method, path, listener]. */
function routes() {
  const source = readFileSync(path.join(root, 'worker/endpoint.c'), 'utf8')
  const of = (name) => [...source.slice(source.indexOf(` ${name}[] = {`)).split('\n};')[0].matchAll(/\{ "(\w+)", "([^"]+)"/g)].map((m) => [m[1], m[2]])
  return [...of('endpoints').map((r) => [...r, g.port]), ...of('admin_endpoints').map((r) => [...r, g.admin])]
}

/* An account with things of its own, and what of them another must never be shown. */
async function person(name) {
  const r = await g.req({ path: '/auth/register', body: { email: `${name}@example.com`, password: `${name} password` } })
  assert.equal(r.status, 200, r.text)
  const p = { name, email: `${name}@example.com`, token: r.json.token, key: r.json.api_key, sub: claimsOf(r.json.token).sub }
  const make = async (body) => (await g.req({ path: '/api-keys', key: p.token, body })).json
  p.second = await make({ name: `${name}-second`, models: [`gpt-4o`, `${name}-model`], limit: 3.25 })
  p.revoked = await make({ name: `${name}-revoked` })
  await g.req({ method: 'DELETE', path: `/api-keys/${p.revoked.id}`, key: p.token })
  for (const key of [p.key, p.second.key]) assert.equal((await g.chat(key, {}, { headers: { 'X-Request-Id': `${name}-request` } })).status, 200)
  await g.req({ method: 'PUT', path: '/v1/models/gpt-4o/cap', key: p.token, body: { cap: 0.515625 } })
  p.entry = await g.ctl('credit', p.sub, '0.0078125', '--reason', `${name}-reason`, '--idempotency-key', `${name}-idem`)
  p.usage = await g.usage(p.sub, 2)
  p.keys = (await g.req({ path: '/api-keys', key: p.token })).json.keys
  return p
}
const idsOf = (p) => [p.sub, p.email, ...p.keys.map((k) => k.id), p.usage[0].id, p.usage[1].id, p.entry.id, `${p.name}-request`, `${p.name}-idem`, p.keys[0].key]
const secretsOf = (p) => [...idsOf(p), p.key, p.second.key, p.token, `${p.name}-second`, `${p.name}-revoked`, `${p.name}-model`, `${p.name}-reason`]
/* Everything the operator sees of it but when its keys were used last. */
const stateOf = async (p) => JSON.stringify(await Promise.all([
  g.ctl('account', 'show', p.sub), g.ctl('key', 'list', '--account', p.sub), g.ctl('usage', '--account', p.sub), g.ctl('balance', p.sub), g.ctl('cap', 'list', p.sub)]))

/* Runs jobs, `width` at a time. */
async function inTurns(jobs, width = 16) {
  await Promise.all(Array.from({ length: width }, async () => { for (let job; (job = jobs.pop());) await job() }))
}

test('every path, with every credential of one account and every id of the other in every place', async (t) => {
  const me = await person('mallory'), you = await person('victim')
  await g.settled(you.sub)
  const before = await stateOf(you), ids = idsOf(you), secrets = secretsOf(you)
  const credentials = { token: me.token, key: me.key, 'second key': me.second.key, 'revoked key': me.revoked.key, none: undefined }
  for (const [i, id] of ids.entries()) credentials[`id ${i}`] = id // an id is no credential
  const jobs = []
  let tried = 0, answered = 0
  for (const [method, pattern, port] of routes()) for (const [who, key] of Object.entries(credentials)) for (const id of ids) {
    if (who.startsWith('id ') && key !== id) continue
    const e = encodeURIComponent(id), p = pattern.replace('*', pattern.startsWith('/v1beta/models/') && method === 'POST' ? `${e}:generateContent` : e)
    const names = ['account', 'account_id', 'user', 'email', 'key', 'key_id', 'id', 'cursor', 'model', 'who', 'idempotency_key', 'request_id']
    const query = names.map((n) => `${n}=${e}`).join('&')
    const body = { ...Object.fromEntries(names.map((n) => [n, id])), amount: '1', cap: 0, status: 'suspended', input: 'x', prompt: 'x', max_tokens: 5,
      messages: [{ role: 'user', content: 'x' }], contents: [{ role: 'user', parts: [{ text: 'x' }] }] }
    const headers = { 'X-Account-Id': id, 'OpenAI-Organization': id, 'OpenAI-Project': id, 'X-Forwarded-User': id }
    for (const at of who === 'token' || who === 'key' ? [p, `${p}?${query}`] : [`${p}?${query}`]) jobs.push(async () => {
      const r = await g.req({ port, method, path: at, key, headers, agent, body: method === 'GET' || method === 'DELETE' ? undefined : body })
      tried++
      answered += r.status < 300
      const sent = at + decodeURIComponent(at) + JSON.stringify(body) + key // an error may repeat what it was told
      for (const s of secrets) assert.ok(!r.text.includes(s) || sent.includes(s), `${method} ${at} with ${who}: ${s} in ${r.status} ${r.text.slice(0, 300)}`)
      for (const [h, v] of Object.entries(r.headers)) if (h !== 'x-request-id') for (const s of secrets) assert.ok(!String(v).includes(s), `${method} ${at} with ${who}: ${s} in ${h}`)
      if (port === g.admin && pattern.startsWith('/admin')) assert.equal(r.status, 401, `${method} ${at} with ${who}: ${r.status}`)
      if (who.startsWith('id ') || who === 'none') assert.ok(r.status >= 400 || /^\/(healthz|readyz|metrics|v1\/status|api\/status)/.test(pattern), `${method} ${at} with ${who}: ${r.status}`)
    })
  }
  await inTurns(jobs)
  await g.settled(me.sub)
  assert.equal(await stateOf(you), before, 'nothing of the other account has changed')
  assert.ok(answered > 100, 'and the credentials did work for what is their own')
  t.diagnostic(`${tried} requests over ${routes().length} routes, ${answered} of them answered`)
  await g.audit()
})

test('what is another\'s is answered as what does not exist, to the letter', async () => {
  const me = await person('ann'), you = await person('bob')
  for (const [method, at] of [['DELETE', (id) => `/api-keys/${id}`], ['GET', (id) => `/billing/usage?key=${id}`]]) {
    const texts = new Set()
    for (const id of [you.second.id, you.revoked.id, 'key_00zzzzzz', 'key_00000000']) {
      const r = await g.req({ method, path: at(id), key: me.token })
      assert.equal(r.status, 404)
      texts.add(r.text)
    }
    assert.equal(texts.size, 1)
  }
  // a cursor, whoever's, only says where to begin
  for (const u of you.usage) {
    const r = (await g.req({ path: `/billing/usage?cursor=${u.id}`, key: me.token })).json
    for (const one of r.usage) assert.equal(one.account, me.sub)
  }
  // credentials that do not exist and such as nearly do
  const texts = new Set()
  for (const key of ['sk-0123456789abcdefghijABCDEFGHIJ01', `${you.key.slice(0, -1)}?`, you.keys[0].key, you.sub, 'x'])
    for (const r of [await g.chat(key), await g.req({ path: '/billing/balance', key })]) { assert.equal(r.status, 401); texts.add(r.text) }
  assert.equal(texts.size, 2, 'one text for each shape of error')
})

test('an idempotency key belongs to one credit: used for another account it adds nothing and tells nothing of the first', async () => {
  const [a, b] = [await person('carol'), await person('dave')]
  const r = await admin('POST', '/admin/credits', { account: a.sub, amount: '9', idempotency_key: 'dave-idem' })
  assert.equal(r.status, 409)
  for (const s of secretsOf(b)) assert.ok(!r.text.includes(s) || s === 'dave-idem')
  assert.equal((await g.balance(a.sub)).balance, (await g.balance(a.sub)).available)
})

describe('texts', () => {
  const TEXTS = {
    SQL: "'; DROP TABLE keys;--", HTML: '<script>alert(1)</script><img src=x onerror=alert(1)>', JSON: '"},{"id":"key_1","x":"\\', escapes: '\\u0000\\n\\x1b%00%s%n', template: '{{7*7}}${7*7}<%=7*7%>',
    path: '../../../../etc/passwd', shell: '$(id);`id`|id&', control: '\u0001\u0007\b\t\n\u000b\r\u001b[2J\u001b]0;title\u0007\u007f', C1: '\u009b2J\u0085\u0090', RTL: 'gp\u202eo4-t\u202c\u2066\u200f\u061c',
    hidden: 'a\u200b\ufeff\u2060\u00ad\u{e0041}b', emoji: '👩‍👩‍👧‍👦🏳️‍🌈', scripts: '日本語 العربية עברית हिन्दी', formula: '=cmd|\' /C calc\'!A0', plus: '+1+1', minus: '-2+3', at: '@SUM(A1)', tab: '\t=1', csv: 'a,b;"c"\r\nd',
  }
  const readable = (s) => !/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e0fff}]/u.test(s)
  /* RFC 4180 */
  function parseCsv(text) {
    const rows = [[]]
    for (const m of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
      if (m.index >= text.length) break
      rows.at(-1).push(m[1] === undefined ? m[2] : m[1].replaceAll('""', '"'))
      if (m[3] !== ',') rows.push([])
    }
    return rows.filter((r) => r.length > 1)
  }
  let me
  before(async () => { me = await person('eve') })

  test('a key\'s name: as it was, up to its longest; one byte more and a NUL are refused', async () => {
    for (const [kind, name] of [...Object.entries(TEXTS), ['255 bytes', 'é'.repeat(127) + 'x'], ['256 bytes', '😀'.repeat(64)]]) {
      const made = (await g.req({ path: '/api-keys', key: me.token, body: { name } })).json
      assert.equal(made.name, name, kind)
      assert.equal((await g.ctl('key', 'show', made.id)).name, name, kind)
      const one = (await admin('GET', `/admin/keys/${made.id}`)).json
      assert.equal(one.name, name, kind)
      assert.equal((await g.req({ path: '/v1/key', key: made.key })).json.name, name, kind)
    }
    const listed = new Set((await g.req({ path: '/api-keys', key: me.token })).json.keys.map((k) => k.name))
    for (const name of Object.values(TEXTS)) assert.ok(listed.has(name))
    for (const name of ['x'.repeat(257), '😀'.repeat(65), 'a\u0000b']) {
      const r = await g.req({ path: '/api-keys', key: me.token, body: { name } })
      assert.equal(r.status, 400, r.text)
      assert.match(r.json.detail, /^name: a text of at most 256 bytes/)
    }
    for (const bad of ['\ud800', '"\\ud800"', '"\\x"', '"\n"']) assert.equal((await g.req({ path: '/api-keys', method: 'POST', key: me.token, body: `{"name":${bad}}` })).status, 400)
  })
  test('a credit\'s reason and idempotency key', async () => {
    for (const [kind, text] of Object.entries(TEXTS)) {
      const body = { account: me.sub, amount: '0.000000001', reason: text, idempotency_key: `${kind}:${text}` }
      for (let i = 0; i < 2; i++) {
        const r = (await admin('POST', '/admin/credits', body)).json
        assert.deepEqual([r.reason, r.idempotency_key, r.amount], [text, `${kind}:${text}`, '0.000000001'])
      }
    }
    assert.equal((await admin('POST', '/admin/credits', { account: me.sub, amount: '1', reason: 'a\u0000b' })).status, 400)
    assert.equal((await admin('POST', '/admin/credits', { account: me.sub, amount: '1', reason: 'x'.repeat(501) })).status, 400)
  })
  test('a model\'s name, through records, reports, tables and CSV', async () => {
    const asked = Object.values(TEXTS)
    for (const model of asked) assert.equal((await g.chat(me.second.key, { model })).status, 403, 'the key has a list of its own')
    for (const model of asked) { const r = await g.chat(me.key, { model }); assert.equal(r.status, 200, `${model}: ${r.text}`) }
    const records = await until(async () => {
      const u = (await g.req({ path: '/billing/usage?limit=1000', key: me.token })).json.usage
      return asked.every((m) => u.some((x) => x.model === m)) && u
    }, 'the records')
    assert.equal(records.length, asked.length + 2)
    for (const model of asked) {
      const found = (await g.req({ path: `/billing/usage?model=${encodeURIComponent(model)}`, key: me.key })).json.usage
      assert.deepEqual(found.map((u) => u.model), [model])
    }
    for (const args of [['usage', '--account', me.sub], ['key', 'list', '--account', me.sub], ['account', 'list'], ['key', 'show', me.keys[0].id], ['usage', '--by', 'model']]) {
      const { stdout, code } = await g.ctlRaw(...args)
      assert.equal(code, 0)
      assert.ok(readable(stdout), `${args.join(' ')} prints what a terminal acts on: ${JSON.stringify(stdout)}`)
    }
    const refused = await g.ctlRaw('account', 'show', 'a\u001b[2J\u009b\u202e')
    assert.equal(refused.code, 1)
    assert.ok(readable(refused.stderr), JSON.stringify(refused.stderr))
    const rows = parseCsv((await g.ctlRaw('usage', '--account', me.sub, '--csv')).stdout)
    const column = rows[0].indexOf('model')
    assert.equal(rows.length, records.length + 1)
    for (const row of rows) assert.equal(row.length, rows[0].length)
    const cells = rows.slice(1).map((r) => r[column])
    for (const model of asked) assert.ok(cells.includes(/^[=+\-@\t\r]/.test(model) ? `'${model}` : model), `${JSON.stringify(model)} in ${JSON.stringify(cells)}`)
    for (const cell of rows.flat()) assert.ok(!/^[=+@\t\r]/.test(cell) && !/^-\D/.test(cell), `a formula: ${cell}`)
    await g.audit()
  })
})
