/* docs/openapi.yaml against the program: the description is valid OpenAPI; it has the paths of the server's own table and no others;
 * what a running server answers, right and wrong, at every one of them is what it says; its examples work. */
import Ajv from 'ajv/dist/2020.js'
import { Validator } from '@seriousme/openapi-schema-validator'
import assert from 'node:assert/strict'
import path from 'node:path'
import { before, describe } from 'node:test'
import { TOLLGATE, root, run, startGateway, until } from './lib/gateway.mjs'
import { events } from './lib/http.mjs'
import { cleanUps, test } from './lib/test.mjs'

const METHODS = ['get', 'post', 'put', 'delete']
const ADMIN = 'the-token-of-the-operator'
const shared = cleanUps()
const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false })
let spec, g, me, poor, narrow, valid
before(async () => {
  const v = new Validator()
  valid = await v.validate(path.join(root, 'docs/openapi.yaml'))
  spec = v.resolveRefs()
  const local = (name, o) => ({ name, route: 'local', ...o })
  g = await startGateway(shared, {
    upstreams: [{ name: 'closed', url: 'http://127.0.0.1:9/v1', retries: 0, cooldown: '100ms' }],
    models: [...['gpt-4o', 'gpt-4o-mini', 'claude-sonnet-4-20250514', 'other'].map((n) => local(n)), { name: 'broken', route: 'closed' },
      ...['text-embedding-3-small', 'text-embedding-004'].map((n) => local(n, { kind: 'embedding', price: 'input 1', max_output: null })),
      local('dall-e-3', { kind: 'image', price: 'image 0.04', sizes: '1024x1024', context: null, max_output: null })],
    text: 'upstream local { dialect echo; }\n', tiers: { free: 'rpm 1000; tpm 1000000; concurrency 20; images_rpm 1000;', pro: 'rpm 1000;', standard: 'rpm 1000;', slow: 'rpm 1; images_rpm 1;', narrow: 'models other;' },
    top: { admin_token: `"${ADMIN}"`, max_body: '64k', cors_origin: '*' }, billing: { signup: 'on', signup_credit: '5', signup_tier: 'free', signup_rate: '1000/h' },
  })
  me = (await g.req({ path: '/auth/register', body: { email: 'me@example.com', password: 'mypassword' } })).json
  poor = await g.tenant({ credit: null })
  narrow = await g.tenant({ tier: 'narrow' })
})

/* ---- the description ---- */
const operations = () => Object.entries(spec.paths).flatMap(([template, item]) => METHODS.filter((m) => item[m]).map((m) => [`${m.toUpperCase()} ${template}`, item[m], item]))
const operationOf = (name) => { const [method, template] = name.split(' '); return spec.paths[template]?.[method.toLowerCase()] }
const isAdmin = (name) => spec.paths[name.split(' ')[1]].servers !== undefined
const exampleOf = (name) => operationOf(name).requestBody?.content['application/json'].example
const compiled = new Map()
function matches(schema, value, what) {
  if (!compiled.has(schema)) compiled.set(schema, ajv.compile(schema))
  const check = compiled.get(schema)
  assert.ok(check(value), `${what}: ${ajv.errorsText(check.errors)}\n${JSON.stringify(value)?.slice(0, 1500)}`)
}
const PLAIN = /^(date|content-type|content-length|connection|transfer-encoding|cache-control|x-accel-buffering|keep-alive|access-control-.*)$/
function checkHeaders(described, r, what) {
  const known = new Set(Object.keys(spec.components.headers).map((h) => h.toLowerCase()))
  for (const h of Object.keys(r.headers)) assert.ok(PLAIN.test(h) || known.has(h), `${what}: the header ${h} is nowhere described`)
  for (const [name, h] of Object.entries(described ?? {})) {
    const text = r.headers[name.toLowerCase()]
    if (text === undefined) assert.ok(!h.required, `${what}: ${name} is missing`)
    else matches(h.schema, h.schema.type === 'integer' ? Number(text) : text, `${what}: ${name}`)
  }
}
const seen = new Set() // "METHOD template ok" and "... error"
/* An answer is one of those that the description has for this operation. */
function conforms(name, r) {
  const what = `${name} → ${r.status}`, o = operationOf(name)
  const described = o.responses[r.status] ?? o.responses[`${Math.floor(r.status / 100)}XX`]
  assert.ok(described, `${what} is not described: ${r.text}`)
  checkHeaders(described.headers, r, what)
  const type = (r.headers['content-type'] ?? '').split(';')[0]
  const content = described.content?.[type]
  assert.ok(content, `${what}: a body of ${type} is not described`)
  if (type === 'application/json') matches(content.schema, r.json, what)
  else if (type === 'text/event-stream') for (const e of events(r.text).filter((x) => x !== '[DONE]')) matches(content.schema, e, `${what}, an event`)
  else matches(content.schema, r.text, what)
  seen.add(`${name} ${r.status < 400 ? 'ok' : 'error'}`)
}
/* o: body (default: the description's example), key, params, query, headers */
async function ask(name, o = {}) {
  const [method, template] = name.split(' ')
  const params = { model: 'gpt-4o', ...o.params }
  const p = template.replace(/\{(\w+)\}/g, (_, k) => encodeURIComponent(params[k])) + (o.query ?? '')
  const body = 'body' in o ? o.body : exampleOf(name)
  const admin = isAdmin(name)
  const key = 'key' in o ? o.key : admin ? ADMIN : operationOf(name).security?.[0]?.token ? me.token : me.api_key
  const r = await g.req({ method, path: p, key, body, headers: o.headers, ...(admin ? { port: g.admin } : {}) })
  if (r.status < 400 && body !== undefined) matches(operationOf(name).requestBody.content['application/json'].schema, body, `${name}, the request`)
  return r
}

test('the description is valid OpenAPI 3.1, of this version', async () => {
  assert.ok(valid.valid, JSON.stringify(valid.errors, null, 1))
  assert.match((await run(TOLLGATE, ['-V'])).stdout, new RegExp(`^tollgate ${spec.info.version.replaceAll('.', '\\.')}\n`))
  const ids = operations().map(([, o]) => o.operationId)
  assert.equal(new Set(ids).size, ids.length)
  for (const [name, o] of operations()) assert.ok(o.summary && o.tags?.length === 1, name)
})
test('its examples are what its schemas say', () => {
  let count = 0
  const walk = (x, at) => {
    if (x === null || typeof x !== 'object') return
    const schema = x.schema ?? (x.type || x.pattern ? x : undefined)
    if ('example' in x && schema) { matches(schema, x.example, at); count++ }
    for (const [k, v] of Object.entries(x)) if (k !== 'example') walk(v, `${at}/${k}`)
  }
  walk(spec.paths, 'paths')
  walk(spec.components, 'components')
  assert.ok(count > 40, `${count}`)
})
test('it has every path of the server, and no other', async () => {
  const table = (await run(TOLLGATE, ['--routes'])).stdout.trim().split('\n').map((l) => l.split(' '))
  assert.ok(table.length > 30)
  const hit = new Set()
  for (const [name] of operations()) {
    const [method, template] = name.split(' '), p = template.replace(/\{\w+\}/g, 'some-name')
    const row = table.find(([listener, m, pattern]) => listener === (isAdmin(name) ? 'admin' : 'public') && m === method && fits(pattern, p))
    assert.ok(row, `${name} is described, but nothing answers there`)
    hit.add(row)
  }
  assert.deepEqual(table.filter((row) => !hit.has(row)).map((row) => row.join(' ')), [], 'answered, but not described')
})
/* `*` stands for a part of a path, `*:` for one with a colon in it. */
function fits(pattern, p) {
  if (pattern.endsWith('*:')) return fits(pattern.slice(0, -1), p) && p.slice(pattern.length - 2).includes(':')
  const [head, tail] = pattern.split('*')
  return tail === undefined ? p === pattern : p.startsWith(head) && p.endsWith(tail) && p.length > head.length + tail.length
}

/* ---- model calls ---- */
const CALLS = { // how it streams; path: the model's name stands there; free: it needs no money
  'POST /v1/chat/completions': { stream: { stream: true } }, 'POST /v1/completions': { stream: { stream: true } }, 'POST /v1/responses': { stream: { stream: true } },
  'POST /v1/messages': { stream: { stream: true } }, 'POST /v1/messages/count_tokens': { free: true }, 'POST /v1/embeddings': {}, 'POST /v1/images/generations': { images: true },
  'POST /v1beta/models/{model}:generateContent': { path: true }, 'POST /v1beta/models/{model}:streamGenerateContent': { path: true, query: '?alt=sse' },
  'POST /v1beta/models/{model}:countTokens': { path: true, free: true }, 'POST /v1beta/models/{model}:embedContent': { path: true, model: 'text-embedding-004' },
  'POST /v1beta/models/{model}:batchEmbedContents': { path: true, model: 'text-embedding-004' },
}
for (const [name, c] of Object.entries(CALLS)) if (name.includes('/v1beta/')) CALLS[name.replace('v1beta', 'v1')] = c
for (const [name, c] of Object.entries(CALLS)) {
  const at = (model) => (c.path ? { params: { model } } : { body: { ...exampleOf(name), model } })
  const ok = () => (c.path ? { params: { model: c.model ?? 'gpt-4o' } } : {})
  describe(name, () => {
    test(`${name}: the example is answered as described`, async () => {
      const r = await ask(name, ok())
      assert.equal(r.status, 200, r.text)
      conforms(name, r)
    })
    if (c.stream || c.query)
      test(`${name}: so is a stream, event by event`, async () => {
        const list = c.query ? [{ ...ok(), query: c.query }] : [{ body: { ...exampleOf(name), ...c.stream } }]
        if (name.endsWith('chat/completions')) list.push({ body: { ...exampleOf(name), stream: true, stream_options: { include_usage: true } } })
        for (const o of list) {
          const r = await ask(name, o)
          assert.match(r.headers['content-type'], /^text\/event-stream/)
          assert.ok(r.events.length > 2)
          conforms(name, r)
        }
      })
    test(`${name}: so is every refusal`, async () => {
      const slow = await g.tenant({ tier: 'slow' })
      assert.equal((await ask(name, { ...ok(), key: slow.key })).status, 200)
      const cases = [[400, { ...ok(), body: '{' }], [400, { ...ok(), body: {} }], [401, { ...ok(), key: undefined }], [401, { ...ok(), key: 'sk-nobody' }], [404, at('nothing')],
        [413, { ...ok(), body: { x: 'x'.repeat(70000) } }], [415, { ...ok(), headers: { 'Content-Encoding': 'gzip' } }], [403, { ...ok(), key: narrow.key }], [429, { ...ok(), key: slow.key }]]
      if (!c.free) cases.push([402, { ...ok(), key: poor.key }])
      for (const [status, o] of cases) {
        const r = await ask(name, o)
        assert.equal(r.status, status, `${JSON.stringify(o).slice(0, 100)}: ${r.text}`)
        conforms(name, r)
        assert.equal(r.headers['x-should-retry'], [401, 402, 403].includes(status) ? 'false' : undefined)
        assert.equal(r.headers['retry-after'] !== undefined, status === 429)
      }
    })
    if (!c.free && !c.images && !/mbed/.test(name))
      test(`${name}: so are failures`, async () => {
        const r = await ask(name, at('broken'))
        assert.ok(r.status >= 500, r.text)
        conforms(name, r)
      })
  })
}
test('Gemini\'s stream as an array; methods that are not described are not there', async () => {
  const name = 'POST /v1beta/models/{model}:streamGenerateContent'
  const r = await ask(name)
  assert.match(r.headers['content-type'], /^application\/json/)
  assert.ok(Array.isArray(r.json))
  conforms(name, r)
  for (const method of ['predict', 'predictLongRunning', 'batchGenerateContent', 'asyncBatchEmbedContent', 'generateAnswer', 'countTextTokens', 'generateMessage', 'embedText', 'x'])
    assert.equal((await g.req({ method: 'POST', path: `/v1beta/models/gpt-4o:${method}`, key: me.api_key, body: {} })).status, 404, method)
})

/* ---- the rest: what is right and what is wrong, as [status, how to ask] ---- */
const OTHERS = {
  'GET /v1/models': [[200, {}], [200, { headers: { 'anthropic-version': '2023-06-01' } }], [401, { key: undefined }]],
  'GET /v1/models/{model}': [[200, {}], [200, { headers: { 'anthropic-version': '2023-06-01' } }], [200, { params: { model: 'dall-e-3' } }], [401, { key: undefined }], [404, { params: { model: 'nothing' } }],
    [404, { params: { model: 'nothing' }, headers: { 'anthropic-version': '2023-06-01' } }], [403, () => ({ key: narrow.key })]],
  'GET /v1/models/{model}/cap': [[200, {}], [401, () => ({ key: me.api_key })], [404, { params: { model: 'nothing' } }]],
  'PUT /v1/models/{model}/cap': [[200, {}], [200, { body: { cap: null } }], [400, { body: {} }], [400, { body: { cap: -1 } }], [400, { body: '{' }], [401, { key: undefined }], [404, { params: { model: 'nothing' } }]],
  'GET /v1beta/models': [[200, {}], [401, { key: undefined }]],
  'GET /v1beta/models/{model}': [[200, {}], [401, { key: undefined }], [404, { params: { model: 'nothing' } }], [403, () => ({ key: narrow.key })]],
  'GET /v1/key': [[200, {}], [200, () => ({ key: narrow.key })], [401, { key: undefined }]],
  'GET /v1/status': [[200, { key: undefined }], [415, { headers: { 'Content-Encoding': 'gzip' } }]],
  'GET /api/status': [[200, { key: undefined }], [415, { headers: { 'Content-Encoding': 'gzip' } }]],
  'POST /auth/register': [[200, { body: { email: 'new@example.com', password: 'mypassword' } }], [200, {}], [400, {}], [400, { body: { email: 'x' } }], [400, { body: '{' }], [413, { body: { x: 'x'.repeat(70000) } }]],
  'POST /auth/login': [[200, { body: { email: 'me@example.com', password: 'mypassword' } }], [400, { body: {} }], [401, { body: { email: 'me@example.com', password: 'another' } }]],
  'GET /api-keys': [[200, {}], [400, { query: '?cursor=x' }], [401, () => ({ key: me.api_key })]],
  'POST /api-keys': [[200, {}], [200, { body: undefined, query: '?name=x' }], [400, { body: { limit: 'much' } }], [401, { key: undefined }]],
  'DELETE /api-keys/{id}': [[200, async () => ({ params: { id: (await ask('POST /api-keys')).json.id } })], [401, { params: { id: 'key_00000001' }, key: undefined }], [404, { params: { id: 'key_abc123' } }]],
  'GET /billing/balance': [[200, {}], [200, () => ({ key: me.token })], [401, { key: undefined }]],
  'GET /billing/usage': [[200, {}], [200, { query: '?limit=1' }], [400, { query: '?limit=many' }], [401, { key: undefined }], [404, { query: '?key=key_zzzzzzzz' }]],
  'GET /healthz': [[200, {}], [415, { headers: { 'Content-Encoding': 'gzip' } }]],
  'GET /readyz': [[200, {}], [415, { headers: { 'Content-Encoding': 'gzip' } }]],
  'GET /metrics': [[200, {}], [415, { headers: { 'Content-Encoding': 'gzip' } }]],
  'GET /admin/accounts': [[200, {}], [200, { query: '?limit=1' }], [400, { query: '?limit=x' }], [401, { key: 'x' }]],
  'POST /admin/accounts': [[200, { body: { email: 'shop@example.com', tier: 'pro', credit: '25' } }], [409, { body: { email: 'shop@example.com' } }], [400, { body: {} }], [401, { key: 'x' }]],
  'GET /admin/accounts/{account}': [[200, { params: { account: 'me@example.com' } }], [404, { params: { account: 'acct_zzzzzzzz' } }], [401, { params: { account: 'x' }, key: 'x' }]],
  'POST /admin/accounts/{account}': [[200, { params: { account: 'shop@example.com' } }], [200, { params: { account: 'shop@example.com' }, body: { status: 'suspended' } }], [400, { params: { account: 'shop@example.com' }, body: { tier: 'none such' } }],
    [404, { params: { account: 'nobody@example.com' } }], [401, { params: { account: 'x' }, key: 'x' }]],
  'GET /admin/accounts/{account}/balance': [[200, { params: { account: 'me@example.com' } }], [404, { params: { account: 'nobody@example.com' } }], [401, { params: { account: 'x' }, key: 'x' }]],
  'GET /admin/keys': [[200, {}], [200, { query: '?account=me%40example.com&limit=1' }], [404, { query: '?account=nobody%40example.com' }], [401, { key: 'x' }]],
  'POST /admin/keys': [[200, {}], [200, { body: { account: 'dev@example.com', keys: ['old-key-of-another-gateway-1', 'old-key-of-another-gateway-1'] } }], [400, { body: { account: 'dev@example.com', rpm: 'x' } }],
    [404, { body: { account: 'nobody@example.com' } }], [401, { key: 'x' }]],
  'GET /admin/keys/{key}': [[200, { params: { key: 'key_00000001' } }], [404, { params: { key: 'key_zzzzzzzz' } }], [401, { params: { key: 'key_00000001' }, key: 'x' }]],
  'POST /admin/keys/{key}': [[200, async () => ({ params: { key: (await ask('POST /admin/keys')).json.id } })], [400, { params: { key: 'key_00000001' }, body: { rpm: -1 } }], [404, { params: { key: 'key_zzzzzzzz' } }],
    [401, { params: { key: 'key_00000001' }, key: 'x' }]],
  'DELETE /admin/keys/{key}': [[200, async () => ({ params: { key: (await ask('POST /admin/keys')).json.id } })], [404, { params: { key: 'key_zzzzzzzz' } }], [401, { params: { key: 'key_00000001' }, key: 'x' }]],
  'POST /admin/credits': [[200, {}], [200, {}], [409, { body: { account: 'me@example.com', amount: '10', idempotency_key: 'pay-4711' } }], [400, { body: { account: 'me@example.com', amount: -1 } }], [404, { body: { account: 'nobody@example.com', amount: 1 } }],
    [401, { key: 'x' }]],
  'POST /admin/debits': [[200, {}], [402, { body: { account: 'dev@example.com', amount: '1000000' } }], [400, { body: {} }], [401, { key: 'x' }]],
  'GET /admin/usage': [[200, {}], [200, { query: '?by=day' }], [200, { query: '?by=model' }], [200, { query: '?by=account' }], [400, { query: '?by=colour' }], [404, { query: '?account=nobody%40example.com' }], [401, { key: 'x' }]],
}
describe('everything else', () => {
  for (const [name, list] of Object.entries(OTHERS))
    test(`${name}: ${[...new Set(list.map(([status]) => status))].join(', ')}`, async () => {
      if (name.endsWith('usage')) await until(async () => (await ask(name)).json.usage.length > 0, 'a record')
      for (const [status, how] of list) {
        const r = await ask(name, typeof how === 'function' ? await how() : how)
        assert.equal(r.status, status, `${JSON.stringify(how)}: ${r.text}`)
        conforms(name, r)
      }
    })
})
test('an unknown path and a wrong method have the shape of their neighbours; the admin listener is open to no page', async () => {
  for (const [name, p, status, o] of [['POST /v1/chat/completions', '/v1/nothing', 404], ['POST /v1/chat/completions', '/v1/chat/completions', 405], ['POST /v1/messages', '/v1/messages/nothing', 404],
    ['POST /v1beta/models/{model}:generateContent', '/v1beta/nothing', 404], ['GET /billing/usage', '/billing/nothing', 404], ['GET /admin/usage', '/admin/nothing', 404, { port: g.admin }]]) {
    const r = await g.req({ path: p, key: me.api_key, ...o })
    assert.equal(r.status, status, r.text)
    conforms(name, r)
    if (status === 405) assert.match(r.headers.allow, /POST/)
    if (o) assert.equal(r.headers['access-control-allow-origin'], undefined)
  }
})
test('every operation was seen to succeed and to refuse', () => {
  assert.deepEqual(operations().flatMap(([name]) => [`${name} ok`, `${name} error`]).filter((x) => !seen.has(x)), [])
})
