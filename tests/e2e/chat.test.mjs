/* POST /v1/chat/completions by the pass path: what goes up, what comes back, and where usage and cost_usd stand. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { cost, decimal, digitsOf } from './lib/money.mjs'
import { atOnce, chat, json, newGate, sequence, sse, startUpstream } from './upstream.mjs'
import { raw } from './lib/http.mjs'
import { PRICE } from './lib/gateway.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g, tenant, branded
before(async () => {
  up = await startUpstream(shared)
  const o = {
    upstreams: [{ name: 'mock', url: up.url }],
    models: ['gpt-4o', { name: 'public-name', route: 'mock as inner-name', alias: 'other-name' }, { name: 'vendor/model-1', route: 'mock as model-1' },
      { name: 'family/*', route: 'mock as *' }, { name: 'stripped', strip: 'temperature top_p', limit_field: 'max_completion_tokens' },
      { name: 'echo-model', route: 'local' }],
    text: 'upstream local { dialect echo; }\n',
  }
  g = await startGateway(shared, o)
  tenant = await g.tenant()
  branded = await startGateway(shared, { ...o, brand: { id_prefix: '"hjl-"', usage_cost: 'on' } })
  branded.t = await branded.tenant()
})

const expected = (fig) => decimal(cost({ input: fig.prompt_tokens, output: fig.completion_tokens }, PRICE))

describe('whole answers', () => {
  test('the answer comes back with cost_usd in its usage', async () => {
    const r = await g.chat(tenant.key)
    assert.equal(r.status, 200)
    assert.match(r.headers['content-type'], /^application\/json/)
    assert.equal(r.json.choices[0].message.content, 'Hello from upstream')
    assert.equal(r.json.usage.prompt_tokens, 24)
    assert.equal(digitsOf(r.text, 'cost_usd'), expected({ prompt_tokens: 24, completion_tokens: 156 }))
    assert.equal(r.headers['x-tollgate-upstream'], 'mock')
    assert.ok(r.headers['x-request-id'])
  })
  test('cached input has its own price', async () => {
    const usage = { prompt_tokens: 1000, completion_tokens: 7, total_tokens: 1007, prompt_tokens_details: { cached_tokens: 600 } }
    up.on('cached', json({ usage }))
    const r = await g.chat(tenant.key, { model: 'family/cached' })
    assert.equal(digitsOf(r.text, 'cost_usd'), decimal(cost({ input: 400, cached_input: 600, output: 7 }, PRICE)))
  })
  test('members nobody knows stay as they are, byte for byte, on both ways', async () => {
    const odd = '{"model":"gpt-4o", "x_new":{"a":[1,2.50,1e3],"u":"\\u00e9\\n"},\t"messages":[{"role":"user","content":"h\\u0069","weird":null}],"temperature":0.70,"seed":12345678901234567890}'
    const answer = '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","x_back":[0.10,{"k":"\\u00fc"}],"choices":[{"index":0,"message":{"role":"assistant","content":"a","x":1.0},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"x_details":{"z":1.50}},"service_tier":"default"}'
    up.on('gpt-4o', json({ body: answer }))
    const r = await g.chat(tenant.key, odd)
    up.on('gpt-4o', chat())
    const sent = up.of('gpt-4o').at(-1).body.toString()
    for (const piece of ['"x_new":{"a":[1,2.50,1e3],"u":"\\u00e9\\n"}', '{"role":"user","content":"h\\u0069","weird":null}', '"temperature":0.70', '"seed":12345678901234567890']) {
      assert.ok(sent.includes(piece), `${piece} in ${sent}`)
    }
    for (const piece of ['"x_back":[0.10,{"k":"\\u00fc"}]', '"content":"a","x":1.0', '"x_details":{"z":1.50}', '"service_tier":"default"']) {
      assert.ok(r.text.includes(piece), `${piece} in ${r.text}`)
    }
  })
  test('the model is the upstream\'s name on the way up; everything else of the body is kept', async () => {
    up.on('inner-name', chat())
    const r = await g.chat(tenant.key, { model: 'public-name', messages: [{ role: 'user', content: 'model' }] })
    assert.equal(r.status, 200)
    const seen = up.of('inner-name').at(-1)
    assert.deepEqual(seen.json.messages, [{ role: 'user', content: 'model' }])
  })
  test('an alias, a name with a slash and a family', async () => {
    up.on('inner-name', chat()).on('model-1', chat()).on('x-y.z', chat())
    for (const [asked, sent] of [['other-name', 'inner-name'], ['vendor/model-1', 'model-1'], ['family/x-y.z', 'x-y.z']]) {
      const n = up.of(sent).length
      assert.equal((await g.chat(tenant.key, { model: asked })).status, 200, asked)
      assert.equal(up.of(sent).length, n + 1, `${asked} went up as ${sent}`)
    }
  })
  test('strip and limit_field', async () => {
    const r = await g.chat(tenant.key, { model: 'stripped', temperature: 0.5, top_p: 0.9, max_tokens: 77, seed: 1 })
    assert.equal(r.status, 200)
    const sent = up.of('stripped').at(-1).json
    assert.equal(sent.temperature, undefined)
    assert.equal(sent.top_p, undefined)
    assert.equal(sent.seed, 1)
    assert.equal(sent.max_completion_tokens, 77)
    assert.equal(sent.max_tokens, undefined)
  })
  test('the provider\'s credential goes up, the client\'s does not; hop-by-hop headers stay here', async () => {
    const r = await g.chat(tenant.key, {}, { headers: { Cookie: 'a=b', 'X-Forwarded-For': '1.2.3.4', 'Proxy-Authorization': 'Basic eA==', TE: 'trailers' } })
    assert.equal(r.status, 200)
    const seen = up.of('gpt-4o').at(-1)
    assert.equal(seen.headers.authorization, 'Bearer sk-upstream')
    assert.ok(!seen.head.includes(tenant.key), 'the client\'s key must not travel')
    for (const h of ['cookie', 'proxy-authorization', 'te', 'upgrade']) assert.equal(seen.headers[h], undefined, h)
    assert.match(seen.headers.host, /^127\.0\.0\.1/)
  })
  test('tool calls, n, logprobs and images pass whole', async () => {
    const message = { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }] }
    up.on('tools', json({ message, finish: 'tool_calls' }))
    const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { a: { type: 'number' } } } } }]
    const r = await g.chat(tenant.key, { model: 'family/tools', tools, tool_choice: 'auto', parallel_tool_calls: false })
    assert.deepEqual(r.json.choices[0].message, message)
    assert.deepEqual(up.of('tools').at(-1).json.tools, tools)
    const choices = [0, 1, 2].map((index) => ({ index, message: { role: 'assistant', content: `c${index}` }, finish_reason: 'stop', logprobs: { content: [{ token: 'c', logprob: -0.5, bytes: [99], top_logprobs: [] }] } }))
    up.on('many', json({ choices }))
    const many = await g.chat(tenant.key, { model: 'family/many', n: 3, logprobs: true, top_logprobs: 2 })
    assert.deepEqual(many.json.choices, choices)
    const image = [{ type: 'text', text: 'see' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' } }]
    const seen = await g.chat(tenant.key, { messages: [{ role: 'user', content: image }] })
    assert.equal(seen.status, 200)
    assert.deepEqual(up.of('gpt-4o').at(-1).json.messages[0].content, image)
  })
  test('/api/v1 is the same', async () => {
    const r = await g.chat(tenant.key, {}, { path: '/api/v1/chat/completions' })
    assert.equal(r.status, 200)
    assert.equal(r.json.choices[0].message.content, 'Hello from upstream')
  })
  test('an answer without usage gets one, marked as an estimate in the record', async () => {
    up.on('nousage', json({ usage: null, content: 'x'.repeat(400) }))
    const t = await g.tenant()
    const r = await g.chat(t.key, { model: 'family/nousage' })
    assert.equal(r.status, 200)
    assert.ok(Number(digitsOf(r.text, 'cost_usd')) > 0)
    const [record] = await g.usage(t.account)
    assert.equal(record.estimated, true)
    assert.ok(record.output_tokens >= 100, `${record.output_tokens} tokens for 400 bytes`)
  })
})

describe('streams', () => {
  test('with include_usage the last chunk has no choices and bears usage and cost_usd', async () => {
    const s = g.stream(tenant.key, { stream_options: { include_usage: true } })
    assert.equal((await s.head).status, 200)
    const e = await s.all()
    assert.match((await s.head).headers['content-type'], /^text\/event-stream/)
    assert.equal(e.at(-1), '[DONE]')
    const last = e.at(-2)
    assert.deepEqual(last.choices, [])
    assert.equal(digitsOf(JSON.stringify(last), 'cost_usd'), expected(last.usage))
    for (const c of e.slice(0, -2)) { assert.ok(c.choices.length > 0); assert.ok(!c.usage, 'no usage before the last chunk') }
    assert.equal(e.slice(0, -2).map((c) => c.choices[0].delta.content ?? '').join(''), 'word0 word1 word2 word3 word4 ')
  })
  test('without include_usage it stands on the chunk with finish_reason, and no chunk has empty choices', async () => {
    const s = g.stream(tenant.key)
    const e = await s.all()
    assert.equal(e.at(-1), '[DONE]')
    const list = e.slice(0, -1)
    for (const c of list) assert.ok(c.choices.length > 0, JSON.stringify(c))
    const bearing = list.filter((c) => c.usage)
    assert.equal(bearing.length, 1)
    assert.equal(bearing[0].choices[0].finish_reason, 'stop')
    assert.equal(bearing[0], list.at(-1))
    assert.equal(bearing[0].usage.completion_tokens, 5)
    assert.equal(digitsOf(s.text, 'cost_usd'), expected(bearing[0].usage))
    assert.equal(up.of('gpt-4o').at(-1).json.stream_options.include_usage, true, 'the gateway asks for the figures itself')
    for (const c of list.slice(0, -1)) assert.ok(!('usage' in c) || c.usage === null)
  })
  for (const usage of ['always', 'choice', 'after', 'asked']) {
    for (const asked of [true, false]) {
      test(`a provider that sends usage "${usage}", include_usage ${asked}`, async () => {
        up.on(`u-${usage}-${asked}`, sse({ usage, tokens: 3 }))
        const s = g.stream(tenant.key, { model: `family/u-${usage}-${asked}`, ...(asked ? { stream_options: { include_usage: true } } : {}) })
        const list = (await s.all())
        assert.equal(list.pop(), '[DONE]')
        const bearing = list.filter((c) => c.usage?.cost_usd !== undefined)
        assert.equal(bearing.length, 1, s.text)
        assert.equal(digitsOf(s.text, 'cost_usd'), expected({ prompt_tokens: 24, completion_tokens: 3 }))
        if (asked) { assert.deepEqual(list.at(-1).choices, []); assert.ok(list.at(-1).usage) }
        else for (const c of list) assert.ok(c.choices.length > 0)
        assert.equal(list.flatMap((c) => c.choices).map((c) => c.delta.content ?? '').join(''), 'word0 word1 word2 ')
      })
    }
  }
  test('n choices: usage on the last chunk with a finish_reason only', async () => {
    up.on('n3', sse({ n: 3, tokens: 2 }))
    const s = g.stream(tenant.key, { model: 'family/n3', n: 3 })
    const list = (await s.all()).slice(0, -1)
    const finishing = list.filter((c) => c.choices[0]?.finish_reason)
    assert.equal(finishing.length, 3)
    assert.deepEqual(finishing.map((c) => !!c.usage), [false, false, true])
    for (const c of list) assert.ok(c.choices.length > 0)
  })
  test('tool call fragments pass as they are', async () => {
    const deltas = [{ tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: '' } }] },
      { tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] }, { tool_calls: [{ index: 0, function: { arguments: ':1}' } }] }]
    up.on('calls', sse({ deltas, finish: 'tool_calls' }))
    const s = g.stream(tenant.key, { model: 'family/calls', tools: [{ type: 'function', function: { name: 'f' } }] })
    const list = (await s.all()).slice(0, -1)
    assert.deepEqual(list.map((c) => c.choices[0].delta).filter((d) => d.tool_calls), deltas)
    assert.equal(list.at(-1).choices[0].finish_reason, 'tool_calls')
  })
  test('an event is forwarded when it comes, not when the next one does', async () => {
    const { gate, open } = newGate()
    up.on('gated', sse({ tokens: 3, gate, gateAt: 2 }))
    const s = g.stream(tenant.key, { model: 'family/gated' })
    const first = await s.next(), second = await s.next()
    assert.equal(first.choices[0].delta.role, 'assistant')
    assert.equal(second.choices[0].delta.content, 'word0 ')
    open()
    assert.equal((await s.all()).at(-1), '[DONE]')
  })
  test('events that come together leave together, whatever chunks they came in', async () => {
    up.on('together', atOnce(sse({ tokens: 20 })))
    const body = JSON.stringify({ model: 'family/together', stream: true, messages: [{ role: 'user', content: 'hi' }] })
    const r = await raw({ port: g.port, answers: 1 }, `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${tenant.key}\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    const [answer] = r.answers
    assert.equal(answer.chunks, 1)
    assert.equal(answer.text.match(/"content":"word/g).length, 20)
    assert.ok(answer.text.endsWith('data: [DONE]\n\n'))
  })
  test('line ends of every sort, comments, one byte a write, close-delimited, trailers', async () => {
    const ways = { crlf: { eol: '\r\n' }, comments: { comments: true }, bytes: { split: 1, tokens: 2 }, close: { chunked: false }, trailers: { trailers: { 'X-Sum': '1' } } }
    for (const [name, o] of Object.entries(ways)) {
      up.on(`way-${name}`, sse({ tokens: 2, ...o }))
      const s = g.stream(tenant.key, { model: `family/way-${name}` })
      const list = await s.all()
      assert.equal(list.at(-1), '[DONE]', name)
      assert.equal(list.slice(0, -1).map((c) => c.choices[0].delta.content ?? '').join(''), 'word0 word1 ', name)
      assert.equal(digitsOf(s.text, 'cost_usd'), expected({ prompt_tokens: 24, completion_tokens: 2 }), name)
    }
  })
  test('a stream without usage is charged by an estimate, which the record says', async () => {
    up.on('never', sse({ usage: 'never', tokens: 40 }))
    const t = await g.tenant()
    const s = g.stream(t.key, { model: 'family/never' })
    const list = await s.all()
    assert.equal(list.at(-1), '[DONE]')
    const [record] = await g.usage(t.account)
    assert.equal(record.estimated, true)
    assert.ok(record.output_tokens > 0)
    assert.ok(list.some((c) => c.usage?.cost_usd > 0), 'the client is told what it pays')
  })
  test('the client reads on after [DONE]: the connection is kept', async () => {
    const { Agent } = await import('node:http')
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let i = 0; i < 3; i++) assert.equal((await g.stream(tenant.key, {}, { agent }).all()).at(-1), '[DONE]')
    assert.equal((await g.chat(tenant.key, {}, { agent })).status, 200)
    agent.destroy()
  })
})

describe('brand', () => {
  test('id_prefix replaces chatcmpl- in ids and nothing else', async () => {
    up.on('branded', chat({ id: 'chatcmpl-abc123', content: 'my chatcmpl- stays' }))
    const r = await branded.chat(branded.t.key, { model: 'family/branded' })
    assert.equal(r.json.id, 'hjl-abc123')
    assert.equal(r.json.choices[0].message.content, 'my chatcmpl- stays')
    const s = branded.stream(branded.t.key, { model: 'family/branded' })
    for (const c of (await s.all()).slice(0, -1)) assert.equal(c.id, 'hjl-abc123')
    up.on('odd-id', chat({ id: 'gen-77' }))
    assert.equal((await branded.chat(branded.t.key, { model: 'family/odd-id' })).json.id, 'gen-77')
  })
  test('usage_cost off keeps cost out of usage', async (t) => {
    const quiet = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], brand: { usage_cost: 'off' } })
    const k = await quiet.tenant()
    const r = await quiet.chat(k.key)
    assert.equal(r.json.usage.completion_tokens, 156)
    assert.ok(!r.text.includes('cost_usd'))
    const s = quiet.stream(k.key)
    await s.all()
    assert.ok(!s.text.includes('cost_usd'))
  })
})

describe('the echo upstream', () => {
  test('answers, streams, counts and calls tools by itself', async () => {
    const r = await g.chat(tenant.key, { model: 'echo-model', messages: [{ role: 'user', content: 'a penguin' }] })
    assert.equal(r.status, 200)
    assert.match(r.json.choices[0].message.content, /penguin/)
    assert.ok(r.json.usage.prompt_tokens > 0 && r.json.usage.completion_tokens > 0 && r.json.usage.cost_usd > 0)
    const s = g.stream(tenant.key, { model: 'echo-model', messages: [{ role: 'user', content: 'a penguin' }] })
    const list = (await s.all())
    assert.equal(list.pop(), '[DONE]')
    assert.match(list.map((c) => c.choices[0].delta.content ?? '').join(''), /penguin/)
    assert.ok(list.at(-1).usage.cost_usd > 0)
    const tools = [{ type: 'function', function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: 'integer' } }, required: ['city', 'days'] } } }]
    const call = await g.chat(tenant.key, { model: 'echo-model', tools })
    const c = call.json.choices[0].message.tool_calls[0]
    assert.equal(c.function.name, 'get_weather')
    const args = JSON.parse(c.function.arguments)
    assert.equal(typeof args.city, 'string')
    assert.ok(Number.isInteger(args.days))
    assert.equal(call.json.choices[0].finish_reason, 'tool_calls')
    const messages = [{ role: 'user', content: 'weather?' }, call.json.choices[0].message, { role: 'tool', tool_call_id: c.id, content: 'forty-two degrees' }]
    const done = await g.chat(tenant.key, { model: 'echo-model', tools, messages })
    assert.match(done.json.choices[0].message.content, /forty-two degrees/)
    assert.equal((await g.chat(tenant.key, { model: 'echo-model', tools, tool_choice: 'none' })).json.choices[0].message.tool_calls, undefined)
  })
})

describe('models and key', () => {
  test('GET /v1/models lists what the key may call, with pricing; families are not listed', async () => {
    const r = await g.req({ path: '/v1/models', key: tenant.key })
    assert.equal(r.status, 200)
    assert.equal(r.json.object, 'list')
    const ids = r.json.data.map((m) => m.id)
    assert.ok(ids.includes('gpt-4o') && ids.includes('vendor/model-1'))
    assert.ok(!ids.some((i) => i.includes('*')))
    const m = r.json.data.find((x) => x.id === 'gpt-4o')
    assert.equal(m.object, 'model')
    assert.equal(m.kind, 'chat')
    assert.equal(m.pricing.prompt, '0.00000275')
    assert.equal(m.pricing.completion, '0.000011')
    assert.equal(m.pricing.input_cache_read, '0.000001375')
    assert.equal(m.pricing.input_per_1m, 2.75)
    assert.equal(m.pricing.output_per_1m, 11)
    assert.equal(m.context_length, 128000)
    assert.equal(m.max_output_tokens, 16384)
    assert.ok('streaming' in m.capabilities && 'tools' in m.capabilities && 'vision' in m.capabilities && 'reasoning' in m.capabilities)
  })
  test('one model, raw and as %2F, and one that is not there', async () => {
    for (const p of ['/v1/models/vendor/model-1', '/v1/models/vendor%2Fmodel-1', '/v1/models/vendor%2fmodel-1', '/api/v1/models/vendor%2Fmodel-1']) {
      const r = await g.req({ path: p, key: tenant.key })
      assert.equal(r.status, 200, p)
      assert.equal(r.json.id, 'vendor/model-1')
    }
    const none = await g.req({ path: '/v1/models/nothing', key: tenant.key })
    assert.equal(none.status, 404)
    assert.equal(none.json.error.code, 'model_not_found')
  })
  test('without a key the list is a 401 unless models_public', async (t) => {
    assert.equal((await g.req({ path: '/v1/models' })).status, 401)
    const open = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], billing: { models_public: 'on' } })
    const r = await open.req({ path: '/v1/models' })
    assert.equal(r.status, 200)
    assert.equal(r.json.data[0].id, 'gpt-4o')
  })
  test('without a key the list is that of the group of whoever signs up', async (t) => {
    const models = ['gpt-4o', { name: 'secret', route: 'mock as secret', alias: 'gpt-secret' }], groups = { newcomers: 'models gpt-4o; ratio 2;', staff: 'models *;' }
    const open = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models, groups, billing: { models_public: 'on', signup: 'on', signup_group: 'newcomers' } })
    const list = (await open.req({ path: '/v1/models' })).json.data
    assert.deepEqual(list.map((m) => [m.id, m.pricing.prompt]), [['gpt-4o', '0.0000055']])
    for (const name of ['secret', 'gpt-secret']) assert.equal((await open.req({ path: `/v1/models/${name}` })).status, 404)
    assert.equal((await open.req({ path: '/v1/models', key: (await open.tenant({ group: 'staff' })).key })).json.data.length, 2)
  })
  test('lists of models take a model by its own name and by an alias', async (t) => {
    const models = [{ name: 'gpt-4o', alias: 'opus' }, { name: 'other', route: 'mock as gpt-4o', alias: 'gpt-other' }]
    const a = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models, tiers: { own: 'models gpt-4o;', alias: 'models opus;' }, groups: { narrow: 'models gpt-4o;' } })
    const statuses = async (key) => Promise.all(['gpt-4o', 'opus', 'other', 'gpt-other'].map(async (model) => (await a.chat(key, { model })).status))
    assert.deepEqual(await statuses((await a.tenant({ tier: 'own' })).key), [200, 200, 403, 403])
    assert.deepEqual(await statuses((await a.tenant({ tier: 'alias' })).key), [403, 200, 403, 403])
    assert.deepEqual(await statuses((await a.tenant({ models: 'gpt-*' })).key), [200, 200, 403, 200])
    assert.deepEqual(await statuses((await a.tenant({ group: 'narrow' })).key), [200, 200, 404, 404])
  })
  test('a group\'s ratio shows in the prices and in the charge; a model outside the group is a 404', async (t) => {
    const o = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', { name: 'secret', route: 'mock as secret' }], groups: { resale: 'models gpt-*; ratio 1.5;' } })
    const k = await o.tenant({ group: 'resale' })
    const list = (await o.req({ path: '/v1/models', key: k.key })).json.data
    assert.deepEqual(list.map((m) => m.id), ['gpt-4o'])
    assert.equal(list[0].pricing.prompt, '0.000004125')
    const r = await o.chat(k.key)
    assert.equal(digitsOf(r.text, 'cost_usd'), decimal(cost({ input: 24, output: 156 }, PRICE, '1.5')))
    assert.equal((await o.chat(k.key, { model: 'secret' })).status, 404)
  })
  test('GET /v1/key shows the key\'s own limits and spending', async () => {
    const t = await g.tenant({ limit: '5', rpm: '30' })
    const before = await g.req({ path: '/v1/key', key: t.key })
    assert.equal(before.status, 200)
    assert.ok(!before.text.includes(t.key), 'never the key itself')
    await g.chat(t.key)
    await g.usage(t.account)
    const r = await g.req({ path: '/v1/key', key: t.key })
    assert.match(r.text, /"spent"/)
  })
  test('/api/status is public', async () => {
    for (const p of ['/api/status', '/v1/status', '/api/v1/status']) {
      const r = await g.req({ path: p, headers: { Origin: 'https://page.example' } })
      assert.equal(r.status, 200, p)
      assert.equal(r.json.status, 'ok')
      assert.ok(r.json.version && r.json.started_at && Number.isInteger(r.json.uptime_seconds) && r.json.models >= 5)
      assert.ok(!r.text.includes('"mock"'), 'no names unless status_upstreams is on')
      assert.ok(r.headers['access-control-allow-origin'])
    }
  })
  test('a retry after a failure of the first attempt is charged once', async () => {
    up.on('flaky', sequence(json({ status: 500, body: '{"error":{"message":"x"}}' }), chat()))
    const t = await g.tenant()
    const r = await g.chat(t.key, { model: 'family/flaky' })
    assert.equal(r.status, 200, r.text)
    assert.equal((await g.usage(t.account)).filter((u) => u.cost !== '0').length, 1)
  })
})
