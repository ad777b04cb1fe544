/* Request smuggling: every shape of lib/smuggling.mjs, whole and cut in two, with a request behind it that must never be
 * taken for one where the framing is in doubt. SMUGGLING_CUTS says at how many places each is cut (`all`: at every one);
 * SMUGGLING_SEED repeats a run's choice of places. */
import assert from 'node:assert/strict'
import net from 'node:net'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { parseAnswers } from './lib/http.mjs'
import { seeded } from './lib/random.mjs'
import { SHAPES, fill } from './lib/smuggling.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const CUTS = process.env.SMUGGLING_CUTS ?? '3'
const shared = cleanUps()
let up, g, tenant, follow
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { client_timeout: '1s', keepalive_timeout: '1s', max_body: '64k' } })
  tenant = await g.tenant()
  follow = `GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${tenant.key}\r\nX-Request-Id: follow\r\nConnection: close\r\n\r\n`
})

/* Sends head and tail as two segments; resolves to all that came back when the server has ended the connection. */
function send(head, tail) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(g.port, '127.0.0.1')
    const parts = []
    const timer = setTimeout(() => { socket.destroy(); reject(new Error('the connection was not ended')) }, 40_000)
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', (c) => parts.push(c))
    socket.on('close', () => { clearTimeout(timer); resolve(Buffer.concat(parts)) })
    socket.on('connect', () => {
      socket.write(head)
      if (tail.length > 0) setTimeout(() => { if (!socket.destroyed) socket.write(tail) }, 3)
    })
  })
}
function judge(shape, bytes, where) {
  const text = bytes.toString('latin1'), say = `${shape.name}${where}: ${text.slice(0, 400)}`
  const answers = parseAnswers(bytes).list.filter((a) => a.status !== 100)
  const seen = (id) => answers.some((a) => a.headers['x-request-id'] === id)
  assert.ok(!text.includes('smuggled'), say)
  assert.ok(!/^HTTP\/1.1 101/m.test(text), say)
  if (answers.length > 0) assert.ok([shape.status].flat().includes(answers[0].status), say)
  else assert.ok(shape.then === 'closed', `no answer: ${say}`) // a reset may overtake the refusal
  if (shape.then === 'kept' || (shape.then === 'either' && answers.length > 1)) assert.ok(answers.length === 2 && seen('follow'), say)
  else assert.ok(answers.length <= 1 && !seen('follow'), say)
}
/* A number of places at which to cut n bytes, the ends of the framing's lines among them when there are many. */
function places(n, random) {
  if (CUTS === 'all') return Array.from({ length: n - 1 }, (_, i) => i + 1)
  return Array.from({ length: Math.min(Number(CUTS), n - 1) }, () => 1 + random.below(n - 1))
}

describe('smuggling', () => {
  test('the table says where each shape is from, and why those that are served are safe', () => {
    const names = SHAPES.map((s) => `${s.name} ${s.bytes}`)
    assert.equal(new Set(names).size, names.length)
    for (const s of SHAPES) if (s.then !== 'closed') assert.ok(s.why.length > 5, s.name)
    assert.ok(SHAPES.length > 180)
  })
  for (const then of ['closed', 'kept', 'ends', 'either']) {
    test(`${then}: whole, and cut`, { timeout: 600000 }, async (t) => {
      const random = seeded(process.env.SMUGGLING_SEED)
      t.diagnostic(`SMUGGLING_SEED=${random.seed}`)
      const jobs = []
      for (const shape of SHAPES.filter((s) => s.then === then)) {
        const bytes = Buffer.from(fill(shape.bytes, tenant.key).replaceAll('{K}', tenant.key) + follow, 'latin1')
        jobs.push([shape, bytes, bytes.length])
        const long = bytes.length > 3000
        for (const at of long ? places(bytes.length, random).slice(0, 50) : places(bytes.length, random)) jobs.push([shape, bytes, at])
      }
      const before = up.requests.length
      let served = 0
      await Promise.all(Array.from({ length: 32 }, async () => {
        for (let job; (job = jobs.pop());) {
          const [shape, bytes, at] = job
          judge(shape, await send(bytes.subarray(0, at), bytes.subarray(at)), at < bytes.length ? ` (cut at ${at}, SMUGGLING_SEED=${random.seed})` : '')
          if (shape.status === 200 && /\{[BC]\}/.test(shape.bytes) && !/\{G\}/.test(shape.bytes)) served++
        }
      }))
      assert.equal(up.requests.length - before, served, 'the provider got what was served and nothing else')
    })
  }
  test('what reached the provider was made by the gateway: no header of a client\'s', () => {
    assert.ok(up.requests.length > 0)
    for (const r of up.requests) {
      assert.equal(r.headers.authorization, 'Bearer sk-upstream')
      for (const name of ['connection', 'upgrade', 'te', 'trailer', 'expect', 'transfer-encoding', 'x-forwarded-for']) assert.equal(r.headers[name], undefined, name)
      assert.equal(r.raw.filter(([k]) => /^(content-length|host)$/i.test(k)).length, 2)
      assert.equal(Number(r.headers['content-length']), r.body.length)
      assert.equal(r.json.model, 'gpt-4o')
    }
  })
  test('and the service goes on', async () => {
    assert.equal((await g.chat(tenant.key)).status, 200)
    assert.equal((await g.settled(tenant.account)).held, '0')
    await g.audit()
  })
})
