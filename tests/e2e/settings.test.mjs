/* What the configuration of a provider and of a model does to the requests, in pass and in translation; and what is too large for either. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { json, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const WORDS = { openai: 'openai', responses: 'openai-responses', anthropic: 'anthropic', gemini: 'gemini' }
const SSE = (text) => async (c) => {
  const body = Buffer.from(text)
  await c.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: ${body.length}\r\n\r\n`)
  await c.write(body)
}
const WHOLE = {
  openai: { id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [{ index: 0, message: { role: 'assistant', content: 'ok' }, finish_reason: 'stop' }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } },
  responses: { id: 'r', object: 'response', created_at: 1, model: 'm', status: 'completed', output: [{ type: 'message', id: 'i', role: 'assistant', content: [{ type: 'output_text', text: 'ok', annotations: [] }] }], usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 } },
  anthropic: { id: 'a', type: 'message', role: 'assistant', model: 'm', content: [{ type: 'text', text: 'ok' }], stop_reason: 'end_turn', stop_sequence: null, usage: { input_tokens: 1, output_tokens: 1 } },
  gemini: { candidates: [{ content: { role: 'model', parts: [{ text: 'ok' }] }, finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 } },
}
const ASK = {
  openai: (m, more) => ['/v1/chat/completions', { model: m, messages: [{ role: 'user', content: 'Hi' }], ...more }],
  responses: (m, more) => ['/v1/responses', { model: m, input: 'Hi', ...more }],
  anthropic: (m, more) => ['/v1/messages', { model: m, max_tokens: 3000, messages: [{ role: 'user', content: 'Hi' }], ...more }],
  gemini: (m, more) => [`/v1beta/models/${m}:generateContent`, { contents: [{ parts: [{ text: 'Hi' }] }], ...more }],
}
const shared = cleanUps(), ups = {}
let g, tenant
before(async () => {
  for (const d of Object.keys(WORDS)) {
    ups[d] = await startUpstream(shared)
  }
  const up = (name, d, more) => ({ name, url: ups[d].url, dialect: WORDS[d], retries: 0, cooldown: '1s', ...more })
  const azure = ups.openai.url.replace('/v1', '/openai/deployments/gpt')
  g = await startGateway(shared, {
    upstreams: [...Object.keys(WORDS).map((d) => up(d, d)), up('pinned', 'anthropic', { header: ['anthropic-version 2024-01-01', 'X-Team "a b"'], query: ['beta true'] }),
      up('azure', 'openai', { base_url: azure, url: undefined, auth: 'api-key', query: ['api-version 2024-10-21'] }), up('own', 'gemini', { auth: 'bearer', query: ['alt2 x'] })],
    models: [...Object.keys(WORDS).map((d) => ({ name: `over-${d}`, route: `${d} as m` })), { name: 'pinned', route: 'pinned as m' }, { name: 'azure', route: 'azure as m' },
      { name: 'own', route: 'own as m' }, { name: 'old', route: 'openai as m', limit_field: 'max_tokens' }, { name: 'new', route: 'openai as m', limit_field: 'max_completion_tokens' },
      { name: 'cold', route: ['anthropic as m'], strip: 'temperature top_p' },
      { name: 'thinks', route: 'anthropic as claude-3-7-sonnet', capabilities: 'reasoning', budgets: 'low 1500 high 9000' },
      { name: 'flash', route: 'gemini as gemini-2.5-flash', capabilities: 'reasoning', budgets: 'low 700 high 9000' }],
  })
  tenant = await g.tenant({ credit: '1000' })
})
/* One whole call; gives back what the provider got. */
async function sent(client, model, up, more, headers = {}) {
  ups[up].otherwise = json({ body: JSON.stringify(WHOLE[up]) })
  const [path, body] = ASK[client](model, more)
  const r = await g.req({ method: 'POST', path, key: tenant.key, body, headers })
  assert.equal(r.status, 200, r.text)
  return { ...ups[up].requests.at(-1), answer: r, names: ups[up].requests.at(-1).raw.map(([k]) => k.toLowerCase()) }
}

describe('headers, queries and credentials', () => {
  test("versions and betas are the client's in pass, the dialect's in translation, the configuration's before either", async () => {
    const beta = { 'anthropic-version': '2026-10-21', 'anthropic-beta': 'context-1m-2025-08-07,interleaved-thinking-2025-05-14' }
    const own = await sent('anthropic', 'over-anthropic', 'anthropic', {}, beta)
    assert.deepEqual([own.headers['anthropic-version'], own.headers['anthropic-beta']], ['2026-10-21', beta['anthropic-beta']])
    const other = await sent('openai', 'over-anthropic', 'anthropic', {}, beta)
    assert.deepEqual([other.headers['anthropic-version'], other.headers['anthropic-beta']], ['2023-06-01', undefined])
    for (const client of ['anthropic', 'openai']) {
      const r = await sent(client, 'pinned', 'anthropic', {}, beta)
      assert.equal(r.headers['anthropic-version'], '2024-01-01')
      assert.equal(r.names.filter((n) => n === 'anthropic-version').length, 1, 'once')
      assert.equal(r.headers['x-team'], 'a b')
      assert.equal(r.path, '/v1/messages?beta=true')
    }
  })
  test('a conversation that holds our signatures goes to its own dialect with its betas', async () => {
    const thinking = { type: 'thinking', thinking: 't', signature: 'tollgate1.as00000001.abc' }
    const r = await sent('anthropic', 'over-anthropic', 'anthropic', { messages: [{ role: 'user', content: 'a' }, { role: 'assistant', content: [thinking, { type: 'text', text: 'b' }] }, { role: 'user', content: 'c' }] },
      { 'anthropic-beta': 'interleaved-thinking-2025-05-14' })
    assert.equal(r.headers['anthropic-beta'], 'interleaved-thinking-2025-05-14')
    assert.equal(r.headers['anthropic-version'], '2023-06-01')
    assert.doesNotMatch(r.body.toString(), /tollgate1/)
  })
  test("Azure's deployments: api-key, api-version, and nothing of the client's", async () => {
    for (const client of Object.keys(WORDS)) {
      const r = await sent(client, 'azure', 'openai', {}, { 'api-key': 'theirs', 'x-api-key': tenant.key })
      assert.equal(r.path, '/openai/deployments/gpt/chat/completions?api-version=2024-10-21')
      assert.equal(r.headers['api-key'], 'sk-upstream')
      assert.ok(!('authorization' in r.headers) && !('x-api-key' in r.headers))
    }
  })
  test("Gemini's key is a header, whatever way the client's came", async () => {
    for (const client of Object.keys(WORDS)) {
      const r = await sent(client, 'over-gemini', 'gemini')
      assert.equal(r.headers['x-goog-api-key'], 'sk-upstream')
      assert.equal(r.path, '/v1/models/m:generateContent')
    }
    ups.gemini.otherwise = json({ body: JSON.stringify(WHOLE.gemini) })
    const r = await g.req({ method: 'POST', path: `/v1beta/models/own:generateContent?key=${tenant.key}`, body: ASK.gemini('own')[1] })
    assert.equal(r.status, 200, r.text)
    const last = ups.gemini.requests.at(-1)
    assert.equal(last.path, '/v1/models/m:generateContent?alt2=x')
    assert.equal(last.headers.authorization, 'Bearer sk-upstream')
    assert.ok(!last.head.includes(tenant.key))
  })
})

describe('models', () => {
  test('limit_field names the limit, from every dialect', async () => {
    const limit = { openai: { max_tokens: 50 }, responses: { max_output_tokens: 50 }, anthropic: { max_tokens: 50 }, gemini: { generationConfig: { maxOutputTokens: 50 } } }
    for (const client of Object.keys(WORDS)) {
      const [old, fresh] = [await sent(client, 'old', 'openai', limit[client]), await sent(client, 'new', 'openai', limit[client])]
      assert.deepEqual([old.json.max_tokens, old.json.max_completion_tokens], [50, undefined])
      assert.deepEqual([fresh.json.max_tokens, fresh.json.max_completion_tokens], [undefined, 50])
    }
  })
  test('strip takes members out and says so, from every dialect', async () => {
    const warm = { openai: { temperature: 0.5, top_p: 0.5 }, responses: { temperature: 0.5, top_p: 0.5 }, anthropic: { temperature: 0.5, top_p: 0.5 }, gemini: { generationConfig: { temperature: 0.5, topP: 0.5 } } }
    for (const client of Object.keys(WORDS)) {
      const r = await sent(client, 'cold', 'anthropic', warm[client])
      assert.ok(!('temperature' in r.json) && !('top_p' in r.json), r.body.toString())
      assert.match(r.answer.headers['x-tollgate-dropped'], /temperature/)
      assert.match(r.answer.headers['x-tollgate-dropped'], /top_?[pP]/)
    }
  })
  test('budgets say what an effort means', async () => {
    const high = { openai: { reasoning_effort: 'high' }, responses: { reasoning: { effort: 'high' } }, gemini: { generationConfig: { thinkingConfig: { thinkingLevel: 'HIGH' } } } }
    for (const client of Object.keys(high)) {
      const r = await sent(client, 'thinks', 'anthropic', high[client])
      assert.deepEqual(r.json.thinking, { type: 'enabled', budget_tokens: 9000 })
      assert.ok(r.json.max_tokens > 9000)
    }
    const low = await sent('openai', 'flash', 'gemini', { reasoning_effort: 'low' })
    assert.equal(low.json.generationConfig.thinkingConfig.thinkingBudget, 700)
  })
})

describe('large things', () => {
  const stream = (client, model) => { const [p, b] = ASK[client](model, client === 'gemini' ? {} : { stream: true }); return { method: 'POST', path: client === 'gemini' ? p.replace('generateContent', 'streamGenerateContent?alt=sse') : p, key: tenant.key, body: b } }
  const line = (o) => `data: ${JSON.stringify(o)}\n\n`
  const chunk = (delta, finish = null) => line({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })
  test('a picture of twelve megabytes in one event', async () => {
    const picture = 'QUJD'.repeat(3 << 20)
    ups.gemini.otherwise = SSE(line({ candidates: [{ content: { role: 'model', parts: [{ inlineData: { mimeType: 'image/png', data: picture } }] } }] }) +
      line({ candidates: [{ content: { role: 'model', parts: [{ text: 'here' }] }, finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1290, totalTokenCount: 1291 } }))
    for (const client of ['gemini', 'openai', 'responses']) {
      const r = await g.req(stream(client, 'over-gemini'))
      assert.equal(r.status, 200)
      assert.ok(r.text.includes(picture), client)
      assert.ok(r.text.includes('here'))
    }
  })
  test('arguments of a megabyte, streamed and whole', async () => {
    const value = 'wörd "x" '.repeat(120000), args = JSON.stringify({ text: value })
    const parts = [...Array(Math.ceil(args.length / 5000)).keys()].map((i) => args.slice(i * 5000, i * 5000 + 5000))
    const open = { index: 0, id: 'call_1', type: 'function', function: { name: 'put', arguments: '' } }
    const figures = { prompt_tokens: 1, completion_tokens: 9, total_tokens: 10 }
    const text = chunk({ role: 'assistant', tool_calls: [open] }) + parts.map((a) => chunk({ tool_calls: [{ index: 0, function: { arguments: a } }] })).join('') + chunk({}, 'tool_calls') +
      line({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [], usage: figures }) + 'data: [DONE]\n\n'
    const found = { // the arguments as each dialect's client puts them together
      anthropic: (events) => JSON.parse(events.filter((e) => e.delta?.partial_json).map((e) => e.delta.partial_json).join('')),
      gemini: (events) => events.flatMap((e) => e.candidates[0].content.parts).find((p) => p.functionCall).functionCall.args,
      responses: (events) => JSON.parse(events.at(-1).response.output[0].arguments),
      openai: (events) => JSON.parse(events.flatMap((e) => e.choices?.[0]?.delta.tool_calls ?? []).map((t) => t.function.arguments).join('')),
    }
    const said = {
      anthropic: (o) => o.content[0].input, gemini: (o) => o.candidates[0].content.parts[0].functionCall.args,
      responses: (o) => JSON.parse(o.output[0].arguments), openai: (o) => JSON.parse(o.choices[0].message.tool_calls[0].function.arguments),
    }
    for (const client of Object.keys(found)) {
      ups.openai.otherwise = SSE(text)
      const r = await g.req(stream(client, 'over-openai'))
      assert.equal(r.status, 200)
      assert.equal(found[client](r.text.split(/\r?\n/).filter((l) => l.startsWith('data: {')).map((l) => JSON.parse(l.slice(6)))).text, value, client)
      const message = { role: 'assistant', content: null, tool_calls: [{ ...open, function: { name: 'put', arguments: args } }] }
      ups.openai.otherwise = json({ body: JSON.stringify({ ...WHOLE.openai, choices: [{ index: 0, message, finish_reason: 'tool_calls' }] }) })
      const [p, b] = ASK[client]('over-openai')
      const whole = await g.req({ method: 'POST', path: p, key: tenant.key, body: b })
      assert.equal(whole.status, 200, client)
      assert.equal(said[client](whole.json).text, value, client)
    }
  })
  test('beyond the limits: an error of the client\'s own form, at once', async () => {
    const endless = async (c) => {
      await c.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: {"candidates":[{"content":{"parts":[{"text":"')
      const more = Buffer.alloc(1 << 20, 'x')
      for (let i = 0; i < 64 && !c.gone; i++) await c.write(more)
      c.end()
      return c.closed
    }
    for (const client of ['gemini', 'openai', 'anthropic']) {
      ups.gemini.otherwise = endless
      const r = await g.req(stream(client, 'over-gemini'))
      assert.equal(r.status, 502, r.text.slice(0, 300))
      assert.ok(r.json.error.message)
    }
  })
  test('a long stream takes no more memory than a short one', async () => {
    const workers = await g.workers()
    const rss = () => workers.reduce((sum, pid) => sum + Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]), 0)
    const words = (n) => chunk({ role: 'assistant', content: '' }) + chunk({ content: 'a dozen words, more or less, of an answer that goes on and on ' }).repeat(n) + chunk({}, 'stop') + 'data: [DONE]\n\n'
    const run = async (n) => {
      ups.openai.otherwise = SSE(words(n))
      for (const client of ['anthropic', 'gemini']) assert.equal((await g.req(stream(client, 'over-openai'))).status, 200)
      return rss()
    }
    await run(2000)
    const before = await run(2000), behind = await run(60000)
    assert.ok(behind - before < 4096, `${before} then ${behind} KiB`)
  })
})
