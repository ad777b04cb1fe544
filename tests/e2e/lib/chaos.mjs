/* Load that knows what it did: a closed loop of clients, a provider, and what each of them saw of every call, so that the
 * ledger can be compared with facts it had no part in.
 *
 * A call is known by its id: the client sends it as X-Request-Id and in the prompt, where the provider finds it. Both ends
 * are written on bare sockets, because a few hundred clients of node:http keep a core busy by themselves.
 *
 *   const p = await startProvider(t)                           p.url, p.facts: id → what the provider sent
 *   const l = startLoop({ port, keys, clients, rnd, mix })     l.facts: id → what the client saw; await l.stop() */
import assert from 'node:assert/strict'
import net from 'node:net'
import { later } from './clean.mjs'
import { until } from './gateway.mjs'
import { digitsOf, nano } from './money.mjs'

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
function hash(text) {
  let h = 2166136261
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619)
  return h >>> 0
}
/* Bytes of answer text, in OpenAI's shape and in Anthropic's; and whether a stream came to its end. */
const contentBytes = (text) => { let n = 0; for (const m of text.matchAll(/"(?:content|text)":"([^"]*)"/g)) n += m[1].length; return n }
const ended = (text) => text.includes('data: [DONE]') || text.includes('event: message_stop')

/* ---- the provider ---- */

/* Tokens of one to seven bytes, four in the middle: what an estimate by bytes takes them for. */
const token = (seed, i) => 'abcdefg'.slice(0, 1 + ((seed + Math.imul(i, 2654435761)) >>> 8) % 7)

/* Models: whole, stream (a token every 3 ms), long (every 8 ms), slow (100 tokens, every p.slow ms), fails (500), over (says that it used far more than it was
 * allowed), obeys (as many tokens as it was allowed), gate (answers when p.open() is called). A name may go on behind a '-'.
 * p.connections counts accepted connections; p.active, p.most: calls of a model under way, now and at most. */
export async function startProvider(t) {
  const p = { facts: new Map(), connections: 0, sockets: new Set(), waiting: new Set(), active: new Map(), most: new Map(), arrived: 0, slow: 60 }
  p.open = () => { for (const go of p.waiting) go(); p.waiting.clear() }
  const server = net.createServer((socket) => {
    p.connections++
    p.sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('close', () => p.sockets.delete(socket))
    let text = ''
    socket.setEncoding('latin1')
    socket.on('data', (c) => {
      text += c
      const cut = text.indexOf('\r\n\r\n')
      if (cut < 0) return
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text.slice(0, cut + 2))?.[1])
      if (text.length < cut + 4 + length) return
      const body = text.slice(cut + 4, cut + 4 + length)
      text = text.slice(cut + 4 + length)
      serve(p, socket, body)
    })
  })
  await new Promise((resolve, reject) => { server.on('error', reject); server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve) })
  p.url = `http://127.0.0.1:${server.address().port}/v1`
  later(t, () => { for (const s of p.sockets) s.destroy(); return new Promise((resolve) => server.close(resolve)) })
  return p
}
const COUNT = { whole: 40, stream: 12, long: 60, slow: 100, gate: 3 }
function serve(p, socket, body) {
  const model = /"model": *"([^"]*)"/.exec(body)[1], prompt = /"content": *"([^"]*)"/.exec(body)[1], id = prompt.split(' ')[0], kind = model.split('/').at(-1).split('-')[0]
  const seed = hash(id), n = kind === 'obeys' ? Number(/"max_(?:completion_)?tokens": *(\d+)/.exec(body)[1]) : COUNT[kind] ?? 8
  const f = { prompt: 1 + Math.round((prompt.length / 4) * (0.8 + (seed % 41) / 100)), tokens: 0, bytes: 0, ended: false, attempts: (p.facts.get(id)?.attempts ?? 0) + 1 }
  p.facts.set(id, f)
  p.arrived++
  enter(p, model)
  const leave = once(() => p.active.set(model, p.active.get(model) - 1))
  socket.once('close', leave)
  const done = () => { f.ended = true; socket.off('close', leave); leave() }
  if (kind === 'fails') { socket.write('HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}'); return done() }
  if (kind === 'gate') return p.waiting.add(() => { whole(socket, f, model, seed, n); done() })
  if (kind === 'over') { f.tokens = 100000 - n; whole(socket, f, model, seed, n); return done() }
  if (!/"stream": *true/.test(body)) { whole(socket, f, model, seed, n); return done() }
  stream(socket, f, model, seed, n, kind === 'slow' ? p.slow : kind === 'long' ? 8 : 3, done)
}
function enter(p, model) {
  const n = (p.active.get(model) ?? 0) + 1
  p.active.set(model, n)
  if (n > (p.most.get(model) ?? 0)) p.most.set(model, n)
}
function once(f) { let did = false; return () => { if (!did) { did = true; f() } } }
function send(f, seed, from, to) {
  let content = ''
  for (let i = from; i < to; i++) content += token(seed, i)
  f.tokens += to - from
  f.bytes += content.length
  return content
}
const usageOf = (f) => ({ prompt_tokens: f.prompt, completion_tokens: f.tokens, total_tokens: f.prompt + f.tokens })
function whole(socket, f, model, seed, n) {
  const content = send(f, seed, 0, n)
  const text = JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion', created: 1, model, choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }], usage: usageOf(f) })
  socket.write(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
}
const chunk = (text) => `${text.length.toString(16)}\r\n${text}\r\n`
function stream(socket, f, model, seed, n, every, done) {
  const event = (o) => chunk(`data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model, ...o })}\n\n`)
  const part = (delta, finish = null) => event({ choices: [{ index: 0, delta, finish_reason: finish }] })
  socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n${part({ role: 'assistant', content: '' })}`)
  let i = 0
  const timer = setInterval(() => {
    if (socket.destroyed) return stop()
    if (i < n) { socket.write(part({ content: send(f, seed, i, ++i) })); return }
    socket.write(`${part({}, 'stop')}${event({ choices: [], usage: usageOf(f) })}${chunk('data: [DONE]\n\n')}0\r\n\r\n`)
    stop()
    done()
  }, every)
  const stop = () => clearInterval(timer)
}

/* ---- the clients ---- */

/* One connection, one request at a time. call() resolves to {end, status, text}: end is 'whole', 'cut' (the connection
 * ended under it) or 'left' (we closed it after `leaveAfter` bytes). */
export class Client {
  constructor(port) { this.port = port; this.socket = null }
  connect() {
    return new Promise((resolve) => {
      const s = net.connect(this.port, '127.0.0.1')
      s.setNoDelay(true)
      s.setEncoding('latin1')
      s.once('connect', () => resolve(true))
      s.on('error', () => resolve(false))
      s.on('close', () => { if (this.socket === s) this.socket = null; this.closed?.() })
      s.on('data', (c) => this.took?.(c))
      this.socket = s
    })
  }
  async call({ key, id, model, body = {}, stream = false, leaveAfter = Infinity, path = '/v1/chat/completions' }) {
    if (!this.socket && !(await this.connect())) return { end: 'cut', status: 0, text: '' }
    const json = JSON.stringify({ model, max_tokens: 200, messages: [{ role: 'user', content: `${id} ${'please '.repeat(hash(id) % 30)}` }], ...(stream ? { stream: true } : {}), ...body })
    return new Promise((resolve) => {
      const r = { end: 'cut', status: 0, text: '', came: 0 }
      const finish = (end) => { r.end = end; this.took = this.closed = null; resolve(r) }
      this.closed = () => finish('cut')
      this.took = (c) => {
        r.text += c
        r.came ||= performance.now()
        if (!r.status && r.text.indexOf('\r\n\r\n') > 0) r.status = Number(r.text.slice(9, 12))
        if (r.text.length > leaveAfter) { this.close(); return finish('left') }
        if (complete(r.text)) { if (/\r\nconnection: close/i.test(r.text)) this.close(); finish('whole') }
      }
      this.socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nX-Request-Id: ${id}\r\nContent-Length: ${json.length}\r\n\r\n${json}`)
    })
  }
  close() { const s = this.socket; this.socket = null; if (s) { s.removeAllListeners('close'); s.destroy() } }
}
function complete(text) {
  const cut = text.indexOf('\r\n\r\n')
  if (cut < 0) return false
  const length = /\r\ncontent-length: *(\d+)/i.exec(text.slice(0, cut + 2))?.[1]
  if (length !== undefined) return text.length >= cut + 4 + Number(length)
  return text.endsWith('\r\n0\r\n\r\n')
}

/* keys: a list of {key, account}, which may grow; client i calls with keys[i % keys.length]. rest: ms after a refusal, about.
 * Every `fresh`-th client takes a new connection for each call.
 * Facts: {account, end, status, bytes, cost, sent, came, got}: `bytes` of answer text that came; end: 'whole', 'other' (an error),
 * 'cut' or 'left'; when it was sent, its first byte came and its last. `failed` says in words what was none of whole and left. */
export function startLoop({ port, keys, clients, rnd, mix = MIX, prefix = 'c-', rest = 10, fresh = 0 }) {
  const l = { prefix, facts: new Map(), statuses: {}, failed: [], calls: 0, firstAfter: null, mark: 0 }
  let running = true
  l.note = (id, account, r, stream = false) => {
    const whole = r.end === 'whole' && r.status === 200 && (!stream || ended(r.text))
    const end = whole ? 'whole' : r.end === 'whole' ? 'other' : r.end
    l.facts.set(id, { account, end, status: r.status, bytes: r.status === 200 ? contentBytes(r.text) : 0, cost: whole ? nano(digitsOf(r.text, 'cost_usd')) : null })
    return whole
  }
  const one = async (i) => {
    const c = new Client(port)
    while (running) {
      const { model, stream, leave, path } = mix(rnd, i)
      const id = `${prefix}${i}-${l.calls++}`
      const sent = performance.now()
      const k = keys[i % keys.length]
      const r = await c.call({ key: k.key, id, model, stream, path, leaveAfter: leave ? 300 + rnd() * 4000 : Infinity })
      if (fresh && i % fresh === 0) c.close()
      const whole = l.note(id, k.account, r, stream)
      Object.assign(l.facts.get(id), { sent, came: r.came, got: performance.now() })
      if (!whole && r.end !== 'left') l.failed.push(`${id} ${model}: ${r.end} ${r.status} ${r.text.slice(-300)}`)
      if (whole && l.firstAfter === null && sent > l.mark) l.firstAfter = performance.now()
      if (r.end === 'whole') l.statuses[r.status] = (l.statuses[r.status] ?? 0) + 1
      if (!whole) await pause(r.status ? rest * (0.5 + rnd()) : 3)
    }
    c.close()
  }
  const all = Array.from({ length: clients }, (_, i) => one(i))
  l.now = () => { l.mark = performance.now(); l.firstAfter = null } // service is measured from here
  l.end = () => { running = false }
  l.stop = () => { running = false; return Promise.all(all) }
  return l
}
/* Half whole, half streamed; one in five is translated from Anthropic's shape. */
export function MIX(rnd) {
  const r = rnd(), path = rnd() < 0.2 ? '/v1/messages' : undefined
  if (r < 0.5) return { model: 'whole', stream: false, path }
  if (r < 0.95) return { model: r < 0.8 ? 'stream' : 'long', stream: true, leave: rnd() < 0.25, path }
  return { model: 'fails', stream: false }
}

/* ---- the comparison ---- */

/* One usage record beside what provider and client saw. Adds to `sum`. Throws an assertion that names the call.
 * Ended by the provider's own figures: tokens are exact. Estimated: the output lies between what the client has and what
 * the provider sent, in quarters of bytes. */
function compare(u, seen, sent, sum) {
  const say = () => `${u.request_id}: record ${JSON.stringify(u)}, client ${JSON.stringify(seen, (_, v) => (typeof v === 'bigint' ? String(v) : v))}, provider ${JSON.stringify(sent)}`
  assert.ok(seen, `a record of a call that nobody made: ${JSON.stringify(u)}`)
  const charged = nano(u.cost)
  if (seen.end === 'whole') {
    assert.equal(u.estimated, false, say())
    assert.equal(charged + nano(u.uncollected), seen.cost, say())
  }
  if (seen.bytes > 0) assert.ok(charged > 0n, say())
  if (u.estimated) {
    const least = Math.max(1, Math.ceil(seen.bytes / 4)), most = Math.max(1, Math.ceil(sent.bytes / 4))
    assert.ok(u.output_tokens >= least && u.output_tokens <= most, `${least} to ${most} tokens: ${say()}`)
    sum.estimated++
    sum.estimatedTokens += u.output_tokens
    sum.deliveredTokens += sent.tokens
    sum.estimatedInput += u.input_tokens
    sum.deliveredInput += sent.prompt
    sum.errors.push(Math.abs(u.output_tokens - sent.tokens))
  } else if (charged > 0n) {
    assert.equal(u.input_tokens, sent.prompt, say())
    assert.equal(u.output_tokens, sent.tokens, say())
    sum.exact++
    sum.exactTokens += u.input_tokens + u.output_tokens
  } else {
    assert.ok(!sent?.ended || seen.end !== 'whole', say())
    sum.free++
  }
  return charged
}
const newSum = () => ({ exact: 0, exactTokens: 0, estimated: 0, estimatedTokens: 0, deliveredTokens: 0, estimatedInput: 0, deliveredInput: 0, free: 0, errors: [] })

/* The books of a gateway as they must be. credit(account, nano) says what came in; check(loop) compares, once nothing runs:
 * nothing is held, the audit (which compares every word in shared memory, those of concurrency too, with the slots) is clean,
 * each call of this loop has the one record that it should, and each balance is credit less charges.
 * A record of an earlier loop is not looked at again: the number of all records says that each is there once. */
export class Books {
  constructor(g, p) { Object.assign(this, { g, p, sum: newSum(), credits: new Map(), spent: new Map(), records: 0 }) }
  credit(account, amount) { this.credits.set(account, (this.credits.get(account) ?? 0n) + amount) }
  /* The accounts once nothing is held. */
  idle(ms = 10000) {
    return until(async () => {
      const list = (await this.g.ctl('account', 'list')).accounts
      const rows = [...this.credits.keys()].map((id) => list.find((a) => a.id === id))
      return rows.every((a) => a.held === '0') && rows
    }, 'nothing held', ms)
  }
  async check(loop, since = '2000-01-01') {
    const rows = await this.idle()
    const audit = await until(() => this.g.audit(), 'a clean audit')
    for (const w of (await this.g.ctl('status')).workers) assert.equal(w.in_flight, 0)
    const found = new Set()
    for (const u of (await this.g.ctl('usage', '--since', since, '--limit', 100000)).usage) {
      if (!u.request_id.startsWith(loop.prefix)) continue
      assert.ok(!found.has(u.request_id), `two records of ${u.request_id}`)
      found.add(u.request_id)
      const seen = loop.facts.get(u.request_id), charged = compare(u, seen, this.p.facts.get(u.request_id), this.sum)
      assert.equal(u.account, seen.account)
      this.spent.set(u.account, (this.spent.get(u.account) ?? 0n) + charged)
    }
    for (const [id, seen] of loop.facts) { // whatever reached the provider was admitted, and what was admitted has a record
      const sent = this.p.facts.get(id)
      if (seen.end === 'whole' || sent) assert.ok(found.has(id), `no record of ${id}: ${seen.end}, ${seen.bytes} bytes, provider ${JSON.stringify(sent)}`)
      this.p.facts.delete(id)
    }
    this.records += found.size
    assert.equal(audit.usage_records, this.records, 'records that were booked, once each')
    assert.equal(audit.quarantined, 0)
    for (const a of rows) assert.equal(nano(a.balance), this.credits.get(a.id) - (this.spent.get(a.id) ?? 0n), `${a.id}: credit less charges`)
  }
  report() {
    const { errors, ...sum } = this.sum
    return `records: ${JSON.stringify(sum)}; an estimate's output is off by ${JSON.stringify(quantiles(errors))} tokens`
  }
}
export function quantiles(list) {
  if (list.length === 0) return 'none'
  const s = [...list].sort((a, b) => a - b)
  return { n: s.length, median: Math.round(s[s.length >> 1]), p95: Math.round(s[Math.min(s.length - 1, Math.floor(s.length * 0.95))]), worst: Math.round(s.at(-1)) }
}
