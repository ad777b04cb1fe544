/* Provider-side state: what a provider keeps under an id belongs to the account that made it, though all accounts share
 * the provider's. Ids go out sealed, whole and streamed, in every dialect; they come back only from their account, to the
 * upstream and key where the state lives. Another account's id, a forged one and one without a seal are a 400, and the
 * provider never sees them. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { json, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const SEALED = /_tg[A-Za-z0-9_-]{27}$/
const shared = cleanUps()
let up, g, mine, other, otherKey

/* One answer a dialect with every id that a provider hands out; whole, or as the events of a stream. */
const RESPONSE = (model) => ({
  id: 'resp_1', object: 'response', created_at: 1, status: 'completed', model, previous_response_id: null, conversation: { id: 'conv_1' },
  output: [
    { type: 'reasoning', id: 'rs_1', summary: [] },
    { type: 'image_generation_call', id: 'ig_1', result: 'AAAA' },
    { type: 'code_interpreter_call', id: 'ci_1', container_id: 'cntr_1', code: '1' },
    { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed',
      content: [{ type: 'output_text', text: 'hi', annotations: [{ type: 'container_file_citation', container_id: 'cntr_1', file_id: 'cfile_1' }] }] },
  ],
  tools: [{ type: 'function', name: 'f', parameters: { default: { file_id: 'of a schema' } } }],
  usage: { input_tokens: 5, output_tokens: 2, total_tokens: 7 },
})
const MESSAGE = (model) => ({
  id: 'msg_1', type: 'message', role: 'assistant', model, stop_reason: 'end_turn', container: { id: 'container_1', expires_at: 'x' },
  content: [{ type: 'tool_use', id: 'toolu_1', name: 'f', input: { file_id: 'the tool\'s own' } },
    { type: 'bash_code_execution_tool_result', tool_use_id: 's', content: { type: 'bash_code_execution_result', content: [{ type: 'bash_code_execution_output', file_id: 'file_1' }] } }],
  usage: { input_tokens: 5, output_tokens: 2 },
})
const responsesEvents = (model) => {
  const r = RESPONSE(model), [, , ci, msg] = r.output
  return [
    { type: 'response.created', response: { ...r, status: 'in_progress', output: [], usage: null } },
    { type: 'response.output_item.added', output_index: 0, item: { ...msg, content: [] } },
    { type: 'response.output_text.delta', item_id: 'msg_1', output_index: 0, content_index: 0, delta: 'hi' },
    { type: 'response.output_text.annotation.added', item_id: 'msg_1', annotation: msg.content[0].annotations[0] },
    { type: 'response.content_part.done', item_id: 'msg_1', part: msg.content[0] },
    { type: 'response.output_item.done', output_index: 0, item: msg },
    { type: 'response.output_item.done', output_index: 1, item: ci },
    { type: 'response.completed', response: r },
  ].map((e, i) => ({ ...e, sequence_number: i }))
}
const messageEvents = (model) => {
  const m = MESSAGE(model)
  return [
    { type: 'message_start', message: { ...m, content: [], stop_reason: null, usage: { input_tokens: 5, output_tokens: 1 } } },
    ...m.content.flatMap((content_block, index) => [{ type: 'content_block_start', index, content_block }, { type: 'content_block_stop', index }]),
    { type: 'message_delta', delta: { stop_reason: 'end_turn', container: m.container }, usage: { output_tokens: 2 } },
    { type: 'message_stop' },
  ]
}
const stream = (list) => async (c) => c.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n' +
  list.map((e) => `event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`).join('')).then(() => { c.end(); return c.closed })
const say = (whole, events) => (c) => (c.req.json.stream ? stream(events(c.req.model)) : json({ body: JSON.stringify(whole(c.req.model)) }))(c)

before(async () => {
  up = await startUpstream(shared)
  for (const m of ['resp', 'resp2']) up.on(m, say(RESPONSE, responsesEvents))
  up.on('claude', (c) => (c.req.path.endsWith('/count_tokens') ? json({ body: '{"input_tokens":9}' }) : say(MESSAGE, messageEvents))(c))
  const spoken = { role: 'assistant', content: null, audio: { id: 'audio_1', data: 'AA', transcript: 'hi', expires_at: 1 } }
  up.on('talk', (c) => (c.req.json.stream
    ? stream([{ id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { role: 'assistant', audio: { id: 'audio_1', transcript: 'hi' } }, finish_reason: null }] },
      { id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } }])
    : json({ message: spoken }))(c))
  up.otherwise = (c) => json({ body: JSON.stringify(/countTokens/.test(c.req.path) ? { totalTokens: 3 }
    : { candidates: [{ content: { role: 'model', parts: [{ text: 'hi' }] }, finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 } }) })(c)
  const dialect = (d, name) => ({ name, url: up.url, dialect: d, api_key: ['sk-one', 'sk-two', 'sk-three'] })
  g = await startGateway(shared, {
    upstreams: [dialect('openai-responses', 'r1'), dialect('openai-responses', 'r2'), dialect('anthropic', 'a1'), dialect('openai', 'o1'), dialect('gemini', 'g1')],
    models: [
      { name: 'resp', route: ['r1 as resp', 'r2 as resp2'], allow: 'code_interpreter image_generation file_search' },
      { name: 'claude', route: 'a1 as claude', allow: 'code_execution container' },
      { name: 'talk', route: 'o1 as talk', allow: 'audio' },
      { name: 'gem', route: 'g1 as gem', allow: 'file_search' },
    ],
  })
  mine = await g.tenant()
  other = await g.tenant()
  otherKey = await g.key(mine.account)
})

const post = (path, key, body) => g.req({ method: 'POST', path, key, body })
const PATHS = { resp: '/v1/responses', claude: '/v1/messages', talk: '/v1/chat/completions', gem: '/v1beta/models/gem:generateContent' }
const BASE = {
  resp: { model: 'resp', input: 'x' }, claude: { model: 'claude', max_tokens: 50, messages: [{ role: 'user', content: 'x' }] },
  talk: { model: 'talk', messages: [{ role: 'user', content: 'x' }], modalities: ['text', 'audio'], audio: { voice: 'alloy', format: 'wav' } },
  gem: { contents: [{ role: 'user', parts: [{ text: 'x' }] }] },
}
/* Every string under one of these names in a document, as name → set of values. */
function ids(doc, out = {}) {
  if (Array.isArray(doc)) for (const v of doc) ids(v, out)
  else if (doc && typeof doc === 'object') {
    for (const [k, v] of Object.entries(doc)) {
      if (['parameters', 'input'].includes(k)) continue
      if (typeof v === 'string' && /^(id|.*_id|.*_uri)$/.test(k)) (out[k] ??= new Set()).add(v)
      ids(v, out)
    }
  }
  return out
}
const all = (found) => Object.values(found).flatMap((s) => [...s])
const plain = (id) => id.replace(SEALED, '')

/* What each of these does to an id that is good. */
const BAD = {
  'without its seal': (id) => plain(id),
  'with another id before the seal': (id) => id.replace(/1_tg/, '2_tg'),
  'with a changed tag': (id) => id.slice(0, -1) + (id.at(-1) === 'A' ? 'B' : 'A'),
  'with a changed place': (id) => { const at = id.length - 27; return id.slice(0, at) + (id[at] === 'A' ? 'B' : 'A') + id.slice(at + 1) },
  'cut short': (id) => id.slice(0, -1),
  'with a seal over nothing': (id) => id.slice(-30),
  empty: () => '',
  'without its seal, escaped': (id) => plain(id), // the body's text is rewritten below
}
async function only(mineOk, model, make, id, path = PATHS[model]) {
  const seen = () => up.requests.length
  let n = seen()
  if (mineOk) {
    for (const key of [mine.key, otherKey.key]) {
      const r = await post(path, key, make(id))
      assert.equal(r.status, 200, r.text)
      const sent = up.requests.at(-1).body.toString()
      assert.ok(sent.includes(`"${plain(id)}"`) && !sent.includes('_tg'), sent)
    }
    n = seen()
  }
  const r = await post(path, other.key, make(id))
  assert.equal(r.status, 400, `another account's: ${r.text}`)
  for (const [name, change] of Object.entries(BAD)) {
    let body = JSON.stringify(make(change(id)))
    if (/escaped/.test(name)) body = body.replace(/"(file_id|file_uri|cachedContent|previous_response_id|container_id|type)":/g, (m, k) => `"\\u${k.charCodeAt(0).toString(16).padStart(4, '0')}${k.slice(1)}":`)
    const bad = await post(path, mine.key, body)
    assert.equal(bad.status, 400, `${name}: ${body}: ${bad.text}`)
    if (model === 'claude') assert.equal(bad.json.error.type, 'invalid_request_error')
    else if (model === 'gem') assert.equal(bad.json.error.status, 'INVALID_ARGUMENT')
    else assert.equal(bad.json.error.code, 'invalid_value')
  }
  assert.equal(seen(), n, 'the provider saw none of them')
}

describe('Responses', () => {
  let whole
  test('a whole answer: responses, items, files and containers are sealed, calls and schemas are not', async () => {
    const r = await post(PATHS.resp, mine.key, BASE.resp)
    assert.equal(r.status, 200, r.text)
    whole = r.json
    const found = ids(r.json)
    assert.ok(all(found).length >= 7)
    for (const id of all(found)) assert.match(id, SEALED, id)
    assert.deepEqual(new Set(all(found).map(plain)), new Set(['resp_1', 'conv_1', 'rs_1', 'ig_1', 'ci_1', 'cntr_1', 'cfile_1', 'msg_1']))
    assert.equal(r.json.tools[0].parameters.default.file_id, 'of a schema')
  })
  test('a stream: the same ids in every event', async () => {
    const r = await post(PATHS.resp, mine.key, { ...BASE.resp, stream: true })
    const found = ids(r.events)
    for (const id of all(found)) assert.match(id, SEALED, id)
    assert.equal(found.item_id.size, 1)
    assert.ok(found.id.has([...found.item_id][0]), 'an item\'s events name the item')
    assert.deepEqual(new Set(all(found).map(plain)), new Set(['resp_1', 'conv_1', 'rs_1', 'ig_1', 'ci_1', 'cntr_1', 'cfile_1', 'msg_1']))
  })
  const ask = (item) => ({ ...BASE.resp, input: [{ role: 'user', content: 'x' }, item] })
  const shapes = {
    previous_response_id: [(id) => ({ ...BASE.resp, previous_response_id: id }), () => whole.id],
    'one to compare a cache with': [(id) => ({ ...BASE.resp, prompt_cache_options: { comparison_response_id: id } }), () => whole.id],
    conversation: [(id) => ({ ...BASE.resp, conversation: id }), () => whole.conversation.id],
    'conversation, as an object': [(id) => ({ ...BASE.resp, conversation: { id } }), () => whole.conversation.id],
    item_reference: [(id) => ask({ type: 'item_reference', id }), () => whole.output[3].id],
    'an item reference in short': [(id) => ask({ id }), () => whole.output[3].id],
    'a picture by its id': [(id) => ask({ type: 'image_generation_call', id }), () => whole.output[1].id],
    'reasoning by its id': [(id) => ask({ type: 'reasoning', id, summary: [] }), () => whole.output[0].id],
    'a file': [(id) => ask({ role: 'user', content: [{ type: 'input_file', file_id: id }] }), () => whole.output[3].content[0].annotations[0].file_id],
    'a picture\'s file': [(id) => ask({ role: 'user', content: [{ type: 'input_image', file_id: id }] }), () => whole.output[3].content[0].annotations[0].file_id],
    'a file in what a tool gave': [(id) => ask({ type: 'function_call_output', call_id: 'c', output: [{ type: 'input_file', file_id: id }] }), () => whole.output[3].content[0].annotations[0].file_id],
    'a container': [(id) => ({ ...BASE.resp, tools: [{ type: 'code_interpreter', container: id }] }), () => whole.output[2].container_id],
    'a container\'s files': [(id) => ({ ...BASE.resp, tools: [{ type: 'code_interpreter', container: { type: 'auto', file_ids: [id] } }] }), () => whole.output[3].content[0].annotations[0].file_id],
    'a file within an item of a kind nobody knows': [(id) => ask({ type: 'of_a_later_day', a: [{ b: { file_id: id } }] }), () => whole.output[3].content[0].annotations[0].file_id],
  }
  for (const [name, [make, id]] of Object.entries(shapes)) test(`${name}: back from its account alone`, () => only(true, 'resp', make, id()))
  test('twice in one object, one of them another\'s', async () => {
    const n = up.requests.length
    const body = `{"model":"resp","input":[{"role":"user","content":[{"type":"input_file","file_id":"cfile_victim","file_id":"${whole.output[3].content[0].annotations[0].file_id}"}]}]}`
    assert.equal((await post(PATHS.resp, mine.key, body)).status, 400)
    assert.equal(up.requests.length, n)
  })
  test('the operator\'s vector stores are nobody\'s unless he allows them', async () => {
    const r = await post(PATHS.resp, mine.key, { ...BASE.resp, tools: [{ type: 'file_search', vector_store_ids: ['vs_1'] }] })
    assert.equal(r.status, 400)
  })
  test('an item that is all there may bear any id, as agents that store nothing send them', async () => {
    const input = [
      { role: 'user', content: 'x' },
      { type: 'message', id: 'msg_own', role: 'assistant', content: [{ type: 'output_text', text: 'hi' }] },
      { type: 'reasoning', id: 'rs_own', summary: [], encrypted_content: 'e' },
      { type: 'function_call', id: 'fc_own', call_id: 'c', name: 'f', arguments: '{"file_id":"the tool\'s own"}' },
      { type: 'function_call_output', call_id: 'c', output: 'o' },
      { ...whole.output[3] },
    ]
    const r = await post(PATHS.resp, mine.key, { ...BASE.resp, store: false, input })
    assert.equal(r.status, 200, r.text)
    const sent = up.requests.at(-1).json.input
    assert.deepEqual(sent.slice(1, 4), input.slice(1, 4))
    assert.equal(sent[5].id, 'msg_1', 'and a seal comes off')
    const theirs = await post(PATHS.resp, other.key, { ...BASE.resp, input: [{ ...whole.output[3] }] })
    assert.equal(theirs.status, 400)
  })
  test('three hundred items with their ids', async () => {
    const input = Array.from({ length: 300 }, () => ({ ...whole.output[3], content: [{ type: 'output_text', text: 'hi' }] }))
    const r = await post(PATHS.resp, mine.key, { ...BASE.resp, input })
    assert.equal(r.status, 200, r.text)
    assert.ok(up.requests.at(-1).json.input.every((i) => i.id === 'msg_1'))
  })
  test('a request with state goes where the state lives, with the key that made it', async () => {
    for (let round = 0; round < 4; round++) {
      const first = await post(PATHS.resp, mine.key, BASE.resp)
      const made = up.requests.at(-1)
      for (let i = 0; i < 6; i++) {
        const r = await post(PATHS.resp, mine.key, { ...BASE.resp, previous_response_id: first.json.id })
        assert.equal(r.status, 200)
        assert.equal(up.requests.at(-1).model, made.model)
        assert.equal(up.requests.at(-1).headers.authorization, made.headers.authorization)
      }
    }
  })
  test('ids of two places in one request cannot be served', async () => {
    const seen = new Map()
    for (let i = 0; i < 60 && seen.size < 2; i++) {
      const { json } = await post(PATHS.resp, mine.key, BASE.resp), made = up.requests.at(-1)
      seen.set(`${made.headers.authorization} ${made.model}`, json.id)
    }
    const [a, b] = seen.values()
    const r = await post(PATHS.resp, mine.key, { ...BASE.resp, previous_response_id: a, input: [{ type: 'item_reference', id: b }] })
    assert.equal(r.status, 400, r.text)
  })
})

describe('Anthropic', () => {
  let whole
  test('a whole answer and a stream', async () => {
    whole = (await post(PATHS.claude, mine.key, BASE.claude)).json
    assert.match(whole.container.id, SEALED)
    assert.match(whole.content[1].content.content[0].file_id, SEALED)
    assert.equal(whole.content[0].input.file_id, 'the tool\'s own')
    const r = await post(PATHS.claude, mine.key, { ...BASE.claude, stream: true })
    const found = ids(r.events.map((e) => ({ ...e, message: e.message && { container: e.message.container } })))
    assert.deepEqual([...found.file_id].map(plain), ['file_1'])
    for (const id of [...found.file_id, ...r.events.flatMap((e) => [e.message?.container, e.delta?.container]).filter(Boolean).map((c) => c.id)]) assert.match(id, SEALED)
  })
  const ask = (block) => ({ ...BASE.claude, messages: [{ role: 'user', content: [{ type: 'text', text: 'x' }, block] }] })
  const file = () => whole.content[1].content.content[0].file_id
  const shapes = {
    'a document\'s file': [(id) => ask({ type: 'document', source: { type: 'file', file_id: id } }), file],
    'a container upload': [(id) => ask({ type: 'container_upload', file_id: id }), file],
    'a file in a tool\'s result': [(id) => ask({ type: 'tool_result', tool_use_id: 't', content: [{ type: 'image', source: { type: 'file', file_id: id } }] }), file],
    'a file in a hosted tool\'s result': [(id) => ask({ type: 'bash_code_execution_tool_result', tool_use_id: 't', content: { content: [{ file_id: id }] } }), file],
    container: [(id) => ({ ...BASE.claude, container: id }), () => whole.container.id],
    'container, as an object': [(id) => ({ ...BASE.claude, container: { id, skills: [{ type: 'anthropic', skill_id: 'pptx' }] } }), () => whole.container.id],
  }
  for (const [name, [make, id]] of Object.entries(shapes)) test(`${name}: back from its account alone`, () => only(true, 'claude', make, id()))
  test('count_tokens too', () => only(true, 'claude', (id) => { const b = ask({ type: 'document', source: { type: 'file', file_id: id } }); delete b.max_tokens; return b }, file(), '/v1/messages/count_tokens'))
  test('a tool\'s own arguments and results are left alone', async () => {
    const messages = [{ role: 'user', content: 'x' }, { role: 'assistant', content: [{ type: 'tool_use', id: 't', name: 'f', input: { file_id: 'own', container: 'own' } }] },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't', content: '{"file_id":"own"}' }] }]
    const r = await post(PATHS.claude, mine.key, { ...BASE.claude, messages })
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(up.requests.at(-1).json.messages, messages)
  })
})

describe('OpenAI chat', () => {
  let spoken
  test('a spoken answer\'s id, whole and streamed', async () => {
    spoken = (await post(PATHS.talk, mine.key, BASE.talk)).json.choices[0].message.audio.id
    assert.match(spoken, SEALED)
    const r = await post(PATHS.talk, mine.key, { ...BASE.talk, stream: true })
    assert.equal(r.events[0].choices[0].delta.audio.id.replace(SEALED, ''), 'audio_1', r.text)
    assert.match(r.events[0].choices[0].delta.audio.id, SEALED)
  })
  test('a spoken answer: back from its account alone', () => only(true, 'talk', (id) => ({ ...BASE.talk, messages: [{ role: 'assistant', audio: { id } }, ...BASE.talk.messages] }), spoken))
  const part = (p) => ({ ...BASE.talk, messages: [{ role: 'user', content: [p] }] })
  test('a file: only sealed', () => only(false, 'talk', (id) => part({ type: 'file', file: { file_id: id } }), spoken))
  test('a file beside a picture, and under an escaped member', async () => {
    const n = up.requests.length
    for (const body of [JSON.stringify(part({ type: 'file', image_url: 'https://x', file: { file_id: 'file-victim' } })),
      '{"model":"talk","messages":[{"role":"user","\\u0063ontent":[{"type":"file","file":{"file_id":"file-victim"}}]}]}',
      '{"model":"talk","messages":[{"role":"user","content":"x","content":[{"type":"file","file":{"file_id":"file-victim"}}],"content":"x"}]}']) {
      assert.equal((await post(PATHS.talk, mine.key, body)).status, 400, body)
    }
    assert.equal(up.requests.length, n)
  })
})

describe('Gemini', () => {
  const URI = 'https://generativelanguage.googleapis.com/v1beta/files/abc1'
  const file = (uri, member = 'fileData', name = 'fileUri') => ({ contents: [{ role: 'user', parts: [{ [member]: { [name]: uri, mimeType: 'text/plain' } }] }] })
  test('cached content', () => only(false, 'gem', (id) => ({ ...BASE.gem, cachedContent: id }), 'cachedContents/x1_tgAAAAAAAAAAAAAAAAAAAAAAAAAAA'))
  test('files, in either spelling, wherever they stand', async () => {
    const n = up.requests.length
    for (const body of [file(URI), file(URI, 'file_data', 'file_uri'), file('files/abc1'), file(URI.replace('files', '%66iles')), file(URI.toUpperCase()),
      { contents: [{ role: 'user', parts: [{ functionResponse: { name: 'f', response: {}, parts: file(URI).contents[0].parts } }] }] },
      { ...BASE.gem, systemInstruction: file(URI).contents[0] }]) {
      assert.equal((await post(PATHS.gem, mine.key, body)).status, 400, JSON.stringify(body))
      assert.equal((await post('/v1beta/models/gem:countTokens', mine.key, { contents: [{ role: 'user', parts: [{ text: 'x' }] }], generateContentRequest: { model: 'models/gem', ...body } })).status, 400, JSON.stringify(body))
      assert.equal((await post('/v1beta/models/gem:streamGenerateContent?alt=sse', mine.key, body)).status, 400)
    }
    assert.equal((await post(PATHS.gem, mine.key, { ...BASE.gem, tools: [{ fileSearch: { fileSearchStoreNames: ['fileSearchStores/x'] } }] })).status, 400)
    assert.equal(up.requests.length, n)
  })
  test('the web and a function\'s own words are not the provider\'s state', async () => {
    for (const body of [file('https://example.com/a.pdf'), file('gs://bucket/a'),
      { contents: [{ role: 'model', parts: [{ functionCall: { name: 'f', args: { fileUri: 'files/own' } } }] }, { role: 'user', parts: [{ functionResponse: { name: 'f', response: { cachedContent: 'own' } } }] }] }]) {
      assert.equal((await post(PATHS.gem, mine.key, body)).status, 200, JSON.stringify(body))
    }
  })
})
