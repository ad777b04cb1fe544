/* Random and mutated requests against a server built with the address and undefined-behaviour sanitizers (where
 * build/san-gcc/tollgate is there, as tools/check makes it). FLOOD says how many (a million in `make hostile`); FLOOD_SEED
 * repeats them. Afterwards the same workers serve, no sanitizer has spoken, nothing is held, and the ledger agrees. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { before } from 'node:test'
import { TOLLGATE, root, startGateway, until } from './lib/gateway.mjs'
import { seeded } from './lib/random.mjs'
import { chat, json, startUpstream } from './upstream.mjs'
import { SHAPES, fill } from './lib/smuggling.mjs'
import { cleanUps, test } from './lib/test.mjs'

const FLOOD = Number(process.env.FLOOD ?? 3000)
const sanitized = path.join(root, 'build/san-gcc/tollgate')
const program = process.env.FLOOD_PROGRAM ?? (existsSync(sanitized) ? sanitized : TOLLGATE)
const shared = cleanUps()
let up, g, tenant
before(async () => {
  up = await startUpstream(shared)
  up.otherwise = (c) => { up.requests.length = 0; return (/messages/.test(c.req.path) ? json({ body: '{"type":"message","id":"m","role":"assistant","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}' }) : chat({ tokens: 2 }))(c) }
  const dialects = ['openai', 'openai-responses', 'anthropic', 'gemini']
  g = await startGateway(shared, {
    program, env: { ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=1', UBSAN_OPTIONS: 'print_stacktrace=1' },
    upstreams: dialects.map((d) => ({ name: d, url: up.url, dialect: d, retries: 0, first_byte_timeout: '2s' })),
    models: [...dialects.map((d) => ({ name: d, route: `${d} as m`, allow: 'web_search code_execution file_search' })), { name: 'gpt-4o', route: 'openai as m' }, { name: 'fam/*', route: 'openai as *' },
      { name: 'emb', kind: 'embedding', route: 'openai as m' }, { name: 'img', kind: 'image', route: 'openai as m', price: 'image 0.04' }],
    top: { client_timeout: '1s', max_body: '256k', admin_token: 'admin-token', cors_origin: '*', trusted_proxies: '127.0.0.1' },
    billing: { signup: 'on', signup_credit: '1', signup_rate: '1000000/h', models_public: 'on' },
  })
  tenant = await g.tenant({ credit: '1000000' })
})

const message = (method, p, body, headers = '') => `${method} ${p} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${tenant.key}\r\n${headers}${body === undefined ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`}\r\n${body ?? ''}`
function seeds() {
  const tools = [{ type: 'function', function: { name: 'f', description: 'd', parameters: { type: 'object', properties: { a: { type: ['string', 'null'], enum: ['x', null] } }, required: ['a'] } } }]
  const bodies = []
  for (const model of ['openai', 'anthropic', 'openai-responses', 'gemini', 'fam/x']) for (const stream of [true, false]) {
    bodies.push(['/v1/chat/completions', { model, stream, n: 2, max_tokens: 9, tools, tool_choice: 'auto', stream_options: { include_usage: true }, response_format: { type: 'json_schema', json_schema: { name: 's', schema: { type: 'object' } } }, messages: [{ role: 'system', content: 's' }, { role: 'user', content: [{ type: 'text', text: 'h\u00e9\ud83d\ude00' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }] }, { role: 'assistant', content: null, tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{"a":"x"}' } }] }, { role: 'tool', tool_call_id: 'c', content: 'r' }] }])
    bodies.push(['/v1/messages', { model, stream, max_tokens: 9, system: [{ type: 'text', text: 's', cache_control: { type: 'ephemeral' } }], thinking: { type: 'enabled', budget_tokens: 1024 }, tools: [{ name: 'f', input_schema: { type: 'object' } }], messages: [{ role: 'user', content: [{ type: 'text', text: 'x' }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AAAA' } }] }, { role: 'assistant', content: [{ type: 'thinking', thinking: 't', signature: 's' }, { type: 'tool_use', id: 't', name: 'f', input: { a: 1 } }] }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't', content: 'r' }] }] }])
    bodies.push(['/v1/responses', { model, stream, instructions: 'i', max_output_tokens: 99, reasoning: { effort: 'low' }, text: { format: { type: 'json_object' } }, tools: [{ type: 'function', name: 'f', parameters: {} }, { type: 'web_search' }], input: [{ role: 'user', content: [{ type: 'input_text', text: 'x' }] }, { type: 'reasoning', id: 'rs', summary: [], encrypted_content: 'tollgate1.ro00000001.xx' }, { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }, { type: 'function_call_output', call_id: 'c', output: 'o' }] }])
    bodies.push([`/v1beta/models/${model}:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`, { systemInstruction: { parts: [{ text: 's' }] }, generationConfig: { maxOutputTokens: '9', thinkingConfig: { thinkingBudget: -1 }, responseSchema: { type: 'OBJECT' } }, tools: [{ functionDeclarations: [{ name: 'f', parametersJsonSchema: {} }] }], contents: [{ role: 'user', parts: [{ text: 'x' }, { inlineData: { mimeType: 'image/png', data: 'AAAA' } }] }, { role: 'model', parts: [{ functionCall: { name: 'f', args: {} }, thoughtSignature: 'c2ln' }] }, { role: 'user', parts: [{ functionResponse: { name: 'f', response: { r: 1 } } }] }] }])
  }
  bodies.push(['/v1/embeddings', { model: 'emb', input: ['a', [1, 2]], dimensions: 3 }], ['/v1/images/generations', { model: 'img', prompt: 'p', n: 2, size: '1024x1024' }], ['/v1/completions', { model: 'openai', prompt: 'p', max_tokens: 3 }],
    ['/v1/messages/count_tokens', { model: 'anthropic', messages: [{ role: 'user', content: 'x' }] }], ['/v1beta/models/gemini:countTokens', { contents: [{ parts: [{ text: 'x' }] }] }], ['/v1beta/models/emb:batchEmbedContents', { requests: [{ content: { parts: [{ text: 'x' }] } }] }],
    ['/auth/login', { email: 'a@b.cd', password: 'secret' }], ['/api-keys?name=x', { name: 'n', models: 'gpt-*' }], ['/admin/credits', { account: 'a@b.cd', amount: '1.5' }])
  const list = bodies.map(([p, o]) => message('POST', p, JSON.stringify(o)))
  for (const [m, p] of [['GET', '/v1/models'], ['GET', '/v1/models/fam%2Fx'], ['GET', '/v1/key'], ['GET', '/billing/usage?limit=3&since=30d'], ['GET', '/billing/balance'], ['GET', '/api/status'], ['OPTIONS', '/v1/models'], ['HEAD', '/v1/models'], ['DELETE', '/api-keys/key_1'], ['PUT', '/v1/models/gpt-4o/cap'], ['GET', '/v1beta/models?key=x&pageSize=2']]) list.push(message(m, p, m === 'PUT' ? '{"cap":0.05}' : undefined, 'X-Forwarded-For: 1.2.3.4, ::1\r\nanthropic-version: 2023-06-01\r\n'))
  for (const s of SHAPES) list.push(fill(s.bytes, tenant.key).replaceAll('{K}', tenant.key))
  return list.map((s) => Buffer.from(s, 'utf8'))
}

const ODD = ['\0', '\r\n', '"', '\\', '\\ud800', '{', '}', '[', ']', ',', ':', 'null', '-1', '1e999', '18446744073709551616', '0.1', '\xff', '\xc3\x28', '{"a":', ';', '%00', '%', '?', '&key=', 'chunked', 'Transfer-Encoding: chunked\r\n', 'Content-Length: 3\r\n', 'Expect: 100-continue\r\n']
/* One change, or a few. The body's length is put right most of the time, so that what is inside is read. */
function mutate(random, list) {
  let b = Buffer.from(random.of(list))
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(b.length + 1), len = random.below(random.chance(0.8) ? 16 : 400)
    switch (random.below(7)) {
      case 0: if (at < b.length) b[at] ^= 1 << random.below(8); break
      case 1: b = Buffer.concat([b.subarray(0, at), b.subarray(at + len)]); break
      case 2: b = Buffer.concat([b.subarray(0, at), b.subarray(at, at + len), b.subarray(at)]); break
      case 3: b = Buffer.concat([b.subarray(0, at), Buffer.from(random.of(ODD), 'latin1'), b.subarray(at)]); break
      case 4: b = Buffer.concat([b.subarray(0, at), random.bytes(len), b.subarray(at)]); break
      case 5: { const other = random.of(list), from = random.below(other.length); b = Buffer.concat([b.subarray(0, at), other.subarray(from, from + len), b.subarray(at)]); break }
      default: { const text = b.toString('latin1'), all = [...text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d+|true|false|null/g)]; if (all.length) { const m = random.of(all), with_ = random.chance(0.5) ? random.of(all)[0] : random.of(ODD); b = Buffer.from(text.slice(0, m.index) + with_ + text.slice(m.index + m[0].length), 'latin1') } }
    }
    if (b.length === 0) b = Buffer.from('x')
  }
  const cut = b.indexOf('\r\n\r\n')
  if (cut > 0 && random.chance(0.8)) b = Buffer.concat([Buffer.from(b.subarray(0, cut).toString('latin1').replace(/Content-Length: \d+/, `Content-Length: ${b.length - cut - 4}`), 'latin1'), b.subarray(cut)])
  return b
}

/* What comes back until the server ends the connection, as a last good request asks it to; a request that swallowed that
 * one and waits for more is left after a moment. */
const LAST = Buffer.from('GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
function send(mutated, pieces) {
  const bytes = Buffer.concat([mutated, LAST])
  return new Promise((resolve) => {
    const s = net.connect(g.port, '127.0.0.1')
    let n = 0
    const timer = setTimeout(() => s.destroy(), 200)
    s.on('error', () => {})
    s.on('data', (c) => { n += c.length; timer.refresh() })
    s.on('close', () => { clearTimeout(timer); resolve(n) })
    s.on('connect', () => { for (const p of pieces ? [bytes.subarray(0, pieces), bytes.subarray(pieces)] : [bytes]) s.write(p) })
  })
}

test(`${FLOOD} random and mutated requests (${path.relative(root, program)})`, { timeout: 24 * 3600 * 1000 }, async (t) => {
  const random = seeded(process.env.FLOOD_SEED), list = seeds()
  t.diagnostic(`FLOOD_SEED=${random.seed}`)
  const workers = await g.workers()
  for (const s of list.slice(0, 60)) assert.ok(await send(s) > 0, s.toString('latin1').slice(0, 200))
  let n = 0, answered = 0
  await Promise.all(Array.from({ length: 48 }, async () => {
    while (n < FLOOD) {
      const bytes = random.chance(0.02) ? random.bytes(1 + random.below(3000)) : Buffer.concat(Array.from({ length: 1 + random.below(3) }, () => { n++; return mutate(random, list) }))
      if (await send(bytes, random.chance(0.2) ? random.below(bytes.length) : 0) > 0) answered++
    }
  }))
  const say = `FLOOD_SEED=${random.seed}\n${g.log()}`
  assert.ok(!/Sanitizer|runtime error|LeakSanitizer/.test(g.output + g.errorLog()), say)
  assert.deepEqual(await g.workers(), workers, `no worker died: ${say}`)
  assert.ok(answered > FLOOD / 4, `${answered} connections got an answer`)
  assert.equal((await g.chat(tenant.key, { model: 'openai' })).status, 200, say)
  await until(async () => await g.metric('tollgate_exchanges_active') === 0, 'exchanges at rest')
  assert.equal((await g.settled(tenant.account)).held, '0')
  await g.audit()
  const end = await g.stop('SIGTERM', 20000) // a leak is said at the end
  assert.equal(end?.code, 0, say)
  assert.ok(!/Sanitizer|runtime error/.test(g.output), g.output.slice(-4000))
})
