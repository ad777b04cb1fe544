/* Product document 5 (tests/seeds/5-four-dialects.conf): OpenAI's, Anthropic's and Gemini's endpoints for every model, a cap per call.
 * docs/seeds.md says which test here holds which sentence of it. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf, nano } from './lib/money.mjs'
import { events } from './lib/http.mjs'
import { seed } from './lib/seeds.mjs'

let g, up, t
const s = seed(5, {
  async begin() { ({ g, up } = s); t = await g.tenant() },
})
const test = s.test
const NODE = Number(process.versions.node.split('.')[0])
const MODELS = { 'gpt-4o-mini': ['openai', '0.15', '0.6'], 'claude-3-5-sonnet-20241022': ['anthropic', '3', '15'], 'gemini-2.0-flash-exp': ['google', '0.1', '0.4'] }
/* Each endpoint: its path and body for a model, where its text and its cost are, whole and streamed, and how its stream ends. */
const ENDPOINTS = {
  'chat completions': {
    ask: (model, stream) => ['/v1/chat/completions', { model, messages: [{ role: 'user', content: 'hi' }], stream }],
    text: (j) => j.choices[0].message.content, cost: 'cost_usd', delta: (e) => e.choices?.[0]?.delta.content, end: /data: \[DONE\]\n\n$/ },
  responses: {
    ask: (model, stream) => ['/v1/responses', { model, input: 'hi', stream }],
    text: (j) => j.output[0].content[0].text, cost: 'cost_usd', delta: (e) => (e.type === 'response.output_text.delta' ? e.delta : ''), end: /event: response\.completed\n[^\n]+\n\n$/ },
  'Anthropic messages': {
    ask: (model, stream) => ['/v1/messages', { model, max_tokens: 1024, messages: [{ role: 'user', content: 'hi' }], stream }],
    text: (j) => j.content[0].text, cost: 'cost_usd', delta: (e) => (e.type === 'content_block_delta' ? e.delta.text : ''), end: /event: message_stop\n[^\n]+\n\n$/ },
  'Gemini generate-content': {
    ask: (model, stream) => [`/v1beta/models/${model}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`, { contents: [{ role: 'user', parts: [{ text: 'hi' }] }] }],
    text: (j) => j.candidates[0].content.parts[0].text, cost: 'costUsd', delta: (e) => e.candidates?.[0]?.content?.parts?.[0]?.text, end: /"finishReason":"STOP"[^\n]*\n\r?\n$/ },
}
const call = (endpoint, model, { stream, key = t.key } = {}) => { const [path, body] = ENDPOINTS[endpoint].ask(model, stream); return g.req({ path, key, body }) }

describe('list models', () => {
  test('the curl line: OpenAI\'s list with what each model costs', async () => {
    const r = await s.curl('List models', { key: t.key })
    assert.equal(r.status, 200)
    assert.equal(r.json.object, 'list')
    assert.deepEqual(r.json.data.map((m) => m.id).sort(), Object.keys(MODELS).sort())
    for (const m of r.json.data) {
      const [owner, input, output] = MODELS[m.id]
      assert.deepEqual([m.object, m.owned_by, m.pricing.input_per_1m, m.pricing.output_per_1m], ['model', owner, Number(input), Number(output)])
      assert.deepEqual([nano(m.pricing.prompt), nano(m.pricing.completion)].map((x) => x * 1000000n), [nano(input), nano(output)])
    }
    const claude = r.json.data.find((m) => m.owned_by === 'anthropic').pricing
    assert.deepEqual([claude.input_cache_read, claude.input_cache_write], ['0.0000003', '0.00000375'])
  })
  test('only the models that this key can call', async () => {
    const k = await g.key(t.account, { models: 'gpt-*' })
    assert.deepEqual((await g.req({ path: '/v1/models', key: k.key })).json.data.map((m) => m.id), ['gpt-4o-mini'])
    assert.equal((await call('chat completions', 'gemini-2.0-flash-exp', { key: k.key })).status, 403)
  })
})

describe('the curl lines', () => {
  test('Chat completions', async () => {
    const r = await s.curl('Chat completions', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual([r.json.object, r.json.choices[0].message.content, r.json.usage.total_tokens], ['chat.completion', 'Hello from upstream', 180])
  })
  test('Responses', async () => {
    const r = await s.curl('Responses', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual([r.json.object, r.json.status], ['response', 'completed'])
    assert.deepEqual([r.json.output[0].type, r.json.output[0].content[0].type, r.json.output[0].content[0].text], ['message', 'output_text', 'Hello from upstream'])
    assert.deepEqual([r.json.usage.input_tokens, r.json.usage.output_tokens], [24, 156])
  })
  test('Anthropic messages', async () => {
    const r = await s.curl('Anthropic messages', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual([r.json.type, r.json.role, r.json.model, r.json.stop_reason], ['message', 'assistant', 'claude-3-5-sonnet-20241022', 'end_turn'])
    assert.deepEqual(r.json.content, [{ type: 'text', text: 'Hello from upstream' }])
    assert.deepEqual([r.json.usage.input_tokens, r.json.usage.output_tokens], [24, 156])
    assert.ok(r.headers['request-id'])
    const sent = up.requests.at(-1)
    assert.deepEqual([sent.headers['x-api-key'], sent.headers['anthropic-version']], ['provider-anthropic', '2023-06-01'])
  })
  test('Gemini generate-content', async () => {
    const r = await s.curl('Gemini generate-content', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(r.json.candidates[0].content, { parts: [{ text: 'Hello from upstream' }], role: 'model' })
    assert.deepEqual([r.json.usageMetadata.promptTokenCount, r.json.usageMetadata.candidatesTokenCount], [24, 156])
  })
  test('keys begin with afk-', () => assert.match(t.key, /^afk-[A-Za-z0-9]{32}$/))
})

describe('SDKs, unmodified', () => {
  test('OpenAI\'s, chat and responses', async () => {
    const { default: OpenAI } = await import('openai')
    const client = new OpenAI({ apiKey: t.key, baseURL: `${s.url()}/v1` })
    for (const model of Object.keys(MODELS)) {
      assert.equal((await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'hi' }] })).choices[0].message.content, 'Hello from upstream')
      assert.equal((await client.responses.create({ model, input: 'hi' })).output_text, 'Hello from upstream')
    }
  })
  test('Anthropic\'s', async (c) => {
    c.mock.method(console, 'warn', () => {}) // it says which models are old
    const { default: Anthropic } = await import('@anthropic-ai/sdk')
    const client = new Anthropic({ apiKey: t.key, baseURL: s.url() })
    for (const model of Object.keys(MODELS)) {
      assert.equal((await client.messages.create({ model, max_tokens: 1024, messages: [{ role: 'user', content: 'hi' }] })).content[0].text, 'Hello from upstream')
      assert.equal(await client.messages.stream({ model, max_tokens: 1024, messages: [{ role: 'user', content: 'hi' }] }).finalText(), 'Hello from upstream')
    }
  })
  test('Gemini\'s', { skip: NODE < 20 && 'it needs Node 20' }, async () => {
    const { GoogleGenAI } = await import('@google/genai')
    const client = new GoogleGenAI({ apiKey: t.key, httpOptions: { baseUrl: s.url() } })
    for (const model of Object.keys(MODELS)) assert.equal((await client.models.generateContent({ model, contents: 'hi' })).text, 'Hello from upstream')
  })
})

for (const name of Object.keys(ENDPOINTS)) {
  const e = ENDPOINTS[name]
  describe(name, () => {
    test(`${name}: every model, whole, at its price`, async () => {
      for (const [model, [, input, output]] of Object.entries(MODELS)) {
        const r = await call(name, model)
        assert.equal(r.status, 200, `${model}: ${r.text}`)
        assert.equal(e.text(r.json), 'Hello from upstream', model)
        assert.equal(digitsOf(r.text, e.cost), decimal(cost({ input: 24, output: 156 }, { input, output })), model)
      }
    })
    test(`${name}: every model, streamed as SSE`, async () => {
      for (const [model, [, input, output]] of Object.entries(MODELS)) {
        const r = await call(name, model, { stream: true })
        assert.match(r.headers['content-type'], /^text\/event-stream/)
        assert.equal(events(r.text).map((x) => e.delta(x) ?? '').join(''), 'Hello from upstream', r.text)
        assert.match(r.text, e.end)
        assert.equal([...r.text.matchAll(new RegExp(`"${e.cost}":([0-9.]+)`, 'g'))].at(-1)?.[1], decimal(cost({ input: 24, output: 156 }, { input, output })), model)
      }
    })
  })
}

describe('billing', () => {
  test('each request is billed against the balance, by its tokens', async () => {
    const k = await g.tenant({ credit: '1' })
    let spent = 0n
    for (const [i, endpoint] of Object.keys(ENDPOINTS).entries()) {
      up.says = { input: 100 * (i + 1), output: 10 * (i + 1) }
      const r = await call(endpoint, 'claude-3-5-sonnet-20241022', { key: k.key })
      const want = cost({ input: 100 * (i + 1), output: 10 * (i + 1) }, { input: '3', output: '15' })
      assert.equal(digitsOf(r.text, ENDPOINTS[endpoint].cost), decimal(want))
      spent += want
    }
    up.says = {}
    assert.equal((await g.settled(k.account)).balance, decimal(nano('1') - spent))
    await g.audit()
  })
  test('the current balance, for the dashboard', async () => {
    const r = (await g.req({ path: '/auth/register', body: { email: 'd@example.com', password: 'mypassword' } })).json
    await g.ctl('credit', 'd@example.com', '2.5')
    for (const key of [r.token, r.api_key]) assert.deepEqual((await g.req({ path: '/billing/balance', key })).json, { balance: 2.5, email: 'd@example.com' })
    await call('chat completions', 'gpt-4o-mini', { key: r.api_key })
    await until(async () => (await g.req({ path: '/billing/balance', key: r.token })).text.startsWith(`{"balance":${decimal(nano('2.5') - nano('0.0000972'))},`), 'the charge')
  })
})

describe('a cap per model and call', () => {
  const CAP = '0.0004'
  let r
  before(async () => {
    r = (await g.req({ path: '/auth/register', body: { email: 'cap@example.com', password: 'mypassword' } })).json
    await g.ctl('credit', 'cap@example.com', '50')
  })
  const cap = (model, value) => g.req({ method: value === undefined ? 'GET' : 'PUT', path: `/v1/models/${model}/cap`, key: r.token, ...(value === undefined ? {} : { body: `{"cap":${value}}` }) })
  test('the account sets it for each model; the list shows it', async () => {
    assert.deepEqual((await cap('gpt-4o-mini', CAP)).json, { model: 'gpt-4o-mini', cap: 0.0004, call_cap: 0.0004 })
    const list = Object.fromEntries((await g.req({ path: '/v1/models', key: r.api_key })).json.data.map((m) => [m.id, m.call_cap]))
    assert.deepEqual(list, { 'gpt-4o-mini': 0.0004, 'claude-3-5-sonnet-20241022': null, 'gemini-2.0-flash-exp': 0.5 })
    const others = Object.fromEntries((await g.req({ path: '/v1/models', key: t.key })).json.data.map((m) => [m.id, m.call_cap]))
    assert.equal(others['gpt-4o-mini'], null)
  })
  test('the lowest of the operator\'s, the account\'s and the key\'s applies', async () => {
    assert.deepEqual((await cap('gemini-2.0-flash-exp', 0.75)).json, { model: 'gemini-2.0-flash-exp', cap: 0.75, call_cap: 0.5 })
    assert.deepEqual((await cap('gemini-2.0-flash-exp', 0.25)).json, { model: 'gemini-2.0-flash-exp', cap: 0.25, call_cap: 0.25 })
    const k = (await g.ctl('key', 'list', '--account', 'cap@example.com')).keys[0]
    await g.ctl('cap', 'set', k.id, 'gemini-2.0-flash-exp', '0.125')
    assert.equal((await g.req({ path: '/v1/models/gemini-2.0-flash-exp', key: r.api_key })).json.call_cap, 0.125)
    await g.ctl('cap', 'remove', k.id, 'gemini-2.0-flash-exp')
    assert.deepEqual((await cap('gemini-2.0-flash-exp', null)).json, { model: 'gemini-2.0-flash-exp', cap: null, call_cap: 0.5 })
  })
  test('a call is cut to fit, on every endpoint, and 100 at once stay below it', async () => {
    assert.equal((await cap('gpt-4o-mini', CAP)).status, 200)
    up.says = { output: 100000 }
    for (const endpoint of Object.keys(ENDPOINTS)) {
      const x = await call(endpoint, 'gpt-4o-mini', { key: r.api_key })
      assert.equal(x.status, 200, x.text)
      const most = Number(x.headers['x-tollgate-max-tokens'])
      assert.ok(most > 256 && most < 667, `${endpoint}: ${most}`) // $0.0004 pays 666 tokens out and nothing in
      assert.ok(nano(digitsOf(x.text, ENDPOINTS[endpoint].cost)) <= nano(CAP))
    }
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => call(Object.keys(ENDPOINTS)[i % 4], 'gpt-4o-mini', { key: r.api_key })))
    up.says = {}
    assert.ok(all.every((x) => x.status === 200))
    await g.settled('cap@example.com')
    const records = (await g.ctl('usage', '--account', 'cap@example.com', '--limit', '200')).usage
    assert.equal(records.length, 104)
    for (const u of records) assert.ok(nano(u.cost) <= nano(CAP) && nano(u.cost) > 0n && u.uncollected === '0', u.cost)
  })
  test('a call that cannot fit: 402, and the message says that it is the cap', async () => {
    assert.equal((await cap('gpt-4o-mini', 0.000001)).status, 200)
    const wants = { 'chat completions': ['error', 'code'], responses: ['error', 'code'], 'Anthropic messages': ['error', 'details', 'error_code'], 'Gemini generate-content': ['error', 'details', 0, 'reason'] }
    for (const [endpoint, at] of Object.entries(wants)) {
      const x = await call(endpoint, 'gpt-4o-mini', { key: r.api_key })
      assert.equal(x.status, 402, x.text)
      assert.equal(at.reduce((o, k) => o[k], x.json), 'call_cap_exceeded')
      assert.match(x.json.error.message, /cap per call/)
    }
    assert.equal((await cap('gpt-4o-mini', null)).status, 200)
    assert.equal((await call('chat completions', 'gpt-4o-mini', { key: r.api_key })).status, 200)
  })
  test('the books balance', async () => { await g.audit() })
})
s.documented()
