/* Product document 3 (tests/seeds/3-groups-and-status.conf): models by group, a public status, embeddings, pictures. docs/seeds.md
 * says which test here holds which sentence of it. */
import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { freePort, lateness, root, startGateway, until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf } from './lib/money.mjs'
import { seed } from './lib/seeds.mjs'
import { startUpstream, status } from './upstream.mjs'
import { vendor } from './lib/vendors.mjs'
import { readFileSync } from 'node:fs'
import path from 'node:path'

let g, up, t
const s = seed(3, {
  async begin() { ({ g, up } = s); t = await g.tenant() },
})
const test = s.test

const chat = (body, key = t.key) => g.req({ path: '/v1/chat/completions', key, body: { model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hello!' }], ...body } })
const sent = () => up.requests.at(-1)

test('one base URL and one key for every model', async () => {
  const k = await g.tenant({ group: 'vip' })
  for (const model of ['gpt-4o-mini', 'gpt-4o', 'claude-sonnet-4-20250514'])
    assert.equal((await chat({ model }, k.key)).json.choices[0].message.content, 'Hello from upstream', model)
  const { default: OpenAI } = await import('openai')
  const client = new OpenAI({ apiKey: k.key, baseURL: `${s.url()}/v1` })
  assert.equal((await client.chat.completions.create({ model: 'gpt-4o', messages: [{ role: 'user', content: 'x' }] })).choices[0].message.content, 'Hello from upstream')
})
test('the provider never sees the gateway\'s key', async () => {
  await chat()
  assert.equal(sent().headers.authorization, 'Bearer provider-openai')
  for (const r of up.requests) assert.ok(!(r.head + r.body).includes(t.key))
})

describe('system health', () => {
  test('GET /api/status: gateway and upstreams, version, uptime; without a key, from any page', async () => {
    const r = await g.req({ path: '/api/status', headers: { Origin: 'https://page.example' } })
    assert.equal(r.status, 200)
    assert.deepEqual(Object.keys(r.json), ['status', 'version', 'uptime_seconds', 'started_at', 'models', 'upstreams'])
    assert.deepEqual([r.json.status, r.json.models, r.json.upstreams], ['ok', 5, [{ state: 'up' }, { state: 'up' }]])
    assert.match(r.json.version, /^\d+\.\d+/)
    assert.ok(Number.isInteger(r.json.uptime_seconds) && r.json.uptime_seconds < 600)
    assert.ok(Math.abs(Date.parse(r.json.started_at) + r.json.uptime_seconds * 1000 - Date.now()) < 5000)
    assert.equal(r.headers['access-control-allow-origin'], '*')
  })
  test('the base URL answers a ping from a page', async () => {
    const r = await g.req({ path: '/v1', headers: { Origin: 'https://page.example' } })
    assert.ok(r.status < 500)
    assert.equal(r.headers['access-control-allow-origin'], '*')
    assert.equal(r.headers['content-type'], 'application/json')
    assert.ok(r.json.error.message)
  })
  test('an upstream that dies is told by probes alone, and so is its return', async () => {
    const other = await startUpstream(s.shared, { port: await freePort() }), late = lateness(s.shared)
    other.otherwise = vendor(other)
    const PROBE_MS = 300
    const product = s.conf.slice(s.conf.indexOf('# ---- the product')).replace(/base_url https:\/\/[^/]+([^;]*);/g, `base_url http://127.0.0.1:${other.port}$1; probe ${PROBE_MS}ms; cooldown ${PROBE_MS}ms;`)
    const h = await startGateway(s.shared, { product, env: { OPENAI_API_KEY: 'x', ANTHROPIC_API_KEY: 'x' } })
    const says = async () => (await h.req({ path: '/api/status' })).json.status
    await until(async () => await says() === 'ok', 'ok')
    await other.close()
    const died = performance.now()
    await until(async () => await says() !== 'ok', 'another word')
    const seen = performance.now() - died
    await until(async () => await says() === 'down', 'down, for no upstream is left')
    const again = await startUpstream(s.shared, { port: other.port })
    again.otherwise = vendor(again)
    const back = performance.now()
    await until(async () => await says() === 'ok', 'ok again')
    assert.ok(seen < 2 * PROBE_MS + 1000 + late() && performance.now() - back < 2 * PROBE_MS + 1500 + late(), `${seen} ms, ${performance.now() - back} ms`)
  })
})

describe('quick start', () => {
  test('the dashboard makes a key; it opens all of the group\'s models', async () => {
    const r = (await g.req({ path: '/auth/register', body: { email: 'd@example.com', password: 'mypassword' } })).json
    await g.ctl('credit', 'd@example.com', '5')
    const k = (await g.req({ method: 'POST', path: '/api-keys?name=mine', key: r.token })).json
    for (const m of (await g.req({ path: '/v1/models', key: k.key })).json.data.filter((x) => x.kind === 'chat')) assert.equal((await chat({ model: m.id }, k.key)).status, 200)
  })
  test('the list has the models enabled in the group, at its prices', async () => {
    const list = async (key) => (await g.req({ path: '/v1/models', key })).json.data
    const vip = await g.tenant({ group: 'vip' })
    const [mine, theirs] = [await list(t.key), await list(vip.key)]
    assert.deepEqual(mine.map((m) => m.id).sort(), ['gpt-4o-mini', 'gpt-image-1', 'text-embedding-3-small'])
    assert.deepEqual(theirs.map((m) => m.id).sort(), ['claude-sonnet-4-20250514', 'gpt-4o', 'gpt-4o-mini', 'gpt-image-1', 'text-embedding-3-small'])
    const price = (l) => { const p = l.find((m) => m.id === 'gpt-4o-mini').pricing; return [p.prompt, p.completion, p.input_per_1m, p.output_per_1m] }
    assert.deepEqual(price(mine), ['0.00000015', '0.0000006', 0.15, 0.6])
    assert.deepEqual(price(theirs), ['0.00000012', '0.00000048', 0.12, 0.48])
    const paid = await chat({}, vip.key)
    assert.equal(digitsOf(paid.text, 'cost_usd'), decimal(cost({ input: 24, output: 156 }, { input: '0.15', output: '0.6' }, '0.8')))
  })
})

describe('endpoints', () => {
  test('chat-completions.sh', async () => {
    const r = await s.curl('chat-completions.sh', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.equal(r.json.choices[0].message.content, 'Hello from upstream')
    assert.deepEqual(sent().json.messages.map((m) => m.role), ['system', 'user'])
  })
  test('stream-completions.sh', async () => {
    const r = await s.curl('stream-completions.sh', { key: t.key })
    assert.match(r.headers['content-type'], /^text\/event-stream/)
    const data = r.text.split('\n').filter((l) => l.startsWith('data: ')).map((l) => l.slice(6))
    assert.equal(data.pop(), '[DONE]')
    assert.equal(data.map((d) => JSON.parse(d).choices[0].delta.content ?? '').join(''), 'Hello from upstream')
    assert.equal(digitsOf(data.at(-1), 'cost_usd'), '0.0000972') // 24 × 0.15 + 156 × 0.60 µ$
  })
  test('embeddings.sh', async () => {
    const r = await s.curl('embeddings.sh', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(r.json, { object: 'list', data: [{ object: 'embedding', index: 0, embedding: [0.1, -0.2, 0.3] }], model: 'text-embedding-3-small',
      usage: { prompt_tokens: 24, total_tokens: 24, cost_usd: 0.00000048 } })
    assert.deepEqual(sent().json, { model: 'text-embedding-3-small', input: 'The quick brown fox' })
  })
  test('image-generation.sh', async () => {
    const r = await s.curl('image-generation.sh', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.equal(Buffer.from(r.json.data[0].b64_json, 'base64').subarray(1, 4).toString(), 'PNG')
    assert.equal(digitsOf(r.text, 'cost_usd'), '0.00636') // 24 × 5 + 156 × 40 µ$
    assert.deepEqual([sent().json.model, sent().json.prompt, sent().json.size], ['gpt-image-1', 'a cat reading a book, watercolor', '1024x1024'])
  })
  test('pictures take size, response format and model', async () => {
    for (const size of ['1024x1024', '1536x1024', '1024x1536']) {
      const r = await g.req({ path: '/v1/images/generations', key: t.key, body: { model: 'gpt-image-1', prompt: 'x', size, response_format: 'b64_json', background: 'opaque' } })
      assert.equal(r.status, 200, r.text)
      assert.deepEqual([sent().json.size, sent().json.response_format, sent().json.background], [size, 'b64_json', 'opaque'])
    }
    const bad = await g.req({ path: '/v1/images/generations', key: t.key, body: { model: 'gpt-image-1', prompt: 'x', size: '1x1' } })
    assert.deepEqual([bad.status, bad.json.error.param], [400, 'size'])
  })
})

describe('common errors', () => {
  const refused = (r, code, type, symbol) => {
    assert.equal(r.status, code, r.text)
    assert.deepEqual(Object.keys(r.json.error), ['message', 'type', 'param', 'code'])
    assert.deepEqual([r.json.error.type, r.json.error.code], [type, symbol])
  }
  test('401: an invalid key, one that is no longer active', async () => {
    refused(await chat({}, 'sk-nobody'), 401, 'authentication_error', 'invalid_api_key')
    const k = await g.tenant()
    await g.ctl('key', 'revoke', k.id)
    refused(await chat({}, k.key), 401, 'authentication_error', 'invalid_api_key')
    const r = await g.req({ path: '/v1/chat/completions', headers: { Authorization: t.key }, body: {} })
    assert.match(r.json.error.message, /Authorization: Bearer/)
  })
  test('402: the balance, the credit limit of the key', async () => {
    refused(await chat({}, (await g.tenant({ credit: null })).key), 402, 'insufficient_quota', 'insufficient_balance')
    refused(await chat({}, (await g.tenant({ limit: '0.000001' })).key), 402, 'insufficient_quota', 'key_limit_exceeded')
  })
  test('404: no such model, or not of the group', async () => {
    for (const model of ['gpt-9', 'gpt-4o', 'claude-sonnet-4-20250514']) {
      refused(await chat({ model }), 404, 'not_found_error', 'model_not_found')
      refused(await g.req({ path: `/v1/models/${model}`, key: t.key }), 404, 'not_found_error', 'model_not_found')
    }
  })
  test('429: rate limited; the admin can raise it', async () => {
    const k = await g.tenant({ tier: 'default' })
    const list = await Promise.all(Array.from({ length: 80 }, () => chat({}, k.key)))
    refused(list.find((r) => r.status !== 200), 429, 'rate_limit_error', 'rate_limit_exceeded')
    await g.ctl('account', 'set', k.account, '--tier', 'raised')
    const r = await until(async () => { const x = await chat({}, k.key); return x.status === 200 && x }, 'a place at the new rate')
    assert.equal(r.headers['x-ratelimit-limit'], '600')
  })
  test('5xx: the provider is down', async () => {
    up.on('gpt-4o-mini', status(503))
    refused(await chat(), 502, 'upstream_error', 'upstream_failed')
    up.routes.delete('gpt-4o-mini')
    await until(async () => (await chat()).status === 200, 'the next call')
  })
  test('SDKs take the errors for their own classes', async () => {
    const { default: OpenAI } = await import('openai')
    const ask = (apiKey, model) => new OpenAI({ apiKey, baseURL: `${s.url()}/v1`, maxRetries: 0 }).chat.completions.create({ model, messages: [{ role: 'user', content: 'x' }] }).catch((e) => e)
    assert.ok(await ask('sk-nobody', 'gpt-4o-mini') instanceof OpenAI.AuthenticationError)
    assert.ok(await ask(t.key, 'gpt-9') instanceof OpenAI.NotFoundError)
    assert.equal((await ask((await g.tenant({ credit: null })).key, 'gpt-4o-mini')).status, 402)
  })
})

test('coding agents have a page, and find their three dialects here', async () => {
  assert.match(readFileSync(path.join(root, 'docs/agents.md'), 'utf8'), /## Claude Code[^]*## Codex/)
  const k = await g.tenant({ group: 'vip' })
  for (const [p, body] of [['/v1/messages', { model: 'gpt-4o', max_tokens: 9, messages: [{ role: 'user', content: 'x' }] }], ['/v1/responses', { model: 'claude-sonnet-4-20250514', input: 'x' }],
    ['/v1/chat/completions', { model: 'claude-sonnet-4-20250514', messages: [{ role: 'user', content: 'x' }] }], ['/v1beta/models/gpt-4o:generateContent', { contents: [{ parts: [{ text: 'x' }] }] }]])
    assert.match((await g.req({ path: p, key: k.key, body })).text, /Hello from upstream/, p)
})
s.documented()
