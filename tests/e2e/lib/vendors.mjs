/* What a vendor's server answers at each of its paths, for a scripted provider that plays several vendors at once: chat
 * completions, responses, messages, Gemini, pictures, embeddings; whole or streamed. The text and the figures are the
 * upstream's `says`: {text, input, output, cached}; no more output than the request's limit. */
import { chunks, json, sse } from '../upstream.mjs'

export const SAYS = { text: 'Hello from upstream', input: 24, output: 156 }

export function vendor(up) {
  up.says = { ...SAYS }
  return (c) => {
    const path = c.req.path.split('?')[0], says = { ...SAYS, ...up.says }
    says.output = Math.min(says.output, limitOf(c.req.json ?? {}))
    const kind = KINDS.find(([end]) => end.test(path))
    if (!kind) return json({ status: 404, body: '{"error":{"message":"no such path","type":"invalid_request_error"}}' })(c)
    return kind[1](c, says)
  }
}
const limitOf = (b) => b.max_completion_tokens ?? b.max_tokens ?? b.max_output_tokens ?? b.generationConfig?.maxOutputTokens ?? Infinity
const KINDS = [
  [/\/chat\/completions$/, chat], [/\/responses$/, responses], [/\/messages$/, messages], [/:(stream)?[gG]enerateContent$/, gemini],
  [/\/images\/generations$/, images], [/\/embeddings$/, embeddings], [/\/models$/, (c) => json({ body: '{"object":"list","data":[]}' })(c)],
]
const whole = (c, o) => json({ body: JSON.stringify(o) })(c)
/* named: with `event:` lines, as the vendors that have them do */
const stream = (c, list, { named = true } = {}) => {
  const text = list.map((e) => `${named && e.type ? `event: ${e.type}\n` : ''}data: ${JSON.stringify(e)}\n\n`).join('')
  return json({ body: text, headers: { 'Content-Type': 'text/event-stream' } })(c)
}
const words = (text) => text.match(/\S+\s*/g) ?? []

function chat(c, s) {
  const usage = { prompt_tokens: s.input, completion_tokens: s.output, total_tokens: s.input + s.output, ...(s.cached ? { prompt_tokens_details: { cached_tokens: s.cached } } : {}) }
  const model = c.req.model
  if (!c.req.json.stream) return json({ content: s.text, usage })(c)
  return sse({ raw: chunks({ model, words: words(s.text), figures: usage, asked: !!c.req.json.stream_options?.include_usage }).map((x) => JSON.stringify(x)) })(c)
}
function responses(c, s) {
  const item = { type: 'message', id: 'msg_1', status: 'completed', role: 'assistant', content: [{ type: 'output_text', text: s.text, annotations: [] }] }
  const usage = { input_tokens: s.input, input_tokens_details: { cached_tokens: s.cached ?? 0 }, output_tokens: s.output, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: s.input + s.output }
  const r = { id: 'resp_1', object: 'response', created_at: 1719000000, status: 'completed', model: c.req.model, error: null, output: [item], usage }
  if (!c.req.json.stream) return whole(c, r)
  const begun = { ...r, status: 'in_progress', output: [], usage: null }, empty = { ...item, status: 'in_progress', content: [] }
  const part = { item_id: 'msg_1', output_index: 0, content_index: 0 }
  const list = [{ type: 'response.created', response: begun }, { type: 'response.in_progress', response: begun }, { type: 'response.output_item.added', output_index: 0, item: empty },
    { type: 'response.content_part.added', ...part, part: { type: 'output_text', text: '', annotations: [] } },
    ...words(s.text).map((delta) => ({ type: 'response.output_text.delta', ...part, delta })), { type: 'response.output_text.done', ...part, text: s.text },
    { type: 'response.content_part.done', ...part, part: item.content[0] }, { type: 'response.output_item.done', output_index: 0, item }, { type: 'response.completed', response: r }]
  return stream(c, list.map((e, i) => ({ ...e, sequence_number: i })))
}
function messages(c, s) {
  const usage = { input_tokens: s.input - (s.cached ?? 0), cache_read_input_tokens: s.cached ?? 0, cache_creation_input_tokens: 0, output_tokens: s.output }
  const m = { id: 'msg_01', type: 'message', role: 'assistant', model: c.req.model, content: [{ type: 'text', text: s.text }], stop_reason: 'end_turn', stop_sequence: null, usage }
  if (!c.req.json.stream) return whole(c, m)
  return stream(c, [{ type: 'message_start', message: { ...m, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    ...words(s.text).map((text) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })), { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: s.output } }, { type: 'message_stop' }])
}
function gemini(c, s) {
  const usageMetadata = { promptTokenCount: s.input, candidatesTokenCount: s.output, totalTokenCount: s.input + s.output, ...(s.cached ? { cachedContentTokenCount: s.cached } : {}) }
  const modelVersion = /\/models\/(.+):/.exec(c.req.path)[1]
  const part = (text, more) => ({ candidates: [{ content: { parts: [{ text }], role: 'model' }, index: 0, ...more }], modelVersion, responseId: 'resp-1' })
  if (!/:stream/.test(c.req.path)) return whole(c, { ...part(s.text, { finishReason: 'STOP' }), usageMetadata })
  const list = words(s.text)
  return stream(c, list.map((w, i) => ({ ...part(w, i === list.length - 1 ? { finishReason: 'STOP' } : {}), usageMetadata })), { named: false })
}
function images(c, s) {
  const b64 = c.req.json.response_format === 'b64_json' || /^gpt-image/.test(c.req.model)
  const data = Array.from({ length: c.req.json.n ?? 1 }, () => (b64 ? { b64_json: 'iVBORw0KGgo=' } : { url: 'https://cdn.example.com/images/generated-abc123.png', revised_prompt: 'A highly detailed photorealistic cat...' }))
  const usage = { input_tokens: s.input, input_tokens_details: { text_tokens: s.input, image_tokens: 0 }, output_tokens: s.output, total_tokens: s.input + s.output }
  return whole(c, { created: 1709150000, data, ...(/^gpt-image/.test(c.req.model) ? { usage } : {}) })
}
function embeddings(c, s) {
  const inputs = Array.isArray(c.req.json.input) ? c.req.json.input : [c.req.json.input]
  return whole(c, { object: 'list', data: inputs.map((_, index) => ({ object: 'embedding', index, embedding: [0.1, -0.2, 0.3] })), model: c.req.model, usage: { prompt_tokens: s.input, total_tokens: s.input } })
}
