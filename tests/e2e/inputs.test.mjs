/* Attacks on money and limits through what a request says: numbers that are none, negative, fractional or beyond all
 * bounds, members that stand twice, names of ten kilobytes. Nothing is served that was not priced and held, no balance
 * moves the wrong way, and each is told what is wrong. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g
before(async () => {
  up = await startUpstream(shared)
  const price = { input: '1000', output: '2000' } // dear, so that a hold shows
  g = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url }, { name: 'ant', url: up.url, dialect: 'anthropic' }, { name: 'resp', url: up.url, dialect: 'openai-responses' }, { name: 'gem', url: up.url, dialect: 'gemini' }],
    models: [{ name: 'gpt-4o', price, max_output: 1000, context: 4000 }, { name: 'claude', route: 'ant as claude', price, max_output: 1000, context: 4000 }, { name: 'resp', route: 'resp as resp', price, max_output: 1000, context: 4000 },
      { name: 'gem', route: 'gem as gem', price, max_output: 1000, context: 4000 }, { name: 'img', kind: 'image', route: 'mock as img', price: 'image 0.04', n_max: 4 }] })
})
const post = (key, path, body) => g.req({ method: 'POST', path, key, body })
const chat = (extra) => `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]${extra}}`

const NO_NUMBERS = ['-1', '0', '-0', '0.5', '1.5', '1e-3', '-1e9', '"10"', '"-1"', '[]', '{}', 'true', '[5]', '1e400', '18446744073709551616', '99999999999999999999999', '-9223372036854775808', '"1e3"']
const HUGE = ['18446744073709551615', '9223372036854775808', '9223372036854775807', '4294967296', '1000000000000']
describe('limits of output', () => {
  const places = {
    max_tokens: ['/v1/chat/completions', (v) => chat(`,"max_tokens":${v}`)], max_completion_tokens: ['/v1/chat/completions', (v) => chat(`,"max_completion_tokens":${v}`)],
    'max_tokens (Anthropic)': ['/v1/messages', (v) => `{"model":"claude","max_tokens":${v},"messages":[{"role":"user","content":"x"}]}`], max_output_tokens: ['/v1/responses', (v) => `{"model":"resp","input":"x","max_output_tokens":${v}}`],
    maxOutputTokens: ['/v1beta/models/gem:generateContent', (v) => `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":${v}}}`],
    'max_tokens (completions)': ['/v1/completions', (v) => `{"model":"gpt-4o","prompt":"x","max_tokens":${v}}`],
  }
  for (const [name, [path, make]] of Object.entries(places)) {
    test(`${name}: what is no positive integer is a 400, and nothing goes up`, async () => {
      const t = await g.tenant({ credit: '10' }), n = up.requests.length
      for (const v of NO_NUMBERS) {
        if (name === 'maxOutputTokens' && v === '"10"') continue // proto3's way to write one
        if (/Anthropic|completions\)/.test(name) && /^-?0$/.test(v)) continue // a call for the cache's sake, or for an echo
        const r = await post(t.key, path, make(v))
        assert.equal(r.status, 400, `${v}: ${r.status} ${r.text}`)
      }
      assert.equal(up.requests.length, n)
      assert.equal((await g.settled(t.account)).balance, '10')
    })
    test(`${name}: beyond all bounds: cut to what the model and the money allow`, async () => {
      const t = await g.tenant({ credit: '3' })
      for (const v of HUGE) {
        const r = await post(t.key, path, make(v))
        if (r.status === 200 || r.status === 502) {
          const sent = up.requests.at(-1).json, limit = sent.max_tokens ?? sent.max_completion_tokens ?? sent.max_output_tokens ?? sent.generationConfig?.maxOutputTokens
          assert.ok(limit <= 1500, `${v}: ${limit} went up`) // what $3 pay, or the model's own
        } else assert.ok([400, 402].includes(r.status), `${v}: ${r.status} ${r.text}`)
      }
      assert.ok(nano((await g.settled(t.account)).balance) >= 0n)
    })
  }
})
describe('how many', () => {
  for (const [path, make] of [['/v1/chat/completions', (v) => chat(`,"n":${v}`)], ['/v1/images/generations', (v) => `{"model":"img","prompt":"x","n":${v}}`], ['/v1beta/models/gem:generateContent', (v) => `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"candidateCount":${v}}}`]]) {
    test(`n at ${path}`, async () => {
      const t = await g.tenant({ credit: '10' }), n = up.requests.length
      for (const v of [...NO_NUMBERS, ...HUGE, '129', '1000']) {
        if (v === '"10"' || (v === '"1e3"' && /gem/.test(path))) continue
        const r = await post(t.key, path, make(v))
        assert.equal(r.status, 400, `${v}: ${r.status} ${r.text}`)
      }
      assert.equal(up.requests.length, n)
    })
  }
  test('n times the limit is held: a small balance does not buy a hundred answers', async () => {
    const t = await g.tenant({ credit: '3' })
    const r = await post(t.key, '/v1/chat/completions', chat(',"n":128,"max_tokens":1000'))
    if (r.status === 200) assert.ok(up.requests.at(-1).json.max_tokens * 128 * 0.002 <= 3.01, `${up.requests.at(-1).json.max_tokens}`)
    else assert.equal(r.status, 402)
    assert.ok(nano((await g.settled(t.account)).balance) >= 0n)
  })
})
describe('members that stand twice', () => {
  for (const body of [chat(',"max_tokens":1,"max_tokens":1000'), chat(',"n":1,"n":100'), chat(',"model":"other"'), chat(',"stream":true,"stream":false'), chat(',"m\\u006fdel":"other"'), chat(',"max_tokens":1,"max_\\u0074okens":900'),
    chat(',"messages":[]'), chat(',"tools":[],"tools":[]')]) {
    test(`${body.slice(60)}: 400`, async () => {
      const t = await g.tenant({ credit: '10' }), n = up.requests.length
      const r = await post(t.key, '/v1/chat/completions', body)
      assert.equal(r.status, 400, r.text)
      assert.equal(up.requests.length, n)
    })
  }
})
test('model names: of ten kilobytes, with odd characters, empty, of another type', async () => {
  const t = await g.tenant({ credit: '10' }), n = up.requests.length
  for (const model of ['"' + 'm'.repeat(10240) + '"', '""', '"gpt-4o\\u0000"', '"gpt-4o\\r\\nX: y"', '"../gpt-4o"', '" gpt-4o"', '"GPT-4o "', '"*"', '"gpt-4o/../x"', 'null', '7', '["gpt-4o"]', '{"a":1}', '"\\ud83d\\ude00"']) {
    const r = await post(t.key, '/v1/chat/completions', `{"model":${model},"messages":[{"role":"user","content":"x"}]}`)
    assert.ok([400, 404].includes(r.status), `${model.slice(0, 30)}: ${r.status}`)
    assert.ok(r.text.length < 1500, `${r.text.length} bytes of error`)
    assert.ok(!Object.keys(r.headers).includes('x'))
  }
  for (const path of ['m'.repeat(7000), '%00', 'a%0d%0aX:%20y', '..%2f..', '%zz']) {
    const r = await post(t.key, `/v1beta/models/${path}:generateContent`, '{"contents":[{"parts":[{"text":"x"}]}]}')
    assert.ok([400, 404, 414].includes(r.status), `${path.slice(0, 20)}: ${r.status}`)
  }
  assert.equal(up.requests.length, n)
})
test('stream is true, false or null, and nothing else', async () => {
  const t = await g.tenant({ credit: '10' }), n = up.requests.length
  for (const v of ['"true"', '"false"', '1', '0', '[]', '{}', '"yes"']) {
    assert.equal((await post(t.key, '/v1/chat/completions', chat(`,"stream":${v}`))).status, 400, v)
    assert.equal((await post(t.key, '/v1/messages', `{"model":"claude","max_tokens":9,"stream":${v},"messages":[{"role":"user","content":"x"}]}`)).status, 400, v)
    assert.equal((await post(t.key, '/v1/responses', `{"model":"resp","input":"x","stream":${v}}`)).status, 400, v)
  }
  assert.equal(up.requests.length, n)
})
test('what makes a call dearer is refused unless it is priced, however it is written', async () => {
  const t = await g.tenant({ credit: '10' }), n = up.requests.length
  for (const extra of [',"service_tier":"priority"', ',"service\\u005ftier":"priority"', ',"service_tier":["priority"]', ',"web_search_options":{}', ',"modalities":["audio"]']) assert.equal((await post(t.key, '/v1/chat/completions', chat(extra))).status, 400, extra)
  assert.equal(up.requests.length, n)
})
test('amounts of tollctl and of clients: negative, exponents, beyond 64 bits', async () => {
  const t = await g.tenant({ credit: '10' })
  for (const v of ['-5', '0', '1e3', '1.0000000001', '9999999999999999999', 'NaN', '0x10', '', ' 5', '5 ', '+5', '1,5', '92233720368547758.08']) {
    const r = await g.ctlRaw('--json', 'credit', t.account, v)
    assert.notEqual(r.code, 0, `${v}: ${r.stdout}`)
  }
  assert.equal((await g.balance(t.account)).balance, '10')
  const most = await g.ctlRaw('--json', 'credit', t.account, '9223372026')
  const again = await g.ctlRaw('--json', 'credit', t.account, '9223372026')
  assert.ok(most.code !== 0 || again.code !== 0, 'no balance overflows')
  assert.ok(nano((await g.balance(t.account)).balance) >= nano('10'))
  await g.audit()
})
