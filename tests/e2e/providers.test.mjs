/* Hostile providers: answers cut at every byte, figures that cannot be, streams that are none, certificates wrong in
 * every way, TLS that breaks in mid-stream, names that change. Each time a correct error in the client's own shape, no
 * charge or the right one, and afterwards nothing is held, open or lost. PROVIDER_CUTS=all cuts at every byte. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, renameSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { before, describe } from 'node:test'
import { makeCerts } from './lib/certs.mjs'
import { folder } from './lib/clean.mjs'
import { BUILD, root, startGateway, until } from './lib/gateway.mjs'
import { cost, decimal, nano } from './lib/money.mjs'
import { PRICE } from './lib/gateway.mjs'
import { chunks, completion, json, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const CUTS = process.env.PROVIDER_CUTS ?? '60'
const OK = JSON.stringify(completion({}))
const HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
const SSE = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n'
const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
const event = (o) => `data: ${typeof o === 'string' ? o : JSON.stringify(o)}\n\n`
const WHOLE = Buffer.from(`${HEAD}Content-Length: ${OK.length}\r\n\r\n${OK}`)
const STREAM = Buffer.from(`${SSE}Transfer-Encoding: chunked\r\n\r\n${[...chunks({ tokens: 4, usage: 'always' }), '[DONE]'].map((e) => chunk(event(e))).join('')}0\r\n\r\n`)
const DIALECTS = {
  openai: ['/v1/chat/completions', (stream) => ({ model: 'any/openai', stream, messages: [{ role: 'user', content: 'x' }] }), (b) => b.error.code],
  'openai-responses': ['/v1/responses', (stream) => ({ model: 'any/openai-responses', stream, input: 'x' }), (b) => b.error.code],
  anthropic: ['/v1/messages', (stream) => ({ model: 'any/anthropic', stream, max_tokens: 9, messages: [{ role: 'user', content: 'x' }] }), (b) => { assert.equal(b.type, 'error'); return b.error.details.error_code }],
  gemini: ['/v1beta/models/any%2Fgemini:generateContent', () => ({ contents: [{ role: 'user', parts: [{ text: 'x' }] }] }), (b) => { assert.equal(typeof b.error.code, 'number'); return b.error.details[0].reason }],
}

const shared = cleanUps()
let up, g, tenant, rest, dir
let say = json() // what a call gets whose model does not say it
before(async () => {
  up = await startUpstream(shared)
  up.otherwise = async (c) => {
    const [, kind, n, how] = /^(\w+)-(\d+)-(\w+)$/.exec(c.req.model ?? '') ?? []
    if (!kind) return say(c)
    await c.write((kind === 'whole' ? WHOLE : STREAM).subarray(0, Number(n)))
    if (how === 'reset') { await new Promise((r) => setTimeout(r, 2)); c.reset() } else c.end()
    return c.closed
  }
  const u = { url: up.url, retries: 0 }
  const price = { input: '2.75', output: '11.00', cached_input: '1.375' }
  g = await startGateway(shared, {
    workers: 1,
    upstreams: [{ ...u, name: 'cut' }, { ...u, name: 'hasty', first_byte_timeout: '1s' }, ...Object.keys(DIALECTS).map((d) => ({ ...u, name: d, dialect: d }))],
    models: [{ name: 'cut/*', route: 'cut as *', price }, { name: 'hasty', route: 'hasty as any', price }, { name: 'hold', route: 'openai as hold', price, max_output: 100, context: 1000 },
      ...Object.keys(DIALECTS).map((d) => ({ name: `any/${d}`, route: `${d} as any`, price }))],
    top: { max_active: 256 },
  })
  tenant = await g.tenant()
  say = json()
  for (let i = 0; i < 8; i++) await g.chat(tenant.key, { model: 'any/openai' })
  rest = await atRest()
})

/* What a worker has open and holds when it has nothing to do. */
async function atRest() {
  await until(async () => await g.metric('tollgate_exchanges_active') === 0, 'exchanges at rest')
  await g.settled(tenant.account)
  const [pid] = await g.workers()
  let fds = null
  try { fds = readdirSync(`/proc/${pid}/fd`).length } catch { /* another user's */ }
  return { pid, fds }
}
/* Nothing is left behind by what went before, and the pool serves. */
async function healthy() {
  say = json()
  for (let i = 0; i < 3; i++) assert.equal((await g.chat(tenant.key, { model: 'any/openai' })).status, 200)
  let now
  await until(async () => {
    now = await atRest()
    return now.fds === null || now.fds <= rest.fds + 16 // the pool keeps some connections
  }, 'descriptors as at first')
  assert.equal(now.pid, rest.pid, 'the worker never died')
  assert.equal(await g.metric('tollgate_holds_nano'), 0)
  await g.audit()
}
const raw = (data, then = 'keep') => async (c) => {
  await c.write(data)
  if (then === 'close') { c.end(); return c.closed }
  if (then === 'hang') return c.hang()
}
async function pool(jobs, n, run) {
  await Promise.all(Array.from({ length: n }, async () => { for (let j; (j = jobs.pop()) !== undefined;) await run(j) }))
}
function places(n) {
  if (CUTS === 'all') return Array.from({ length: n }, (_, i) => i)
  const step = Math.max(1, Math.floor(n / Number(CUTS)))
  return Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step).concat(n - 1, n - 2)
}

describe('an answer that ends early', () => {
  test('a whole one, cut or reset after so many bytes: 502, and no charge', { timeout: 300000 }, async () => {
    const t = await g.tenant({ credit: '10' })
    await pool(places(WHOLE.length).flatMap((n) => [[n, 'reset'], [n, 'close']]), 16, async ([n, how]) => {
      const r = await g.chat(t.key, { model: `cut/whole-${n}-${how}` })
      assert.equal(r.status, 502, `${how} after ${n} of ${WHOLE.length}: ${r.text}`)
      assert.equal(r.json.error.code, 'upstream_failed')
    })
    assert.equal((await g.settled(t.account)).balance, '10')
    await healthy()
  })
  test('a stream, cut or reset after so many bytes: never an end as if it were whole, charged for what was delivered', { timeout: 300000 }, async () => {
    const t = await g.tenant({ credit: '10' })
    const body = STREAM.indexOf('data: '), done = STREAM.indexOf('data: [DONE]'), finish = STREAM.indexOf('"finish_reason":"stop"')
    await pool(places(STREAM.length).flatMap((n) => [[n, 'reset'], [n, 'close']]), 16, async ([n, how]) => {
      const s = g.stream(t.key, { model: `cut/stream-${n}-${how}` })
      const h = await s.head
      const list = await s.all().catch((e) => [e])
      const where = `${how} after ${n} of ${STREAM.length}: ${h.status} ${s.text.slice(-300)}`
      if (h.status !== 200) { assert.equal(h.status, 502, where); assert.ok(n <= STREAM.indexOf('\n\n', body) + 1, where); return }
      const ended = s.text.includes('[DONE]')
      if (n < finish) assert.ok(!ended, where) // without a reason to end it is cut
      if (n > done + 14) assert.ok(ended, where)
      if (!ended) assert.ok(list.at(-1)?.error?.message, where)
    })
    await g.settled(t.account)
    const most = cost({ input: 24, output: 20 }, PRICE)
    for (const u of (await g.ctl('usage', '--account', t.account, '--limit', '1000')).usage) assert.ok(nano(u.cost) <= most, JSON.stringify(u))
    await healthy()
  })
})

/* [name, bytes, then]: none of it is an answer. */
const NONSENSE = [
  ['nothing', '', 'close'], ['NULs', '\0'.repeat(3000)], ['a head of garbage', '\xff\xfe\xfd\r\n\r\n'], ['half a head', 'HTTP/1.1 200 O', 'close'],
  ['a status without digits', 'HTTP/1.1 abc OK\r\n\r\n'], ['a status of four digits', 'HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n'], ['a status of 0', 'HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n'],
  ['HTTP/0.9', OK, 'close'], ['HTTP/3.0', `HTTP/3.0 200 OK\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`], ['ICY', `ICY 200 OK\r\n\r\n${OK}`, 'close'],
  ['101 Switching Protocols', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nbinary'], ['204', `HTTP/1.1 204 No Content\r\n\r\n`], ['204 with a body', `HTTP/1.1 204 No Content\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`],
  ['304 with a body', `HTTP/1.1 304 Not Modified\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`], ['206', `HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n`], ['a redirect', 'HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n'],
  ['a negative length', `${HEAD}Content-Length: -5\r\n\r\n${OK}`], ['a length with plus', `${HEAD}Content-Length: +${OK.length}\r\n\r\n${OK}`], ['a length of letters', `${HEAD}Content-Length: many\r\n\r\n${OK}`],
  ['a length beyond 64 bits', `${HEAD}Content-Length: 99999999999999999999\r\n\r\n${OK}`], ['a length of terabytes', `${HEAD}Content-Length: 9999999999999\r\n\r\n${OK}`, 'close'], ['two lengths', `${HEAD}Content-Length: ${OK.length}\r\nContent-Length: 2\r\n\r\n${OK}`],
  ['both framings', `${HEAD}Content-Length: ${OK.length}\r\nTransfer-Encoding: chunked\r\n\r\n${chunk(OK)}0\r\n\r\n`], ['a coding nobody knows', `${HEAD}Transfer-Encoding: gzip\r\n\r\n${OK}`, 'close'], ['a length too long', `${HEAD}Content-Length: ${OK.length + 9}\r\n\r\n${OK}`, 'close'],
  ['a length too short', `${HEAD}Content-Length: ${OK.length - 9}\r\n\r\n${OK}`], ['a length of 0', `${HEAD}Content-Length: 0\r\n\r\n${OK}`], ['a chunk of 2^64', `${HEAD}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n${OK}`], ['a chunk too short', `${HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n${OK}\r\n0\r\n\r\n`],
  ['no last chunk', `${HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk(OK)}`, 'close'], ['trailers without end', `${HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk(OK)}0\r\n${'X: y\r\n'.repeat(5000)}`], ['a thousand fields', `${HEAD}${'X: y\r\n'.repeat(1000)}\r\n`],
  ['a field of 40 KB', `${HEAD}X: ${'y'.repeat(40000)}\r\n\r\n`], ['a folded field', `${HEAD}X: a\r\n b\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`], ['a bare LF', HEAD.replaceAll('\r\n', '\n') + `\n${OK}`, 'close'], ['a NUL in a field', `${HEAD}X: a\0b\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`],
  ['a gzip body nobody asked for', Buffer.concat([Buffer.from(`${HEAD}Content-Encoding: gzip\r\nContent-Length: 26\r\n\r\n`), Buffer.from('1f8b0800000000000003ab562a2d4e2d52b2520200b4d4a3a10b000000', 'hex').subarray(0, 26)])],
  ['a deflate body', `${HEAD}Content-Encoding: br\r\nContent-Length: ${OK.length}\r\n\r\n${OK}`], ['JSON with a NUL', json({ body: OK.replace('Hello', 'He\0llo') })], ['JSON that is no UTF-8', json({ body: Buffer.from(OK.replace('Hello', '\xff\xfe'), 'latin1') })],
  ['JSON and more', json({ body: `${OK}${OK}` })], ['JSON of another shape', json({ body: '{"a":1}' })], ['an array', json({ body: '[]' })], ['a number', json({ body: '7' })], ['null', json({ body: 'null' })], ['JSON too deep', json({ body: '['.repeat(100000) + ']'.repeat(100000) })],
  ['an event stream for a whole answer', `${SSE}Content-Length: 14\r\n\r\ndata: [DONE]\n\n`], ['an error in a 200', json({ body: '{"error":{"message":"x","type":"server_error"}}' })],
]
describe('what is no answer', () => {
  for (const [dialect, [where, body, code]] of Object.entries(DIALECTS)) {
    test(`${dialect}: an error in the client's shape, no charge, and the pool is well`, async () => {
      const t = await g.tenant({ credit: '10' })
      for (const [name, bytes, then] of NONSENSE) {
        say = typeof bytes === 'function' ? bytes : raw(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes, 'latin1'), then)
        const r = await g.req({ method: 'POST', path: where, key: t.key, body: body(false) })
        assert.ok([502, 504].includes(r.status), `${name}: ${r.status} ${r.text.slice(0, 300)}`)
        assert.match(code(r.json), /^upstream_(failed|timeout)$/, `${name}: ${r.text}`)
        assert.ok(!/127\.0\.0\.1|sk-upstream/.test(r.text), name)
      }
      say = json()
      assert.equal((await g.settled(t.account)).balance, '10')
      await healthy()
    })
  }
  test('interim answers: some are skipped, without end they are none', async () => {
    say = raw(`${'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'.repeat(5)}${WHOLE}`)
    assert.equal((await g.chat(tenant.key, { model: 'any/openai' })).status, 200)
    say = async (c) => { for (let i = 0; i < 200000 && !c.gone; i++) await c.write('HTTP/1.1 100 Continue\r\n\r\n'.repeat(50)) ; return c.closed }
    const r = await g.chat(tenant.key, { model: 'hasty' })
    assert.ok([502, 504].includes(r.status), `${r.status}`)
    await healthy()
  })
  test('a body without end', async () => {
    const filler = Buffer.alloc(1 << 20, 32)
    say = async (c) => { await c.write(`${HEAD}Transfer-Encoding: chunked\r\n\r\n`); for (let i = 0; i < 1000 && !c.gone; i++) await c.write(Buffer.concat([Buffer.from(`${filler.length.toString(16)}\r\n`), filler, Buffer.from('\r\n')])); return c.closed }
    const r = await g.chat(tenant.key, { model: 'any/openai' })
    assert.equal(r.status, 502)
    await healthy()
  })
})

describe('figures that cannot be', () => {
  const estimate = 'estimate'
  const rows = [ // [usage, the meters that are charged]
    [{ prompt_tokens: 24, completion_tokens: 6, total_tokens: 30 }, { input: 24, output: 6 }],
    [{ prompt_tokens: -24, completion_tokens: -6, total_tokens: -30 }, estimate],
    [{ prompt_tokens: 2.5, completion_tokens: 0.1, total_tokens: 2.6 }, estimate],
    [{ prompt_tokens: '24', completion_tokens: '6' }, { input: 24, output: 6 }],
    [{ prompt_tokens: 'many', completion_tokens: null }, estimate],
    [{ prompt_tokens: [24], completion_tokens: { n: 6 } }, estimate],
    [{}, estimate], [[], estimate], [7, estimate], ['24', estimate], [null, estimate], [{ tokens: 30 }, estimate],
    [{ input_tokens: 24, output_tokens: 6 }, null], // another dialect's words: its figures or an estimate
    [{ prompt_tokens: 24, completion_tokens: 6, prompt_tokens_details: { cached_tokens: 1000 } }, null], // more cached than there is
    [{ prompt_tokens: 24, completion_tokens: 6, completion_tokens_details: { reasoning_tokens: 1000 } }, null],
  ]
  const absurd = ['1e300', '1e18', '9223372036854775807', '9223372036854775808', '18446744073709551615', '18446744073709551616', '340282366920938463463374607431768211456', '1' + '0'.repeat(400)]
  test('whole and streamed: the provider\'s where they make sense, else an estimate; never a credit', async () => {
    const t = await g.tenant({ credit: '10' })
    let before = nano('10')
    for (const [usage, meters] of rows) for (const stream of [false, true]) {
      say = stream ? async (c) => c.write(`${SSE}Content-Length: 0\r\n`.replace('Content-Length: 0\r\n', 'Transfer-Encoding: chunked\r\n\r\n') + [{ id: 'x', choices: [{ index: 0, delta: { content: 'four tokens here now' }, finish_reason: 'stop' }] }, { id: 'x', choices: [], usage }, '[DONE]'].map((e) => chunk(event(e))).join('') + '0\r\n\r\n')
        : json({ body: JSON.stringify({ ...completion({ content: 'four tokens here now' }), usage }) })
      const r = stream ? await g.stream(t.key, { model: 'any/openai' }).all() : await g.chat(t.key, { model: 'any/openai' })
      const now = nano((await g.settled(t.account)).balance), charged = before - now
      before = now
      const what = `${JSON.stringify(usage)} ${stream ? 'streamed' : 'whole'}: ${decimal(charged)} ${stream ? '' : r.text}`
      assert.ok(charged > 0n && charged < cost({ input: 1100, output: 1100 }, PRICE), what)
      if (meters && meters !== estimate) assert.equal(charged, cost(meters, PRICE), what)
      const [record] = await g.usage(t.account)
      if (meters === estimate) assert.equal(record.estimated, true, what)
      for (const k of ['input_tokens', 'output_tokens', 'cached_tokens', 'reasoning_tokens']) assert.ok(record[k] >= 0 && record[k] < 2000, `${k}: ${what}`)
      assert.ok(record.cached_tokens <= record.input_tokens && record.reasoning_tokens <= record.output_tokens, what)
    }
    say = json()
    await g.audit()
  })
  test('absurdly many: at most what was held and what is there, the rest is uncollected; nothing overflows', async () => {
    for (const n of absurd) for (const member of ['prompt_tokens', 'completion_tokens', 'cached']) {
      const t = await g.tenant({ credit: '1' })
      const text = member === 'cached' ? `"usage":{"prompt_tokens":24,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":${n}}}`
        : `"usage":{"prompt_tokens":24,"completion_tokens":6,"total_tokens":30}`.replace(new RegExp(`"${member}":\\d+`), `"${member}":${n}`)
      say = json({ body: OK.replace(/"usage":\{.*\}/, `${text}`) + (OK.match(/"usage":\{[^}]*\}\}$/) ? '}' : '') })
      const r = await g.chat(t.key, { model: 'hold' })
      assert.equal(r.status, 200, `${n}: ${r.text}`)
      const b = await g.settled(t.account)
      assert.ok(nano(b.balance) >= 0n && nano(b.balance) < nano('1'), `${n} ${member}: ${b.balance}`)
      const [record] = await g.usage(t.account)
      assert.ok(!/[-eE]/.test(String(record.cost)) && nano(record.cost) === nano('1') - nano(b.balance), JSON.stringify(record))
      assert.ok(r.json.usage.cost_usd >= 0 && Number.isFinite(r.json.usage.cost_usd), r.text)
    }
    say = json()
    await g.audit()
  })
})

describe('streams that are hardly any', () => {
  const ok = [{ id: 'x', choices: [{ index: 0, delta: { content: 'Hi' }, finish_reason: null }] }, { id: 'x', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }, { id: 'x', choices: [], usage: { prompt_tokens: 5, completion_tokens: 1, total_tokens: 6 } }, '[DONE]'].map(event)
  const served = {
    'a byte-order mark first': (l) => ['\ufeff', ...l], 'lines ended by CR LF': (l) => l.map((e) => e.replaceAll('\n', '\r\n')), 'lines ended by CR': (l) => l.map((e) => e.replaceAll('\n', '\r')),
    'comments, ids, retries and unknown fields': (l) => [': hello\n\n', 'id: 7\nretry: 5\nfoo: bar\nnonsense\n\n', ...l], 'data in several lines': (l) => l.map((e) => e.replace(',', ',\ndata: ')),
    'no blank behind the colon': (l) => l.map((e) => e.replace('data: ', 'data:')), 'empty events': (l) => ['\n\n\n', ...l, '\n\n'], 'events after [DONE]': (l) => [...l, event({ id: 'x', choices: [{ index: 0, delta: { content: 'NEVER' } }] }), event({ error: { message: 'NEVER' } })],
    '[DONE] twice': (l) => [...l, l.at(-1)], 'a very long comment': (l) => [`: ${'c'.repeat(2 << 20)}\n\n`, ...l], 'an event of a megabyte': (l) => [event({ id: 'x', choices: [{ index: 0, delta: { content: 'w'.repeat(1 << 20) }, finish_reason: null }] }), ...l],
    'figures twice': (l) => [l[0], l[1], l[2], l[2], l[3]],
  }
  const broken = {
    'a NUL in an event': (l) => [l[0], 'data: {"id":"\0"}\n\n', ...l.slice(1)], 'an event that is no JSON': (l) => [l[0], 'data: {nope\n\n', ...l.slice(1)], 'an event that is a number': (l) => [l[0], 'data: 7\n\n', ...l.slice(1)],
    'no UTF-8': (l) => [l[0], Buffer.from('data: {"a":"\xff"}\n\n', 'latin1'), ...l.slice(1)], 'an event without an end': (l) => [l[0], `data: ${'x'.repeat(40 << 20)}`], 'half an event': (l) => [l[0], l[1].slice(0, 20)],
  }
  const play = (list) => async (c) => {
    await c.write(`${SSE}Connection: close\r\n\r\n`)
    for (const part of list) { if (c.gone) return; await c.write(part) }
    c.end()
    return c.closed
  }
  for (const [name, make] of Object.entries(served)) {
    test(`${name}: served, and charged once`, async () => {
      const t = await g.tenant({ credit: '10' })
      say = play(make(ok))
      const s = g.stream(t.key, { model: 'any/openai' })
      const list = await s.all()
      assert.equal(list.at(-1), '[DONE]', s.text.slice(-300))
      assert.ok(!s.text.includes('NEVER'))
      assert.equal(list.filter((e) => e === '[DONE]').length, 1)
      assert.equal(nano('10') - nano((await g.settled(t.account)).balance), cost({ input: 5, output: 1 }, PRICE))
    })
  }
  for (const [name, make] of Object.entries(broken)) {
    test(`${name}: ends in an error`, async () => {
      const t = await g.tenant({ credit: '10' })
      say = play(make(ok))
      const s = g.stream(t.key, { model: 'any/openai' })
      const list = await s.all().catch((e) => [e])
      assert.ok(!s.text.includes('[DONE]'), s.text.slice(-300))
      assert.ok(list.at(-1)?.error?.message, JSON.stringify(list.at(-1)).slice(0, 300))
      const charged = nano('10') - nano((await g.settled(t.account)).balance)
      assert.ok(charged > 0n && charged <= cost({ input: 30, output: 10 }, PRICE), 'for what was delivered')
    })
  }
  test('a stream without end is read no faster than its client reads, and ends with him', async () => {
    say = async (c) => { await c.write(`${SSE}Transfer-Encoding: chunked\r\n\r\n`); const e = chunk(event({ id: 'x', choices: [{ index: 0, delta: { content: 'w '.repeat(500) }, finish_reason: null }] })); while (!c.gone) await c.write(e); return c.closed }
    const t = await g.tenant({ credit: '0.01' })
    const s = g.stream(t.key, { model: 'any/openai' })
    for (let i = 0; i < 50; i++) await s.next()
    s.abort()
    assert.ok(nano((await g.settled(t.account)).balance) >= 0n)
  })
  test('and after all of it the pool is well', healthy)
})

describe('TLS', () => {
  const WRONG = ['wrong', 'noname', 'expired', 'notyet', 'selfsigned', 'clientonly', 'weak', 'sha1', 'truncated', 'byleaf']
  const ups = {}
  let s, k, certs, mode = null
  const through = new Set()
  before(async () => {
    dir = folder(shared)
    certs = makeCerts(dir)
    for (const name of ['good', 'chained', ...WRONG]) { ups[name] = await startUpstream(shared, { cert: certs[name], ciphers: /weak|sha1/.test(name) ? 'DEFAULT@SECLEVEL=0' : undefined }) }
    /* Between the gateway and a good provider: bytes of the provider's are changed, or the connection is cut, behind so many. */
    const middle = net.createServer((a) => {
      through.add(a)
      a.on('close', () => through.delete(a))
      const b = net.connect(ups.good.port, '127.0.0.1')
      let seen = 0
      for (const x of [a, b]) { x.on('error', () => {}); x.setNoDelay(true) }
      a.pipe(b)
      b.on('data', (c) => {
        const at = mode.after - seen
        seen += c.length
        if (at >= c.length || at < 0) { if (!a.destroyed) a.write(c); return }
        if (mode.how === 'flip') { const d = Buffer.from(c); d[at] ^= 1; a.write(d) } else { a.write(c.subarray(0, at)); if (mode.how === 'reset') a.resetAndDestroy(); else a.end(); b.destroy() }
      })
      b.on('close', () => a.end())
      a.on('close', () => b.destroy())
    })
    await new Promise((resolve) => middle.listen(0, '127.0.0.1', resolve))
    shared.push(() => { for (const a of through) a.destroy(); middle.close() })
    const one = (name, url, more) => ({ name: `u-${name}`, url, ca_file: certs.ca, retries: 0, ...more })
    s = await startGateway(shared, { workers: 1, upstreams: [...Object.keys(ups).map((n) => one(n, ups[n].url)), one('middle', `https://localhost:${middle.address().port}/v1`, { first_byte_timeout: '2s', idle_timeout: '2s' })],
      models: [...Object.keys(ups), 'middle'].map((n) => ({ name: n, route: `u-${n}` })) })
    k = await s.tenant({ credit: '10' })
  })
  for (const name of ['good', 'chained']) test(`${name}: served`, async () => { const r = await s.chat(k.key, { model: name }); assert.equal(r.status, 200, r.text + s.log()) })
  for (const name of WRONG) {
    test(`a certificate that is ${name}: 502, the request never goes out, the operator hears of it`, async () => {
      const r = await s.chat(k.key, { model: name })
      assert.equal(r.status, 502, r.text)
      assert.equal(r.json.error.code, 'upstream_failed')
      assert.equal(ups[name].requests.length, 0)
      await until(() => s.errorLog().includes(`u-${name}`), 'a line in the error log')
    })
  }
  test('records changed, or the connection cut, at places all over handshake and answer: an error, nothing of it passed on', async () => {
    ups.good.otherwise = (c) => (c.req.json.stream ? raw(STREAM)(c) : raw(WHOLE)(c))
    const before = nano((await s.settled(k.account)).balance)
    let charged = 0
    for (const how of ['flip', 'end', 'reset']) for (let after = 3; after < 2600; after += how === 'flip' ? 250 : 370) for (const stream of [false, true]) {
      mode = { how, after }
      const r = await s.req({ method: 'POST', path: '/v1/chat/completions', key: k.key, body: { model: 'middle', stream, messages: [{ role: 'user', content: 'x' }] } }).catch((e) => ({ status: 0, text: String(e) }))
      const whole = stream ? r.text.includes('[DONE]') : r.status === 200
      if (r.status === 200 && !whole) assert.match(r.text, /"error"/, `${how} after ${after}`)
      else if (!whole) assert.ok([502, 504].includes(r.status), `${how} after ${after}: ${r.status} ${r.text}`)
      else if (!stream) assert.equal(r.json.choices[0].message.content, 'Hello from upstream')
      if (r.status === 200) charged++
      for (const c of ups.good.open) c.destroy()
    }
    mode = { how: 'end', after: Infinity }
    assert.equal((await s.chat(k.key, { model: 'middle' })).status, 200, 'and then it serves')
    const spent = before - nano((await s.settled(k.account)).balance)
    assert.ok(spent <= BigInt(charged + 1) * cost({ input: 24, output: 156 }, PRICE))
    await s.audit()
  })
  test('a body that ends with its connection, without a close_notify, is cut', async () => {
    const text = `${HEAD}Connection: close\r\n\r\n${OK}`
    mode = { how: 'end', after: Infinity }
    let sent = 0
    ups.good.otherwise = async (c) => { await c.write(text); sent++; return c.closed }
    const answer = s.chat(k.key, { model: 'middle' })
    await until(() => sent > 0, 'the answer')
    await new Promise((r) => setTimeout(r, 50)) // on its way through
    for (const a of through) a.end() // TCP's end without TLS's
    const r = await answer
    ups.good.otherwise = json()
    assert.equal(r.status, 502, r.text)
  })
})

describe('names', { skip: /(^|\/)san-/.test(BUILD) }, () => {
  let s, k, hosts, here, there
  const point = (address) => { writeFileSync(`${hosts}.new`, address ? `provider.test ${address}\n` : 'provider.test nothing\n'); renameSync(`${hosts}.new`, hosts) }
  const ask = () => s.chat(k.key, { model: 'named' })
  before(async () => {
    const so = path.join(dir, 'names.so')
    execFileSync(process.env.CC ?? 'cc', ['-D_GNU_SOURCE', '-O1', '-fPIC', '-shared', '-Wall', '-Wextra', '-Werror', '-o', so, 'tests/inside/names.c', '-ldl'], { cwd: root })
    hosts = path.join(dir, 'hosts')
    point(null)
    here = await startUpstream(shared, { listen: '127.0.0.2' })
    s = await startGateway(shared, { workers: 2, upstreams: [{ name: 'named', url: `http://provider.test:${here.port}/v1`, retries: 0, connect_timeout: '1s' }], models: [{ name: 'named', route: 'named' }],
      env: { LD_PRELOAD: so, TG_HOSTS: hosts } })
    k = await s.tenant()
  })
  test('to nothing: an error; then to somewhere: served, without a restart', async () => {
    const r = await ask()
    assert.ok([502, 503].includes(r.status), r.text)
    point('127.0.0.2')
    await until(async () => (await ask()).status === 200, 'the name to be found')
  })
  test('it moves away: asked again when nobody answers at the old place', async () => {
    there = await startUpstream(shared, { listen: '127.0.0.3', port: here.port })
    point('127.0.0.3')
    assert.equal((await ask()).status, 200, 'the old address serves while somebody is there')
    await here.close()
    await until(async () => (await ask()).status === 200, 'the new address')
    assert.ok(there.requests.length > 0)
  })
  test('to nothing again: the old addresses stay', async () => {
    point(null)
    const r = await ask()
    assert.ok([200, 502].includes(r.status))
    await s.audit()
  })
})
