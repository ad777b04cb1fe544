/* Embeddings: OpenAI's and Gemini's paths in front, OpenAI-compatible, Gemini and echo upstreams behind. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { cost, decimal, digitsOf } from './lib/money.mjs'
import { cleanUps, test } from './lib/test.mjs'
import { json, startUpstream, status } from './upstream.mjs'

const PRICE = { input: '0.13' }
const shared = cleanUps()
let up, g, t
before(async () => {
  up = await startUpstream(shared)
  const model = (name, upstream, o = {}) => ({ name, kind: 'embedding', route: `${upstream} as inner-${name}`, price: PRICE, context: 8192, max_output: null, ...o })
  g = await startGateway(shared, {
    upstreams: [{ name: 'oai', url: up.url }, { name: 'gem', url: up.url.replace('/v1', '/v1beta'), dialect: 'gemini' },
      { name: 'ant', url: up.url, dialect: 'anthropic' }],
    models: [model('emb', 'oai'), model('gemb', 'gem'), model('wrong', 'ant'), model('stripped', 'oai', { strip: 'user' }), { name: 'gpt-4o', route: 'oai' },
      { name: 'eemb', kind: 'embedding', route: 'local', price: PRICE, context: 8192, max_output: null }],
    text: 'upstream local { dialect echo; }\n',
    tiers: { tight: 'tpm 100;' },
  })
  t = await g.tenant()
})

const post = (path, body, o = {}) => g.req({ path, method: 'POST', key: t.key, body: typeof body === 'string' ? body : JSON.stringify(body), ...o })
const embed = (body, o) => post('/v1/embeddings', body, o)
const gemini = (model, method, body, o) => post(`/v1beta/models/${model}:${method}`, body, o)
const vector = (index, embedding) => ({ object: 'embedding', index, embedding })
const answer = (data, usage = { prompt_tokens: 7, total_tokens: 7 }) => json({ body: JSON.stringify({ object: 'list', data, model: 'inner-emb', usage }) })
const price = (n) => decimal(cost({ input: n }, PRICE))
const b64 = (list) => Buffer.from(new Float32Array(list).buffer).toString('base64')
const floats = (text) => { const b = Buffer.from(text, 'base64'); return Array.from({ length: b.length / 4 }, (_, i) => b.readFloatLE(i * 4)) }
const newest = async () => { await g.settled(t.account); return (await g.usage(t.account))[0] }
/* A Gemini path has no model in the body: the scripted provider answers by what `up.otherwise` says. */
const geminiSays = (o, code) => { up.otherwise = code ? status(code, { body: JSON.stringify(o) }) : json({ body: JSON.stringify(o) }) }
const last = () => up.requests.at(-1)

describe('openai upstream', () => {
  test('passes byte for byte but for the model, and the cost is in usage', async () => {
    const body = '{"input":"h\\u0069 there", "x_new":[1.50,{"a":null}],"model":"emb","dimensions":3,"encoding_format":"float"}'
    up.on('inner-emb', json({ body: '{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10,-1e-3,2.50]}],"model":"inner-emb","usage":{"prompt_tokens":7,"total_tokens":7,"x":1.0}}' }))
    const before = await g.settled(t.account)
    const r = await embed(body)
    assert.equal(r.status, 200)
    assert.equal(last().path, '/v1/embeddings')
    assert.equal(last().body.toString(), body.replace('"emb"', '"inner-emb"'))
    assert.ok(r.text.includes('[0.10,-1e-3,2.50]') && r.text.includes('"x":1.0'))
    assert.equal(digitsOf(r.text, 'cost_usd'), price(7))
    assert.equal(r.headers['x-tollgate-upstream'], 'oai')
    assert.equal(r.headers['x-tollgate-cost'], price(7))
    const u = await newest()
    assert.equal(u.input_tokens, 7)
    assert.equal(u.output_tokens, 0)
    assert.equal(u.cost, price(7))
    assert.equal(u.estimated, false)
    const after = await g.settled(t.account)
    assert.equal(Math.round((before.balance - after.balance) * 1e9), Math.round(price(7) * 1e9))
  })
  test('every kind of input', async () => {
    for (const [input, n] of [['text', 1], [['a', 'b'], 2], [[1, 2, 3], 1], [[[1, 2], [3]], 2]]) {
      up.on('inner-emb', answer(Array.from({ length: n }, (_, i) => vector(i, [i, 0.5]))))
      const r = await embed({ model: 'emb', input })
      assert.equal(r.status, 200, JSON.stringify(input))
      assert.deepEqual(last().json.input, input)
      assert.equal(r.json.data.length, n)
    }
  })
  test('base64 passes through', async () => {
    up.on('inner-emb', answer([vector(0, b64([0.1, 0.2]))]))
    const r = await embed({ model: 'emb', input: 'x', encoding_format: 'base64' })
    assert.equal(r.json.data[0].embedding, b64([0.1, 0.2]))
    assert.equal(last().json.encoding_format, 'base64')
  })
  test('an answer without usage gets one, and its record is an estimate', async () => {
    up.on('inner-emb', json({ body: JSON.stringify({ object: 'list', data: [vector(0, [1])], model: 'm' }) }))
    const r = await embed({ model: 'emb', input: 'x'.repeat(400) })
    assert.equal(r.json.usage.prompt_tokens, 100)
    assert.equal(digitsOf(r.text, 'cost_usd'), price(100))
    const u = await newest()
    assert.equal(u.estimated, true)
    assert.equal(u.input_tokens, 100)
    assert.equal(u.output_tokens, 0)
  })
  test('strip', async () => {
    up.on('inner-stripped', answer([vector(0, [1])]))
    const r = await embed({ model: 'stripped', input: 'x', user: 'u' })
    assert.equal(r.status, 200)
    assert.deepEqual(last().json, { model: 'inner-stripped', input: 'x' })
    assert.equal(r.headers['x-tollgate-dropped'], 'user')
  })
  test('the provider\'s errors: the request\'s fault is told, the rest is a 502; nothing is billed', async () => {
    const before = await g.settled(t.account)
    up.on('inner-emb', status(400, { error: { message: 'too long', type: 'invalid_request_error', code: 'context_length_exceeded' } }))
    const r = await embed({ model: 'emb', input: 'x' })
    assert.equal(r.status, 400)
    assert.equal(r.json.error.code, 'context_length_exceeded')
    up.on('inner-emb', json({ body: '{"error":{"message":"inside a 200","type":"server_error"}}' }))
    assert.equal((await embed({ model: 'emb', input: 'x' })).status, 502)
    up.on('inner-emb', answer([vector(0, [1])]))
    assert.equal((await embed({ model: 'emb', input: ['x', 'y'] })).status, 502, 'one vector for two inputs')
    assert.equal((await g.settled(t.account)).balance, before.balance)
  })
})

describe('what is refused', () => {
  const bad = [
    [{ input: 'x' }, 'missing_field', 'model'], [{ model: 'emb' }, 'missing_field', 'input'], [{ model: 'emb', input: '' }, 'invalid_value', 'input'],
    [{ model: 'emb', input: [] }, 'invalid_value', 'input'], [{ model: 'emb', input: ['a', ''] }, 'invalid_value', 'input'],
    [{ model: 'emb', input: ['a', 1] }, 'invalid_value', 'input'], [{ model: 'emb', input: { a: 1 } }, 'invalid_value', 'input'],
    [{ model: 'emb', input: 'x', dimensions: 0 }, 'invalid_value', 'dimensions'], [{ model: 'emb', input: 'x', encoding_format: 'hex' }, 'invalid_value', 'encoding_format'],
    [{ model: 'emb', input: Array(2049).fill('x') }, 'invalid_value', 'input'], ['{"model":"emb","input":"x","input":"y"}', 'invalid_value', 'input'],
    [{ model: 'gpt-4o', input: 'x' }, 'invalid_value', 'model'], [{ model: 'wrong', input: 'x' }, 'unsupported_parameter', 'model'],
  ]
  for (const [body, code, param] of bad) {
    test(`${JSON.stringify(body).slice(0, 60)}`, async () => {
      const n = up.requests.length
      const r = await embed(body)
      assert.equal(r.status, 400)
      assert.equal(r.json.error.code, code)
      assert.equal(r.json.error.param, param)
      assert.equal(up.requests.length, n)
    })
  }
  test('an embedding model in a conversation', async () => {
    const r = await g.chat(t.key, { model: 'emb' })
    assert.equal(r.status, 400)
    assert.match(r.json.error.message, /\/v1\/embeddings/)
  })
  test('no credit, and a limit of tokens', async () => {
    const poor = await g.tenant({ credit: '0.000000001' })
    assert.equal((await embed({ model: 'emb', input: 'x'.repeat(4000) }, { key: poor.key })).status, 402)
    const tight = await g.tenant({ tier: 'tight' })
    const r = await embed({ model: 'emb', input: 'x'.repeat(4000) }, { key: tight.key })
    assert.equal(r.status, 429)
    assert.equal(r.json.error.param, 'tokens')
  })
})

describe('gemini upstream', () => {
  test('one text', async () => {
    geminiSays({ embedding: { values: [0.1, -0.25, 3e-7] }, usageMetadata: { promptTokenCount: 5 } })
    const r = await embed({ model: 'gemb', input: 'h"i\n', dimensions: 3, user: 'u' })
    assert.equal(r.status, 200)
    assert.equal(last().path, '/v1beta/models/inner-gemb:embedContent')
    assert.deepEqual(last().json, { content: { parts: [{ text: 'h"i\n' }] }, outputDimensionality: 3 })
    assert.deepEqual(r.json.data, [vector(0, [0.1, -0.25, 3e-7])])
    assert.equal(r.json.object, 'list')
    assert.equal(r.json.model, 'gemb')
    assert.equal(r.json.usage.prompt_tokens, 5)
    assert.equal(digitsOf(r.text, 'cost_usd'), price(5))
    assert.equal(r.headers['x-tollgate-dropped'], 'user')
  })
  test('several texts, as base64', async () => {
    const a = [0.1, -0.2, 1e-30, 3.4e38], b = [1, 0, -1.5, 0.333333343]
    geminiSays({ embeddings: [{ values: a }, { values: b }] })
    const r = await embed({ model: 'gemb', input: ['one', 'two'], encoding_format: 'base64' })
    assert.equal(last().path, '/v1beta/models/inner-gemb:batchEmbedContents')
    assert.deepEqual(last().json.requests, ['one', 'two'].map((text) => ({ model: 'models/inner-gemb', content: { parts: [{ text }] } })))
    assert.deepEqual(r.json.data.map((d) => d.embedding), [b64(a), b64(b)])
    const u = await newest()
    assert.equal(u.estimated, true)
    assert.equal(u.input_tokens, 2)
  })
  test('token ids cannot be sent', async () => {
    const r = await embed({ model: 'gemb', input: [1, 2] })
    assert.equal(r.status, 400)
    assert.equal(r.json.error.param, 'input')
  })
})

describe('gemini in front', () => {
  test('to gemini: passes, the model named by our path', async () => {
    geminiSays({ embedding: { values: [1, 2] }, usageMetadata: { promptTokenCount: 4, x: 1 } })
    const r = await gemini('gemb', 'embedContent', { model: 'models/gemb', content: { parts: [{ text: 'hi' }] }, taskType: 'RETRIEVAL_QUERY' })
    assert.equal(r.status, 200)
    assert.deepEqual(last().json, { model: 'models/inner-gemb', content: { parts: [{ text: 'hi' }] }, taskType: 'RETRIEVAL_QUERY' })
    assert.deepEqual(r.json.embedding, { values: [1, 2] })
    assert.equal(r.json.usageMetadata.x, 1)
    assert.equal(digitsOf(r.text, 'costUsd'), price(4))
  })
  test('a batch to gemini: each request gets the target\'s model; usage is made', async () => {
    geminiSays({ embeddings: Array.from({ length: 300 }, () => ({ values: [1] })) })
    const requests = Array.from({ length: 300 }, (_, i) => ({ ...(i % 2 ? { model: 'models/gemb' } : {}), content: { parts: [{ text: 'abcd' }] } }))
    const r = await gemini('gemb', 'batchEmbedContents', { requests })
    assert.equal(r.status, 200)
    assert.ok(last().json.requests.length === 300 && last().json.requests.every((q) => q.model === 'models/inner-gemb'))
    assert.equal(r.json.usageMetadata.promptTokenCount, 300)
    assert.equal(digitsOf(r.text, 'costUsd'), price(300))
  })
  test('to an openai-compatible provider', async () => {
    up.on('inner-emb', answer([vector(1, [3, 4]), vector(0, b64([0.1, 2]))]))
    const content = (...texts) => ({ content: { parts: texts.map((text) => ({ text })) } })
    const r = await gemini('emb', 'batchEmbedContents', { requests: [{ model: 'models/emb', ...content('a', 'b'), taskType: 'X', outputDimensionality: 2 }, { model: 'models/emb', ...content('c'), embedContentConfig: { autoTruncate: true }, title: null }], later: 1 })
    assert.equal(r.status, 200)
    assert.deepEqual(last().json, { model: 'inner-emb', input: ['a\nb', 'c'], encoding_format: 'float', dimensions: 2 })
    assert.deepEqual(r.json.embeddings, [{ values: [0.100000001, 2] }, { values: [3, 4] }])
    assert.equal(r.json.usageMetadata.promptTokenCount, 7)
    assert.equal(r.headers['x-tollgate-dropped'], 'later,taskType,embedContentConfig')
    up.on('inner-emb', answer([vector(0, [5])]))
    const one = await gemini('emb', 'embedContent', content('x'))
    assert.deepEqual(one.json.embedding, { values: [5] })
  })
  test('errors have gemini\'s shape', async () => {
    const r = await gemini('gemb', 'embedContent', {})
    assert.equal(r.status, 400)
    assert.equal(r.json.error.status, 'INVALID_ARGUMENT')
    assert.equal((await gemini('gpt-4o', 'embedContent', { content: { parts: [{ text: 'x' }] } })).status, 400)
    const p = await gemini('emb', 'embedContent', { content: { parts: [{ inlineData: { mimeType: 'image/png', data: 'AA==' } }] } })
    assert.equal(p.status, 400)
  })
})

describe('echo', () => {
  const norm = (v) => Math.sqrt(v.reduce((s, x) => s + x * x, 0))
  test('unit vectors that depend on the text', async () => {
    const r = await embed({ model: 'eemb', input: ['one', 'two', 'one'] })
    assert.equal(r.status, 200)
    const [a, b, c] = r.json.data.map((d) => d.embedding)
    assert.equal(a.length, 256)
    assert.ok(Math.abs(norm(a) - 1) < 1e-5)
    assert.deepEqual(a, c)
    assert.notDeepEqual(a, b)
    const small = await embed({ model: 'eemb', input: 'one', dimensions: 8, encoding_format: 'base64' })
    const v = floats(small.json.data[0].embedding)
    assert.equal(v.length, 8)
    assert.ok(Math.abs(norm(v) - 1) < 1e-5)
    assert.ok(small.json.usage.cost_usd > 0)
  })
  test('gemini in front', async () => {
    const r = await gemini('eemb', 'embedContent', { content: { parts: [{ text: 'one' }] }, outputDimensionality: 4 })
    assert.equal(r.json.embedding.values.length, 4)
  })
})

test('the official package reads it', async () => {
  const { default: OpenAI } = await import('openai')
  const client = new OpenAI({ apiKey: t.key, baseURL: `http://127.0.0.1:${g.port}/v1` })
  const r = await client.embeddings.create({ model: 'eemb', input: ['a', 'b'], dimensions: 16 })
  assert.equal(r.data.length, 2)
  assert.equal(r.data[1].embedding.length, 16)
  assert.ok(r.usage.cost_usd > 0)
})
test('the books balance', async () => { await g.settled(t.account); await g.audit() })
