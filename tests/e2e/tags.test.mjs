/* No byte of one request is ever seen in another: each request is filled with a tag of its own, the provider answers with
 * the tags that it found, and clients that keep alive, pipeline, stream, translate and hang up all at once look at every
 * byte. TAG_REQUESTS says how many; TAG_SEED repeats the choices. */
import assert from 'node:assert/strict'
import http from 'node:http'
import net from 'node:net'
import { before } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { parseAnswers } from './lib/http.mjs'
import { seeded } from './lib/random.mjs'
import { completion, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const REQUESTS = Number(process.env.TAG_REQUESTS ?? 1500)
const TAG = /<[a-z0-9]+-[0-9]+>/g
const shared = cleanUps()
let up, g, keys
const mixed = []
before(async () => {
  up = await startUpstream(shared)
  up.otherwise = async (c) => {
    const text = c.req.body.toString(), tags = [...new Set(text.match(TAG) ?? [])]
    if (tags.length !== 1) mixed.push(`${c.req.path}: ${tags}`)
    const filled = tags.join('').repeat(1 + (text.length % 200)), usage = { prompt_tokens: 5, completion_tokens: 5, total_tokens: 10 }
    if (!c.req.json?.stream) {
      const body = JSON.stringify(completion({ content: filled, usage, model: c.req.model }))
      await c.write(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Tag: ${tags[0]}\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
      return
    }
    const parts = Array.from({ length: 8 }, () => ({ id: tags[0], choices: [{ index: 0, delta: { content: filled }, finish_reason: null }] }))
    const list = [...parts, { id: tags[0], choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }, { id: tags[0], choices: [], usage }].map((e) => `data: ${JSON.stringify(e)}\n\n`).concat('data: [DONE]\n\n')
    await c.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (const e of list) {
      if (c.gone) return
      await c.write(`${e.length.toString(16)}\r\n${e}\r\n`)
      if (e.length % 3 === 0) await new Promise((r) => setImmediate(r))
    }
    await c.write('0\r\n\r\n')
  }
  g = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url, keepalive: 8 }], models: ['gpt-4o'] })
  keys = await Promise.all([1, 2, 3].map(() => g.tenant()))
})

function make(tag, random) {
  const filled = tag.repeat(1 + random.below(random.chance(0.1) ? 4000 : 60)), stream = random.chance(0.5)
  const messages = [{ role: 'user', content: filled }]
  return random.of([
    ['/v1/chat/completions', { model: 'gpt-4o', stream, messages, user: tag }],
    ['/v1/messages', { model: 'gpt-4o', stream, max_tokens: 100, messages }],
    ['/v1/responses', { model: 'gpt-4o', stream, input: filled }],
    [`/v1beta/models/gpt-4o:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`, { contents: [{ role: 'user', parts: [{ text: filled }] }] }],
  ])
}
/* All the bytes of an answer bear this tag and no other; an error may bear none. */
function own(bytes, tag, id, headers) {
  const text = bytes.toString('latin1'), others = new Set((text.match(TAG) ?? []).filter((t) => t !== tag))
  assert.equal(others.size, 0, `${tag} got ${[...others]}`)
  if (headers) assert.equal(headers['x-request-id'], id)
}
const headOf = (path, key, id, body) => `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nX-Request-Id: ${id}\r\nContent-Length: ${body.length}\r\n\r\n`

async function kept(agent, key, tag, random, seen) {
  const [path, o] = make(tag, random), body = JSON.stringify(o), id = tag.slice(1, -1), leave = random.chance(0.15) ? random.below(3000) : Infinity
  await new Promise((resolve, reject) => {
    const req = http.request({ port: g.port, path, method: 'POST', agent, headers: { Authorization: `Bearer ${key}`, 'X-Request-Id': id, 'Content-Length': body.length } }, (res) => {
      const parts = []
      let n = 0
      const done = () => { try { own(Buffer.concat(parts), tag, id, res.headers); if (leave === Infinity) { assert.equal(res.statusCode, 200); assert.ok(Buffer.concat(parts).includes(tag)); seen.whole++ } resolve() } catch (e) { reject(e) } }
      res.on('data', (c) => { parts.push(c); n += c.length; if (n > leave) { req.destroy(); done() } })
      res.on('end', done)
      res.on('error', done)
    })
    req.on('error', (e) => (leave < Infinity ? resolve() : reject(e)))
    if (leave < 50) { req.write(body.slice(0, body.length / 2)); setTimeout(() => { req.destroy(); resolve() }, 1); return }
    req.end(body)
  })
}
async function pipelined(key, tags, random, seen) {
  const list = tags.map((tag) => { const [path, o] = make(tag, random), body = JSON.stringify(o); return { tag, bytes: headOf(path, key, tag.slice(1, -1), body) + body } })
  const cut = random.chance(0.3) ? random.below(20000) : Infinity
  const bytes = await new Promise((resolve) => {
    const s = net.connect(g.port, '127.0.0.1'), parts = []
    let n = 0
    const timer = setTimeout(() => s.destroy(), 40_000)
    s.on('error', () => {})
    s.on('data', (c) => { parts.push(c); n += c.length; if (n > cut || parseAnswers(Buffer.concat(parts)).list.length === list.length) s.destroy() })
    s.on('close', () => { clearTimeout(timer); resolve(Buffer.concat(parts)) })
    s.on('connect', () => { const all = Buffer.from(list.map((l) => l.bytes).join('')); for (let at = 0; at < all.length;) { const k = 1 + random.below(9000); s.write(all.subarray(at, at += k)) } })
  })
  const { list: answers, rest } = parseAnswers(bytes)
  answers.forEach((a, i) => { own(a.body, list[i].tag, list[i].tag.slice(1, -1), a.headers); assert.equal(a.status, 200); seen.whole++ })
  if (answers.length < list.length) own(rest, list[answers.length].tag)
  if (cut === Infinity) assert.equal(answers.length, list.length)
}

test(`${REQUESTS} requests, each full of its own tag: no answer has a byte of another`, { timeout: 600000 }, async (t) => {
  const random = seeded(process.env.TAG_SEED), seen = { whole: 0 }
  t.diagnostic(`TAG_SEED=${random.seed}`)
  const agents = Array.from({ length: 6 }, () => new http.Agent({ keepAlive: true, maxSockets: 4 }))
  let n = 0
  const tag = () => `<${random.below(36 ** 6).toString(36)}-${n++}>`
  await Promise.all(Array.from({ length: 24 }, async (_, i) => {
    while (n < REQUESTS) {
      const key = keys[i % 3].key
      if (i % 4 === 0) await pipelined(key, Array.from({ length: 1 + random.below(6) }, tag), random, seen)
      else await kept(agents[i % agents.length], key, tag(), random, seen)
    }
  })).catch((e) => { e.message = `TAG_SEED=${random.seed}: ${e.message}`; throw e })
  for (const a of agents) a.destroy()
  assert.deepEqual(mixed, [], 'no request went up with another\'s bytes')
  assert.ok(seen.whole > REQUESTS / 2, `${seen.whole} whole answers`)
  for (const k of keys) assert.equal((await g.settled(k.account)).held, '0')
  await g.audit()
})
