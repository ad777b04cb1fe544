/* Product document 4 (tests/seeds/4-free-tokens.conf): accounts of tokens, a million of them free. docs/seeds.md says which test here
 * holds which sentence of it. */
import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf } from './lib/money.mjs'
import { seed } from './lib/seeds.mjs'
import { json, status } from './upstream.mjs'

let g, up, me, n = 0
const s = seed(4, {
  crammed: true, more: `model heavy { route deepseek; price input 2 output 8; tokens input 1.5 output 4 cached_input 0.25; max_output 8192; context 128000; }
group half { models *; ratio 0.5; }\n`,
  async begin() { ({ g, up } = s); me = (await s.curl('Register')).json },
})
const test = s.test
const MODELS = { // provider and price per million tokens
  'deepseek-chat': ['DeepSeek', '0.25'], 'deepseek-reasoner': ['DeepSeek', '0.55'], 'qwen-turbo': ['Alibaba Qwen', '0.10'], 'qwen-plus': ['Alibaba Qwen', '0.20'],
  'qwen-max': ['Alibaba Qwen', '0.30'], 'glm-4-flash': ['Zhipu GLM', '0.15'],
}

const ask = (method, path, key, body) => g.req({ method, path, key, body })
const register = async (o = {}) => {
  const email = `m${++n}@example.com`
  await g.ctl('account', 'create', '--email', email, '--tier', o.tier ?? 'free', '--credit', o.credit ?? '1000000')
  return { email, key: (await g.key(email)).key }
}
const chat = (key, body) => g.chat(key, { model: 'deepseek-chat', ...body })
const balance = async (key) => (await ask('GET', '/billing/balance', key)).json.balance
const sent = () => up.requests.at(-1)

describe('quick start', () => {
  test('two changed lines: key and base URL', async () => {
    assert.equal(await s.program('Streaming: Python', { key: me.api_key, before: 'Two lines of Python' }), 'Hello from upstream')
  })
  test('DeepSeek, Qwen and GLM through one interface', async () => {
    const k = await register()
    for (const model of ['deepseek-chat', 'qwen-turbo', 'glm-4-flash']) assert.equal((await chat(k.key, { model })).json.choices[0].message.content, 'Hello from upstream')
    assert.deepEqual(up.requests.slice(-3).map((r) => r.path), ['/v1/chat/completions', '/compatible-mode/v1/chat/completions', '/api/paas/v4/chat/completions'])
  })
  test('the key comes as Bearer sk-...', async () => {
    assert.match(me.api_key, /^sk-[A-Za-z0-9]{32}$/)
    assert.equal((await g.req({ path: '/v1/key', headers: { Authorization: `Bearer ${me.api_key}` } })).status, 200)
    assert.equal((await g.req({ path: '/v1/key', headers: { Authorization: 'Bearer sk-nobody' } })).status, 401)
  })
})

describe('accounts', () => {
  test('register: a JWT, an API key and 1,000,000 free tokens', async () => {
    assert.deepEqual(Object.keys(me), ['token', 'api_key', 'balance', 'message'])
    assert.match(me.token, /^eyJhbGciOiJIUzI1NiIs/)
    assert.match(me.api_key, /^sk-/)
    assert.equal(me.balance, 1000000)
    assert.equal(me.message, 'Registration successful! 1,000,000 free tokens granted.')
    const a = await g.ctl('account', 'show', 'dev@example.com')
    assert.deepEqual([a.tier, a.status], ['free', 'active'])
    const again = await s.curl('Register')
    assert.equal(again.status, 400)
    assert.deepEqual(Object.keys(again.json), ['detail'])
  })
  test('email and password are required; a password has at least 6 characters', async () => {
    for (const body of [{ email: 'x@example.com' }, { password: 'mypassword' }, { email: 'x@example.com', password: '12345' }, { email: 'nobody', password: 'mypassword' }, { email: 5, password: 'mypassword' }]) {
      const r = await ask('POST', '/auth/register', undefined, body)
      assert.equal(r.status, 400, JSON.stringify(body))
      assert.ok(r.json.detail)
    }
    assert.equal((await ask('POST', '/auth/register', undefined, { email: 'six@example.com', password: '123456' })).status, 200)
  })
  test('login: a JWT and the balance', async () => {
    const k = await ask('POST', '/auth/register', undefined, { email: 'login@example.com', password: 'mypassword' })
    const r = await s.curl('Login', { instead: { 'dev@example.com': 'login@example.com' } })
    assert.equal(r.status, 200)
    assert.deepEqual(Object.keys(r.json), ['token', 'balance'])
    assert.match(r.json.token, /^eyJhbGciOiJIUzI1NiIs/)
    assert.equal(r.json.balance, 1000000)
    for (const token of [r.json.token, k.json.token]) assert.equal((await ask('GET', '/api-keys', token)).status, 200)
    assert.equal((await s.curl('Login')).json.token.split('.').length, 3)
    assert.equal((await ask('POST', '/auth/login', undefined, { email: 'login@example.com', password: 'another' })).status, 401)
  })
})

describe('API keys', () => {
  test('listed with the JWT alone, and masked', async () => {
    const r = await s.curl('List keys', { token: me.token })
    assert.equal(r.status, 200)
    const [k] = r.json.keys
    assert.deepEqual([k.name, k.status, k.key], ['default', 'active', `${me.api_key.slice(0, 7)}...${me.api_key.slice(-4)}`])
    assert.ok(!r.text.includes(me.api_key))
    for (const key of [me.api_key, undefined, 'eyJhbGciOiJIUzI1NiIs.x.y'])
      for (const [method, path] of [['GET', '/api-keys'], ['POST', '/api-keys?name=x'], ['DELETE', `/api-keys/${k.id}`]])
        assert.equal((await ask(method, path, key)).status, 401)
  })
  test('created with a name, or without one; shown whole that once', async () => {
    const r = await s.curl('Create a key', { token: me.token })
    assert.equal(r.status, 200)
    assert.equal(r.json.name, 'production')
    assert.match(r.json.key, /^sk-[A-Za-z0-9]{32}$/)
    assert.equal((await chat(r.json.key)).status, 200)
    assert.equal((await ask('POST', '/api-keys', me.token)).json.name, 'default')
    assert.ok(!(await s.curl('List keys', { token: me.token })).text.includes(r.json.key))
  })
  test('deactivated: no call goes through any more', async () => {
    const k = (await ask('POST', '/api-keys?name=gone', me.token)).json
    assert.equal((await chat(k.key)).status, 200)
    const r = await s.curl('Deactivate a key', { token: me.token, instead: { key_abc123: k.id } })
    assert.deepEqual([r.status, r.json.id, r.json.status], [200, k.id, 'revoked'])
    for (let i = 0; i < 5; i++) assert.equal((await chat(k.key)).status, 401)
    assert.equal((await ask('GET', '/api-keys', me.token)).json.keys.find((x) => x.id === k.id).status, 'revoked')
  })
  test('several keys, for development, staging and production, share one balance', async () => {
    const r = (await ask('POST', '/auth/register', undefined, { email: 'three@example.com', password: 'mypassword' })).json
    const keys = [r.api_key]
    for (const name of ['staging', 'production']) keys.push((await ask('POST', `/api-keys?name=${name}`, r.token)).json.key)
    for (const key of keys) assert.equal((await chat(key)).status, 200)
    await until(async () => await balance(keys[0]) === 1000000 - 3 * 180, 'three calls')
    for (const key of keys) assert.equal(await balance(key), 1000000 - 3 * 180)
  })
})

describe('chat completions', () => {
  test('cURL', async () => {
    const r = await s.curl('Chat: cURL', { key: me.api_key })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual([r.json.object, r.json.model, r.json.choices[0].message.content], ['chat.completion', 'deepseek-chat', 'Hello from upstream'])
    assert.deepEqual(r.json.usage, { prompt_tokens: 24, completion_tokens: 156, total_tokens: 180, cost_usd: 0.000045, cost_tokens: 180 })
  })
  test('Python, by the same calls', async () => assert.equal(await s.program('Chat: Python', { key: me.api_key }), 'Hello from upstream\n'))
  test('Node.js', async () => assert.equal(await s.program('Chat: Node.js', { key: me.api_key }), 'Hello from upstream\n'))
  test('model and messages are required; max_tokens, temperature and stream are optional', async () => {
    const k = await register()
    for (const missing of ['model', 'messages']) assert.equal((await chat(k.key, { [missing]: undefined })).status, 400)
    assert.equal((await chat(k.key, { max_tokens: 50, temperature: 1.5, stream: false })).status, 200)
    assert.deepEqual([sent().json.max_tokens, sent().json.temperature, sent().json.stream], [50, 1.5, false])
    assert.equal((await chat(k.key)).headers['content-type'], 'application/json')
  })
  test('streaming, of every model', async () => {
    const k = await register()
    for (const model of Object.keys(MODELS)) {
      const r = await chat(k.key, { model, stream: true })
      assert.match(r.headers['content-type'], /^text\/event-stream/)
      assert.ok(r.text.split('\n').filter(Boolean).every((l) => l.startsWith('data: ')))
      assert.equal(r.events.at(-1), '[DONE]')
      assert.equal(r.events.at(-2).usage.cost_tokens, 180)
    }
  })
  test('function calling, JSON mode and every standard parameter go through as they are', async () => {
    const k = await register()
    const call = { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Hanoi"}' } }
    up.on('qwen-max', json({ message: { role: 'assistant', content: null, tool_calls: [call] }, finish: 'tool_calls' }))
    const body = { model: 'qwen-max', messages: [{ role: 'user', content: 'x' }], tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }],
      tool_choice: 'auto', response_format: { type: 'json_object' }, temperature: 0.3, top_p: 0.9, presence_penalty: 1, frequency_penalty: -1, seed: 7, stop: ['x'], user: 'u-1', n: 1, logprobs: true, top_logprobs: 2 }
    const r = await g.chat(k.key, JSON.stringify(body))
    up.routes.delete('qwen-max')
    assert.deepEqual(sent().json, body)
    assert.deepEqual([r.json.choices[0].message.tool_calls, r.json.choices[0].finish_reason], [[call], 'tool_calls'])
  })
})

describe('models', () => {
  test('without authentication: every model and what it can', async () => {
    const r = await s.curl('Models')
    assert.equal(r.status, 200)
    assert.equal(r.json.object, 'list')
    assert.deepEqual(r.json.data.map((m) => m.id).filter((id) => id in MODELS).sort(), Object.keys(MODELS).sort())
    for (const m of r.json.data) assert.deepEqual(Object.keys(m.capabilities), ['streaming', 'tools', 'vision', 'reasoning'])
    assert.equal((await g.req({ path: '/v1/models/qwen-max' })).json.id, 'qwen-max')
  })
  for (const [model, [provider, price]] of Object.entries(MODELS)) {
    test(`${model} (${provider}): $${price}, streaming`, async () => {
      const m = (await g.req({ path: `/v1/models/${model}` })).json
      assert.deepEqual([m.provider, m.pricing.input_per_1m, m.pricing.output_per_1m, m.capabilities.streaming], [provider, Number(price), Number(price), true])
      const k = await register()
      up.says = { input: 1237, output: 911 }
      const r = await chat(k.key, { model })
      up.says = {}
      assert.equal(digitsOf(r.text, 'cost_usd'), decimal(cost({ input: 1237, output: 911 }, { input: price, output: price })))
      assert.equal(digitsOf(r.text, 'cost_tokens'), '2148')
      await until(async () => await balance(k.key) === 1000000 - 2148, 'the debit')
    })
  }
})

describe('billing', () => {
  test('the balance after 15,000 tokens, by key and by JWT', async () => {
    const r = (await ask('POST', '/auth/register', undefined, { email: 'dev2@example.com', password: 'mypassword' })).json
    up.says = { input: 10000, output: 5000 }
    assert.equal((await chat(r.api_key)).status, 200)
    up.says = {}
    await until(async () => await balance(r.api_key) === 985000, 'the debit')
    const b = await s.curl('Balance', { key: r.api_key })
    assert.equal(b.text, '{"balance":985000,"email":"dev2@example.com"}')
    assert.deepEqual((await ask('GET', '/billing/balance', r.token)).json, b.json)
  })
  test('usage: model, tokens, cost and time of each call, by key and by JWT', async () => {
    const r = (await ask('POST', '/auth/register', undefined, { email: 'usage@example.com', password: 'mypassword' })).json
    const records = (count) => until(async () => (await ask('GET', '/billing/usage', r.token)).json.usage.length === count, `${count} records`)
    for (let i = 0; i < 11; i++) assert.equal((await chat(r.api_key)).status, 200)
    await records(11)
    assert.equal((await chat(r.api_key, { model: 'glm-4-flash' })).status, 200)
    await records(12)
    const u = await s.curl('Usage', { key: r.api_key })
    assert.equal(u.json.usage.length, 10)
    const [last] = u.json.usage
    assert.deepEqual([last.model, last.input_tokens, last.output_tokens, last.cost], ['glm-4-flash', 24, 156, 180])
    assert.ok(Math.abs(Date.parse(last.time) - Date.now()) < 60000)
    const rest = await ask('GET', `/billing/usage?limit=10&cursor=${u.json.next_cursor}`, r.token)
    assert.equal(rest.json.usage.length, 2)
    assert.deepEqual((await ask('GET', '/billing/usage?limit=10', r.token)).json.usage, u.json.usage)
  })
  test('a model may weigh its tokens, and a group all of them: exact, rounded once', async () => {
    // (input − cached) × 1.5 + cached × 0.25 + output × 4, times the ratio, half to even
    for (const [figures, group, want] of [[{ input: 1000, output: 500 }, 'default', 3500], [{ input: 1000, output: 500 }, 'half', 1750], [{ input: 1001, output: 1, cached: 1000 }, 'default', 256],
      [{ input: 3, output: 0 }, 'default', 4], [{ input: 1, output: 0 }, 'default', 2], [{ input: 1, output: 0 }, 'half', 1]]) {
      const k = await register()
      await g.ctl('account', 'set', k.email, '--group', group)
      up.says = figures
      const r = await chat(k.key, { model: 'heavy', max_tokens: 1000 })
      up.says = {}
      assert.equal(digitsOf(r.text, 'cost_tokens'), String(want), `${JSON.stringify(figures)} in ${group}`)
      await until(async () => await balance(k.key) === 1000000 - want, 'the debit')
      assert.equal((await g.usage(k.email))[0].cost, String(want))
    }
  })
  test('nothing is charged but tokens that were used', async () => {
    const k = await register()
    up.on('qwen-plus', status(500))
    assert.equal((await chat(k.key, { model: 'qwen-plus' })).status, 502)
    up.routes.delete('qwen-plus')
    assert.equal((await chat(k.key, { model: 'nothing' })).status, 404)
    assert.equal(await balance(k.key), 1000000)
    await g.audit()
  })
})

describe('error codes', () => {
  /* Of a model call: OpenAI's shape, and the detail beside it. */
  const refused = (r, code) => {
    assert.equal(r.status, code, r.text)
    assert.ok(r.json.detail.length > 10)
    if (r.json.error) assert.equal(r.json.error.message, r.json.detail)
    return r
  }
  test('400: invalid parameters, missing fields', async () => {
    refused(await chat(me.api_key, { max_tokens: 'many' }), 400)
    refused(await chat(me.api_key, { messages: undefined }), 400)
    refused(await ask('GET', '/billing/usage?limit=many', me.api_key), 400)
  })
  test('401: a missing or invalid API key or JWT', async () => {
    for (const key of [undefined, 'sk-nobody']) refused(await chat(key), 401)
    for (const key of [undefined, 'eyJhbGciOiJIUzI1NiIs.x.y']) for (const path of ['/api-keys', '/billing/balance', '/billing/usage']) refused(await ask('GET', path, key), 401)
  })
  test('402: the token balance does not suffice', async () => {
    const k = await register({ credit: '100' })
    assert.match(refused(await chat(k.key), 402).json.detail, /balance/)
    await g.ctl('credit', k.email, '100000')
    assert.equal((await chat(k.key)).status, 200)
  })
  test('404: no such API key, model or path', async () => {
    refused(await s.curl('Deactivate a key', { token: me.token }), 404)
    refused(await chat(me.api_key, { model: 'gpt-9' }), 404)
    refused(await ask('GET', '/billing/nothing', me.api_key), 404)
  })
  test('429: above 60 requests a minute; the answer says when to come again', async () => {
    const k = await register()
    const begin = performance.now()
    const list = await Promise.all(Array.from({ length: 80 }, () => chat(k.key, { max_tokens: 1 })))
    const ok = list.filter((r) => r.status === 200).length
    assert.ok(ok >= 60 && ok <= 60 + Math.ceil((performance.now() - begin) / 1000), `${ok}`)
    const r = refused(list.find((x) => x.status !== 200), 429)
    assert.deepEqual([r.headers['x-ratelimit-limit'], r.headers['retry-after']], ['60', '1'])
  })
  test('500: an internal error', async () => { refused(await chat(me.api_key, { model: 'crammed' }), 500) })
  test('502: the provider failed', async () => {
    up.on('deepseek-reasoner', status(500))
    refused(await chat(me.api_key, { model: 'deepseek-reasoner' }), 502)
    up.routes.delete('deepseek-reasoner')
  })
  test('paid plans have higher limits, customers their own', async () => {
    const paid = await register({ tier: 'paid' })
    assert.equal((await chat(paid.key)).headers['x-ratelimit-limit'], '600')
    const own = await g.key(paid.email, { rpm: 5000 })
    assert.equal((await chat(own.key)).headers['x-ratelimit-limit'], '5000')
  })
})
s.documented()
