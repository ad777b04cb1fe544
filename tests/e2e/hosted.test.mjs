/* The providers' own tools: what an answer says of their uses is priced, in pass and in translation alike. */
import assert from 'node:assert/strict'
import { before } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { digitsOf } from './lib/money.mjs'
import { json, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const WORDS = { openai: 'openai', responses: 'openai-responses', anthropic: 'anthropic', gemini: 'gemini' }
const shared = cleanUps(), ups = {}
let g
before(async () => {
  const upstreams = [], models = []
  for (const [d, dialect] of Object.entries(WORDS)) {
    ups[d] = await startUpstream(shared)
    upstreams.push({ name: d, url: ups[d].url, dialect, retries: 0 })
    const price = 'input 1 output 2 tool web_search 0.01 tool file_search 0.0025'
    models.push({ name: `over-${d}`, route: `${d} as m`, price, allow: 'web_search file_search' })
  }
  g = await startGateway(shared, { upstreams, models, groups: { default: 'ratio 1;', half: 'ratio 0.5;' } })
})

/* 100 tokens in, 10 out: 120 µ$; and what was searched. */
const ANSWERS = {
  openai: [2, { id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [{ index: 0, message: { role: 'assistant', content: 'found' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110, server_tool_use_details: { web_search_requests: 2 } } }],
  responses: [1, { id: 'r', object: 'response', created_at: 1, model: 'm', status: 'completed', output: [
    { type: 'web_search_call', id: 'ws_1', status: 'completed', action: { type: 'search', query: 'q' } },
    { type: 'web_search_call', id: 'ws_2', status: 'completed', action: { type: 'open_page', url: 'https://a.example' } },
    { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'found', annotations: [] }] }],
  usage: { input_tokens: 100, output_tokens: 10, total_tokens: 110 } }],
  anthropic: [3, { id: 'm', type: 'message', role: 'assistant', model: 'm', content: [{ type: 'text', text: 'found' }], stop_reason: 'end_turn', stop_sequence: null,
    usage: { input_tokens: 100, output_tokens: 10, server_tool_use: { web_search_requests: 3, web_fetch_requests: 0 } } }],
  gemini: [2, { candidates: [{ content: { role: 'model', parts: [{ text: 'found' }] }, finishReason: 'STOP', groundingMetadata: { webSearchQueries: ['a', 'b'] } }],
    usageMetadata: { promptTokenCount: 100, candidatesTokenCount: 10, totalTokenCount: 110 } }],
}
const ASK = {
  openai: (m) => ['/v1/chat/completions', { model: m, messages: [{ role: 'user', content: 'Hi' }] }],
  responses: (m) => ['/v1/responses', { model: m, input: 'Hi' }],
  anthropic: (m) => ['/v1/messages', { model: m, max_tokens: 3000, messages: [{ role: 'user', content: 'Hi' }] }],
  gemini: (m) => [`/v1beta/models/${m}:generateContent`, { contents: [{ parts: [{ text: 'Hi' }] }] }],
}
async function cost(client, up, body, more = {}, group) {
  const t = await g.tenant(group ? { group } : {})
  ups[up].otherwise = json({ body: JSON.stringify(body) })
  const [path, ask] = ASK[client](`over-${up}`)
  const r = await g.req({ method: 'POST', path, key: t.key, body: { ...ask, ...more } })
  assert.equal(r.status, 200, r.text)
  const u = await until(async () => (await g.ctl('usage', '--key', t.key)).usage[0], 'the record')
  assert.equal(digitsOf(r.text, client === 'gemini' ? 'costUsd' : 'cost_usd'), u.cost)
  await g.settled(t.account)
  await g.audit()
  return u.cost
}

for (const up of Object.keys(WORDS))
  for (const client of Object.keys(WORDS))
    test(`${client} over ${up}: searches cost apiece`, async () => {
      const [searches, body] = ANSWERS[up]
      assert.equal(await cost(client, up, body), `0.0${searches}012`)
    })

test('a group pays its share of a tool, and one rounding serves tokens and tools', async () => {
  assert.equal(await cost('anthropic', 'anthropic', ANSWERS.anthropic[1], {}, 'half'), '0.01506')
})

test('where the figures do not tell, web_search_options is one search; null is none', async () => {
  const [, body] = ANSWERS.openai
  const plain = { ...body, usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 } }
  assert.equal(await cost('openai', 'openai', plain, { web_search_options: {} }), '0.01012')
  assert.equal(await cost('openai', 'openai', plain, { web_search_options: null }), '0.00012')
  assert.equal(await cost('openai', 'openai', body, { web_search_options: {} }), '0.02012')
})

test('streamed items count once; other tools have prices of their own', async () => {
  const t = await g.tenant()
  const item = (n, type, more) => ({ output_index: n, item: { type, id: `i${n}`, status: 'completed', ...more } })
  const output = [item(0, 'web_search_call', { action: { type: 'search' } }), item(1, 'file_search_call', { queries: ['a'] }),
    item(2, 'message', { role: 'assistant', content: [{ type: 'output_text', text: 'found', annotations: [] }] })]
  const head = { id: 'r', object: 'response', created_at: 1, model: 'm', status: 'in_progress', output: [] }
  const events = [['response.created', { response: head }],
    ...output.flatMap((o) => [['response.output_item.added', o], ['response.output_item.done', o]]),
    ['response.completed', { response: { ...head, status: 'completed', output: output.map((o) => o.item), usage: { input_tokens: 100, output_tokens: 10, total_tokens: 110 } } }]]
  const text = events.map(([type, o], i) => `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: i, ...o })}\n\n`).join('')
  ups.responses.otherwise = (c) => c.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
  for (const client of ['responses', 'openai']) {
    const [path, ask] = ASK[client]('over-responses')
    const r = await g.req({ method: 'POST', path, key: t.key, body: { ...ask, stream: true } })
    assert.equal(digitsOf(r.text.slice(r.text.lastIndexOf('usage')), 'cost_usd'), '0.01262', r.text)
  }
  await g.settled(t.account)
  assert.deepEqual((await g.usage(t.account)).map((u) => u.cost), ['0.01262', '0.01262'])
})
