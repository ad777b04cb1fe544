/* Product document 1 (tests/seeds/1-every-model.conf): one key, every major model. docs/seeds.md says which test here holds which
 * sentence of it. */
import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf, nano } from './lib/money.mjs'
import { seed } from './lib/seeds.mjs'
import { newGate, sse, status } from './upstream.mjs'

let g, up, t
const s = seed(1, {
  crammed: true, more: `model silent { route openai; price input 1 output 1; max_output 1000; context 1000; }\n`,
  async begin() { ({ g, up } = s); t = await g.tenant({ tier: 'pro' }) },
})
const test = s.test

const MODELS = { // provider, input and output per million tokens
  'gpt-4o': ['OpenAI', '2.75', '11.00'], 'gpt-4o-mini': ['OpenAI', '0.165', '0.66'], 'gpt-4.1': ['OpenAI', '2.20', '8.80'], 'gpt-4.1-mini': ['OpenAI', '0.44', '1.76'],
  'gpt-4.1-nano': ['OpenAI', '0.11', '0.44'], o3: ['OpenAI', '11.00', '44.00'], 'o4-mini': ['OpenAI', '1.21', '4.84'],
  'claude-sonnet-4-20250514': ['Anthropic', '3.30', '16.50'], 'claude-3-5-haiku-20241022': ['Anthropic', '0.88', '4.40'], 'claude-opus-4-20250514': ['Anthropic', '16.50', '82.50'],
  'gemini-2.5-pro': ['Google', '1.38', '11.00'], 'gemini-2.5-flash': ['Google', '0.083', '0.33'], 'deepseek-chat': ['DeepSeek', '0.15', '0.33'],
  'deepseek-reasoner': ['DeepSeek', '0.60', '2.42'], 'llama-3.1-405b': ['Meta / Fireworks', '3.30', '3.30'],
}
const KEY = /^hjl_sk_[A-Za-z0-9]{32}$/

describe('quick start', () => {
  test('cURL', async () => {
    const r = await s.curl('cURL', { key: t.key })
    assert.equal(r.status, 200, r.text)
    assert.equal(r.headers['content-type'], 'application/json')
    assert.equal(r.json.choices[0].message.content, 'Hello from upstream')
    assert.equal(r.json.model, 'gpt-4o')
  })
  test('Python (OpenAI SDK), by the same calls', async () => {
    assert.equal(await s.program('Python (OpenAI SDK)', { key: t.key }), 'Hello from upstream\n')
    assert.equal(up.requests.at(-1).path, '/v1/messages', 'Claude was asked in its own words')
  })
  test('JavaScript (Node.js)', async () => {
    assert.equal(await s.program('JavaScript (Node.js)', { key: t.key }), 'Hello from upstream\n')
  })
  test('one key opens every model', async () => {
    for (const model of Object.keys(MODELS)) assert.equal((await g.chat(t.key, { model })).json.choices[0].message.content, 'Hello from upstream', model)
  })
})

describe('authentication', () => {
  test('without a valid key in the Authorization header: 401', async () => {
    for (const headers of [{}, { Authorization: 'Bearer hjl_sk_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }, { Authorization: t.key }, { Authorization: `Basic ${t.key}` }])
      for (const path of ['/v1/chat/completions', '/v1/models'])
        assert.equal((await g.req({ path, headers, ...(path.endsWith('s') && path.includes('chat') ? { body: s.examples['Request Body'] } : {}) })).status, 401, `${path} ${JSON.stringify(headers)}`)
    assert.equal((await g.req({ path: '/v1/models', headers: { Authorization: `Bearer ${t.key}` } })).status, 200)
  })
  test('keys begin with hjl_sk_, 32 alphanumeric characters follow; the account makes them itself', async () => {
    assert.match(t.key, KEY)
    const r = (await g.req({ path: '/auth/register', body: { email: 'k@example.com', password: 'mypassword' } })).json
    assert.match(r.api_key, KEY)
    const made = (await g.req({ method: 'POST', path: '/api-keys?name=mine', key: r.token })).json
    assert.match(made.key, KEY)
    assert.equal((await g.chat(made.key)).status, 200)
  })
  test('a key is shown once, at its creation', async () => {
    const r = (await g.req({ path: '/auth/register', body: { email: 'once@example.com', password: 'mypassword' } })).json
    const made = (await g.req({ method: 'POST', path: '/api-keys', key: r.token })).json
    const list = await g.req({ path: '/api-keys', key: r.token })
    assert.deepEqual(list.json.keys.map((k) => k.key), [r.api_key, made.key].map((k) => `${k.slice(0, 11)}...${k.slice(-4)}`))
    for (const text of [list.text, JSON.stringify(await g.ctl('key', 'list')), (await g.req({ path: '/v1/key', key: made.key })).text])
      assert.ok(!text.includes(made.key) && !text.includes(r.api_key))
  })
  test('a revoked key fails on its next request', async () => {
    const k = await g.key(t.account)
    for (let i = 0; i < 3; i++) assert.equal((await g.chat(k.key)).status, 200)
    await g.ctl('key', 'revoke', k.id)
    for (let i = 0; i < 5; i++) assert.equal((await g.chat(k.key)).status, 403)
  })
})

describe('POST /v1/chat/completions', () => {
  test('the request body of the document reaches the provider unchanged', async () => {
    const text = s.examples['Request Body']
    s.json('Request Body')
    const r = await g.chat(t.key, text)
    assert.equal(r.status, 200, r.text)
    assert.equal(up.requests.at(-1).body.toString(), text)
  })
  test('the response has the fields of the document: hjl- id, usage with cost_usd', async () => {
    const r = await g.chat(t.key, s.examples['Request Body'])
    const { id, created, ...rest } = r.json
    assert.equal(id, 'hjl-abc123')
    assert.equal(created, 1719000000)
    const message = { role: 'assistant', content: 'Hello from upstream', refusal: null }
    assert.deepEqual(rest, { object: 'chat.completion', model: 'gpt-4o', choices: [{ index: 0, message, logprobs: null, finish_reason: 'stop' }],
      usage: { prompt_tokens: 24, completion_tokens: 156, total_tokens: 180, cost_usd: 0.001782 } })
    assert.equal(digitsOf(r.text, 'cost_usd'), '0.001782') // 24 × 2.75 + 156 × 11.00 µ$
    const other = await g.chat(t.key, { model: 'claude-sonnet-4-20250514' })
    assert.match(other.json.id, /^hjl-/)
    assert.deepEqual(Object.keys(other.json.usage).filter((k) => !k.endsWith('details')), ['prompt_tokens', 'completion_tokens', 'total_tokens', 'cost_usd'])
  })
})

test('GET /v1/models lists every model with its pricing', async () => {
  const r = await g.req({ path: '/v1/models', key: t.key })
  assert.equal(r.json.object, 'list')
  const listed = Object.fromEntries(r.json.data.map((m) => [m.id, m]))
  const owners = { OpenAI: 'openai', Anthropic: 'anthropic', Google: 'google', DeepSeek: 'deepseek', 'Meta / Fireworks': 'meta' }
  for (const [id, [provider, input, output]] of Object.entries(MODELS)) {
    const m = listed[id]
    assert.deepEqual([m.object, m.owned_by, m.provider], ['model', owners[provider], provider])
    assert.deepEqual([m.pricing.input_per_1m, m.pricing.output_per_1m], [Number(input), Number(output)])
    assert.deepEqual([nano(m.pricing.prompt), nano(m.pricing.completion)].map((x) => x * 1000000n), [nano(input), nano(output)])
  }
  assert.deepEqual(Object.keys(listed).filter((id) => !(id in MODELS)).sort(), ['crammed', 'silent'])
})

describe('streaming', () => {
  test('the document\'s stream', async () => {
    assert.equal(await s.program('Stream response', { key: t.key }), 'Hello from upstream')
  })
  test('each line is data: {json}, data: [DONE] ends it; usage and cost are in the final chunk', async () => {
    for (const model of ['gpt-4o', 'claude-sonnet-4-20250514', 'gemini-2.5-pro']) {
      const r = await g.chat(t.key, { model, stream: true })
      assert.match(r.headers['content-type'], /^text\/event-stream/)
      const lines = r.text.split('\n').filter(Boolean)
      assert.ok(lines.every((l) => l.startsWith('data: ')), r.text)
      assert.equal(lines.at(-1), 'data: [DONE]')
      const list = lines.slice(0, -1).map((l) => JSON.parse(l.slice(6)))
      assert.ok(list.every((c) => c.object === 'chat.completion.chunk' && /^hjl-/.test(c.id)))
      assert.equal(list.map((c) => c.choices[0].delta.content ?? '').join(''), 'Hello from upstream')
      const [, input, output] = MODELS[model]
      assert.ok(list.slice(0, -1).every((c) => !c.usage))
      assert.equal(digitsOf(lines.at(-2), 'cost_usd'), decimal(cost({ input: 24, output: 156 }, { input, output })))
      assert.equal(list.at(-1).usage.total_tokens, 180)
    }
  })
})

describe('error codes', () => {
  const refused = (r, code, reason) => {
    assert.equal(r.status, code, r.text)
    assert.equal(r.json.error.code, `HJL-${code}`)
    if (reason) assert.equal(r.json.error.reason, reason)
    assert.ok(r.json.error.message.length > 10)
  }
  test('HJL-400: malformed JSON, missing required fields', async () => {
    refused(await g.chat(t.key, '{"model": "gpt-4o", '), 400, 'invalid_json')
    refused(await g.chat(t.key, { messages: undefined }), 400, 'missing_field')
    refused(await g.chat(t.key, { model: undefined }), 400, 'missing_field')
  })
  test('HJL-401: invalid or missing API key', async () => {
    refused(await g.chat('hjl_sk_YOUR_KEY'), 401, 'invalid_api_key')
    refused(await g.chat(undefined), 401, 'invalid_api_key')
  })
  test('HJL-402: insufficient balance', async () => {
    const poor = await g.tenant({ credit: null })
    const r = await g.chat(poor.key)
    refused(r, 402, 'insufficient_balance')
    assert.match(r.json.error.message, /add credit/)
  })
  test('HJL-403: the key was revoked, the account suspended', async () => {
    const one = await g.tenant(), other = await g.tenant()
    await g.ctl('key', 'revoke', one.id)
    refused(await g.chat(one.key), 403, 'key_revoked')
    await g.ctl('account', 'suspend', other.account)
    refused(await g.chat(other.key), 403, 'account_suspended')
  })
  test('HJL-404: model not found', async () => refused(await g.chat(t.key, { model: 'gpt-9' }), 404, 'model_not_found'))
  test('HJL-429: rate limit exceeded, and Retry-After says when', async () => {
    const k = await g.tenant({ tier: 'free', rpm: '1' })
    assert.equal((await g.chat(k.key)).status, 200)
    const r = await g.chat(k.key)
    refused(r, 429, 'rate_limit_exceeded')
    assert.ok(Number(r.headers['retry-after']) > 50 && Number(r.headers['retry-after']) <= 60)
  })
  test('HJL-500: an internal error, which costs nothing', async () => {
    const k = await g.tenant()
    refused(await g.chat(k.key, { model: 'crammed' }), 500, 'internal')
    assert.equal((await g.settled(k.account)).balance, '100')
  })
  test('HJL-502: the provider failed', async () => {
    up.on('gpt-4.1', status(500))
    refused(await g.chat(t.key, { model: 'gpt-4.1' }), 502, 'upstream_failed')
    up.routes.delete('gpt-4.1')
  })
  test('HJL-503: temporarily unavailable', async () => {
    await g.ctl('upstream', 'drain', 'fireworks')
    refused(await g.chat(t.key, { model: 'llama-3.1-405b' }), 503)
    await g.ctl('upstream', 'enable', 'fireworks')
    assert.equal((await g.chat(t.key, { model: 'llama-3.1-405b' })).status, 200)
  })
})

describe('rate limits', () => {
  const TIERS = { Free: [20, 40000, 5], Standard: [120, 200000, 20], Pro: [600, 1000000, 50] }
  test('X-RateLimit-Remaining and X-RateLimit-Reset are on every response to a key', async () => {
    const k = await g.tenant({ tier: 'free' })
    const all = [await g.chat(k.key), await g.chat(k.key, { stream: true }), await g.chat(k.key, '{'), await g.chat(k.key, { model: 'gpt-9' }), await g.req({ path: '/v1/models', key: k.key }),
      await g.req({ path: '/v1/key', key: k.key }), await g.req({ path: '/v1/nothing', key: k.key }), await g.chat((await g.tenant({ tier: 'free', credit: null })).key)]
    assert.deepEqual(all.map((r) => r.status), [200, 200, 400, 404, 200, 200, 404, 402])
    for (const r of all) {
      assert.match(r.headers['x-ratelimit-remaining'], /^\d+$/)
      const reset = Number(r.headers['x-ratelimit-reset']) - Date.now() / 1000
      assert.ok(reset > -2 && reset < 62, `an epoch of seconds: ${r.headers['x-ratelimit-reset']}`)
    }
    assert.ok(Number(all[1].headers['x-ratelimit-remaining']) < Number(all[0].headers['x-ratelimit-remaining']))
  })
  test('limits are applied per key', async () => {
    const a = await g.tenant({ tier: 'free' }), b = await g.key(a.account)
    await Promise.all(Array.from({ length: 5 }, () => g.chat(a.key)))
    const [ra, rb] = [await g.chat(a.key), await g.chat(b.key)]
    assert.ok(Number(ra.headers['x-ratelimit-remaining']) < 18 && Number(rb.headers['x-ratelimit-remaining']) === 19)
  })
  for (const [name, [rpm, tpm, concurrency]] of Object.entries(TIERS)) {
    test(`${name}: ${rpm} requests a minute`, async () => {
      const k = await g.tenant({ tier: name.toLowerCase() })
      up.says = { text: 'x', input: 1, output: 1 }
      const begin = performance.now(), list = []
      for (let sent = 0; sent < rpm + 5; sent += 5) list.push(...await Promise.all(Array.from({ length: 5 }, () => g.chat(k.key, { max_tokens: 1 }))))
      const refilled = Math.ceil((performance.now() - begin) / 60000 * rpm)
      up.says = {}
      const ok = list.filter((r) => r.status === 200).length
      assert.ok(ok >= rpm && ok <= rpm + refilled, `${ok} of ${list.length}; ${refilled} came back meanwhile`)
      if (refilled < 5) assert.ok(list.some((r) => r.status === 429 && r.json.error.param === 'requests'))
      assert.equal(list[0].headers['x-ratelimit-limit'], String(rpm))
    })
    test(`${name}: ${tpm.toLocaleString('en')} tokens a minute`, async () => {
      const k = await g.tenant({ tier: name.toLowerCase() })
      up.says = { input: tpm - 1000, output: 1000 }
      const r = await g.chat(k.key, { model: 'gemini-2.5-pro', max_tokens: 1000 })
      up.says = {}
      assert.equal(r.status, 200, r.text)
      assert.equal(r.headers['x-ratelimit-limit-tokens'], String(tpm))
      await g.settled(k.account)
      const more = await g.chat(k.key, { max_tokens: 1000, messages: [{ role: 'user', content: 'x'.repeat(tpm / 8) }] }) // 1/32 of the limit, and 1,000: what two seconds bring back
      assert.equal(more.status, 429, more.text)
      assert.equal(more.json.error.param, 'tokens')
    })
    test(`${name}: ${concurrency} at once`, async () => {
      const k = await g.tenant({ tier: name.toLowerCase() })
      const { gate, open } = newGate()
      up.on('silent', sse({ tokens: 1, gate, gateAt: 1 }))
      const list = Array.from({ length: concurrency + 3 }, () => g.stream(k.key, { model: 'silent', max_tokens: 10 }))
      const heads = await Promise.all(list.map((x) => x.head))
      open()
      assert.equal(heads.filter((h) => h.status === 200).length, Math.min(concurrency, TIERS[name][0]))
      const refused = heads.findIndex((h) => h.status === 429)
      await Promise.all(list.map((x) => x.all()))
      assert.equal(JSON.parse(list[refused].text).error.param, 'concurrency')
    })
  }
})

describe('models and pricing', () => {
  for (const [model, [provider, input, output]] of Object.entries(MODELS)) {
    test(`${model} (${provider}): $${input} in, $${output} out`, async () => {
      const k = await g.tenant()
      up.says = { input: 1237, output: 911 }
      const want = cost({ input: 1237, output: 911 }, { input, output })
      const r = await g.chat(k.key, { model })
      assert.equal(digitsOf(r.text, 'cost_usd'), decimal(want), r.text)
      const streamed = await g.chat(k.key, { model, stream: true })
      assert.equal(digitsOf(streamed.text, 'cost_usd'), decimal(want))
      up.says = {}
      assert.equal((await g.settled(k.account)).balance, decimal(nano('100') - 2n * want))
      for (const u of await g.usage(k.account, 2)) assert.deepEqual([u.model, u.cost, u.input_tokens, u.output_tokens], [model, decimal(want), 1237, 911])
    })
  }
  test('start with $5; what is used is paid, and nothing else', async () => {
    const r = await g.req({ path: '/auth/register', body: { email: 'start@example.com', password: 'mypassword' } })
    assert.equal(r.json.message, 'Registration successful! $5.00 free credit granted.')
    assert.equal(digitsOf(r.text, 'balance'), '5')
    assert.equal((await g.ctl('account', 'show', 'start@example.com')).tier, 'free')
    assert.equal((await g.chat(r.json.api_key)).status, 200)
    await until(async () => (await g.balance('start@example.com')).balance === decimal(nano('5') - nano('0.001782')), 'the charge')
  })
  test('the books balance', async () => { await g.audit() })
})
s.documented()
