/* HTTP clients for tests: one that behaves (node:http) and one that sends the bytes it is told (node:net). */
import http from 'node:http'
import net from 'node:net'

/* One request over a connection of its own (or `agent`'s). Resolves when the answer is whole; rejects when it is cut.
 * o: method, path, headers, body (string, Buffer or object), key, agent, port or socketPath */
export function request(o) {
  return new Promise((resolve, reject) => {
    const body = o.body === undefined ? undefined
      : Buffer.isBuffer(o.body) || typeof o.body === 'string' ? Buffer.from(o.body) : Buffer.from(JSON.stringify(o.body))
    const headers = { ...(o.headers ?? {}) }
    if (o.key) headers.Authorization = `Bearer ${o.key}`
    if (body && !('Content-Length' in headers) && !('Transfer-Encoding' in headers)) headers['Content-Length'] = body.length
    const req = http.request({
      host: o.host ?? '127.0.0.1', port: o.port, socketPath: o.socketPath, path: o.path ?? '/',
      method: o.method ?? (body ? 'POST' : 'GET'), headers, agent: o.agent ?? false,
    })
    req.on('error', reject)
    req.on('response', (res) => {
      const chunks = []
      res.on('data', (c) => chunks.push(c))
      res.on('error', reject)
      res.on('aborted', () => reject(new Error(`the answer was cut after ${Buffer.concat(chunks).length} bytes`)))
      res.on('end', () => resolve(answer(res.statusCode, res.headers, res.rawHeaders, Buffer.concat(chunks))))
    })
    if (body) req.write(body)
    req.end()
  })
}
function answer(status, headers, rawHeaders, body) {
  const text = body.toString()
  return {
    status, headers, rawHeaders, body, text,
    get json() { return JSON.parse(text) },
    get events() { return events(text) },
  }
}
/* The data of each SSE event, in order, parsed where it is JSON. Comments are skipped. */
export function events(text) {
  return text.split(/\r?\n\r?\n/).map(eventData).filter((d) => d !== undefined)
}
function eventData(block) {
  const lines = block.split(/\r?\n/).filter((l) => l.startsWith('data:')).map((l) => l.slice(5).replace(/^ /, ''))
  if (lines.length === 0) return undefined
  const data = lines.join('\n')
  if (data === '[DONE]') return data
  try { return JSON.parse(data) } catch { return data }
}

/* A streamed answer: `head` resolves to {status, headers}; iterate for events; abort() drops the connection. */
export function stream(o) {
  const body = Buffer.from(typeof o.body === 'string' ? o.body : JSON.stringify(o.body))
  const headers = { 'Content-Length': body.length, ...(o.headers ?? {}) }
  if (o.key) headers.Authorization = `Bearer ${o.key}`
  const req = http.request({ host: '127.0.0.1', port: o.port, path: o.path, method: 'POST', headers, agent: o.agent ?? false })
  const queue = []
  let wake = () => {}, text = '', ended = false, failure = null, taken = ''
  const push = () => { wake(); wake = () => {} }
  const fail = (e) => { failure ??= e; ended = true; push() }
  const head = new Promise((resolve, reject) => {
    req.on('response', (res) => {
      resolve({ status: res.statusCode, headers: res.headers })
      res.setEncoding('utf8')
      res.on('data', (c) => {
        text += c; taken += c
        let cut
        while ((cut = taken.search(/\r?\n\r?\n/)) >= 0) {
          const block = taken.slice(0, cut)
          taken = taken.slice(cut).replace(/^\r?\n\r?\n/, '')
          const data = eventData(block)
          if (data !== undefined) queue.push(data)
        }
        push()
      })
      res.on('aborted', () => fail(new Error('the stream was cut')))
      res.on('error', fail)
      res.on('end', () => { ended = true; push() })
    })
    req.on('error', (e) => { reject(e); fail(e) })
  })
  head.catch(() => {})
  req.end(body)
  return {
    head, req,
    get text() { return text },
    abort() { req.destroy() },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        while (queue.length) yield queue.shift()
        if (ended) break
        await new Promise((resolve) => { wake = resolve })
      }
      if (failure) throw failure
    },
    async all() { const out = []; for await (const e of this) out.push(e); return out },
    async next() { for await (const e of this) return e; return undefined },
  }
}

/* Sends exactly these bytes (strings or Buffers; a number is a pause in ms) and reads until the peer closes, until
 * `answers` whole answers are there, or until `ms` have passed (by default so many that it is for a peer that should have
 * closed, and did not). Resolves to {bytes, text, closed, answers, reset}. */
export function raw(o, ...parts) {
  return new Promise((resolve) => {
    const socket = o.socketPath ? net.connect(o.socketPath) : net.connect(o.port, o.host ?? '127.0.0.1')
    const chunks = []
    let reset = false, done = false
    const finish = (closed) => {
      if (done) return
      done = true
      clearTimeout(timer)
      socket.destroy()
      const bytes = Buffer.concat(chunks)
      resolve({ bytes, text: bytes.toString('latin1'), closed, reset, answers: parseAnswers(bytes, o.heads ?? []).list })
    }
    const timer = setTimeout(() => finish(false), o.ms ?? 40_000)
    socket.setNoDelay(true)
    socket.on('error', () => { reset = true })
    socket.on('close', () => finish(true))
    socket.on('data', (c) => {
      chunks.push(c)
      if (o.answers && parseAnswers(Buffer.concat(chunks), o.heads ?? []).list.length >= o.answers) finish(false)
    })
    socket.on('connect', async () => {
      for (const part of parts) {
        if (done) return
        if (typeof part === 'number') await new Promise((r) => setTimeout(r, part))
        else if (!socket.destroyed) socket.write(Buffer.isBuffer(part) ? part : Buffer.from(part, 'latin1'))
      }
      if (o.end && !socket.destroyed) socket.end()
    })
  })
}
/* The whole answers in a run of bytes. heads: indexes of answers to HEAD requests, which have no body. */
export function parseAnswers(bytes, heads = []) {
  const list = []
  let at = 0
  for (;;) {
    const cut = bytes.indexOf('\r\n\r\n', at)
    if (cut < 0) break
    const lines = bytes.subarray(at, cut).toString('latin1').split('\r\n')
    const status = Number(lines[0].split(' ')[1])
    const headers = {}
    let chunks
    for (const l of lines.slice(1)) headers[l.slice(0, l.indexOf(':')).toLowerCase()] = l.slice(l.indexOf(':') + 1).trim()
    let from = cut + 4, body = Buffer.alloc(0)
    if (status < 200 || status === 204 || status === 304 || heads.includes(list.filter((a) => a.status >= 200).length)) {
      // no body
    } else if (headers['transfer-encoding'] === 'chunked') {
      const parts = []
      for (;;) {
        const eol = bytes.indexOf('\r\n', from)
        if (eol < 0) return { list, rest: bytes.subarray(at) }
        const size = parseInt(bytes.subarray(from, eol).toString('latin1'), 16)
        if (Number.isNaN(size) || eol + 2 + size + 2 > bytes.length) return { list, rest: bytes.subarray(at) }
        parts.push(bytes.subarray(eol + 2, eol + 2 + size))
        from = eol + 2 + size + 2
        if (size === 0) break
      }
      body = Buffer.concat(parts)
      chunks = parts.length - 1
    } else if (headers['content-length'] !== undefined) {
      const n = Number(headers['content-length'])
      if (from + n > bytes.length) break
      body = bytes.subarray(from, from + n); from += n
    } else {
      body = bytes.subarray(from); from = bytes.length
    }
    list.push({ status, headers, line: lines[0], body, chunks, text: body.toString(), get json() { return JSON.parse(body.toString()) } })
    at = from
  }
  return { list, rest: bytes.subarray(at) }
}
