/* Pictures: what is checked before anything is held, what is held and charged, and the three kinds of upstream. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import zlib from 'node:zlib'
import { startGateway, until } from './lib/gateway.mjs'
import { digitsOf } from './lib/money.mjs'
import { cleanUps, test } from './lib/test.mjs'
import { json, newGate, startUpstream, status } from './upstream.mjs'

const shared = cleanUps()
const TOKENS = { input: '5', cached_input: '1.25', image_input: '10', output: '40', image_output: '40' }
let up, g, t
before(async () => {
  up = await startUpstream(shared)
  const model = (name, upstream, o = {}) => ({ name, kind: 'image', route: `${upstream} as inner-${name}`, context: null, max_output: null, ...o })
  g = await startGateway(shared, {
    upstreams: [{ name: 'oai', url: up.url }, { name: 'gem', url: up.url.replace('/v1', '/v1beta'), dialect: 'gemini' }, { name: 'ant', url: up.url, dialect: 'anthropic' }],
    models: [
      model('dalle', 'oai', { price: 'image 0.04; price image 1024x1792 0.08; price image 1024x1024 hd 0.08; price image 1024x1792 hd 0.12',
        sizes: '1024x1024 1024x1792', qualities: 'standard hd', n_max: 4, prompt_max: 4000 }),
      model('odd', 'oai', { price: 'image 512x512 0.01; price image 768x512 0.02', sizes: '512x512 768x512' }),
      model('gpt-image', 'oai', { price: TOKENS }), model('flash-image', 'gem', { price: TOKENS }), model('flash-each', 'gem', { price: 'image 0.039' }),
      model('none', 'ant', { price: 'image 1' }), { name: 'gpt-4o', route: 'oai' },
      { name: 'draw', kind: 'image', route: 'local', price: 'image 0.01', context: null, max_output: null, n_max: 4 }],
    text: 'upstream local { dialect echo; }\n',
    tiers: { few: 'rpm 1 burst 1; images_rpm 2 burst 2;' }, groups: { dear: 'models *; ratio 1.5;' },
  })
  t = await g.tenant()
})

const draw = (body, o = {}) => g.req({ path: '/v1/images/generations', method: 'POST', key: t.key, body: typeof body === 'string' ? body : JSON.stringify(body), ...o })
const made = (n, extra = {}) => json({ body: JSON.stringify({ created: 1709150000, data: Array.from({ length: n }, (_, i) => ({ url: `https://cdn.example.com/${i}.png`, revised_prompt: 'better' })), ...extra }) })
const last = () => up.requests.at(-1)
const newest = async (who = t) => { await g.settled(who.account); return (await g.usage(who.account))[0] }
const spent = async (f, who = t) => { const a = (await g.settled(who.account)).balance; const r = await f(); return [r, Math.round((a - (await g.settled(who.account)).balance) * 1e9) / 1e9] }

describe('pictures at a price each', () => {
  const prices = [[{}, '0.04'], [{ size: '1024x1792' }, '0.08'], [{ quality: 'hd' }, '0.08'], [{ size: '1024x1792', quality: 'hd' }, '0.12'], [{ n: 3, size: '1024x1792', quality: 'hd' }, '0.36'],
    [{ size: null, quality: null, n: null, response_format: null }, '0.04']]
  for (const [ask, price] of prices) {
    test(`${JSON.stringify(ask)} costs ${price}`, async () => {
      up.on('inner-dalle', made(ask.n ?? 1))
      const body = JSON.stringify({ model: 'dalle', prompt: 'a cat', ...ask, style: 'vivid', x_new: [1.5] })
      const [r, cost] = await spent(() => draw(body))
      assert.equal(r.status, 200)
      assert.equal(last().path, '/v1/images/generations')
      assert.equal(last().body.toString(), body.replace('"dalle"', '"inner-dalle"'))
      assert.equal(r.json.data.length, ask.n ?? 1)
      assert.equal(r.json.data[0].revised_prompt, 'better')
      assert.equal(r.json.created, 1709150000)
      assert.equal(digitsOf(r.text, 'cost_usd'), price)
      assert.equal(r.headers['x-tollgate-cost'], price)
      assert.equal(cost, Number(price))
      const u = await newest()
      assert.equal(u.images, ask.n ?? 1)
      assert.equal(u.cost, price)
      assert.equal(u.estimated, false)
      assert.equal(u.output_tokens, 0)
    })
  }
  test('the pictures that came are charged, not those asked for; never more than those', async () => {
    for (const [came, price] of [[1, '0.04'], [0, '0'], [4, '0.12']]) {
      up.on('inner-dalle', made(came))
      const [r, cost] = await spent(() => draw({ model: 'dalle', prompt: 'x', n: 3 }))
      assert.equal(r.json.data.length, came)
      assert.equal(digitsOf(r.text, 'cost_usd'), price)
      assert.equal(cost, Number(price))
    }
  })
  test('all of them are held before they are asked for', async () => {
    const { gate, open: go } = newGate()
    up.on('inner-dalle', async (c) => { await gate; return made(4)(c) })
    const who = await g.tenant({ credit: '1' })
    const n = up.requests.length
    const answer = draw({ model: 'dalle', prompt: 'x', n: 4, size: '1024x1792', quality: 'hd' }, { key: who.key })
    await until(() => up.requests.length > n, 'the call upstream')
    assert.equal((await g.balance(who.account)).held, '0.48')
    go()
    assert.equal((await answer).status, 200)
    assert.equal((await g.settled(who.account)).balance, '0.52')
  })
  test('a balance that does not pay all of them', async () => {
    const poor = await g.tenant({ credit: '0.1' })
    up.on('inner-dalle', made(2))
    const r = await draw({ model: 'dalle', prompt: 'x', n: 3 }, { key: poor.key })
    assert.equal(r.status, 402)
    assert.equal(r.json.error.code, 'insufficient_balance')
    assert.equal((await draw({ model: 'dalle', prompt: 'x', n: 2 }, { key: poor.key })).status, 200)
    const capped = await g.tenant()
    await g.ctl('cap', 'set', capped.account, 'dalle', '0.05')
    const over = await draw({ model: 'dalle', prompt: 'x', n: 2 }, { key: capped.key })
    assert.equal(over.json.error.code, 'call_cap_exceeded')
  })
  test('the group\'s ratio', async () => {
    const who = await g.tenant({ group: 'dear' })
    up.on('inner-dalle', made(1))
    assert.equal(digitsOf((await draw({ model: 'dalle', prompt: 'x' }, { key: who.key })).text, 'cost_usd'), '0.06')
  })
  test('the list says what a usual picture costs, at the group\'s ratio; nothing where tokens are what is paid', async () => {
    const who = await g.tenant({ group: 'dear' })
    const image = async (key) => Object.fromEntries((await g.req({ path: '/v1/models', key })).json.data.map((m) => [m.id, m.pricing.image]))
    const plain = await image(t.key), dear = await image(who.key)
    assert.deepEqual([plain.dalle, plain.odd, plain['flash-each'], plain.none, plain['gpt-image'], plain['gpt-4o']], ['0.04', '0.01', '0.039', '1', undefined, undefined])
    assert.deepEqual([dear.dalle, dear.odd, dear.none], ['0.06', '0.015', '1.5'])
  })
  test('a default that is not the provider\'s own is sent', async () => {
    up.on('inner-odd', made(1))
    const r = await draw({ model: 'odd', prompt: 'x' })
    assert.equal(last().json.size, '512x512')
    assert.equal(last().json.quality, undefined)
    assert.equal(digitsOf(r.text, 'cost_usd'), '0.01')
    await draw('{"model":"odd","size":null,"prompt":"x"}')
    assert.equal(last().json.size, '512x512')
  })
  test('a provider\'s refusal is told and not billed', async () => {
    up.on('inner-dalle', status(400, { error: { message: 'no', type: 'image_generation_user_error', code: 'content_policy_violation' } }))
    const [r, cost] = await spent(() => draw({ model: 'dalle', prompt: 'x' }))
    assert.equal(r.status, 400)
    assert.equal(r.json.error.code, 'content_policy_violation')
    assert.equal(cost, 0)
  })
})

describe('what is refused', () => {
  const bad = [
    [{ model: 'dalle' }, 'missing_field', 'prompt'], [{ model: 'dalle', prompt: '' }, 'invalid_value', 'prompt'], [{ model: 'dalle', prompt: 7 }, 'invalid_value', 'prompt'],
    [{ prompt: 'x' }, 'missing_field', 'model'], [{ model: 'dalle', prompt: 'ä'.repeat(4001) }, 'invalid_value', 'prompt'],
    [{ model: 'dalle', prompt: 'x', size: '256x256' }, 'invalid_value', 'size'], [{ model: 'dalle', prompt: 'x', size: 5 }, 'invalid_value', 'size'],
    [{ model: 'dalle', prompt: 'x', quality: 'ultra' }, 'invalid_value', 'quality'], [{ model: 'dalle', prompt: 'x', n: 5 }, 'invalid_value', 'n'],
    [{ model: 'dalle', prompt: 'x', n: 0 }, 'invalid_value', 'n'], [{ model: 'dalle', prompt: 'x', n: 1.5 }, 'invalid_value', 'n'],
    [{ model: 'dalle', prompt: 'x', response_format: 'jpeg' }, 'invalid_value', 'response_format'], [{ model: 'dalle', prompt: 'x', stream: true }, 'unsupported_parameter', 'stream'],
    ['{"model":"dalle","prompt":"x","n":1,"n":4}', 'invalid_value', 'n'], [{ model: 'gpt-4o', prompt: 'x' }, 'invalid_value', 'model'],
    [{ model: 'dalle', prompt: 'x', output_format: 'gif' }, 'unsupported_parameter', 'output_format'], [{ model: 'dalle', prompt: 'x', output_format: 'svg' }, 'unsupported_parameter', 'output_format'],
    [{ model: 'dalle', prompt: 'x', frame_count: 4 }, 'unsupported_parameter', 'frame_count'], [{ model: 'dalle', prompt: 'x', svg: { model: 'dear' } }, 'unsupported_parameter', 'svg'],
    [{ model: 'none', prompt: 'x' }, 'unsupported_parameter', 'model'],
  ]
  for (const [body, code, param] of bad) {
    test(JSON.stringify(body).slice(0, 70), async () => {
      const n = up.requests.length
      const [r, cost] = await spent(() => draw(body))
      assert.equal(r.status, 400, r.text)
      assert.equal(r.json.error.code, code)
      assert.equal(r.json.error.param, param)
      assert.equal(up.requests.length, n)
      assert.equal(cost, 0)
    })
  }
  test('a prompt of as many characters as may be, whatever their bytes', async () => {
    up.on('inner-dalle', made(1))
    assert.equal((await draw({ model: 'dalle', prompt: 'ä'.repeat(4000) })).status, 200)
  })
  test('an image model in a conversation', async () => {
    const r = await g.chat(t.key, { model: 'dalle' })
    assert.equal(r.status, 400)
    assert.match(r.json.error.message, /images\/generations/)
  })
  test('images count against images_rpm, and not against rpm', async () => {
    const few = await g.tenant({ tier: 'few' })
    up.on('inner-dalle', made(1))
    for (const left of ['1', '0']) {
      const r = await draw({ model: 'dalle', prompt: 'x' }, { key: few.key })
      assert.equal(r.status, 200)
      assert.equal(r.headers['x-ratelimit-limit-requests'], '2')
      assert.equal(r.headers['x-ratelimit-remaining-requests'], left)
    }
    const third = await draw({ model: 'dalle', prompt: 'x' }, { key: few.key })
    assert.equal(third.status, 429)
    assert.equal(third.json.error.param, 'requests')
    assert.equal((await g.chat(few.key)).status, 200)
  })
})

describe('pictures priced by tokens', () => {
  test('text and image tokens have prices of their own', async () => {
    const usage = { input_tokens: 150, input_tokens_details: { text_tokens: 50, image_tokens: 100 }, output_tokens: 4160, total_tokens: 4310 }
    up.on('inner-gpt-image', json({ body: JSON.stringify({ created: 1, data: [{ b64_json: 'iVBORw0KGgo=' }], background: 'opaque', usage }) }))
    const [r, cost] = await spent(() => draw({ model: 'gpt-image', prompt: 'x', quality: 'high', background: 'opaque' }))
    assert.equal(r.status, 200)
    assert.equal(r.json.usage.output_tokens, 4160)
    assert.equal(digitsOf(r.text, 'cost_usd'), String((50 * 5 + 100 * 10 + 4160 * 40) / 1e6))
    assert.equal(cost, (50 * 5 + 100 * 10 + 4160 * 40) / 1e6)
    const u = await newest()
    assert.equal(u.images, 1)
    assert.equal(u.input_tokens, 150)
    assert.equal(u.output_tokens, 4160)
  })
  test('without figures by the published table, marked as an estimate', async () => {
    up.on('inner-gpt-image', json({ body: JSON.stringify({ created: 1, data: [{ b64_json: 'iVBORw0KGgo=' }] }) }))
    const r = await draw({ model: 'gpt-image', prompt: 'xxxx', quality: 'medium' })
    assert.equal(digitsOf(r.text, 'cost_usd'), String((1 * 5 + 1056 * 40) / 1e6))
    assert.equal((await newest()).estimated, true)
  })
})

describe('gemini upstream', () => {
  const says = (o) => { up.otherwise = json({ body: JSON.stringify(o) }) }
  const picture = { candidates: [{ content: { parts: [{ text: 'Here:' }, { inlineData: { mimeType: 'image/png', data: 'b2xk' }, thought: true }, { inlineData: { mimeType: 'image/png', data: 'aGk=' } }] }, finishReason: 'STOP' }],
    usageMetadata: { promptTokenCount: 10, candidatesTokenCount: 1295, candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: 1290 }], totalTokenCount: 1305 } }
  test('a picture comes as b64_json', async () => {
    says(picture)
    const r = await draw({ model: 'flash-image', prompt: 'a "cat"', size: '1792x1024', quality: 'hd', response_format: 'b64_json' })
    assert.equal(r.status, 200)
    assert.equal(last().path, '/v1beta/models/inner-flash-image:generateContent')
    assert.deepEqual(last().json, { contents: [{ role: 'user', parts: [{ text: 'a "cat"' }] }], generationConfig: { responseModalities: ['TEXT', 'IMAGE'], imageConfig: { aspectRatio: '16:9' } } })
    assert.deepEqual(r.json.data, [{ b64_json: 'aGk=' }])
    assert.equal(r.json.output_format, 'png')
    assert.equal(r.json.usage.output_tokens, 1295)
    assert.equal(digitsOf(r.text, 'cost_usd'), String((10 * 5 + 1295 * 40) / 1e6))
    assert.equal(r.headers['x-tollgate-dropped'], 'size,quality')
  })
  test('a url cannot be served: b64_json, and said so; a price each', async () => {
    says({ candidates: picture.candidates })
    const r = await draw({ model: 'flash-each', prompt: 'x', response_format: 'url' })
    assert.equal(r.json.data[0].b64_json, 'aGk=')
    assert.equal(r.headers['x-tollgate-dropped'], 'response_format')
    assert.equal(last().json.generationConfig.imageConfig, undefined)
    assert.equal(digitsOf(r.text, 'cost_usd'), '0.039')
    assert.equal((await newest()).estimated, false)
  })
  test('several pictures, or none', async () => {
    const several = await draw({ model: 'flash-image', prompt: 'x', n: 2 })
    assert.equal(several.status, 400)
    assert.equal(several.json.error.param, 'n')
    says({ candidates: [{ content: { parts: [{ text: 'I cannot draw that.' }] }, finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 3 } })
    const [words, cost] = await spent(() => draw({ model: 'flash-image', prompt: 'x' }))
    assert.equal(words.status, 400)
    assert.match(words.json.error.message, /I cannot draw that/)
    assert.equal(cost, 0)
    says({ promptFeedback: { blockReason: 'PROHIBITED_CONTENT' } })
    const blocked = await draw({ model: 'flash-image', prompt: 'x' })
    assert.equal(blocked.json.error.code, 'content_policy_violation')
    assert.match(blocked.json.error.message, /PROHIBITED_CONTENT/)
  })
})

describe('echo', () => {
  /* Reads the PNG as a decoder would: signature, checksums, pixels. */
  function png(b) {
    assert.equal(b.subarray(0, 8).toString('hex'), '89504e470d0a1a0a')
    const chunks = {}
    for (let at = 8; at < b.length;) {
      const n = b.readUInt32BE(at), type = b.subarray(at + 4, at + 8).toString()
      let crc = ~0
      for (const byte of b.subarray(at + 4, at + 8 + n)) { crc ^= byte; for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0) }
      assert.equal(b.readUInt32BE(at + 8 + n), ~crc >>> 0, type)
      chunks[type] = b.subarray(at + 8, at + 8 + n)
      at += 12 + n
    }
    assert.ok(chunks.IEND)
    const w = chunks.IHDR.readUInt32BE(0), h = chunks.IHDR.readUInt32BE(4)
    assert.equal(zlib.inflateSync(chunks.IDAT).length, (1 + 3 * w) * h)
    return { w, h }
  }
  test('pictures that a decoder takes', async () => {
    const r = await draw({ model: 'draw', prompt: 'a cat', n: 2, response_format: 'b64_json' })
    assert.equal(r.json.data.length, 2)
    for (const d of r.json.data) assert.ok(png(Buffer.from(d.b64_json, 'base64')).w > 0)
    assert.equal(digitsOf(r.text, 'cost_usd'), '0.02')
    const url = (await draw({ model: 'draw', prompt: 'a cat' })).json.data[0].url
    assert.match(url, /^data:image\/png;base64,/)
    png(Buffer.from(url.slice(url.indexOf(',') + 1), 'base64'))
  })
  test('the official package', async () => {
    const { default: OpenAI } = await import('openai')
    const client = new OpenAI({ apiKey: t.key, baseURL: `http://127.0.0.1:${g.port}/v1` })
    const r = await client.images.generate({ model: 'draw', prompt: 'x', response_format: 'b64_json' })
    assert.ok(r.data[0].b64_json.length > 100)
  })
})
test('the books balance', async () => { await g.settled(t.account); await g.audit() })
