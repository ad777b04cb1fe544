/* What each dialect promises of a stream, as state machines over its bytes. grammar[dialect](text) throws where a promise is broken, else
 * says how the stream ended: {ended: 'whole' | 'error', text, calls: [{name, args}], stop, usage}. Sources: the vendors' streaming
 * references and the types of their packages (openai 6, @anthropic-ai/sdk 1, @google/genai 2). */
import assert from 'node:assert/strict'

/* text/event-stream as the WHATWG reads it; what is not closed by a blank line is an error here. */
function events(text) {
  assert.match(text, /(^|\r?\n\r?\n)$/, 'the last event is not closed')
  return text.split(/\r?\n\r?\n/).filter(Boolean).map((block) => {
    const e = { name: undefined, data: [] }
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith(':')) continue
      const [, k, v] = /^([a-z]+): (.*)$/.exec(line) ?? assert.fail(`no line of an event: ${line}`)
      if (k === 'event') e.name = v
      else if (k === 'data') e.data.push(v)
      else assert.fail(`a field nobody asked for: ${line}`)
    }
    return { name: e.name, data: e.data.join('\n') }
  }).filter((e) => e.data)
}
const object = (text) => { const o = JSON.parse(text); assert.ok(o && typeof o === 'object' && !Array.isArray(o)); return o }

function openai(text, { asked = true } = {}) {
  const out = { text: '', calls: [], reasoning: '' }
  let ident, state = 'begin'
  for (const e of events(text)) {
    assert.equal(e.name, undefined)
    assert.ok(state !== 'done' && state !== 'error', `something behind the end: ${e.data}`)
    if (e.data === '[DONE]') { assert.ok(state === (asked ? 'usage' : 'finished'), `[DONE] in state ${state}`); state = 'done'; continue }
    const o = object(e.data)
    if (o.error) {
      assert.deepEqual(Object.keys(o.error).sort(), ['code', 'message', 'param', 'type'])
      assert.ok(typeof o.error.message === 'string' && typeof o.error.type === 'string')
      state = 'error'
      continue
    }
    const of = JSON.stringify([o.id, o.object, o.created, o.model])
    assert.equal(of, ident ??= of, 'id, object, created and model stay')
    assert.equal(o.object, 'chat.completion.chunk')
    assert.ok(Array.isArray(o.choices))
    if (state === 'finished') {
      assert.ok(asked && o.choices.length === 0 && o.usage, 'behind the finish comes the usage alone')
      out.usage = o.usage
      state = 'usage'
      continue
    }
    assert.equal(o.choices.length, 1)
    const [c] = o.choices
    assert.equal(c.index, 0)
    assert.equal(c.delta.role, state === 'begin' ? 'assistant' : undefined, 'the role stands in the first delta')
    state = 'open'
    out.text += (c.delta.content ?? '') + (c.delta.refusal ?? '')
    out.reasoning += c.delta.reasoning_content ?? ''
    for (const t of c.delta.tool_calls ?? []) {
      const f = t.function ?? t.custom, more = f.arguments ?? f.input
      assert.equal(typeof more, 'string')
      if (t.id !== undefined) {
        assert.equal(t.index, out.calls.length, 'calls count up from 0')
        assert.ok(t.id && f.name && ['function', 'custom'].includes(t.type))
        out.calls.push({ id: t.id, name: f.name, args: more })
      } else {
        assert.ok(t.index === out.calls.length - 1 && f.name === undefined && t.type === undefined, 'a fragment has its index alone')
        out.calls.at(-1).args += more
      }
    }
    if (c.finish_reason !== null) {
      assert.ok(['stop', 'length', 'tool_calls', 'content_filter'].includes(c.finish_reason))
      out.stop = c.finish_reason
      if (!asked) { assert.ok(o.usage); out.usage = o.usage }
      state = 'finished'
    } else assert.ok(o.usage === undefined || o.usage === null)
  }
  return end(out, state)
}

function responses(text) {
  const out = { text: '', calls: [], reasoning: '' }, items = []
  let state = 'begin', sequence = 0, open, id
  const place = (o) => { assert.equal(o.output_index, items.length); assert.equal(o.item_id, open.item.id) }
  for (const e of events(text)) {
    assert.ok(state !== 'whole' && state !== 'error', `something behind the end: ${e.data}`)
    const o = object(e.data)
    assert.equal(o.type, e.name)
    assert.equal(o.sequence_number, sequence++)
    const kind = o.type.replace(/^response\./, '')
    if (o.response) {
      for (const k of ['id', 'object', 'created_at', 'status', 'error', 'incomplete_details', 'model', 'output', 'tools', 'usage']) assert.ok(k in o.response, `no ${k}`)
      assert.equal(o.response.id, id ??= o.response.id)
    }
    if (kind === 'created') { assert.equal(state, 'begin'); assert.equal(o.response.status, 'in_progress'); state = 'created'; continue }
    if (kind === 'in_progress') { assert.equal(state, 'created'); state = 'open'; continue }
    if (kind === 'failed') { assert.equal(o.response.status, 'failed'); assert.ok(o.response.error.code && o.response.error.message); state = 'error'; continue }
    assert.equal(state, 'open')
    if (kind === 'completed' || kind === 'incomplete') {
      assert.equal(open, undefined)
      assert.equal(o.response.status, kind)
      assert.deepEqual(o.response.output.map(({ status, ...rest }) => rest), items.map(({ status, ...rest }) => rest), 'the output is what was done')
      assert.equal(o.response.incomplete_details === null, kind === 'completed')
      assert.equal(o.response.usage.total_tokens, o.response.usage.input_tokens + o.response.usage.output_tokens)
      out.usage = o.response.usage
      out.stop = o.response.incomplete_details?.reason ?? 'completed'
      state = 'whole'
    } else if (kind === 'output_item.added') {
      assert.equal(open, undefined, 'one item at a time')
      assert.equal(o.output_index, items.length)
      assert.ok(o.item.id && !items.some((i) => i.id === o.item.id))
      open = { item: o.item, text: '', part: false, done: false, notes: 0 }
    } else if (kind === 'output_item.done') {
      assert.equal(o.output_index, items.length)
      assert.equal(o.item.id, open.item.id)
      assert.equal(o.item.type, open.item.type)
      assert.ok(!open.part, 'the part is done before the item')
      if (o.item.type === 'message') {
        assert.equal(o.item.content.map((p) => p.text ?? p.refusal).join(''), open.text)
        out.text += open.text
      } else if (o.item.type === 'reasoning') {
        assert.equal(o.item.summary.map((p) => p.text).join(''), open.text)
        out.reasoning += open.text
      } else if (/function_call|custom_tool_call/.test(o.item.type)) {
        assert.ok(open.done && o.item.call_id === open.item.call_id && o.item.name === open.item.name)
        assert.equal(o.item.arguments ?? o.item.input, open.text)
        out.calls.push({ id: o.item.call_id, name: o.item.name, args: open.text })
      }
      items.push(o.item)
      open = undefined
    } else {
      place(o)
      const part = /^(content_part|reasoning_summary_part)\.(added|done)$/.exec(kind)
      const said = { 'output_text.done': o.text, 'refusal.done': o.refusal, 'reasoning_summary_text.done': o.text,
        'function_call_arguments.done': o.arguments, 'custom_tool_call_input.done': o.input }
      if (part) {
        assert.equal(open.part, part[2] === 'done')
        assert.ok(part[2] === 'added' || open.done)
        open.part = !open.part
      } else if (kind.endsWith('.delta')) {
        assert.ok(!open.done && (open.part || /call/.test(kind)))
        open.text += o.delta
      } else if (kind === 'output_text.annotation.added') assert.equal(o.annotation_index, open.notes++)
      else {
        assert.ok(kind in said, `an event of no kind: ${o.type}`)
        assert.equal(said[kind], open.text)
        open.done = true
      }
    }
  }
  return end(out, state)
}

function anthropic(text) {
  const DELTAS = { text: ['text_delta', 'citations_delta'], thinking: ['thinking_delta', 'signature_delta'], tool_use: ['input_json_delta'], redacted_thinking: [] }
  const out = { text: '', calls: [], reasoning: '' }
  let state = 'begin', open, index = 0
  for (const e of events(text)) {
    assert.ok(state !== 'whole' && state !== 'error', `something behind the end: ${e.data}`)
    const o = object(e.data)
    assert.equal(o.type, e.name)
    if (o.type === 'ping') continue
    if (o.type === 'error') { assert.ok(typeof o.error.type === 'string' && typeof o.error.message === 'string'); state = 'error'; continue }
    if (o.type === 'message_start') {
      assert.equal(state, 'begin')
      const m = o.message
      assert.ok(m.id && m.type === 'message' && m.role === 'assistant' && m.model && m.stop_reason === null && m.stop_sequence === null)
      assert.deepEqual(m.content, [])
      assert.ok(Number.isInteger(m.usage.input_tokens) && Number.isInteger(m.usage.output_tokens) && m.usage.cost_usd === undefined)
      state = 'open'
    } else if (o.type === 'content_block_start') {
      assert.ok(state === 'open' && open === undefined, 'one block at a time')
      assert.equal(o.index, index, 'blocks count up without gaps')
      assert.ok(o.content_block.type in DELTAS, o.content_block.type)
      if (o.content_block.type === 'tool_use') { assert.deepEqual(o.content_block.input, {}); assert.match(o.content_block.id, /^[A-Za-z0-9_-]+$/) }
      open = { ...o.content_block, json: '', signed: false }
    } else if (o.type === 'content_block_delta') {
      assert.equal(o.index, index)
      assert.ok(DELTAS[open?.type]?.includes(o.delta.type), `${o.delta.type} in ${open?.type}`)
      if (o.delta.type === 'text_delta') out.text += o.delta.text
      if (o.delta.type === 'thinking_delta') { assert.ok(!open.signed); out.reasoning += o.delta.thinking }
      if (o.delta.type === 'signature_delta') open.signed = true
      if (o.delta.type === 'input_json_delta') open.json += o.delta.partial_json
    } else if (o.type === 'content_block_stop') {
      assert.equal(o.index, index++)
      assert.ok(open)
      if (open.type === 'tool_use') out.calls.push({ id: open.id, name: open.name, args: open.json || '{}' })
      open = undefined
    } else if (o.type === 'message_delta') {
      assert.ok(state === 'open' && open === undefined)
      assert.ok(['end_turn', 'max_tokens', 'stop_sequence', 'tool_use', 'pause_turn', 'refusal', 'model_context_window_exceeded'].includes(o.delta.stop_reason))
      assert.ok('stop_sequence' in o.delta)
      out.usage = o.usage
      out.stop = o.delta.stop_reason
      state = 'delta'
    } else {
      assert.equal(o.type, 'message_stop')
      assert.equal(state, 'delta')
      state = 'whole'
    }
  }
  return end(out, state)
}

function gemini(text) {
  const out = { text: '', calls: [], reasoning: '' }
  let state = 'open', id
  const failed = text.endsWith('\r\n\r\n: failed\r\n') // Google's newest client takes only a stream that ends within a line for broken
  for (const e of events(failed ? text.slice(0, -': failed\r\n'.length) : text)) {
    assert.equal(e.name, undefined)
    assert.ok(state === 'open', `something behind the end: ${e.data}`)
    const o = object(e.data)
    if (o.error) {
      assert.ok(Number.isInteger(o.error.code) && typeof o.error.message === 'string' && typeof o.error.status === 'string')
      state = 'error'
      continue
    }
    assert.equal(o.responseId, id ??= o.responseId)
    assert.ok(o.modelVersion && o.candidates.length === 1)
    const [c] = o.candidates
    assert.equal(c.index ?? 0, 0)
    assert.ok(c.content.role === 'model' && c.content.parts.length > 0)
    for (const p of c.content.parts) {
      if (p.functionCall) {
        assert.ok(p.functionCall.name && typeof p.functionCall.args === 'object' && !Array.isArray(p.functionCall.args))
        out.calls.push({ id: p.functionCall.id, name: p.functionCall.name, args: JSON.stringify(p.functionCall.args) })
      } else if (p.thought) out.reasoning += p.text
      else if (!p.inlineData) { assert.equal(typeof p.text, 'string'); out.text += p.text }
    }
    if (c.finishReason) {
      const u = o.usageMetadata
      assert.equal(u.totalTokenCount, u.promptTokenCount + (u.toolUsePromptTokenCount ?? 0) + u.candidatesTokenCount + (u.thoughtsTokenCount ?? 0))
      out.usage = u
      out.stop = c.finishReason
      state = 'whole'
    }
  }
  assert.equal(failed, state === 'error')
  return end(out, state)
}

/* Every stream ends, well or with an error. */
function end(out, state) {
  assert.ok(['done', 'whole', 'error'].includes(state), `the stream just stops, in state ${state}`)
  return { ...out, ended: state === 'error' ? 'error' : 'whole' }
}
export const grammar = { openai, responses, anthropic, gemini }
