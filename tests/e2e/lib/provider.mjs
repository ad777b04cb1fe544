/* A provider of each dialect that is as strict as the real ones: it reads what it is sent, refuses what its vendor would refuse
 * (a call without its result, a signature that is not the one it gave, a picture that is no picture), and answers in its own grammar.
 *
 *   const p = await startProvider(t, 'anthropic')  p.url, p.requests, p.complaints (each was also answered with a 400)
 *
 * What it does is named by the model: text, tools, image, schema, think, slow (streams until the client leaves), pause (is silent in
 * mid-stream until its request's `resume` is called), break (an error in mid-stream), error-NNN. Every answer counts 100 tokens in and 40 out, 15 of them reasoning where it thinks. `script` replaces all
 * of it: a function from what was read to an answer {text, thinking, calls: [{name, args}]}. */
import { createHash, randomBytes } from 'node:crypto'
import http from 'node:http'
import { later } from './clean.mjs'

export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
export const IN = 100, OUT = 40, REASONING = 15

class Complaint extends Error {}
function must(ok, text) { if (!ok) throw new Complaint(text) }
const NO_SIGNATURE = 'skip_thought_signature_validator' // what Google documents for calls that it did not make
const digest = (base64) => createHash('sha1').update(Buffer.from(base64, 'base64')).digest('hex').slice(0, 8)
const list = (x) => { must(Array.isArray(x), `no list: ${JSON.stringify(x)}`); return x }
const parsed = (text) => { try { return JSON.parse(text) } catch { throw new Complaint(`no JSON in ${text}`) } }
function schemaOk(s) { must(s?.type?.toLowerCase?.() === 'object', `no schema of an object: ${JSON.stringify(s)}`); return s }

export async function startProvider(t, dialect, { script } = {}) {
  const d = DIALECTS[dialect]
  const p = { dialect, requests: [], complaints: [], signatures: new Map(), calls: new Map(), serial: 0, open: new Set(), script }
  const server = http.createServer((req, res) => {
    const chunks = []
    req.on('data', (c) => chunks.push(c))
    req.on('end', () => serve(p, d, req, Buffer.concat(chunks).toString(), res).catch((e) => { p.complaints.push(e.stack); res.destroy() }))
  })
  server.on('connection', (s) => { p.open.add(s); s.on('close', () => p.open.delete(s)) })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  p.url = `http://127.0.0.1:${server.address().port}${d.base}`
  later(t, () => { for (const s of p.open) s.destroy(); return new Promise((resolve) => server.close(resolve)) })
  return p
}
async function serve(p, d, req, text, res) {
  const entry = { path: req.url, headers: req.headers, gone: new Promise((resolve) => res.on('close', resolve)) }
  p.requests.push(entry)
  let view, answer
  const code = () => /^error-(\d+)$/.exec(view.model)?.[1]
  try {
    must(req.method === 'POST', `a ${req.method}`)
    entry.body = parsed(text)
    const task = TASKS[p.dialect]?.find(([path]) => path.test(req.url))
    if (task) { const made = JSON.stringify(task[1](entry.body)); res.setHeader('Content-Type', 'application/json'); return res.end(made) }
    view = entry.view = d.read(req, entry.body)
    check(p, view)
    if (!code()) answer = { calls: [], ...(p.script ? p.script(view, p) : act(p, view)) }
  } catch (e) {
    if (!(e instanceof Complaint)) throw e
    p.complaints.push(`${p.dialect} ${req.url}: ${e.message}\n${text.slice(0, 2000)}`)
    return fail(d, res, 400, e.message)
  }
  if (code()) return fail(d, res, Number(code()), `the ${p.dialect} provider says ${code()}`)
  for (const c of answer.calls) { c.id = d.id(++p.serial); p.calls.set(c.id, c) }
  if (answer.thinking) {
    answer.signature = `sig+/${p.serial}${randomBytes(30).toString('base64')}`
    p.signatures.set(answer.signature, answer)
  }
  const usage = { in: IN, out: OUT, reasoning: answer.thinking ? REASONING : 0 }
  if (!view.stream) { res.setHeader('Content-Type', 'application/json'); res.end(JSON.stringify(d.whole(view, answer, usage))); return }
  res.setHeader('Content-Type', 'text/event-stream')
  for (const e of d.events(view, answer, usage)) {
    if (e.pause && view.model === 'slow') while (!res.destroyed) { res.write(frame(d.more(view))); await new Promise((r) => setTimeout(r, 5)) }
    if (e.pause && view.model === 'pause') await new Promise((resolve) => { entry.resume = resolve })
    if (e.pause && view.model === 'break') { res.write(frame(d.broken)); break }
    if (!e.pause) res.write(frame(e))
    if (res.destroyed) return
  }
  res.end()
}
const frame = ({ event, data }) => `${event ? `event: ${event}\n` : ''}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`
function fail(d, res, code, message) {
  res.writeHead(code, { 'Content-Type': 'application/json', ...(code === 429 ? { 'Retry-After': '1' } : {}) })
  res.end(JSON.stringify(d.error(code, message)))
}

/* What all vendors ask of a conversation. Results stand directly behind the calls they are of, each call has one, and thinking that
 * was signed comes back as it went, with the calls it led to. */
function check(p, view) {
  must(view.turns.length > 0 && view.turns.at(-1).role === 'user', 'the last turn is not the user\'s')
  for (const t of view.tools) { must(t.name && schemaOk(t.schema), 'a tool without a name') }
  view.turns.forEach((turn, i) => {
    const ids = turn.calls.map((c) => c.id), results = (view.turns[i + 1]?.results ?? [])
    if (turn.role === 'model' && ids.length > 0) {
      must(results.length === ids.length && results.every((r, k) => r.id === undefined ? r.name === turn.calls[k].name : ids.includes(r.id)), `calls ${ids} were not answered, but ${JSON.stringify(results)}`)
      for (const c of turn.calls) {
        const mine = c.id === undefined ? [...p.calls.values()].find((x) => x.name === c.name) : p.calls.get(c.id)
        must(mine && mine.name === c.name, `a call that was never made: ${JSON.stringify(c)}`)
        must(JSON.stringify(mine.args) === JSON.stringify(c.args) || c.id === undefined, `other arguments than ${JSON.stringify(mine.args)}: ${JSON.stringify(c.args)}`)
      }
    }
    if (turn.role === 'user' && turn.results.length > 0) must(view.turns[i - 1]?.calls.length > 0, 'results of no calls')
    for (const t of turn.thinking) {
      if (t.signature === NO_SIGNATURE && view.model !== 'think') continue
      const mine = t.signature === undefined ? [...p.signatures.values()].find((a) => a.thinking === t.text) : p.signatures.get(t.signature)
      must(mine, `thinking that is not mine: ${JSON.stringify(t)}`)
      if (t.text !== undefined && !(t.text === '' && p.dialect === 'openai-responses')) must(mine.thinking === t.text, `not what was signed: ${JSON.stringify(t)}`)
    }
  })
}
const lastText = (view) => view.turns.at(-1).text
function act(p, view) {
  const results = view.turns.at(-1).results
  switch (view.model) {
    case 'text': return { text: `You said: ${lastText(view)}${view.system ? ` (${view.system})` : ''}` }
    case 'tools':
      must(view.tools.some((t) => t.name === 'weather'), 'no tool called weather')
      if (results.length > 0) return { text: `It is ${results.map((r) => r.text).join(' and ')}.` }
      return { text: 'Let me look.', calls: [{ name: 'weather', args: { city: 'Paris' } }, { name: 'weather', args: { city: 'Røm"e' } }] }
    case 'image': {
      const images = view.turns.at(-1).images
      must(images.length === 1 && /^image\/png$/.test(images[0].type), `no picture: ${JSON.stringify(images)}`)
      return { text: `A picture of ${digest(images[0].data)}` }
    }
    case 'schema':
      must(view.schema, 'no schema was asked for')
      must(JSON.stringify(schemaOk(view.schema).required) === '["city","degrees"]', `another schema: ${JSON.stringify(view.schema)}`)
      return { text: '{"city":"Paris","degrees":20}' }
    case 'think':
      must(view.thinks, 'no thinking was asked for')
      if (results.length === 0) return { thinking: 'I should look it up.', calls: [{ name: 'weather', args: { city: 'Paris' } }] }
      must(view.turns.at(-2).thinking.length > 0, 'the thinking before the call did not come back')
      return { thinking: 'Now I know.', text: `It is ${results[0].text}.` }
    default: return { text: 'One two three' }
  }
}
const halves = (s) => [s.slice(0, Math.ceil(s.length / 2)), s.slice(Math.ceil(s.length / 2))].filter((x) => x.length > 0)
const turnOf = (role) => ({ role, text: '', images: [], calls: [], results: [], thinking: [] })
/* The turn to add to: the last one if it is of this role, else a new one. */
function into(turns, role) {
  if (turns.at(-1)?.role !== role) turns.push(turnOf(role))
  return turns.at(-1)
}
function dataUrl(url) {
  const m = /^data:([^;]+);base64,([A-Za-z0-9+/=]+)$/.exec(url)
  must(m, `no picture: ${url?.slice(0, 60)}`)
  return { type: m[1], data: m[2] }
}

/* ---- OpenAI's chat completions, as the compatible servers that show their reasoning (reasoning_content, wanted back) ---- */
const openai = {
  base: '/v1',
  id: (n) => `call_${n}abcdefghijklmnopqrst`,
  read(req, b) {
    must(req.url === '/v1/chat/completions', req.url)
    must(/^Bearer ./.test(req.headers.authorization ?? ''), 'no bearer')
    const view = { model: b.model, stream: !!b.stream, usage: !!b.stream_options?.include_usage, turns: [], tools: (b.tools ?? []).map((t) => { must(t.type === 'function', t.type); return { name: t.function.name, schema: t.function.parameters ?? { type: 'object' } } }),
      schema: b.response_format?.json_schema?.schema, thinks: !!b.reasoning_effort || !!b.thinking, limit: b.max_tokens ?? b.max_completion_tokens }
    if (b.response_format) must(b.response_format.type !== 'json_schema' || b.response_format.json_schema.name, 'a schema without a name')
    for (const m of list(b.messages)) {
      if (m.role === 'system' || m.role === 'developer') { view.system = typeof m.content === 'string' ? m.content : m.content.map((c) => c.text).join(''); continue }
      if (m.role === 'tool') {
        must(m.tool_call_id, 'a result of no call')
        const turn = into(view.turns, 'user')
        turn.results.push({ id: m.tool_call_id, text: typeof m.content === 'string' ? m.content : list(m.content).map((c) => c.text).join('') })
        continue
      }
      must(m.role === 'user' || m.role === 'assistant', `a role ${m.role}`)
      const turn = into(view.turns, m.role === 'user' ? 'user' : 'model')
      if (m.role === 'assistant') must(m.content || m.tool_calls, 'an empty message')
      for (const c of typeof m.content === 'string' ? [{ type: 'text', text: m.content }] : m.content ?? []) {
        if (c.type === 'text') turn.text += c.text
        else if (c.type === 'image_url') turn.images.push(dataUrl(c.image_url.url))
        else must(false, `content of type ${c.type}`)
      }
      for (const c of m.tool_calls ?? []) turn.calls.push({ id: c.id, name: c.function.name, args: parsed(c.function.arguments) })
      if (m.reasoning_content) turn.thinking.push({ text: m.reasoning_content })
    }
    return view
  },
  usage: (u) => ({ prompt_tokens: u.in, completion_tokens: u.out, total_tokens: u.in + u.out, completion_tokens_details: { reasoning_tokens: u.reasoning } }),
  whole: (view, a, u) => ({ id: 'chatcmpl-1', object: 'chat.completion', created: 1719000000, model: view.model, choices: [{ index: 0, finish_reason: a.calls.length ? 'tool_calls' : 'stop', logprobs: null,
    message: { role: 'assistant', content: a.text ?? null, refusal: null, ...(a.thinking ? { reasoning_content: a.thinking } : {}),
      ...(a.calls.length ? { tool_calls: a.calls.map((c) => ({ id: c.id, type: 'function', function: { name: c.name, arguments: JSON.stringify(c.args) } })) } : {}) } }], usage: openai.usage(u) }),
  chunk: (view, delta, finish = null, more = {}) => ({ data: { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1719000000, model: view.model, choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }], ...more } }),
  *events(view, a, u) {
    const c = (delta, finish) => openai.chunk(view, delta, finish, view.usage ? { usage: null } : {})
    yield c({ role: 'assistant', content: a.thinking ? null : '' })
    for (const t of halves(a.thinking ?? '')) yield c({ reasoning_content: t })
    for (const t of halves(a.text ?? '')) yield c({ content: t })
    yield { pause: true }
    for (const [index, call] of a.calls.entries()) {
      yield c({ tool_calls: [{ index, id: call.id, type: 'function', function: { name: call.name, arguments: '' } }] })
      for (const t of halves(JSON.stringify(call.args))) yield c({ tool_calls: [{ index, function: { arguments: t } }] })
    }
    yield c({}, a.calls.length ? 'tool_calls' : 'stop')
    if (view.usage) yield { data: { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1719000000, model: view.model, choices: [], usage: openai.usage(u) } }
    yield { data: '[DONE]' }
  },
  more: (view) => openai.chunk(view, { content: 'more ' }),
  broken: { data: { error: { message: 'The server had an error', type: 'server_error', param: null, code: null } } },
  error: (code, message) => ({ error: { message, type: code === 429 ? 'rate_limit_exceeded' : code >= 500 ? 'server_error' : 'invalid_request_error', param: null, code: code === 400 ? 'context_length_exceeded' : null } }),
}

/* ---- OpenAI's Responses ---- */
const KNOWN_TOOLS = ['function', 'custom', 'namespace', 'tool_search', 'web_search', 'image_generation']
const responses = {
  base: '/v1',
  id: (n) => `call_${n}ABCDEFGHIJKLMNOPQRST`,
  read(req, b) {
    must(req.url === '/v1/responses', req.url)
    must(/^Bearer ./.test(req.headers.authorization ?? ''), 'no bearer')
    const view = { model: b.model, stream: !!b.stream, system: b.instructions, turns: [], tools: (b.tools ?? []).filter((t) => { must(KNOWN_TOOLS.includes(t.type), t.type); return t.type === 'function' }).map((t) => ({ name: t.name, schema: t.parameters })),
      schema: b.text?.format?.type === 'json_schema' ? b.text.format.schema : undefined, thinks: !!b.reasoning?.effort || !!b.reasoning?.summary, limit: b.max_output_tokens, encrypted: b.include?.includes('reasoning.encrypted_content') }
    if (b.text?.format?.type === 'json_schema') must(b.text.format.name, 'a schema without a name')
    const items = typeof b.input === 'string' ? [{ role: 'user', content: b.input }] : list(b.input)
    for (const m of items) {
      if (m.type === 'function_call') { into(view.turns, 'model').calls.push({ id: m.call_id, name: m.name, args: parsed(m.arguments) }); continue }
      if (m.type === 'function_call_output') {
        const t = into(view.turns, 'user')
        t.results.push({ id: m.call_id, text: typeof m.output === 'string' ? m.output : list(m.output).map((c) => c.text).join('') })
        continue
      }
      if (m.type === 'reasoning') {
        must(Array.isArray(m.summary), 'reasoning without a summary')
        must(m.encrypted_content, 'reasoning that was not stored')
        into(view.turns, 'model').thinking.push({ text: m.summary.map((s) => s.text).join(''), signature: m.encrypted_content })
        continue
      }
      must(m.type === undefined || m.type === 'message', `an item ${m.type}`)
      if (m.role === 'system' || m.role === 'developer') { view.system = typeof m.content === 'string' ? m.content : m.content.map((c) => c.text).join(''); continue }
      must(m.role === 'user' || m.role === 'assistant', `a role ${m.role}`)
      const turn = into(view.turns, m.role === 'user' ? 'user' : 'model')
      for (const c of typeof m.content === 'string' ? [{ type: m.role === 'user' ? 'input_text' : 'output_text', text: m.content }] : list(m.content)) {
        if (c.type === (m.role === 'user' ? 'input_text' : 'output_text')) turn.text += c.text
        else if (c.type === 'input_image') turn.images.push(dataUrl(c.image_url))
        else must(false, `content of type ${c.type} by ${m.role}`)
      }
    }
    return view
  },
  items(view, a) {
    const out = []
    if (a.thinking) out.push({ id: `rs_${a.signature.length}`, type: 'reasoning', summary: [{ type: 'summary_text', text: a.thinking }], ...(view.encrypted ? { encrypted_content: a.signature } : {}) })
    if (a.text) out.push({ id: 'msg_1', type: 'message', status: 'completed', role: 'assistant', content: [{ type: 'output_text', text: a.text, annotations: [], logprobs: [] }] })
    for (const c of a.calls) out.push({ id: `fc_${c.id}`, type: 'function_call', status: 'completed', call_id: c.id, name: c.name, arguments: JSON.stringify(c.args) })
    return out
  },
  whole: (view, a, u, more) => ({ id: 'resp_1', object: 'response', created_at: 1719000000, status: 'completed', error: null, incomplete_details: null, model: view.model, output: responses.items(view, a), parallel_tool_calls: true,
    tool_choice: 'auto', tools: [], store: false, usage: { input_tokens: u.in, input_tokens_details: { cached_tokens: 0 }, output_tokens: u.out, output_tokens_details: { reasoning_tokens: u.reasoning }, total_tokens: u.in + u.out }, ...more }),
  *events(view, a, u) {
    let n = 0
    const ev = (type, more) => ({ event: type, data: { type, sequence_number: n++, ...more } })
    const begun = { ...responses.whole(view, { calls: [] }, u), status: 'in_progress', usage: null }
    yield ev('response.created', { response: begun })
    yield ev('response.in_progress', { response: begun })
    for (const [output_index, item] of responses.items(view, a).entries()) {
      const at = { output_index, item_id: item.id }
      if (item.type === 'reasoning') {
        yield ev('response.output_item.added', { output_index, item: { ...item, summary: [] } })
        yield ev('response.reasoning_summary_part.added', { ...at, summary_index: 0, part: { type: 'summary_text', text: '' } })
        for (const delta of halves(a.thinking)) yield ev('response.reasoning_summary_text.delta', { ...at, summary_index: 0, delta })
        yield ev('response.reasoning_summary_text.done', { ...at, summary_index: 0, text: a.thinking })
        yield ev('response.reasoning_summary_part.done', { ...at, summary_index: 0, part: item.summary[0] })
      } else if (item.type === 'message') {
        yield ev('response.output_item.added', { output_index, item: { ...item, status: 'in_progress', content: [] } })
        yield ev('response.content_part.added', { ...at, content_index: 0, part: { ...item.content[0], text: '' } })
        for (const delta of halves(a.text)) yield ev('response.output_text.delta', { ...at, content_index: 0, delta, logprobs: [] })
        yield { pause: true }
        yield ev('response.output_text.done', { ...at, content_index: 0, text: a.text, logprobs: [] })
        yield ev('response.content_part.done', { ...at, content_index: 0, part: item.content[0] })
      } else {
        yield ev('response.output_item.added', { output_index, item: { ...item, status: 'in_progress', arguments: '' } })
        for (const delta of halves(item.arguments)) yield ev('response.function_call_arguments.delta', { ...at, delta })
        yield ev('response.function_call_arguments.done', { ...at, name: item.name, arguments: item.arguments })
      }
      yield ev('response.output_item.done', { output_index, item })
    }
    yield ev('response.completed', { response: responses.whole(view, a, u) })
  },
  more: () => ({ event: 'response.output_text.delta', data: { type: 'response.output_text.delta', sequence_number: 99, output_index: 0, item_id: 'msg_1', content_index: 0, delta: 'more ', logprobs: [] } }),
  broken: { event: 'error', data: { type: 'error', sequence_number: 50, code: 'server_error', message: 'The server had an error', param: null } },
  error: openai.error,
}

/* ---- Anthropic's Messages ---- */
const anthropic = {
  base: '/v1',
  id: (n) => `toolu_${String(n).padStart(3, '0')}abcdefghijklmnopqrstu`,
  read(req, b) {
    must(req.url.split('?')[0] === '/v1/messages', req.url)
    must(req.headers['x-api-key'], 'no x-api-key')
    must(/^\d{4}-\d\d-\d\d$/.test(req.headers['anthropic-version'] ?? ''), 'no anthropic-version')
    must(Number.isInteger(b.max_tokens) && b.max_tokens > 0, 'max_tokens: Field required')
    const system = typeof b.system === 'string' ? b.system : b.system?.map((c) => c.text).join('')
    const view = { model: b.model, stream: !!b.stream, system, turns: [], tools: (b.tools ?? []).map((t) => ({ name: t.name, schema: t.input_schema })), schema: b.output_config?.format?.schema,
      thinks: b.thinking?.type === 'enabled' || b.thinking?.type === 'adaptive', limit: b.max_tokens }
    if (b.output_config?.format) must(b.output_config.format.type === 'json_schema' && b.output_config.format.schema.additionalProperties === false, 'additionalProperties must be false')
    if (b.thinking?.type === 'enabled') {
      must(b.thinking.budget_tokens >= 1024 && b.thinking.budget_tokens < b.max_tokens, 'budget_tokens')
      must(b.temperature === undefined || b.temperature === 1, 'temperature with thinking')
    }
    for (const m of list(b.messages)) {
      if (m.role === 'system' && req.headers['anthropic-beta']) { view.system = `${view.system ?? ''}${JSON.stringify(m.content)}`; continue } // what a beta lets newer clients do
      must(m.role === 'user' || m.role === 'assistant', `a role ${m.role}`)
      must(view.turns.length > 0 || m.role === 'user', 'the first message is not the user\'s')
      const turn = into(view.turns, m.role === 'user' ? 'user' : 'model')
      const blocks = typeof m.content === 'string' ? [{ type: 'text', text: m.content }] : list(m.content)
      must(blocks.length > 0, 'an empty message')
      for (const c of blocks) {
        if (c.type === 'text') { must(c.text.trim(), 'text content blocks must be non-empty'); turn.text += c.text }
        else if (c.type === 'image') { must(c.source.type === 'base64', c.source.type); turn.images.push({ type: c.source.media_type, data: c.source.data }) }
        else if (c.type === 'tool_use') { must(/^[a-zA-Z0-9_-]+$/.test(c.id), `an id ${c.id}`); turn.calls.push({ id: c.id, name: c.name, args: c.input }) }
        else if (c.type === 'tool_result') { must(!turn.text, 'text before results'); turn.results.push({ id: c.tool_use_id, text: typeof c.content === 'string' ? c.content : list(c.content).map((x) => x.text).join('') }) }
        else if (c.type === 'thinking') { must(turn.text === '' && turn.calls.length === 0, 'thinking is not the first'); turn.thinking.push({ text: c.thinking, signature: c.signature }) }
        else must(false, `a block ${c.type}`)
      }
      if (turn.role === 'model' && b.thinking?.type === 'enabled' && turn.calls.length > 0) must(turn.thinking.length > 0, 'Expected thinking before tool_use')
    }
    return view
  },
  usage: (u, out) => ({ input_tokens: u.in, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: out }),
  blocks: (a) => [...(a.thinking ? [{ type: 'thinking', thinking: a.thinking, signature: a.signature }] : []), ...(a.text ? [{ type: 'text', text: a.text }] : []),
    ...a.calls.map((c) => ({ type: 'tool_use', id: c.id, name: c.name, input: c.args }))],
  whole: (view, a, u) => ({ id: 'msg_1', type: 'message', role: 'assistant', model: view.model, content: anthropic.blocks(a), stop_reason: a.calls.length ? 'tool_use' : 'end_turn', stop_sequence: null, usage: anthropic.usage(u, u.out) }),
  *events(view, a, u) {
    const ev = (type, more) => ({ event: type, data: { type, ...more } })
    yield ev('message_start', { message: { ...anthropic.whole(view, { calls: [] }, u), content: [], stop_reason: null, usage: anthropic.usage(u, 1) } })
    yield ev('ping')
    for (const [index, b] of anthropic.blocks(a).entries()) {
      const delta = (type, name, value) => ev('content_block_delta', { index, delta: { type, [name]: value } })
      yield ev('content_block_start', { index, content_block: { thinking: { type: 'thinking', thinking: '', signature: '' }, text: { type: 'text', text: '' }, tool_use: { ...b, input: {} } }[b.type] })
      if (b.type === 'thinking') { for (const t of halves(b.thinking)) yield delta('thinking_delta', 'thinking', t); yield delta('signature_delta', 'signature', b.signature) }
      if (b.type === 'text') { for (const t of halves(b.text)) yield delta('text_delta', 'text', t); yield { pause: true } }
      if (b.type === 'tool_use') for (const t of ['', ...halves(JSON.stringify(b.input))]) yield delta('input_json_delta', 'partial_json', t)
      yield ev('content_block_stop', { index })
    }
    yield ev('message_delta', { delta: { stop_reason: a.calls.length ? 'tool_use' : 'end_turn', stop_sequence: null }, usage: { output_tokens: u.out } })
    yield ev('message_stop')
  },
  more: () => ({ event: 'content_block_delta', data: { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'more ' } } }),
  broken: { event: 'error', data: { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } } },
  error: (code, message) => ({ type: 'error', error: { type: { 400: 'invalid_request_error', 401: 'authentication_error', 404: 'not_found_error', 429: 'rate_limit_error', 529: 'overloaded_error' }[code] ?? 'api_error', message: code === 400 ? `prompt is too long: ${message}` : message }, request_id: 'req_1' }),
}

/* ---- Gemini's generateContent ---- */
const gemini = {
  base: '/v1beta',
  id: () => undefined,
  read(req, b) {
    const m = /^\/v1beta\/models\/([^:?]+):(generateContent|streamGenerateContent\?alt=sse)$/.exec(req.url)
    must(m, req.url)
    must(req.headers['x-goog-api-key'], 'no x-goog-api-key')
    const g = b.generationConfig ?? {}
    const view = { model: m[1], stream: m[2] !== 'generateContent', system: b.systemInstruction?.parts.map((x) => x.text).join(''), turns: [],
      tools: (b.tools ?? []).flatMap((t) => list(t.functionDeclarations)).map((f) => ({ name: f.name, schema: f.parameters ?? f.parametersJsonSchema ?? { type: 'object', properties: {} } })), schema: g.responseSchema ?? g.responseJsonSchema, thinks: !!g.thinkingConfig, limit: g.maxOutputTokens }
    if (view.schema) must(g.responseMimeType === 'application/json', 'a schema without responseMimeType')
    for (const c of list(b.contents)) {
      must(c.role === 'user' || c.role === 'model' || c.role === 'function', `a role ${c.role}`)
      const turn = into(view.turns, c.role === 'model' ? 'model' : 'user')
      must(list(c.parts).length > 0, 'no parts')
      for (const x of c.parts) {
        if (x.thought) { turn.shown = (turn.shown ?? '') + x.text; continue }
        if (x.functionCall) turn.calls.push({ id: undefined, name: x.functionCall.name, args: x.functionCall.args })
        else if (x.functionResponse) {
          const r = x.functionResponse.response
          must(r && typeof r === 'object', 'a response that is no object')
          turn.results.push({ name: x.functionResponse.name, text: String(r.output ?? r.result ?? r.content ?? JSON.stringify(r)) })
        } else if (x.inlineData) turn.images.push({ type: x.inlineData.mimeType, data: x.inlineData.data })
        else { must(typeof x.text === 'string', `a part ${JSON.stringify(x)}`); turn.text += x.text }
        if (x.thoughtSignature) turn.thinking.push({ signature: x.thoughtSignature })
      }
    }
    return view
  },
  parts(a) {
    const out = []
    if (a.thinking) out.push({ text: a.thinking, thought: true })
    if (a.text) out.push({ text: a.text })
    for (const c of a.calls) out.push({ functionCall: { name: c.name, args: c.args } })
    if (a.signature) (out.find((x) => x.functionCall) ?? out.at(-1)).thoughtSignature = a.signature
    return out
  },
  usage: (u) => ({ promptTokenCount: u.in, candidatesTokenCount: u.out - u.reasoning, totalTokenCount: u.in + u.out, ...(u.reasoning ? { thoughtsTokenCount: u.reasoning } : {}) }),
  answer: (view, parts, finishReason, usageMetadata) => ({ candidates: [{ content: { parts, role: 'model' }, ...(finishReason ? { finishReason } : {}), index: 0 }], ...(usageMetadata ? { usageMetadata } : {}), modelVersion: view.model, responseId: 'r1' }),
  whole: (view, a, u) => gemini.answer(view, gemini.parts(a), 'STOP', gemini.usage(u)),
  *events(view, a, u) {
    const parts = gemini.parts(a)
    for (const [i, x] of parts.entries()) {
      const pieces = x.text ? halves(x.text).map((text, k) => (k === 0 ? { ...x, text } : { ...x, text, thoughtSignature: undefined })) : [x]
      for (const [k, piece] of pieces.entries()) {
        const last = i === parts.length - 1 && k === pieces.length - 1
        if (last) yield { pause: true }
        yield { data: gemini.answer(view, [piece], last ? 'STOP' : undefined, gemini.usage(last ? u : { ...u, out: u.reasoning + k })) }
      }
    }
  },
  more: (view) => ({ data: gemini.answer(view, [{ text: 'more ' }]) }),
  broken: { data: { error: { code: 503, message: 'The model is overloaded.', status: 'UNAVAILABLE' } } },
  error: (code, message) => ({ error: { code, message: code === 400 ? `The input token count exceeds the maximum number of tokens allowed: ${message}` : message, status: { 400: 'INVALID_ARGUMENT', 401: 'UNAUTHENTICATED', 404: 'NOT_FOUND', 429: 'RESOURCE_EXHAUSTED', 500: 'INTERNAL', 503: 'UNAVAILABLE' }[code] ?? 'UNKNOWN' } }),
}
const DIALECTS = { openai, 'openai-responses': responses, anthropic, gemini }

/* ---- Embeddings and pictures ---- */
export const VECTOR = [0.25, -0.5, 1]
const base64 = (v) => Buffer.from(new Float32Array(v).buffer).toString('base64')
const picture = (b) => { must(b.contents[0].parts[0].text && b.generationConfig.responseModalities.includes('IMAGE'), 'no wish for a picture')
  return gemini.answer({ model: 'paint' }, [{ inlineData: { mimeType: 'image/png', data: PNG } }], 'STOP', { promptTokenCount: 10, candidatesTokenCount: 1290, totalTokenCount: 1300 }) }
const TASKS = {
  openai: [
    [/^\/v1\/embeddings$/, (b) => { const list = Array.isArray(b.input) ? b.input : [b.input]; must(list.every((x) => typeof x === 'string'), 'no texts')
      return { object: 'list', model: b.model, data: list.map((_, index) => ({ object: 'embedding', index, embedding: b.encoding_format === 'base64' ? base64(VECTOR) : VECTOR })), usage: { prompt_tokens: 100, total_tokens: 100 } } }],
    [/^\/v1\/images\/generations$/, (b) => { must(b.prompt, 'no prompt'); return { created: 1719000000, data: Array.from({ length: b.n ?? 1 }, () => ({ b64_json: PNG })) } }],
  ],
  gemini: [
    [/^\/v1beta\/models\/embed:embedContent$/, (b) => { must(b.content.parts[0].text, 'no text'); return { embedding: { values: VECTOR }, usageMetadata: { promptTokenCount: 100 } } }],
    [/^\/v1beta\/models\/embed:batchEmbedContents$/, (b) => ({ embeddings: b.requests.map((r) => { must(r.model === 'models/embed' && r.content.parts[0].text, 'no text'); return { values: VECTOR } }), usageMetadata: { promptTokenCount: 100 } })],
    [/^\/v1beta\/models\/paint:generateContent$/, picture],
  ],
}
