/* Every translated stream against the grammar of its dialect (lib/grammar.mjs): whole, in single bytes, cut behind each event in two ways,
 * and with the provider's own error behind each event. A stream is never a success after a cut, and an error is never anything else. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { root, startGateway } from './lib/gateway.mjs'
import { grammar } from './lib/grammar.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const WORDS = { openai: 'openai', responses: 'openai-responses', anthropic: 'anthropic', gemini: 'gemini' }
const FOLDER = path.join(root, 'tests/dialect/answers')
const FIXTURES = readdirSync(FOLDER).filter((f) => f.endsWith('.sse')).map((file) => ({ file, up: file.split('.').at(-2), text: readFileSync(path.join(FOLDER, file), 'utf8') }))
const ERRORS = {
  openai: 'data: {"error":{"message":"broken","type":"server_error","code":null,"param":null}}\n\n',
  responses: 'event: error\ndata: {"type":"error","code":"server_error","message":"broken","param":null,"sequence_number":99}\n\n',
  anthropic: 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"broken"}}\n\n',
  gemini: 'data: {"error":{"code":500,"message":"broken","status":"INTERNAL"}}\n\n',
}
const shared = cleanUps(), ups = {}
let g, tenant
before(async () => {
  for (const d of Object.keys(WORDS)) {
    ups[d] = await startUpstream(shared)
    ups[d].otherwise = play
  }
  g = await startGateway(shared, {
    upstreams: Object.entries(WORDS).map(([d, dialect]) => ({ name: d, url: ups[d].url, dialect, retries: 0, cooldown: '1s' })),
    models: Object.keys(WORDS).map((d) => ({ name: `over-${d}`, route: `${d} as m` })),
  })
  tenant = await g.tenant({ credit: '1000' })
})

/* What to play stands in the prompt, so that many calls can go at once: FIXTURE MODE EVENTS. */
const pieces = (text) => text.match(/[^]*?(?:\r?\n\r?\n)|[^]+$/g)
async function play(c) {
  const [, name, mode, n] = /play (\S+) (\S+) (\d+)/.exec(c.req.body.toString())
  const { up, text } = FIXTURES.find((f) => f.file === name)
  const shown = mode === 'whole' || mode === 'bytes' ? text : pieces(text).slice(0, Number(n)).join('') + (mode === 'error' ? ERRORS[up] : '')
  const chunked = mode === 'broken'
  await c.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n${chunked ? 'Transfer-Encoding: chunked' : 'Connection: close'}\r\n\r\n`)
  const body = Buffer.from(shown)
  if (mode === 'bytes') for (const b of body) await c.write(Buffer.from([b]))
  else if (chunked) await c.write(Buffer.concat([Buffer.from(`${(body.length + 1).toString(16)}\r\n`), body])) // a byte short of its chunk
  else await c.write(body)
  c.end()
  return c.closed
}
const say = (f, mode, n) => `play ${f.file} ${mode} ${n}`
const ASK = {
  openai: (m, text) => ['/v1/chat/completions', { model: m, stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: text }] }],
  responses: (m, text) => ['/v1/responses', { model: m, stream: true, input: text }],
  anthropic: (m, text) => ['/v1/messages', { model: m, stream: true, max_tokens: 3000, messages: [{ role: 'user', content: text }] }],
  gemini: (m, text) => [`/v1beta/models/${m}:streamGenerateContent?alt=sse`, { contents: [{ parts: [{ text }] }] }],
}
async function ask(client, f, mode, n = 0) {
  const [p, body] = ASK[client](`over-${f.up}`, say(f, mode, n))
  const r = await g.req({ method: 'POST', path: p, key: tenant.key, body })
  if (r.status !== 200) {
    assert.equal(r.status, 502, r.text)
    assert.ok(r.json.error.message, r.text)
    return { ended: 'error' }
  }
  assert.match(r.headers['content-type'], /^text\/event-stream/)
  try { return grammar[client](r.text) } catch (e) { e.message = `${client} over ${f.file} ${mode} ${n}: ${e.message}\n${r.text}`; throw e }
}
/* Behind the first of these a broken line costs nothing but figures; behind the second there is nothing left to break. */
const WORD = { openai: /"finish_reason": ?"/, responses: /response\.(completed|incomplete)"/, anthropic: /"stop_reason": ?"/, gemini: /"finishReason": ?"/ }
const TERMINAL = { openai: /\[DONE\]/, responses: WORD.responses, anthropic: /message_stop/, gemini: /^never$/ }

for (const f of FIXTURES)
  describe(f.file, () => {
    for (const client of Object.keys(WORDS).filter((d) => d !== f.up)) {
      test(`as ${client}: whole, and in single bytes`, async () => {
        const [whole, bytes] = await Promise.all([ask(client, f, 'whole'), ask(client, f, 'bytes')])
        assert.equal(whole.ended, 'whole')
        const shape = (r) => ({ ...r, calls: r.calls.map(({ name, args }) => [name, args]) })
        assert.deepEqual(shape(bytes), shape(whole))
        for (const c of whole.calls) JSON.parse(c.args)
      })
      test(`as ${client}: cut behind each event`, async () => {
        const all = pieces(f.text), place = (what) => { const i = all.findIndex((e) => what.test(e)); return i < 0 ? all.length : i }
        const word = place(WORD[f.up]), terminal = place(TERMINAL[f.up])
        assert.ok(word > 0 && word < all.length)
        await Promise.all(all.flatMap((_, n) => ['closed', 'broken', 'error'].map(async (mode) => {
          const r = await ask(client, f, mode, n)
          assert.equal(r.ended, n > (mode === 'error' ? terminal : word) ? 'whole' : 'error', `${mode} behind ${n} of ${all.length}`)
        })))
      })
    }
  })
