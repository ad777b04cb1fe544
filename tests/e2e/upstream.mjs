/* A scripted provider: OpenAI's chat completions over plain TCP or TLS, written at the level of bytes so that it can
 * misbehave exactly. It records every request (head, raw headers, body bytes) and counts the tokens it delivered.
 *
 *   const up = await startUpstream(t)             up.port, up.requests, up.url; closed with the test (lib/clean.mjs: later)
 *   up.on('gpt-4o', chat({content: 'hi'}))        what a model's calls get; `up.otherwise` for the rest
 *   up.on('m', sequence(status(429), chat()))     one after the other, the last for ever
 *
 * A behaviour is an async function of one call: {req, n, socket, write, end, reset, hang, sleep, closed, up}. */
import net from 'node:net'
import tls from 'node:tls'
import { later } from './lib/clean.mjs'

export async function startUpstream(t, { cert, minVersion, maxVersion, listen = '127.0.0.1', port = 0, ciphers } = {}) {
  const up = {
    requests: [], connections: 0, open: new Set(), delivered: 0, routes: new Map(), handshakes: 0, resumed: 0,
    otherwise: chat(),
    on(model, behaviour) { up.routes.set(model, behaviour); return up },
    of(model) { return up.requests.filter((r) => r.model === model) },
    async close() {
      for (const s of up.open) s.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  const accept = (socket) => {
    up.connections++
    up.open.add(socket)
    socket.on('close', () => up.open.delete(socket))
    socket.on('error', () => {})
    socket.setNoDelay(true)
    serve(up, socket).catch((e) => { if (!socket.destroyed) { up.failure ??= e; socket.destroy() } })
  }
  const server = cert
    ? tls.createServer({ key: cert.key, cert: cert.cert, minVersion, maxVersion, ciphers, ALPNProtocols: ['http/1.1'] }, accept)
    : net.createServer(accept)
  if (cert) {
    server.on('tlsClientError', () => { up.refused = (up.refused ?? 0) + 1 })
    server.on('secureConnection', (s) => { up.handshakes++; if (s.isSessionReused()) up.resumed++ })
  }
  await new Promise((resolve, reject) => { server.on('error', reject); server.listen(port, listen, resolve) })
  up.port = server.address().port
  up.server = server
  later(t, up.close)
  up.url = cert ? `https://localhost:${up.port}/v1` : `http://127.0.0.1:${up.port}/v1`
  return up
}

/* What a behaviour waits for until the test opens it: const { gate, open } = newGate(); sse({ gate, gateAt: 3 }) */
export function newGate() {
  let open
  const gate = new Promise((resolve) => { open = resolve })
  return { gate, open }
}

/* Reads requests off one connection and runs the behaviour of each, one after the other. */
async function serve(up, socket) {
  let buffer = Buffer.alloc(0), wake = () => {}, ended = false
  const closed = new Promise((resolve) => socket.on('close', resolve))
  socket.on('data', (c) => { buffer = Buffer.concat([buffer, c]); wake() })
  socket.on('end', () => { ended = true; wake() })
  socket.on('close', () => { ended = true; wake() })
  const more = () => new Promise((resolve) => { wake = resolve })
  for (let n = 0; !socket.destroyed; n++) {
    let cut
    while ((cut = buffer.indexOf('\r\n\r\n')) < 0) { if (ended) return; await more() }
    const req = parseHead(buffer.subarray(0, cut).toString('latin1'))
    buffer = buffer.subarray(cut + 4)
    if ((req.headers['transfer-encoding'] ?? '').toLowerCase() === 'chunked') {
      const parts = []
      for (;;) {
        let eol
        while ((eol = buffer.indexOf('\r\n')) < 0) { if (ended) return; await more() }
        const size = parseInt(buffer.subarray(0, eol).toString('latin1'), 16)
        while (buffer.length < eol + 2 + size + 2) { if (ended) return; await more() }
        parts.push(buffer.subarray(eol + 2, eol + 2 + size))
        buffer = buffer.subarray(eol + 2 + size + 2)
        if (size === 0) break
      }
      req.body = Buffer.concat(parts)
    } else {
      const length = Number(req.headers['content-length'] ?? 0)
      while (buffer.length < length) { if (ended) return; await more() }
      req.body = Buffer.from(buffer.subarray(0, length))
      buffer = buffer.subarray(length)
    }
    req.at = performance.now()
    try { req.json = JSON.parse(req.body.toString()) } catch { req.json = undefined }
    req.model = req.json?.model
    up.requests.push(req)
    const behaviour = up.routes.get(req.model) ?? up.otherwise
    const call = {
      up, req, n, socket, closed,
      get gone() { return socket.destroyed || ended },
      write: (data) => new Promise((resolve) => { if (socket.destroyed) resolve(false); else socket.write(data, () => resolve(!socket.destroyed)) }),
      end: () => { socket.end() },
      reset: () => { socket.resetAndDestroy ? socket.resetAndDestroy() : socket.destroy() },
      hang: () => closed,
      sleep: (ms) => Promise.race([closed, new Promise((resolve) => setTimeout(resolve, ms))]),
    }
    req.call = call
    await behaviour(call)
    req.done = true
  }
}
function parseHead(text) {
  const lines = text.split('\r\n')
  const [method, path, version] = lines[0].split(' ')
  const raw = lines.slice(1).map((l) => [l.slice(0, l.indexOf(':')), l.slice(l.indexOf(':') + 1).trim()])
  const headers = {}
  for (const [k, v] of raw) headers[k.toLowerCase()] = v
  return { method, path, version, raw, headers, head: text }
}

/* ---- Answers ---- */
export const USAGE = { prompt_tokens: 24, completion_tokens: 156, total_tokens: 180 }
const head = (status, headers = {}) => `HTTP/1.1 ${status} ${REASONS[status] ?? 'Status'}\r\n` +
  Object.entries(headers).map(([k, v]) => `${k}: ${v}\r\n`).join('') + '\r\n'
const REASONS = { 200: 'OK', 400: 'Bad Request', 401: 'Unauthorized', 429: 'Too Many Requests', 500: 'Internal Server Error' }

export function completion({ content = 'Hello from upstream', usage = USAGE, id = 'chatcmpl-abc123', finish = 'stop', model, message, choices,
  extra = {} } = {}) {
  return {
    id, object: 'chat.completion', created: 1719000000, model,
    choices: choices ?? [{ index: 0, message: message ?? { role: 'assistant', content, refusal: null }, logprobs: null, finish_reason: finish }],
    ...(usage ? { usage } : {}), ...extra,
  }
}
/* A whole answer, sized. o: what completion() takes, and status, headers, body (text instead), wait (ms before it). */
export function json(o = {}) {
  return async (c) => {
    if (o.wait) await c.sleep(o.wait)
    const body = Buffer.from(o.body ?? JSON.stringify(completion({ model: c.req.model, ...o })))
    c.up.delivered += o.usage?.completion_tokens ?? USAGE.completion_tokens
    await c.write(Buffer.concat([Buffer.from(head(o.status ?? 200, { 'Content-Type': 'application/json', 'Content-Length': body.length, ...o.headers })), body]))
  }
}
export function status(code, { error, headers, body } = {}) {
  const text = body ?? JSON.stringify({ error: { message: `upstream says ${code}`, type: 'server_error', param: null, code: null, ...error } })
  return json({ status: code, headers, body: text })
}
/* The chunks of a stream as objects. usage: 'asked' (as OpenAI: only with include_usage), 'always' (the extra last
 * chunk whatever was asked), 'choice' (on the chunk with finish_reason), 'after' (on a further chunk with a choice), 'never' */
export function chunks({ tokens = 5, words, id = 'chatcmpl-abc123', model, usage = 'asked', figures, asked, finish = 'stop', n = 1, deltas, extra } = {}) {
  const base = { id, object: 'chat.completion.chunk', created: 1719000000, model, ...extra }
  const texts = words ?? Array.from({ length: tokens }, (_, i) => `word${i} `)
  const fig = figures ?? { prompt_tokens: 24, completion_tokens: texts.length * n, total_tokens: 24 + texts.length * n }
  const nulls = usage === 'asked' && asked ? { usage: null } : {}
  const out = []
  for (let i = 0; i < n; i++) {
    out.push({ ...base, choices: [{ index: i, delta: { role: 'assistant', content: '' }, finish_reason: null }], ...nulls })
  }
  for (const d of deltas ?? texts.map((content) => ({ content }))) {
    for (let i = 0; i < n; i++) out.push({ ...base, choices: [{ index: i, delta: d, finish_reason: null }], ...nulls })
  }
  for (let i = 0; i < n; i++) {
    const last = i === n - 1
    out.push({ ...base, choices: [{ index: i, delta: {}, finish_reason: finish }], ...(usage === 'choice' && last ? { usage: fig } : nulls) })
  }
  if (usage === 'after') out.push({ ...base, choices: [{ index: 0, delta: { content: '' }, finish_reason: null }], usage: fig })
  if (usage === 'always' || (usage === 'asked' && asked)) out.push({ ...base, choices: [], usage: fig })
  return out
}
/* A stream. o: what chunks() takes, and every (ms between events), wait (before the head), pause (after the head),
 * done (false: no [DONE]), cut (events after which the connection closes), reset (the same, by RST), hangAt (events
 * after which nothing comes), split (bytes a write), eol, chunked (false: close-delimited), trailers, headers,
 * comments, gate (a promise awaited before the event `gateAt`) */
export function sse(o = {}) {
  return async (c) => {
    const asked = !!c.req.json?.stream_options?.include_usage
    const list = o.raw ?? chunks({ model: c.req.model, asked, ...o }).map((x) => JSON.stringify(x))
    const eol = o.eol ?? '\n'
    const chunked = o.chunked !== false
    if (o.wait) await c.sleep(o.wait)
    const headers = { 'Content-Type': 'text/event-stream; charset=utf-8', ...(chunked ? { 'Transfer-Encoding': 'chunked' } : { Connection: 'close' }), ...o.headers }
    if (o.trailers) headers.Trailer = Object.keys(o.trailers).join(', ')
    const frame = (text) => (chunked ? Buffer.concat([Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n`), Buffer.from(text), Buffer.from('\r\n')]) : Buffer.from(text))
    const send = async (bytes) => {
      if (!o.split) return c.write(bytes)
      for (let i = 0; i < bytes.length && !c.gone; i += o.split) await c.write(bytes.subarray(i, i + o.split))
    }
    await send(Buffer.from(head(200, headers)))
    if (o.pause) await c.sleep(o.pause)
    if (o.comments) await send(frame(`: PROCESSING${eol}${eol}`))
    for (let i = 0; i < list.length; i++) {
      if (c.gone) return
      if (o.gate && i === (o.gateAt ?? 0)) await o.gate
      if (o.cut === i) { c.end(); return c.closed }
      if (o.reset === i) { await c.sleep(30); c.reset(); return c.closed }
      if (o.hangAt === i) return c.hang()
      await send(frame(`data: ${list[i]}${eol}${eol}`))
      if (list[i].includes('"content":"') && !list[i].includes('"content":""')) { c.up.delivered++; c.req.delivered = (c.req.delivered ?? 0) + 1 }
      if (o.comments) await send(frame(`: keep-alive${eol}${eol}`))
      if (o.every) await c.sleep(o.every)
    }
    if (o.done !== false) await send(frame(`data: [DONE]${eol}${eol}`))
    if (!chunked) { c.end(); return c.closed }
    const trailers = Object.entries(o.trailers ?? {}).map(([k, v]) => `${k}: ${v}\r\n`).join('')
    await send(Buffer.from(`0\r\n${trailers}\r\n`))
  }
}
/* What the request asks for: a stream or a whole answer, with the same figures where `usage` is an object. */
export function chat(o = {}) {
  const whole = json(o), streamed = sse(typeof o.usage === 'object' ? { ...o, usage: 'asked', figures: o.usage } : o)
  return (c) => (c.req.json?.stream ? streamed(c) : whole(c))
}
/* What a behaviour writes, in a single write. */
export function atOnce(behaviour) {
  return async (c) => {
    const parts = []
    await behaviour({ ...c, write: async (data) => parts.push(Buffer.from(data)) })
    return c.write(Buffer.concat(parts))
  }
}
/* One behaviour after the other; the last stays. */
export function sequence(...list) {
  let i = 0
  return (c) => list[Math.min(i++, list.length - 1)](c)
}
/* These bytes, then: keep the connection ('keep'), close it ('close'), reset it ('reset') or say nothing more ('hang'). */
export function bytes(data, then = 'close') {
  return async (c) => {
    await c.write(data)
    if (then === 'close') { c.end(); return c.closed }
    if (then === 'reset') { await c.sleep(30); c.reset(); return c.closed }
    if (then === 'hang') return c.hang()
  }
}
export const resets = () => async (c) => { c.reset(); return c.closed }
export const hangs = () => (c) => c.hang()
export const closes = () => async (c) => { c.end(); return c.closed }
/* Header lines without end, as long as the other side reads. */
export function endlessHead() {
  return async (c) => {
    await c.write('HTTP/1.1 200 OK\r\n')
    for (let i = 0; !c.gone && i < 100000; i++) await c.write(`X-Header-${i}: ${'v'.repeat(200)}\r\n`)
    return c.closed
  }
}
