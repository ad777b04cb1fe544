/* Every client dialect over every provider's, through the whole server: the golden streams of tests/dialect as the providers' answers,
 * whole, in single bytes, and cut; that the money follows the provider's figures; and what a provider is sent. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { root, startGateway, until } from './lib/gateway.mjs'
import { bytes, startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const DIALECTS = ['openai', 'responses', 'anthropic', 'gemini']
const WORDS = { openai: 'openai', responses: 'openai-responses', anthropic: 'anthropic', gemini: 'gemini' }
const fixture = (name) => readFileSync(path.join(root, 'tests/dialect/answers', name))
const shared = cleanUps(), ups = {}
let g, tenant
before(async () => {
  const upstreams = [], models = []
  for (const d of DIALECTS) {
    ups[d] = await startUpstream(shared)
    upstreams.push({ name: d, url: ups[d].url, dialect: WORDS[d], retries: 0 })
    models.push({ name: `over-${d}`, route: `${d} as m`, price: { input: '1', output: '2', cached_input: '0.5', cache_write: '3', cache_write_1h: '4' },
      capabilities: 'tools reasoning' })
  }
  g = await startGateway(shared, { upstreams, models })
  tenant = await g.tenant()
})

/* An SSE answer: its bytes in pieces of `size`; cut: so many bytes of it, then the connection breaks. */
function sse(text, { size = text.length, cut } = {}) {
  return async (c) => {
    const sent = cut === undefined ? text : text.subarray(0, cut)
    await c.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: ${text.length}\r\n\r\n`)
    for (let i = 0; i < sent.length; i += size) await c.write(sent.subarray(i, i + size))
    if (cut !== undefined) { c.end(); return c.closed }
  }
}
const ASK = {
  openai: (m) => ['/v1/chat/completions', { model: m, stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: 'Hi' }] }],
  responses: (m) => ['/v1/responses', { model: m, stream: true, input: 'Hi' }],
  anthropic: (m) => ['/v1/messages', { model: m, stream: true, max_tokens: 3000, messages: [{ role: 'user', content: 'Hi' }] }],
  gemini: (m) => [`/v1beta/models/${m}:streamGenerateContent?alt=sse`, { contents: [{ parts: [{ text: 'Hi' }] }] }],
}
async function ask(client, up, behaviour) {
  ups[up].otherwise = behaviour
  const [p, body] = ASK[client](`over-${up}`)
  return g.req({ method: 'POST', path: p, key: tenant.key, body })
}
const ENDS = { openai: /data: \[DONE\]\n\n$/, responses: /event: response\.completed\n[^\n]+\n\n$/, anthropic: /event: message_stop\n[^\n]+\n\n$/,
  gemini: /"finishReason":"STOP".*"costUsd":[^\n]+\r\n\r\n$/ }
const CALLS = { openai: ['a', 'b'], responses: ['go'], anthropic: ['go', 'go'], gemini: ['go', 'stop', 'slow'] }

describe('streams', () => {
  for (const up of DIALECTS)
    for (const client of DIALECTS)
      test(`${client} over ${up}: calls, usage, cost and the terminator, in any pieces`, async () => {
        const text = fixture(`tools.${up}.sse`)
        const seen = []
        for (const size of [text.length, 7]) {
          const r = await ask(client, up, sse(text, { size }))
          assert.equal(r.status, 200, r.text)
          assert.match(r.headers['content-type'], /^text\/event-stream/)
          assert.match(r.text, ENDS[client])
          for (const name of CALLS[up]) assert.ok(r.text.includes(`"name":"${name}"`), `${name} in ${r.text}`)
          assert.match(r.text, /"cost_?[uU]sd":0\.0000?[0-9]+/)
          seen.push(r.text.replace(/[A-Za-z0-9]{24}/g, 'ID').replace(/"created(_at)?":\d+/g, ''))
        }
        if (client !== up) assert.equal(seen[0], seen[1])
      })
})

describe('breaks', () => {
  for (const up of DIALECTS)
    for (const client of DIALECTS)
      test(`${client} over ${up}: a cut stream ends with an error, never as if it were whole`, async () => {
        const text = fixture(`tools.${up}.sse`)
        const r = await ask(client, up, sse(text, { cut: Math.floor(text.length * 0.6) })).catch((e) => ({ broken: e }))
        if (r.broken) return
        assert.ok(r.status === 502 || /"error"|response\.failed/.test(r.text), r.text)
        assert.doesNotMatch(r.text, ENDS[client])
      })
  test('garbage in place of an answer is a 502 in the shape of the client', async () => {
    for (const up of DIALECTS)
      for (const client of DIALECTS) {
        const r = await ask(client, up, bytes('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{"a": 1'))
        assert.equal(r.status, 502, `${client} over ${up}: ${r.text}`)
        assert.ok(r.json.error.message)
      }
  })
})

test('the record holds the meters of the provider, whatever the client speaks', async () => {
  const t = await g.tenant()
  ups.anthropic.otherwise = sse(fixture('tools.anthropic.sse'))
  const [p, body] = ASK.responses('over-anthropic')
  const r = await g.req({ method: 'POST', path: p, key: t.key, body })
  assert.equal(r.status, 200, r.text)
  /* 12 plain, 30 read, 5 + 15 written, 50 out: 12×1 + 30×0.5 + 5×3 + 15×4 + 50×2 = 202 µ$ */
  const u = await until(async () => (await g.ctl('usage', '--key', t.key)).usage[0], 'the record')
  assert.deepEqual([u.input_tokens, u.cached_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.cost, u.estimated],
    [62, 30, 20, 50, 9, '0.000202', false])
})

test('what the provider cannot express is a 400 that names it, or dropped and said', async () => {
  const refused = await g.req({ method: 'POST', path: '/v1/chat/completions', key: tenant.key,
    body: { model: 'over-anthropic', n: 2, messages: [{ role: 'user', content: 'a' }] } })
  assert.equal(refused.status, 400, refused.text)
  assert.equal(refused.json.error.param, 'n')
  ups.anthropic.otherwise = sse(fixture('tools.anthropic.sse'))
  const dropped = await g.req({ method: 'POST', path: '/v1/chat/completions', key: tenant.key,
    body: { model: 'over-anthropic', stream: true, seed: 7, temperature: 1.5, messages: [{ role: 'user', content: 'a' }] } })
  assert.equal(dropped.status, 200, dropped.text)
  assert.deepEqual(dropped.headers['x-tollgate-dropped'].split(',').map((s) => s.trim()).sort(), ['seed', 'temperature'])
  const sent = ups.anthropic.requests.at(-1)
  assert.equal(sent.path, '/v1/messages')
  assert.equal(sent.headers['anthropic-version'], '2023-06-01')
  assert.equal(sent.headers['x-api-key'], 'sk-upstream')
  assert.equal(sent.json.temperature, 1)
  assert.equal(sent.json.model, 'm')
})

test('a member\'s name is a word in that header, whatever it holds', async () => {
  const names = ['a\r\nX-Evil: 1', 'b\u0000\u007f\u00e9', 'c,d', 'e'.repeat(9000), 'fine_1']
  const say = { model: 'over-anthropic', stream: true, messages: [{ role: 'user', content: 'Hi' }] }
  ups.anthropic.otherwise = sse(fixture('tools.anthropic.sse'))
  for (const body of [{ ...say, ...Object.fromEntries(names.map((n) => [n, 1])) },
    { ...say, tools: [{ type: 'function', function: { name: 'f' } }, ...names.map((type) => ({ type }))] },
    { ...say, messages: [{ role: 'user', content: [{ type: 'text', text: 'Hi', ...Object.fromEntries(names.map((n) => [n, 1])) }] }] }]) {
    const r = await g.req({ method: 'POST', path: '/v1/chat/completions', key: tenant.key, body })
    assert.equal(r.status, 200, r.text)
    assert.equal(r.headers['x-evil'], undefined)
    const said = r.headers['x-tollgate-dropped'].split(',')
    assert.equal(said.length, names.length, said.map((s) => s.slice(0, 40)))
    for (const word of said) assert.match(word, /^[!-+\--~]{1,80}$/)
    assert.ok(said.some((word) => word.endsWith('fine_1')))
  }
})
