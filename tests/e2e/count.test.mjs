/* Counting tokens: forwarded where the provider speaks the client's dialect, else estimated; never billed. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { cleanUps, test } from './lib/test.mjs'
import { json, startUpstream, status } from './upstream.mjs'

const shared = cleanUps()
let up, g, t
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'oai', url: up.url }, { name: 'ant', url: up.url, dialect: 'anthropic' }, { name: 'gem', url: up.url.replace('/v1', '/v1beta'), dialect: 'gemini', retries: 0 },
      { name: 'bare', url: up.url, dialect: 'anthropic', retries: 0 },
      { name: 'cloud', url: up.url.replace('/v1', '/v1/projects/p/locations/l/publishers/google'), dialect: 'gemini', retries: 0 }],
    models: [{ name: 'gpt-4o', route: 'oai' }, { name: 'claude', route: 'ant as inner-claude' }, { name: 'gemini', route: 'gem as inner-gemini' },
      { name: 'bare', route: 'bare as inner-bare' }, { name: 'google', route: 'cloud as inner-google' }, { name: 'their-claude*', route: 'oai as claude*' },
      { name: 'echo', route: 'local' }, { name: 'emb', kind: 'embedding', route: 'oai', max_output: null }],
    text: 'upstream local { dialect echo; }\n',
    tiers: { two: 'rpm 2 burst 2; tpm 10;' },
  })
  t = await g.tenant()
})

const messages = [{ role: 'user', content: 'How many tokens is this sentence, about?' }]
const claude = (body, o = {}) => g.req({ path: '/v1/messages/count_tokens', method: 'POST', key: t.key, body: JSON.stringify({ model: 'claude', messages, ...body }), ...o })
const contents = [{ role: 'user', parts: [{ text: 'How many tokens is this sentence, about?' }] }]
const gemini = (model, body = { contents }, o = {}) => g.req({ path: `/v1beta/models/${model}:countTokens`, method: 'POST', key: t.key, body: JSON.stringify(body), ...o })
const last = () => up.requests.at(-1)

describe('forwarded', () => {
  test('anthropic to anthropic', async () => {
    up.on('inner-claude', json({ body: '{"input_tokens":17,"context_management":null}' }))
    const before = await g.settled(t.account)
    const r = await claude({ system: 'x', tools: [] }, { headers: { 'anthropic-version': '2023-06-01', 'anthropic-beta': 'token-counting-2024-11-01' } })
    assert.equal(r.status, 200)
    assert.equal(r.text, '{"input_tokens":17,"context_management":null}')
    assert.equal(last().path, '/v1/messages/count_tokens')
    assert.equal(last().headers['anthropic-beta'], 'token-counting-2024-11-01')
    assert.deepEqual(last().json, { model: 'inner-claude', messages, system: 'x', tools: [] })
    assert.equal((await g.settled(t.account)).balance, before.balance)
  })
  test('gemini to gemini, both forms', async () => {
    up.otherwise = json({ body: '{"totalTokens":9,"promptTokensDetails":[]}' })
    const r = await gemini('gemini')
    assert.equal(r.json.totalTokens, 9)
    assert.equal(last().path, '/v1beta/models/inner-gemini:countTokens')
    assert.deepEqual(last().json, { contents })
    await gemini('gemini', { generateContentRequest: { model: 'models/gemini', contents } })
    assert.deepEqual(last().json, { generateContentRequest: { model: 'models/inner-gemini', contents } })
  })
  test('a provider\'s refusal of the request is told', async () => {
    up.on('inner-claude', status(400, { body: '{"type":"error","error":{"type":"invalid_request_error","message":"messages: bad"}}' }))
    const r = await claude({})
    assert.equal(r.status, 400)
    assert.equal(r.json.type, 'error')
    assert.match(r.json.error.message, /messages: bad/)
  })
  test('a provider without counting, or without an answer: estimated', async () => {
    for (const code of [404, 500]) {
      up.on('inner-bare', status(code))
      const r = await claude({ model: 'bare' })
      assert.equal(r.status, 200)
      assert.ok(r.json.input_tokens > 5)
    }
  })
})

describe('estimated', () => {
  test('other dialects are not asked', async () => {
    const n = up.requests.length
    for (const model of ['gpt-4o', 'gemini', 'echo']) assert.ok((await claude({ model })).json.input_tokens > 5, model)
    for (const model of ['gpt-4o', 'claude', 'echo']) assert.ok((await gemini(model)).json.totalTokens > 5, model)
    assert.equal(up.requests.length, n)
  })
  test('as the provider counts that the model is routed to', async () => {
    up.otherwise = status(404)
    const input_schema = { type: 'object', properties: { city: { type: 'string', description: 'Where' } }, required: ['city'] }
    const of = async model => (await claude({ model, tools: [{ name: 'weather', description: 'Tells the weather', input_schema }] })).json.input_tokens
    const vertex = await of('google'), gemini = await of('gemini'), gpt = await of('gpt-4o'), opus = await of('their-claude-opus-4-6'), old = await of('their-claude-3-haiku')
    assert.ok(vertex + 20 < gemini, `${vertex} ${gemini}`)
    assert.ok(gpt + 200 < old && old + 150 < opus, `${gpt} ${old} ${opus}`)
  })
  test('not billed, without credit too', async () => {
    const poor = await g.tenant({ credit: null })
    assert.equal((await claude({ model: 'echo' }, { key: poor.key })).status, 200)
    assert.equal((await g.settled(poor.account)).balance, '0')
  })
  test('a request of the minute, and no tokens', async () => {
    const two = await g.tenant({ tier: 'two' })
    const long = [{ role: 'user', content: 'word '.repeat(500) }]
    assert.equal((await claude({ model: 'echo', messages: long }, { key: two.key })).status, 200)
    const r = await claude({ model: 'echo', messages: long }, { key: two.key })
    assert.equal(r.headers['x-ratelimit-remaining-requests'], '0')
    assert.equal(r.headers['x-ratelimit-remaining-tokens'], '10')
    const third = await claude({ model: 'echo' }, { key: two.key })
    assert.equal(third.status, 429)
    assert.equal(third.json.error.type, 'rate_limit_error')
  })
  test('refused in the dialect\'s shape', async () => {
    assert.equal((await claude({ messages: undefined })).json.error.type, 'invalid_request_error')
    assert.equal((await claude({ messages: [] })).status, 400)
    assert.equal((await claude({ model: 'nope' })).json.error.type, 'not_found_error')
    assert.equal((await claude({ model: 'emb' })).status, 400)
    assert.equal((await gemini('gemini', {})).json.error.status, 'INVALID_ARGUMENT')
  })
})
test('the books balance', async () => { await g.settled(t.account); await g.audit() })
