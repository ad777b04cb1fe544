/* Providers that misbehave, in plain and over TLS: the client gets a correct error in its own shape (or a stream that
 * does not end as if it had succeeded), nothing is charged that was not delivered, and the gateway serves on. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import zlib from 'node:zlib'
import { folder } from './lib/clean.mjs'
import { startGateway, until } from './lib/gateway.mjs'
import { makeCerts } from './lib/certs.mjs'
import { nano } from './lib/money.mjs'
import { bytes, chat, closes, completion, endlessHead, hangs, json, resets, sequence, sse, startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const OK = JSON.stringify(completion({}))
const head = (headers = '', code = '200 OK') => `HTTP/1.1 ${code}\r\nContent-Type: application/json\r\n${headers}\r\n`
const sized = `Content-Length: ${OK.length}\r\n`
const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
const event = (o) => `data: ${typeof o === 'string' ? o : JSON.stringify(o)}\n\n`
const delta = (content, extra = {}) => ({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { content }, finish_reason: null }], ...extra })
const events = (...list) => bytes(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n${list.map((e) => chunk(event(e))).join('')}0\r\n\r\n`, 'keep')

/* [name, behaviour, the client's status]: whole answers that must not be passed on as good */
const BAD = [
  ['closes at once', closes(), 502], ['resets at once', resets(), 502], ['says nothing', hangs(), 504],
  ['closes amid the head', bytes('HTTP/1.1 200 OK\r\nContent-Le'), 502], ['hangs amid the head', bytes('HTTP/1.1 200', 'hang'), 504],
  ['hangs after the head', bytes(head(sized), 'hang'), 504], ['hangs amid the body', bytes(head(sized) + OK.slice(0, 40), 'hang'), 504],
  ['closes before the length is reached', bytes(head(sized) + OK.slice(0, -5)), 502], ['resets amid the body', bytes(head(sized) + OK.slice(0, 40), 'reset'), 502],
  ['says garbage', bytes('\x00\x01\x02garbage\r\n\r\n'), 502], ['speaks TLS', bytes(Buffer.from('15030100020228', 'hex')), 502],
  ['speaks HTTP/2', bytes(Buffer.from('000012040000000000', 'hex')), 502], ['answers with a status of 99', bytes('HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n'), 502],
  ['sends a head without end', endlessHead(), 502], ['sends two lengths', bytes(head(sized + `Content-Length: ${OK.length + 3}\r\n`) + OK), 502],
  ['sends both lengths', bytes(head(`${sized}Transfer-Encoding: chunked\r\n`) + chunk(OK) + '0\r\n\r\n'), 502],
  ['sends a wrong chunk size', bytes(head('Transfer-Encoding: chunked\r\n') + `zz\r\n${OK}\r\n0\r\n\r\n`), 502],
  ['ends before the last chunk', bytes(head('Transfer-Encoding: chunked\r\n') + chunk(OK)), 502],
  ['says 200 with HTML', json({ body: '<html>Bad gateway</html>', headers: { 'Content-Type': 'text/html' } }), 502],
  ['says 200 with half a JSON', json({ body: OK.slice(0, -10) }), 502], ['says 200 with nothing', json({ body: '' }), 502],
  ['says 200 with an error in it', json({ body: '{"error":{"message":"overloaded","type":"server_error","code":null}}' }), 502],
  ['says 500', status(500), 502], ['says 503', status(503), 502], ['says 529', status(529), 502], ['says 500 in HTML', json({ status: 500, body: '<h1>x</h1>' }), 502],
  ['says 401', status(401), 502], ['says 402', status(402), 502], ['says 403', status(403), 502], ['says 301', status(301, { headers: { Location: 'http://x/' } }), 502],
]
/* Streams that break: the client must not see [DONE]. */
const BROKEN = [
  ['cut before any event', sse({ cut: 0 })], ['cut after the role', sse({ cut: 1 })], ['cut in the middle', sse({ cut: 4 })], ['reset in the middle', sse({ reset: 4 })],
  ['silent in the middle', sse({ hangAt: 4 })], ['close-delimited without [DONE] or finish_reason', events(delta('a'), delta('b'))],
  ['an error event', events(delta('a'), { error: { message: 'overloaded', type: 'server_error', code: 'overloaded' } })],
  ['garbage for an event', events(delta('a'), '{"id": broken', '[DONE]')],
]
const TLS_BAD = ['wrong', 'expired', 'notyet', 'selfsigned']

const shared = cleanUps()
let up, g, tenant, certs
const tlsUps = {}
before(async () => {
  up = await startUpstream(shared)
  certs = makeCerts(folder(shared))
  for (const name of ['good', 'rsa', ...TLS_BAD]) { tlsUps[name] = await startUpstream(shared, { cert: certs[name] }) }
  for (const [name, o] of Object.entries({ tls12: { maxVersion: 'TLSv1.2' }, plain443: null })) {
    tlsUps[name] = await startUpstream(shared, o ? { cert: certs.rsa, ...o } : {})
  }
  const upstreams = [], models = []
  const one = (name, behaviour, more = {}) => { // an upstream of its own, so that what one does cools none of the others down
    up.on(name, behaviour)
    upstreams.push({ name: `u-${name}`, url: up.url, retries: 0, ...more })
    models.push({ name, route: `u-${name} as ${name}` })
  }
  const hasty = { first_byte_timeout: '1s', idle_timeout: '1s' } // for those that say nothing: who is only slow has all the time of the defaults
  BAD.forEach(([, b, want], i) => one(`bad${i}`, b, want === 504 ? hasty : {}))
  BROKEN.forEach(([name, b], i) => one(`broken${i}`, b, name.startsWith('silent') ? hasty : {}))
  one('slow', json({ wait: 700 }))
  one('tail', chat())
  one('drip', sse({ split: 1, tokens: 3 }))
  one('late', sse({ every: 500, tokens: 3 }), { idle_timeout: '2s' }) // all of it takes longer than that
  one('close-delimited', async (c) => { await c.write(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n${OK}`); c.end(); return c.closed })
  one('http10', async (c) => { await c.write(`HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n${OK}`); c.end(); return c.closed })
  one('interim', bytes(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${head(sized)}${OK}`, 'keep'))
  const gz = zlib.gzipSync(OK)
  one('gzip', bytes(Buffer.concat([Buffer.from(head(`Content-Encoding: gzip\r\nContent-Length: ${gz.length}\r\n`)), gz]), 'keep'))
  one('extra', bytes(head(sized) + OK + 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsurplus', 'keep'))
  one('nodone', sse({ done: false, chunked: false }))
  one('limited', status(429, { headers: { 'Retry-After': '7' }, error: { message: 'slow down', type: 'requests', code: 'rate_limit_exceeded' } }))
  one('e400', status(400, { error: { message: 'maximum context length is 8', type: 'invalid_request_error', param: 'messages', code: 'context_length_exceeded' } }))
  one('e413', status(413, { error: { message: 'too large', type: 'invalid_request_error' } }))
  one('e422', status(422, { error: { message: 'unprocessable', type: 'invalid_request_error' } }))
  one('again', sequence(status(503), chat()), { retries: 2 })
  one('again-reset', sequence(resets(), chat()), { retries: 2 })
  one('stale', sequence(chat(), chat()), { retries: 1 })
  one('mid-retry', sequence(sse({ reset: 4 }), sse()), { retries: 2 })
  one('two-keys', (c) => (c.req.headers.authorization === 'Bearer sk-bad' ? status(401) : json())(c), { retries: 2, api_key: ['sk-bad', 'sk-good'] })
  one('headers', chat(), { header: ['X-Extra "a b"', 'X-Two 2'], query: ['api-version 2024-10-21'], auth: 'api-key' })
  one('first', status(500), { retries: 1 })
  models.push({ name: 'fall-back', route: ['u-first as first weight 1', 'u-slow as slow priority 1'] })
  upstreams.push({ name: 'nowhere', url: 'http://127.0.0.1:1/v1', retries: 0, connect_timeout: '1s' }, { name: 'noname', url: 'http://no-such-host.invalid/v1', retries: 0, connect_timeout: '1s' })
  models.push({ name: 'nowhere', route: 'nowhere' }, { name: 'noname', route: 'noname' })
  for (const name of Object.keys(tlsUps)) {
    upstreams.push({ name: `tls-${name}`, url: name === 'plain443' ? `https://localhost:${tlsUps[name].port}/v1` : tlsUps[name].url, ca_file: certs.ca, retries: 0, connect_timeout: '3s', first_byte_timeout: '3s',
      tls_max: name === 'tls12' ? '1.2' : undefined }) // mbedtls 3.6.6 fails with some servers of 1.2 alone unless it is told
    models.push({ name: `tls-${name}`, route: `tls-${name}` })
  }
  upstreams.push({ name: 'tls-system', url: tlsUps.good.url, retries: 0, connect_timeout: '3s' }, { name: 'tls-max', url: tlsUps.rsa.url, ca_file: certs.ca, tls_max: '1.2', retries: 0 })
  models.push({ name: 'tls-system', route: 'tls-system' }, { name: 'tls-max', route: 'tls-max' })
  g = await startGateway(shared, { upstreams, models })
  tenant = await g.tenant({ credit: '10' })
})

const spent = async (t) => nano('10') - nano((await g.settled(t.account)).balance)
function shaped(r, want) {
  assert.equal(r.status, want, r.text)
  assert.ok(r.json.error.message.length > 5)
  assert.equal(r.json.error.code, want === 504 ? 'upstream_timeout' : 'upstream_failed')
  assert.equal(r.json.error.type, 'upstream_error')
  assert.ok(!r.text.includes('sk-upstream') && !r.text.includes('127.0.0.1'), 'what is behind the gateway is nobody\'s business')
}

describe('whole answers', () => {
  BAD.forEach(([name, , want], i) => test(`a provider that ${name}: ${want}, and no charge`, async () => {
    const t = await g.tenant({ credit: '10' })
    shaped(await g.chat(t.key, { model: `bad${i}` }), want)
    assert.equal(await spent(t), 0n)
  }))
  test('slow, close-delimited, HTTP/1.0, interim answers, bytes behind the answer: all good', async () => {
    for (const model of ['slow', 'close-delimited', 'http10', 'interim', 'extra']) {
      const r = await g.chat(tenant.key, { model })
      assert.equal(r.status, 200, `${model}: ${r.text}`)
      assert.equal(r.json.choices[0].message.content, 'Hello from upstream', model)
      assert.ok(!r.text.includes('surplus'), model)
    }
    assert.equal((await g.chat(tenant.key, { model: 'extra' })).json.choices[0].message.content, 'Hello from upstream', 'nothing left over is taken for an answer')
  })
  test('a compressed body that nobody asked for is an error or is read, never garbage', async () => {
    const r = await g.chat(tenant.key, { model: 'gzip' })
    assert.ok(r.status === 502 || r.json.choices[0].message.content === 'Hello from upstream', r.text)
    assert.ok(!/gzip/.test(up.of('gzip')[0].headers['accept-encoding'] ?? ''))
  })
  test('a provider\'s word on the request passes through, with its message and code', async () => {
    const r = await g.chat(tenant.key, { model: 'e400' })
    assert.equal(r.status, 400)
    assert.equal(r.json.error.code, 'context_length_exceeded')
    assert.match(r.json.error.message, /maximum context length/)
    assert.equal((await g.chat(tenant.key, { model: 'e413' })).status, 413)
    const e422 = await g.chat(tenant.key, { model: 'e422' })
    assert.ok([400, 422].includes(e422.status))
    assert.match(e422.json.error.message, /unprocessable/)
  })
  test('a provider\'s 429, once nothing else can serve, is a 429 with its Retry-After', async () => {
    const r = await g.chat(tenant.key, { model: 'limited' })
    assert.equal(r.status, 429)
    assert.equal(r.headers['retry-after'], '7')
    assert.equal(r.json.error.type, 'rate_limit_error')
  })
  test('nothing listens, no such name', async () => {
    for (const model of ['nowhere', 'noname']) {
      const r = await g.chat(tenant.key, { model })
      assert.ok([502, 503, 504].includes(r.status), `${model}: ${r.status}`)
      assert.ok(r.json.error.message)
    }
  })
})

describe('trying again', () => {
  for (const model of ['again', 'again-reset', 'stale']) {
    test(`${model}: the client sees only the success`, async () => {
      assert.equal((await g.chat(tenant.key, { model })).status, 200)
    })
  }
  test('a kept connection that the provider closed meanwhile is no error', async () => {
    for (const s of up.open) s.destroy()
    const list = await Promise.all(Array.from({ length: 6 }, () => g.chat(tenant.key, { model: 'stale' })))
    for (const s of up.open) s.end()
    list.push(await g.chat(tenant.key, { model: 'stale' }))
    assert.deepEqual(list.map((r) => r.status), list.map(() => 200))
  })
  test('once the client has seen a byte nothing is tried again', async () => {
    const s = g.stream(tenant.key, { model: 'mid-retry' })
    await s.all().catch(() => {})
    assert.equal(up.of('mid-retry').length, 1)
    assert.ok(!s.text.includes('[DONE]'))
  })
  test('another route when the first fails', async () => {
    const r = await g.chat(tenant.key, { model: 'fall-back' })
    assert.equal(r.status, 200, r.text)
    assert.equal(r.headers['x-tollgate-upstream'], 'u-slow')
  })
  test('another key when the provider refuses one; the operator is told, the client is not', async () => {
    for (let i = 0; i < 4; i++) assert.equal((await g.chat(tenant.key, { model: 'two-keys' })).status, 200)
    await until(() => /u-two-keys/.test(g.errorLog()), 'a line in the error log')
    assert.ok(!/sk-bad|sk-good/.test(g.errorLog()))
  })
  test('header, query and auth directives', async () => {
    await g.chat(tenant.key, { model: 'headers' })
    const r = up.of('headers')[0]
    assert.equal(r.headers['x-extra'], 'a b')
    assert.equal(r.headers['x-two'], '2')
    assert.equal(r.headers['api-key'], 'sk-upstream')
    assert.equal(r.headers.authorization, undefined)
    assert.match(r.path, /\?(.*&)?api-version=2024-10-21/)
  })
})

describe('streams', () => {
  test('the record of a failed call, free as it is, has the status that the client saw', async () => {
    const own = await g.tenant()
    const seen = []
    for (const i of [0, 2, 6]) seen.push((await g.chat(own.key, { model: `bad${i}` })).status)
    const records = await g.usage(own.account, 3)
    assert.deepEqual(records.map((r) => r.status).reverse(), seen)
    assert.ok(records.every((r) => r.cost === '0' && r.status >= 500))
  })
  BROKEN.forEach(([name], i) => test(`${name}: the client is told, and never sees [DONE]`, async () => {
    const s = g.stream(tenant.key, { model: `broken${i}` })
    const h = await s.head
    if (h.status !== 200) { await s.all(); assert.ok(h.status >= 500, `${h.status}`); return }
    const list = await s.all().catch((e) => [e])
    assert.ok(!s.text.includes('[DONE]'), s.text)
    const last = list.at(-1)
    assert.ok(last instanceof Error || last?.error?.message, `ends in an error: ${JSON.stringify(last)}`)
    if (!(last instanceof Error)) assert.ok(last.error.type)
  }))
  test('one byte a write, pauses within idle_timeout, no [DONE] after a whole answer', async () => {
    for (const model of ['drip', 'late', 'nodone']) {
      const s = g.stream(tenant.key, { model })
      const list = await s.all()
      assert.equal(list.at(-1), '[DONE]', `${model}: ${s.text.slice(-300)}`)
    }
  })
  test('a translated stream whose last bytes come late does not look at what it has given back', async () => {
    const held = []
    const whole = [delta('Hi'), delta('', { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
      delta('', { choices: [], usage: { prompt_tokens: 5, completion_tokens: 1, total_tokens: 6 } }), '[DONE]']
    up.on('tail', async (c) => {
      await c.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n${whole.map((e) => chunk(event(e))).join('')}`)
      await new Promise((resolve) => held.push(resolve))
      await c.write('0\r\n\r\n')
    })
    const body = { model: 'tail', max_tokens: 50, stream: true, messages: [{ role: 'user', content: 'x'.repeat(20000) }] }
    const before = await g.workers()
    for (let round = 0; round < 3; round++) {
      const answers = await Promise.all(Array.from({ length: 20 }, () => g.req({ method: 'POST', path: '/v1/messages', key: tenant.key, body })))
      for (const r of answers) { assert.equal(r.status, 200, r.text); assert.match(r.text, /message_stop/) }
      const again = Promise.all(Array.from({ length: 20 }, () => g.req({ method: 'POST', path: '/v1/messages', key: tenant.key, body })))
      await until(() => held.length === 40, 'the second batch')
      for (const go of held.splice(0)) go()
      await again
      await until(async () => await g.metric('tollgate_exchanges_active') === 0, 'exchanges at rest')
    }
    assert.deepEqual(await g.workers(), before)
  })
  test('a comment is sent while the provider is silent in a begun stream', async (t) => {
    const p = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['pinged'], top: { stream_ping: '500ms' } })
    up.on('pinged', sse({ tokens: 2, every: 1300 }))
    const k = await p.tenant()
    const s = p.stream(k.key, { model: 'pinged' })
    const list = await s.all()
    assert.match(s.text, /^:/m)
    assert.equal(list.at(-1), '[DONE]')
  })
})

describe('TLS', () => {
  for (const name of ['good', 'rsa', 'tls12', 'max']) {
    test(`${name}: served`, async () => {
      for (let i = 0; i < 3; i++) {
        const r = await g.chat(tenant.key, { model: `tls-${name}` })
        assert.equal(r.status, 200, `${r.text}\n${g.log()}`)
      }
      const s = g.stream(tenant.key, { model: `tls-${name}` })
      assert.equal((await s.all()).at(-1), '[DONE]')
    })
  }
  test('connections are kept: few handshakes for many calls', async () => {
    const before = tlsUps.good.handshakes
    for (let i = 0; i < 20; i++) await g.chat(tenant.key, { model: 'tls-good' })
    assert.ok(tlsUps.good.handshakes - before <= 4, `${tlsUps.good.handshakes - before} handshakes for 20 calls`)
  })
  test('a session is resumed on a new connection', async () => {
    for (let i = 0; i < 4; i++) {
      for (const s of tlsUps.tls12.open) s.destroy()
      await g.chat(tenant.key, { model: 'tls-tls12' })
    }
    assert.ok(tlsUps.tls12.resumed > 0)
  })
  for (const name of [...TLS_BAD, 'plain443']) {
    test(`${name}: refused, and the request never goes out`, async () => {
      const r = await g.chat(tenant.key, { model: `tls-${name}` })
      assert.ok([502, 503, 504].includes(r.status), `${r.status} ${r.text}`)
      assert.equal(tlsUps[name].requests.length, 0)
    })
  }
  test('an authority that the system does not know: refused', async () => {
    const before = tlsUps.good.requests.length
    const r = await g.chat(tenant.key, { model: 'tls-system' })
    assert.ok([502, 503].includes(r.status), `${r.status}`)
    assert.equal(tlsUps.good.requests.length, before)
  })
  test('the operator is told why', async () => {
    await until(() => /tls-wrong/.test(g.errorLog()) && /tls-expired/.test(g.errorLog()), 'the reasons in the error log')
  })
})

test('after all of it the ledger agrees with itself and nothing is held', async () => {
  await g.settled(tenant.account)
  await g.audit()
  assert.equal((await g.chat(tenant.key, { model: 'slow' })).status, 200)
})
