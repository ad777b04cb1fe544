/* HTTP/1.1 as strangers speak it: what is served, what is refused and how, and that no framing trick gets through. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import path from 'node:path'
import { before, describe } from 'node:test'
import { makeCerts } from './lib/certs.mjs'
import { folder } from './lib/clean.mjs'
import { chatBody, freePort, startGateway, until } from './lib/gateway.mjs'
import { raw, request } from './lib/http.mjs'
import { sse, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g, tenant, port, six, hasty
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'big'],
    top: { max_body: '256k', cors_origin: '*' },
    listen: [`[::1]:${six = await freePort()}`],
  })
  tenant = await g.tenant()
  port = g.port
  hasty = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { client_timeout: '1s', keepalive_timeout: '2s' } })
  hasty.key = (await hasty.tenant()).key
})

const BODY = JSON.stringify(chatBody({}))
const post = (headers = '', body = BODY, o = {}) => `POST ${o.path ?? '/v1/chat/completions'} HTTP/${o.version ?? '1.1'}\r\nHost: localhost\r\nAuthorization: Bearer ${tenant.key}\r\n` +
  `${o.length === false ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`}${headers}\r\n${body}`
const get = (p = '/v1/models', headers = '') => `GET ${p} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${tenant.key}\r\n${headers}\r\n`
const chunked = (body, size = 10, ext = '') => {
  let out = ''
  for (let i = 0; i < body.length; i += size) { const p = body.slice(i, i + size); out += `${p.length.toString(16)}${ext}\r\n${p}\r\n` }
  return out + '0\r\n\r\n'
}

describe('what is served', () => {
  test('a connection is kept and serves many requests', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const ports = new Set()
    for (let i = 0; i < 20; i++) {
      const r = await g.chat(tenant.key, {}, { agent })
      assert.equal(r.status, 200)
      for (const s of Object.values(agent.freeSockets).flat()) ports.add(s.localPort)
    }
    agent.destroy()
    assert.equal(ports.size, 1)
  })
  test('pipelined requests are answered in order', async () => {
    const r = await raw({ port, answers: 4 }, post('X-Request-Id: one\r\n') + get('/v1/models', 'X-Request-Id: two\r\n') + post('X-Request-Id: three\r\n') + get('/nothing', 'X-Request-Id: four\r\n'))
    assert.deepEqual(r.answers.map((a) => a.headers['x-request-id']), ['one', 'two', 'three', 'four'])
    assert.deepEqual(r.answers.map((a) => a.status), [200, 200, 200, 404])
  })
  test('pipelined behind a stream', async () => {
    const body = JSON.stringify(chatBody({ stream: true }))
    const r = await raw({ port, answers: 2 }, post('', body) + get())
    assert.deepEqual(r.answers.map((a) => a.status), [200, 200])
    assert.match(r.answers[0].text, /\[DONE\]/)
  })
  test('pipelined behind bodies of many sizes, up to the largest', async () => {
    for (const size of [16000, 16384, 16385, 40000, 65536, 131072, 262144]) {
      const empty = JSON.stringify(chatBody({ user: '' }))
      const body = JSON.stringify(chatBody({ user: 'u'.repeat(size - empty.length) }))
      assert.equal(body.length, size)
      const both = post('', body) + post('X-Request-Id: two\r\n') + get()
      for (const cut of [both.length, post('', body).length, post('', body).length + 1]) {
        const r = await raw({ port, answers: 3 }, both.slice(0, cut), both.slice(cut))
        assert.deepEqual(r.answers.map((a) => a.status), [200, 200, 200], `${size} bytes, cut at ${cut}`)
        assert.equal(r.answers[1].headers['x-request-id'], 'two')
      }
    }
  })
  test('one byte at a time', async () => {
    const r = await raw({ port, answers: 1 }, ...post().split(''))
    assert.equal(r.answers[0].status, 200)
  })
  test('chunked bodies, with extensions and trailers', async () => {
    const head = post('Transfer-Encoding: chunked\r\n', '', { length: false })
    for (const [name, body] of Object.entries({ plain: chunked(BODY), ext: chunked(BODY, 7, ';a=b'), one: chunked(BODY, 1),
      trailers: chunked(BODY).replace(/\r\n$/, 'X-Sum: 1\r\n\r\n') })) {
      const r = await raw({ port, answers: 1 }, head + body)
      assert.equal(r.answers[0]?.status, 200, name)
    }
    const both = await raw({ port, answers: 2 }, head + chunked(BODY) + get())
    assert.deepEqual(both.answers.map((a) => a.status), [200, 200], 'and the next request follows')
  })
  test('a chunked body goes up whole', async () => {
    const n = up.of('gpt-4o').length
    await raw({ port, answers: 1 }, post('Transfer-Encoding: chunked\r\n', '', { length: false }) + chunked(BODY, 3))
    assert.deepEqual(up.of('gpt-4o')[n].json.messages, JSON.parse(BODY).messages)
  })
  test('Expect: 100-continue', async () => {
    const head = post('Expect: 100-continue\r\n', BODY).slice(0, -BODY.length)
    const r = await raw({ port, answers: 2 }, head, 300, BODY)
    assert.deepEqual(r.answers.map((a) => a.status), [100, 200])
    const wrong = await raw({ port, answers: 1 }, head.replace(tenant.key, 'sk-wrong'))
    assert.equal(wrong.answers.at(-1).status, 401, 'a wrong key is told before the body is sent')
  })
  test('HEAD is GET without the body', async () => {
    const r = await raw({ port, answers: 2, heads: [0] }, get().replace('GET', 'HEAD') + get())
    assert.deepEqual(r.answers.map((a) => a.status), [200, 200])
    assert.equal(r.answers[0].headers['content-length'], r.answers[1].headers['content-length'])
  })
  test('OPTIONS: a preflight echoes what was asked for; answers expose our headers', async () => {
    const r = await g.req({ path: '/v1/chat/completions', method: 'OPTIONS', headers: { Origin: 'https://app.example', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,x-stainless-os' } })
    assert.ok(r.status === 204 || r.status === 200)
    assert.equal(r.headers['access-control-allow-origin'], '*')
    assert.equal(r.headers['access-control-allow-headers'], 'authorization,x-stainless-os')
    assert.match(r.headers['access-control-allow-methods'], /POST/)
    const a = await g.chat(tenant.key, {}, { headers: { Origin: 'https://app.example' } })
    assert.equal(a.headers['access-control-allow-origin'], '*')
    for (const h of ['x-request-id', 'retry-after', 'x-ratelimit-remaining']) assert.ok(a.headers['access-control-expose-headers'].toLowerCase().includes(h), h)
    const e = await g.chat('sk-wrong', {}, { headers: { Origin: 'https://app.example' } })
    assert.equal(e.headers['access-control-allow-origin'], '*', 'errors too, or a page cannot read them')
  })
  test('HTTP/1.0: closed after the answer, never chunked', async () => {
    const r = await raw({ port }, post('', BODY, { version: '1.0' }))
    assert.equal(r.answers[0].status, 200)
    assert.equal(r.closed, true)
    assert.equal(r.answers[0].headers['transfer-encoding'], undefined)
    const s = await raw({ port }, post('', JSON.stringify(chatBody({ stream: true })), { version: '1.0' }))
    assert.equal(s.closed, true)
    assert.equal(s.answers[0].headers['transfer-encoding'], undefined)
    assert.match(s.text, /data: \[DONE\]\n\n$/)
  })
  test('Connection: close is honoured; an idle connection is closed after keepalive_timeout', async () => {
    const r = await raw({ port }, get('/v1/models', 'Connection: close\r\n'))
    assert.equal(r.closed, true)
    assert.match(r.answers[0].headers.connection, /close/i)
    const idle = await raw({ port: hasty.port }, get().replace(tenant.key, hasty.key))
    assert.equal(idle.closed, true)
    assert.equal(idle.answers.length, 1, 'and nothing is said')
  })
  test('absolute form and an empty line before the request', async () => {
    const r = await raw({ port, answers: 1 }, get('http://localhost/v1/models'))
    assert.equal(r.answers[0].status, 200)
    const e = await raw({ port, answers: 1 }, '\r\n' + get())
    assert.equal(e.answers[0].status, 200)
  })
  test('IPv6 and a Unix socket', async (t) => {
    assert.equal((await request({ host: '::1', port: six, path: '/v1/models', key: tenant.key })).status, 200)
    const u = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], listen: ['unix:./s.sock'] })
    const k = await u.tenant()
    const r = await request({ socketPath: path.join(u.dir, 's.sock'), path: '/v1/chat/completions', key: k.key, body: chatBody({}) })
    assert.equal(r.status, 200)
  })
  test('a POST without a length has an empty body', async () => {
    const r = await raw({ port, answers: 1 }, post('', '', { length: false }))
    assert.equal(r.answers[0].status, 400)
    assert.equal(r.answers[0].json.error.code, 'invalid_json')
  })
  test('a client that reads slowly gets all of a large stream, and the gateway does not store it', async () => {
    const word = 'w'.repeat(8000)
    up.on('big', sse({ words: Array.from({ length: 12000 }, () => word) })) // 96 MB, more than all socket buffers on the way
    const socket = net.connect(port, '127.0.0.1')
    await new Promise((resolve) => socket.on('connect', resolve))
    socket.write(post('Connection: close\r\n', JSON.stringify(chatBody({ model: 'big', stream: true }))))
    await until(() => up.of('big').length > 0, 'the call upstream')
    socket.pause()
    const sent = await new Promise((resolve) => { // the provider is blocked, not the gateway's memory filled
      let last = -1
      const timer = setInterval(() => { const d = up.of('big')[0].delivered ?? 0; if (d === last && d > 0) { clearInterval(timer); resolve(d) } last = d }, 150)
    })
    assert.ok(sent < 10000, `${sent} of 12,000 events went through without a reader`)
    let bytes = 0, tail = ''
    socket.resume()
    socket.on('data', (c) => { bytes += c.length; tail = (tail + c.toString('latin1')).slice(-200) })
    await new Promise((resolve) => socket.on('close', resolve))
    assert.ok(bytes > 12000 * 8000)
    assert.match(tail, /\[DONE\]/)
  })
})

describe('what is refused', () => {
  const closes = { // the connection cannot be trusted any more
    'both lengths': () => post('Transfer-Encoding: chunked\r\n', chunked(BODY)),
    'two lengths': () => post(`Content-Length: ${BODY.length + 1}\r\n`),
    'two lengths in one': () => post(`Content-Length: ${BODY.length}, ${BODY.length}\r\n`, BODY, { length: false }),
    'a length with a sign': () => post(`Content-Length: +${BODY.length}\r\n`, BODY, { length: false }),
    'a length that is hexadecimal': () => post('Content-Length: 0x10\r\n', BODY, { length: false }),
    'a length that is empty': () => post('Content-Length: \r\n', BODY, { length: false }),
    'a length beyond 64 bits': () => post('Content-Length: 99999999999999999999999\r\n', BODY, { length: false }),
    'chunked twice': () => post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', chunked(BODY), { length: false }),
    'chunked not last': () => post('Transfer-Encoding: chunked, identity\r\n', chunked(BODY), { length: false }),
    'an odd transfer encoding': () => post('Transfer-Encoding: xchunked\r\n', chunked(BODY), { length: false }),
    'a vertical tab before chunked': () => post('Transfer-Encoding: \x0bchunked\r\n', chunked(BODY), { length: false }),
    'a space before the colon': () => post('X-A : b\r\n'),
    'a space before the length\'s colon': () => post(`Content-Length : ${BODY.length}\r\n`, BODY, { length: false }),
    'a folded header': () => post('X-A: b\r\n c\r\n'),
    'a bare LF': () => post().replace('Host: localhost\r\n', 'Host: localhost\n'),
    'a bare CR': () => post('X-A: a\rb\r\n'),
    'a NUL': () => post('X-A: a\0b\r\n'),
    'a header without a name': () => post(': b\r\n'),
    'no host': () => post().replace('Host: localhost\r\n', ''),
    'two hosts': () => post('Host: elsewhere\r\n'),
    'a chunk size that is no number': () => post('Transfer-Encoding: chunked\r\n', 'zz\r\nabc\r\n0\r\n\r\n', { length: false }),
    'a chunk size beyond 64 bits': () => post('Transfer-Encoding: chunked\r\n', 'fffffffffffffffff\r\nabc\r\n0\r\n\r\n', { length: false }),
    'a chunk that is longer than it says': () => post('Transfer-Encoding: chunked\r\n', '3\r\nabcd\r\n0\r\n\r\n', { length: false }),
    'a chunk size ended by LF': () => post('Transfer-Encoding: chunked\r\n', '3\nabc\r\n0\r\n\r\n', { length: false }),
    'no request line': () => 'hello\r\n\r\n',
    'three spaces in the request line': () => post().replace('POST /', 'POST  /'),
    'a control character in the target': () => get('/v1/\x01models'),
    'TLS on a plain port': () => Buffer.from('16030100050100000100', 'hex'),
  }
  for (const [name, bytes] of Object.entries(closes)) {
    test(`${name}: an error, then the connection is closed, and what follows is not served`, async () => {
      const before = up.requests.length
      const text = bytes()
      const r = await raw({ port }, Buffer.isBuffer(text) ? text : text + get('/v1/models', 'X-Request-Id: smuggled\r\n'))
      assert.equal(r.closed, true)
      assert.ok(!r.text.includes('smuggled'), r.text)
      assert.ok(r.answers.length <= 1)
      if (r.answers.length) assert.ok(r.answers[0].status >= 400 && r.answers[0].status < 600, r.answers[0].line)
      assert.equal(up.requests.length, before, 'nothing went up')
    })
  }
  const codes = [
    ['a path that is too long', () => get(`/v1/${'x'.repeat(20000)}`), 414, 'uri_too_long'],
    ['headers that are too large', () => get('/v1/models', `X-A: ${'y'.repeat(100000)}\r\n`), 431, 'headers_too_large'],
    ['too many headers', () => get('/v1/models', 'X-A: b\r\n'.repeat(2000)), 431, 'headers_too_large'],
    ['a body that is too large, by its length', () => post('Content-Length: 99999999\r\n', '', { length: false }), 413, 'body_too_large'],
    ['a body that is too large, chunk by chunk', () => post('Transfer-Encoding: chunked\r\n', chunked('x'.repeat(300000), 20000), { length: false }), 413, 'body_too_large'],
    ['HTTP/2.0', () => get().replace('HTTP/1.1', 'HTTP/2.0'), 505, 'http_version'],
    ['an encoding we do not know', () => post('Transfer-Encoding: gzip, chunked\r\n', chunked(BODY), { length: false }), 501, 'not_implemented'],
    ['an unknown method', () => get().replace('GET', 'BREW'), null, null],
  ]
  for (const [name, bytes, status, code] of codes) {
    test(`${name}: ${status ?? '405 or 501'}`, async () => {
      const r = await raw({ port, answers: 1 }, bytes())
      assert.ok(r.answers.length === 1, r.text.slice(0, 200))
      if (status) { assert.equal(r.answers[0].status, status); assert.equal(r.answers[0].json.error.code, code) }
      else assert.ok([405, 501].includes(r.answers[0].status))
    })
  }
  test('a slow head and a slow body: 408', async () => {
    const head = await raw({ port: hasty.port }, 'POST /v1/chat/completions HTTP/1.1\r\nHost: loc')
    assert.equal(head.closed, true)
    if (head.answers.length) assert.equal(head.answers[0].status, 408)
    const body = await raw({ port: hasty.port }, post().replace(tenant.key, hasty.key).slice(0, -5))
    assert.equal(body.answers[0].status, 408)
    assert.equal(body.answers[0].json.error.code, 'request_timeout')
    assert.equal(body.closed, true)
  })
  test('a connection that says nothing is closed without a word', async () => {
    const r = await raw({ port: hasty.port })
    assert.equal(r.closed, true)
    assert.equal(r.text, '')
  })
  test('the error of a request that cannot be read has the usual shape', async () => {
    const r = await raw({ port }, 'GET / HTTP/1.1\r\nHost : a\r\n\r\n')
    assert.equal(r.answers[0].status, 400)
    assert.equal(r.answers[0].json.error.type, 'invalid_request_error')
  })
})

describe('other listeners', () => {
  test('tls, with a certificate of ours; a plain request there is refused', async (t) => {
    const dir = folder(t), certs = makeCerts(dir)
    const secure = await freePort()
    const s = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], listen: [`127.0.0.1:${secure} tls`],
      top: { certificate: path.join(dir, 'good.pem'), certificate_key: path.join(dir, 'good.key') } })
    const k = await s.tenant()
    const agent = new https.Agent({ ca: readFileSync(certs.ca), keepAlive: true, maxSockets: 1 })
    for (const stream of [false, true, false]) {
      const body = JSON.stringify(chatBody({ stream }))
      const text = await new Promise((resolve, reject) => {
        const q = https.request({ host: 'localhost', port: secure, path: '/v1/chat/completions', method: 'POST', agent,
          headers: { Authorization: `Bearer ${k.key}`, 'Content-Length': body.length } }, (res) => {
          let out = ''
          res.on('data', (c) => { out += c })
          res.on('end', () => resolve(out))
        })
        q.on('error', reject)
        q.end(body)
      })
      assert.match(text, stream ? /\[DONE\]/ : /Hello from upstream/)
    }
    agent.destroy()
    const plain = await raw({ port: secure }, get())
    assert.equal(plain.answers.filter((a) => a.status === 200).length, 0)
  })
  test('the PROXY protocol, versions 1 and 2, from a trusted balancer', async (t) => {
    const behind = await freePort()
    const s = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], listen: [`127.0.0.1:${behind} proxy_protocol`], top: { trusted_proxies: '127.0.0.1' } })
    const k = await s.tenant()
    const ask = get().replace(tenant.key, k.key)
    const one = await raw({ port: behind, answers: 1 }, `PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n${ask}`)
    assert.equal(one.answers[0]?.status, 200)
    const v2 = Buffer.concat([Buffer.from('0d0a0d0a000d0a515549540a2111000c', 'hex'), Buffer.from([203, 0, 113, 8, 127, 0, 0, 1, 0x12, 0x67, 0, 80])])
    const two = await raw({ port: behind, answers: 1 }, Buffer.concat([v2, Buffer.from(ask)]))
    assert.equal(two.answers[0]?.status, 200)
    const none = await raw({ port: behind }, ask)
    assert.equal(none.answers.filter((a) => a.status === 200).length, 0, 'without the header it is not served')
  })
})

describe('the admin listener', () => {
  test('/healthz, /readyz, /metrics', async () => {
    const h = await g.adminGet('/healthz')
    assert.equal(h.status, 200)
    assert.equal(h.text.trim(), 'ok')
    assert.equal((await g.adminGet('/readyz')).status, 200)
    await g.chat(tenant.key)
    const m = await g.adminGet('/metrics')
    assert.equal(m.status, 200)
    assert.match(m.headers['content-type'], /^text\/plain/)
    for (const name of ['gen_ai_client_token_usage', 'gen_ai_server_request_duration_seconds', 'gen_ai_server_time_to_first_token_seconds', 'tollgate_']) assert.ok(m.text.includes(name), name)
    for (const line of m.text.split('\n').filter((l) => l && !l.startsWith('#'))) assert.match(line, /^[a-zA-Z_:][\w:]*(\{[^}]*\})? -?[0-9.eE+Inf-]+$/, line)
    assert.ok(!m.text.includes(tenant.key) && !m.text.includes(tenant.account))
  })
  test('clients do not see it, and it is off the public port', async () => {
    assert.equal((await g.req({ path: '/metrics' })).status, 404)
    assert.equal((await g.req({ path: '/healthz' })).status, 404)
  })
})
