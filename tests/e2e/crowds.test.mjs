/* Clients that come in crowds: silent ones, slow senders, slow readers, and people who register until there is no room.
 * Others are served all the while, memory stays bounded, and what ends is ended cleanly. SILENT says how many stay
 * silent (10000 in `make hostile`). */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { before, describe } from 'node:test'
import { chatBody, lateness, startGateway, until } from './lib/gateway.mjs'
import { newGate, sse, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const SILENT = Number(process.env.SILENT ?? 2000)
const shared = cleanUps()
let up
before(async () => { up = await startUpstream(shared) })

const start = (t, top, o = {}) => startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'big'], top, ...o })
/* KB that a process has of its own. */
function memory(pid) {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/RssAnon:\s+(\d+)/.exec(text)[1])
}
const sum = async (g) => (await g.workers()).reduce((n, pid) => n + memory(pid), 0)
const open = (port) => new Promise((resolve) => {
  const s = net.connect(port, '127.0.0.1')
  s.on('error', () => {})
  s.on('close', () => { s.gone = performance.now(); resolve(s) })
  s.on('connect', () => resolve(s))
})
async function many(n, port, then = () => {}) {
  const list = []
  for (let i = 0; i < n; i += 250) list.push(...await Promise.all(Array.from({ length: Math.min(250, n - i) }, async () => { const s = await open(port); then(s); return s })))
  return list
}
const post = (key, body) => `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

describe('the silent', () => {
  test(`${SILENT} connections that say nothing: others are served, a silent one costs little, time ends it`, async (t) => {
    const patience = Math.max(3, Math.ceil(SILENT / 250)) // they must all be there before the first must go
    const g = await start(t, { client_timeout: `${patience}s`, keepalive_timeout: `${patience}s` })
    const k = await g.tenant()
    await g.chat(k.key)
    const before = await sum(g), began = performance.now(), late = lateness(t)
    const crowd = await many(SILENT, g.port)
    t.after(() => { for (const s of crowd) s.destroy() })
    await until(async () => await g.metric('tollgate_connections_open') >= SILENT * 0.98, 'the crowd to be in')
    const each = (await sum(g) - before) / SILENT
    assert.ok(each < 2, `${each.toFixed(2)} KB each`)
    t.diagnostic(`${each.toFixed(2)} KB for a silent connection`)
    for (let i = 0; i < 20; i++) assert.equal((await g.chat(k.key)).status, 200)
    await until(() => crowd.every((s) => s.gone), 'all of them to be closed')
    assert.ok(Math.max(...crowd.map((s) => s.gone)) - began < patience * 1000 + 15000 + late())
    assert.equal((await g.chat(k.key)).status, 200)
  })
  test('at max_connections a crowd that only waits keeps nobody out', async (t) => {
    const g = await start(t, { client_timeout: '5m', keepalive_timeout: '5m', max_connections: 100 })
    const k = await g.tenant()
    for (const [what, then] of Object.entries({ silent: () => {}, 'half a head': (s) => s.write('GET /v1/mo') })) {
      const crowd = await many(300, g.port, then)
      await until(async () => await g.metric('tollgate_connections_open') >= 195, `${what}: the crowd to fill all places`)
      let served = 0
      await until(async () => { const r = await g.chat(k.key).catch(() => null); served += r?.status === 200; return served >= 10 }, `${what}: ten calls among them`)
      for (const s of crowd) s.destroy()
      await until(async () => await g.metric('tollgate_connections_open') < 20, 'the crowd to go')
    }
  })
  test('places that are all in use: who comes is turned away at once, and those at work are not touched', async (t) => {
    const g = await start(t, { max_connections: 10 }, { workers: 1 })
    const k = await g.tenant()
    const { gate, open: go } = newGate()
    up.on('big', sse({ gate, gateAt: 2, tokens: 4 }))
    const at_work = Array.from({ length: 10 }, () => g.stream(k.key, { model: 'big' }))
    for (const s of at_work) await s.next()
    await new Promise((r) => setTimeout(r, 1300)) // longer than a silent one is left alone
    const began = performance.now(), late = lateness(t)
    await assert.rejects(g.chat(k.key))
    assert.ok(performance.now() - began < 1000 + late())
    go()
    for (const s of at_work) assert.equal((await s.all()).at(-1), '[DONE]')
    await until(async () => (await g.chat(k.key).catch(() => null))?.status === 200, 'a place')
  })
})

describe('the slow', () => {
  test('heads and bodies a byte at a time: ended in time, however many; others are served', async (t) => {
    const g = await start(t, { client_timeout: '1s' })
    const k = await g.tenant()
    const body = JSON.stringify(chatBody({ messages: [{ role: 'user', content: 'x'.repeat(5000) }] }))
    const head = post(k.key, body).slice(0, -body.length)
    const crowd = await many(200, g.port)
    t.after(() => { for (const s of crowd) s.destroy() })
    const began = performance.now(), late = lateness(t)
    crowd.forEach((s, i) => {
      const text = i % 2 ? post(k.key, body) : 'GET /v1/models HTTP/1.1\r\nX-Header: ' + 'y'.repeat(5000)
      s.resume()
      if (i % 2) s.write(head)
      let at = i % 2 ? head.length : 0
      const timer = setInterval(() => { if (s.destroyed || s.gone) clearInterval(timer); else s.write(text[at++]) }, 50)
    })
    for (let i = 0; i < 10; i++) assert.equal((await g.chat(k.key)).status, 200)
    await until(() => crowd.every((s) => s.gone), 'the slow to be ended')
    const last = Math.max(...crowd.map((s) => s.gone)) - began
    assert.ok(last < 5500 + late(), `${last} ms`) // client_timeout, and the two seconds of a lingering close
    assert.equal((await g.settled(k.account)).held, '0')
  })
  test('clients that never read: the provider is held back, memory is bounded, time ends them', async (t) => {
    const g = await start(t, { client_timeout: '2s' })
    const k = await g.tenant({ credit: '1000' })
    await g.chat(k.key)
    const word = 'w'.repeat(8000)
    const one = JSON.stringify({ id: 'x', choices: [{ index: 0, delta: { content: word }, finish_reason: null }] })
    up.on('big', sse({ raw: Array(4000).fill(one) })) // 32 MB for each
    const before = await sum(g), n = 15
    const crowd = await many(n, g.port, (s) => { s.pause(); s.write(post(k.key, JSON.stringify(chatBody({ model: 'big', stream: true, max_tokens: 100 })))) })
    t.after(() => { for (const s of crowd) s.destroy() })
    await until(async () => await g.metric('tollgate_streams_active') >= n * 0.9, 'the streams to run')
    let most = 0
    for (let i = 0; i < 10; i++) { most = Math.max(most, await sum(g)); assert.equal((await g.chat(k.key)).status, 200) }
    await until(async () => await g.metric('tollgate_streams_active') === 0, 'time to end them')
    most = Math.max(most, await sum(g))
    t.diagnostic(`${Math.round((most - before) / n)} KB for a stream that nobody reads`)
    assert.ok((most - before) / n < 2048, `${Math.round((most - before) / n)} KB each`)
    const b = await g.settled(k.account)
    assert.equal(b.held, '0')
    await g.audit()
  })
})

describe('the many', () => {
  test('people register until there is no room: told so, the others served, and a restart changes nothing', async (t) => {
    const g = await start(t, { max_accounts: 12, max_keys: 20 }, { billing: { signup: 'on', signup_credit: '1.00', signup_rate: '100000/h' } })
    const register = (i) => g.req({ method: 'POST', path: '/auth/register', body: { email: `p${i}@example.com`, password: 'long enough' } })
    const list = await Promise.all(Array.from({ length: 30 }, (_, i) => register(i)))
    const good = list.filter((r) => r.status === 200), bad = list.filter((r) => r.status !== 200)
    assert.ok(good.length >= 10 && good.length <= 12, `${good.length}`)
    for (const r of bad) { assert.ok([503, 507, 400, 409, 429].includes(r.status) && r.json.detail.length > 5, `${r.status} ${r.text}`); assert.ok(!/Maximum|internal error/.test(r.text)) }
    const { token, api_key } = good[0].json
    const keys = []
    for (let i = 0; i < 20; i++) keys.push(await g.req({ method: 'POST', path: '/api-keys', headers: { Authorization: `Bearer ${token}` }, body: { name: `k${i}` } }))
    const made = keys.filter((r) => r.status < 300)
    assert.ok(made.length >= 5 && made.length < 20)
    for (const r of keys.slice(made.length)) assert.ok(r.status >= 400 && r.json.detail.length > 5, r.text)
    const serve = async () => { for (const key of [api_key, made.at(-1).json.key, good.at(-1).json.api_key]) assert.equal((await g.chat(key)).status, 200) }
    await serve()
    await g.stop()
    await g.start()
    await serve()
    assert.equal((await register(99)).status, bad[0].status, 'still no room')
    const gone = await g.req({ method: 'DELETE', path: `/api-keys/${made[0].json.id}`, headers: { Authorization: `Bearer ${token}` } })
    assert.equal(gone.status, 200)
    await g.audit()
  })
  test('keys made and revoked until there is no room: told so, those there served, and a restart changes nothing', async (t) => {
    const g = await start(t, { max_accounts: 10, max_keys: 10 })
    const k = await g.tenant()
    let made = 1
    for (let i = 0; i < 40; i++) {
      const r = await g.ctlRaw('--json', 'key', 'create', '--account', k.account)
      if (r.code !== 0) { assert.ok(r.json.error.message.length > 5, r.stdout); break }
      made++
      assert.equal((await g.ctlRaw('key', 'revoke', r.json.id)).code, 0)
    }
    t.diagnostic(`${made} keys in ten places`)
    assert.equal((await g.chat(k.key)).status, 200)
    await g.stop()
    await g.start()
    assert.equal((await g.chat(k.key)).status, 200)
    await g.audit()
  })
})
