/* Product document 2 (tests/seeds/2-chat-and-images.conf): chat, pictures and a Gemini-compatible API under /api. docs/seeds.md says
 * which test here holds which sentence of it. */
import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { seed } from './lib/seeds.mjs'
import { status } from './upstream.mjs'

let g, up, t
const s = seed(2, {
  crammed: true,
  async begin() { ({ g, up } = s); t = await g.tenant({ tier: 'pro' }) },
})
const test = s.test

const CHAT = '/api/v1/chat/completions', IMAGES = '/api/v1/images/generations', GEMINI = '/api/v1beta/models/gemini-2.5-pro:generateContent'
const messages = [{ role: 'user', content: 'Hello!' }]
const chat = (body, key = t.key) => g.req({ path: CHAT, key, body: { model: 'gpt-4o', messages, ...body } })
const draw = (body, key = t.key) => g.req({ path: IMAGES, key, body: { model: 'dall-e-3', prompt: 'a cat', ...body } })
const sent = () => up.requests.at(-1)
const completion = (r) => {
  assert.equal(r.status, 200, r.text)
  assert.deepEqual(Object.keys(r.json), ['id', 'object', 'created', 'model', 'choices', 'usage'])
  assert.match(r.json.id, /^chatcmpl-/)
  assert.equal(r.json.object, 'chat.completion')
  assert.ok(Number.isInteger(r.json.created))
  const [choice] = r.json.choices
  assert.deepEqual([choice.index, choice.message.role, choice.message.content, choice.finish_reason], [0, 'assistant', 'Hello from upstream', 'stop'])
  assert.deepEqual(r.json.usage, { prompt_tokens: 24, completion_tokens: 156, total_tokens: 180 })
}

describe('quick start and authentication', () => {
  test('the first call', async () => completion(await s.curl('Quick Start', { key: t.key })))
  test('the base URL is /api/v1, of every endpoint; /v1 answers too', async () => {
    for (const base of ['/api/v1', '/v1']) {
      completion(await g.req({ path: `${base}/chat/completions`, key: t.key, body: { model: 'gpt-4o', messages } }))
      assert.equal((await g.req({ path: `${base}/models`, key: t.key })).status, 200)
      assert.equal((await g.req({ path: `${base}/images/generations`, key: t.key, body: { model: 'dall-e-3', prompt: 'x' } })).status, 200)
    }
  })
  test('the example of the Authorization header', async () => {
    completion(await s.curl('Authentication', { key: t.key, instead: { '{ ... }': '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}' } }))
    const r = await s.curl('Authentication', { key: t.key }) // the dots themselves are no JSON, and the answer says so in JSON
    assert.equal(r.status, 400)
    assert.equal(r.headers['content-type'], 'application/json')
    assert.equal(r.json.error.type, 'invalid_request_error')
  })
  test('every request must bring a key', async () => {
    for (const [path, body] of [[CHAT, { model: 'gpt-4o', messages }], [IMAGES, { model: 'dall-e-3', prompt: 'x' }], ['/api/v1/models'], [GEMINI, { contents: [] }]])
      assert.equal((await g.req({ path, body })).status, 401, path)
  })
  test('the console\'s API keys: made, rotated', async () => {
    const r = (await g.req({ path: '/api/auth/register', body: { email: 'c@example.com', password: 'mypassword' } })).json
    const made = (await g.req({ method: 'POST', path: '/api/api-keys?name=new', key: r.token })).json
    assert.equal((await g.req({ path: '/api/v1/models', key: made.key })).status, 200)
    const old = (await g.req({ path: '/api/api-keys', key: r.token })).json.keys[0].id
    assert.equal((await g.req({ method: 'DELETE', path: `/api/api-keys/${old}`, key: r.token })).status, 200)
    assert.equal((await g.req({ path: '/api/v1/models', key: r.api_key })).status, 403)
    assert.equal((await g.req({ path: '/api/v1/models', key: made.key })).status, 200)
  })
})

describe('chat completions', () => {
  test('Chat: curl, and the response', async () => {
    const r = await s.curl('Chat: curl', { key: t.key })
    completion(r)
    assert.equal(r.json.model, 'gpt-4o')
    assert.deepEqual(sent().json, { model: 'gpt-4o', messages: [{ role: 'system', content: 'You are a helpful assistant.' }, { role: 'user', content: 'What is the capital of France?' }],
      temperature: 0.7, max_tokens: 512, stream: false })
  })
  test('Chat: Python (openai SDK), by the same calls', async () => assert.equal(await s.program('Chat: Python (openai SDK)', { key: t.key }), 'Hello from upstream\n'))
  test('Chat: Node.js (openai SDK)', async () => assert.equal(await s.program('Chat: Node.js (openai SDK)', { key: t.key }), 'Hello from upstream\n'))
  test('GPT-4o, Claude Sonnet and Opus, Gemini 2.5 Pro, DeepSeek', async () => {
    for (const model of ['gpt-4o', 'claude-sonnet-4-20250514', 'claude-opus-4-20250514', 'gemini-2.5-pro', 'deepseek-chat']) {
      const r = await chat({ model })
      assert.equal(r.json.choices[0].message.content, 'Hello from upstream', model)
      assert.deepEqual(['prompt_tokens', 'completion_tokens', 'total_tokens'].map((k) => r.json.usage[k]), [24, 156, 180])
      assert.ok(!r.text.includes('cost'), 'usage as the vendors show it')
    }
  })
  test('Chat: model and messages are required', async () => {
    for (const missing of ['model', 'messages']) {
      const r = await chat({ [missing]: undefined })
      assert.equal(r.status, 400)
      assert.deepEqual([r.json.error.code, r.json.error.param], ['missing_field', missing])
    }
  })
  test('roles system, user and assistant, for every provider', async () => {
    const three = [{ role: 'system', content: 'S' }, { role: 'user', content: 'U' }, { role: 'assistant', content: 'A' }, { role: 'user', content: 'V' }]
    assert.equal((await chat({ messages: three })).status, 200)
    assert.deepEqual(sent().json.messages, three)
    assert.equal((await chat({ model: 'claude-sonnet-4-20250514', messages: three })).status, 200)
    assert.deepEqual([JSON.stringify(sent().json.system).includes('"S"'), sent().json.messages.map((m) => m.role)], [true, ['user', 'assistant', 'user']])
    assert.equal((await chat({ model: 'gemini-2.5-pro', messages: three })).status, 200)
    assert.deepEqual([JSON.stringify(sent().json.systemInstruction).includes('"S"'), sent().json.contents.map((m) => m.role)], [true, ['user', 'model', 'user']])
  })
  test('temperature, top_p, max_tokens and stop, a string or up to four, for every provider', async () => {
    for (const stop of ['END', ['a', 'b', 'c', 'd']]) {
      const o = { temperature: 2, top_p: 0.5, max_tokens: 77, stop }
      assert.equal((await chat(o)).status, 200)
      for (const [k, v] of Object.entries(o)) assert.deepEqual(sent().json[k], v)
      for (const one of [{ temperature: 0.5, top_p: undefined }, { temperature: undefined }]) { // Claude takes one of the two
        assert.equal((await chat({ model: 'claude-sonnet-4-20250514', ...o, ...one })).status, 200)
        assert.deepEqual([sent().json.max_tokens, sent().json.stop_sequences, sent().json.temperature ?? sent().json.top_p], [77, [stop].flat(), 0.5])
      }
      assert.equal((await chat({ model: 'gemini-2.5-pro', ...o })).status, 200)
      const c = sent().json.generationConfig
      assert.deepEqual([c.maxOutputTokens, c.stopSequences, c.temperature, c.topP], [77, [stop].flat(), 2, 0.5])
    }
  })
  test('what the client leaves out is left to the provider\'s defaults', async () => {
    assert.equal((await chat({})).status, 200)
    assert.deepEqual(Object.keys(sent().json).sort(), ['messages', 'model'])
  })
  test('stream: true sends partial deltas as Server-Sent Events; false, or nothing, one answer', async () => {
    for (const model of ['gpt-4o', 'claude-sonnet-4-20250514', 'gemini-2.5-pro']) {
      const r = await chat({ model, stream: true })
      assert.match(r.headers['content-type'], /^text\/event-stream/)
      assert.equal(r.events.at(-1), '[DONE]')
      assert.equal(r.events.slice(0, -1).map((c) => c.choices[0].delta.content ?? '').join(''), 'Hello from upstream')
      assert.ok(r.events.length > 3)
    }
    for (const stream of [false, undefined]) completion(await chat({ stream }))
  })
})

describe('image generation', () => {
  const picture = (r) => {
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(r.json, { created: 1709150000, data: [{ url: 'https://cdn.example.com/images/generated-abc123.png', revised_prompt: 'A highly detailed photorealistic cat...' }] })
  }
  test('Images: curl, and the response', async () => picture(await s.curl('Images: curl', { key: t.key })))
  test('Images: Python (openai SDK), by the same calls', async () => assert.match(await s.program('Images: Python (openai SDK)', { key: t.key }), /^https:\/\/cdn\.example\.com\//))
  test('Images: Node.js (openai SDK)', async () => assert.match(await s.program('Images: Node.js (openai SDK)', { key: t.key }), /^https:\/\/cdn\.example\.com\//))
  test('DALL-E 3, DALL-E 2 and Stable Diffusion', async () => {
    for (const model of ['dall-e-3', 'dall-e-2', 'stable-diffusion-3.5']) picture(await draw({ model }))
    assert.equal(sent().json.model, 'stabilityai/sd3.5')
  })
  test('Images: model and prompt are required', async () => {
    for (const missing of ['model', 'prompt']) {
      const r = await draw({ [missing]: undefined })
      assert.deepEqual([r.status, r.json.error.code, r.json.error.param], [400, 'missing_field', missing])
    }
  })
  test('a prompt has at most 4000 characters', async () => {
    picture(await draw({ prompt: 'é'.repeat(4000) }))
    const r = await draw({ prompt: 'é'.repeat(4001) })
    assert.deepEqual([r.status, r.json.error.param], [400, 'prompt'])
  })
  for (const [size, model, price] of [['256x256', 'dall-e-2', '0.016'], ['512x512', 'dall-e-2', '0.018'], ['1024x1024', 'dall-e-3', '0.04'], ['1792x1024', 'dall-e-3', '0.08'], ['1024x1792', 'dall-e-3', '0.08']]) {
    test(`size ${size}`, async () => {
      const k = await g.tenant({ credit: '1' })
      picture(await draw({ model, size }, k.key))
      assert.equal(sent().json.size, size)
      assert.equal((await g.usage(k.account))[0].cost, price)
    })
  }
  test('the size is 1024x1024 unless asked otherwise; another is refused', async () => {
    const k = await g.tenant({ credit: '1' })
    picture(await draw({ model: 'stable-diffusion-3.5' }, k.key))
    picture(await draw({ size: '1024x1024' }, k.key))
    picture(await draw({}, k.key))
    assert.deepEqual((await g.usage(k.account, 3)).map((u) => u.cost), ['0.04', '0.04', '0.06'])
    const r = await draw({ size: '640x480' })
    assert.deepEqual([r.status, r.json.error.param], [400, 'size'])
  })
  test('quality standard, the default, or hd, of DALL-E 3 alone', async () => {
    const k = await g.tenant({ credit: '1' })
    for (const quality of ['hd', 'standard', undefined]) picture(await draw({ quality }, k.key))
    assert.deepEqual((await g.usage(k.account, 3)).map((u) => u.cost), ['0.04', '0.04', '0.08'])
    assert.deepEqual([(await draw({ quality: 'ultra' })).status, (await draw({ model: 'dall-e-2', quality: 'hd' })).status], [400, 400])
  })
  test('n from 1 to 4, 1 by default', async () => {
    for (const n of [1, 2, 3, 4, undefined]) assert.equal((await draw({ n })).json.data.length, n ?? 1)
    for (const n of [0, 5, -1, 1.5]) assert.deepEqual([(await draw({ n })).status, (await draw({ n })).json.error.param], [400, 'n'])
  })
  test('response_format url, the default, or b64_json: base64-encoded PNG data', async () => {
    for (const response_format of ['url', undefined]) picture(await draw({ response_format }))
    const r = await draw({ response_format: 'b64_json' })
    assert.equal(Buffer.from(r.json.data[0].b64_json, 'base64').subarray(1, 4).toString(), 'PNG')
    assert.equal((await draw({ response_format: 'gif' })).status, 400)
  })
})

describe('list models', () => {
  test('Models: curl, and the response', async () => {
    const r = await s.curl('Models: curl', { key: t.key })
    assert.equal(r.json.object, 'list')
    const owner = Object.fromEntries(r.json.data.map((m) => [m.id, [m.object, m.owned_by]]))
    for (const [id, who] of [['gpt-4o', 'openai'], ['gpt-4o-mini', 'openai'], ['claude-sonnet-4-20250514', 'anthropic'], ['gemini-2.5-pro', 'google'], ['gemini-2.5-flash', 'google'], ['dall-e-3', 'openai']])
      assert.deepEqual(owner[id], ['model', who], id)
  })
  test('client.models.list()', async () => {
    const { default: OpenAI } = await import('openai')
    const ids = []
    for await (const m of new OpenAI({ apiKey: t.key, baseURL: `${s.url()}/api/v1` }).models.list()) ids.push(m.id)
    assert.ok(ids.includes('dall-e-3') && ids.includes('claude-opus-4-20250514'))
  })
})

describe('Gemini-compatible API', () => {
  const gemini = (r) => {
    assert.equal(r.status, 200, r.text)
    assert.deepEqual(r.json.candidates[0].content, { parts: [{ text: 'Hello from upstream' }], role: 'model' })
    assert.equal(r.json.candidates[0].finishReason, 'STOP')
    assert.deepEqual(r.json.usageMetadata, { promptTokenCount: 24, candidatesTokenCount: 156, totalTokenCount: 180 })
  }
  test('Gemini: curl, and the response', async () => {
    gemini(await s.curl('Gemini: curl', { key: t.key }))
    assert.equal(sent().path, '/v1beta/models/gemini-2.5-pro:generateContent')
    assert.deepEqual(sent().json, { contents: [{ parts: [{ text: 'Explain quantum entanglement simply.' }] }] })
  })
  test('the key comes in x-goog-api-key; {model} is any model\'s id', async () => {
    for (const model of ['gemini-2.5-pro', 'gemini-2.5-flash', 'gpt-4o', 'claude-sonnet-4-20250514']) {
      const r = await g.req({ path: `/api/v1beta/models/${model}:generateContent`, headers: { 'x-goog-api-key': t.key }, body: { contents: [{ parts: [{ text: 'x' }] }] } })
      assert.equal(r.json.candidates[0].content.parts[0].text, 'Hello from upstream', model)
    }
    const bad = await g.req({ path: GEMINI, headers: { 'x-goog-api-key': 'nobody' }, body: { contents: [] } })
    assert.deepEqual([bad.status, bad.json.error.code, bad.json.error.status], [401, 401, 'UNAUTHENTICATED'])
  })
  test('Gemini\'s own SDK works without modification', { skip: Number(process.versions.node.split('.')[0]) < 20 && 'it needs Node 20' }, async () => {
    const { GoogleGenAI } = await import('@google/genai')
    const client = new GoogleGenAI({ apiKey: t.key, httpOptions: { baseUrl: `${s.url()}/api` } })
    const r = await client.models.generateContent({ model: 'gemini-2.5-pro', contents: 'Explain quantum entanglement simply.' })
    assert.equal(r.text, 'Hello from upstream')
    let text = ''
    for await (const c of await client.models.generateContentStream({ model: 'gemini-2.5-flash', contents: 'x' })) text += c.text ?? ''
    assert.equal(text, 'Hello from upstream')
  })
})

describe('rate limits', () => {
  /* All at once: those that were admitted, and the first refusal. */
  async function burst(ask, k, limit) {
    const begin = performance.now(), list = []
    for (let sent = 0; sent < limit + 5; sent += 5) list.push(...await Promise.all(Array.from({ length: 5 }, () => ask({}, k.key))))
    const refilled = Math.ceil((performance.now() - begin) / 60000 * limit), ok = list.filter((r) => r.status === 200).length
    assert.ok(ok >= limit && ok <= limit + refilled, `${ok} of ${list.length}; ${refilled} came back meanwhile`)
    if (refilled < 5) assert.ok(list.some((r) => r.status === 429))
    assert.equal(list[0].headers['x-ratelimit-limit-requests'], String(limit))
  }
  const cheap = (body, key) => chat({ model: 'gpt-4o-mini', ...body }, key), small = (body, key) => draw({ model: 'dall-e-2', ...body }, key)
  for (const [name, rpm, images] of [['Free', 10, 5], ['Standard', 60, 20], ['Pro', 300, 60]]) {
    test(`${name}: ${rpm} chats a minute`, async () => burst(cheap, await g.tenant({ tier: name.toLowerCase() }), rpm))
    test(`${name}: ${images} image calls a minute, which chats do not use up`, async () => {
      const k = await g.tenant({ tier: name.toLowerCase() })
      await burst(small, k, images)
      const r = await cheap({}, k.key)
      assert.deepEqual([r.status, r.headers['x-ratelimit-remaining-requests']], [200, String(rpm - 1)])
    })
  }
  test('Enterprise: numbers of its own, for chats and for images', async () => {
    const k = await g.tenant({ tier: 'enterprise-one' }), own = await g.tenant({ tier: 'enterprise-one', rpm: '5000' })
    assert.equal((await cheap({}, k.key)).headers['x-ratelimit-limit-requests'], '1000')
    assert.equal((await small({}, k.key)).headers['x-ratelimit-limit-requests'], '200')
    assert.equal((await cheap({}, own.key)).headers['x-ratelimit-limit-requests'], '5000')
  })
  test('per API key; above it 429 Too Many Requests', async () => {
    const a = await g.tenant({ tier: 'free' }), b = await g.key(a.account)
    const list = await Promise.all(Array.from({ length: 12 }, () => s.curl('Quick Start', { key: a.key })))
    const r = list.find((x) => x.status !== 200)
    assert.deepEqual([r.status, r.reason, r.json.error.type, r.json.error.code], [429, 'Too Many Requests', 'rate_limit_error', 'rate_limit_exceeded'])
    assert.equal((await cheap({}, b.key)).status, 200)
  })
  test('X-RateLimit-Limit-Requests, -Remaining-Requests, -Reset-Requests', async () => {
    const k = await g.tenant({ tier: 'free' })
    for (let left = 9; left >= 7; left--) {
      const h = (await cheap({}, k.key)).headers
      assert.deepEqual([h['x-ratelimit-limit-requests'], h['x-ratelimit-remaining-requests']], ['10', String(left)])
      const reset = Number(h['x-ratelimit-reset-requests']), now = Date.now() / 1000
      assert.ok(Number.isInteger(reset) && reset >= now + (9 - left) * 6 - 1 && reset <= now + (10 - left) * 6 + 2, `${reset - now} s from now`)
    }
  })
})

describe('error codes', () => {
  const refused = (r, code, type, symbol) => {
    assert.equal(r.status, code, r.text)
    assert.equal(r.json.error.type, type)
    assert.ok(typeof r.json.error.message === 'string' && typeof r.json.error.code === 'string')
    if (symbol) assert.equal(r.json.error.code, symbol)
    return r
  }
  test('400 invalid_request_error: malformed body, missing parameters', async () => {
    refused(await g.req({ path: CHAT, key: t.key, body: '{"model"' }), 400, 'invalid_request_error', 'invalid_json')
    refused(await chat({ messages: undefined }), 400, 'invalid_request_error', 'missing_field')
  })
  test('401 authentication_error: the example error response', async () => {
    const r = refused(await s.curl('Quick Start', { key: 'sk-nobody' }), 401, 'authentication_error', 'invalid_api_key')
    assert.equal(r.json.error.message, 'Invalid API key provided.')
    refused(await chat({}, null), 401, 'authentication_error', 'invalid_api_key')
  })
  test('403 permission_error: the account is disabled, the model is not on the plan', async () => {
    const k = await g.tenant({ tier: 'free' })
    refused(await chat({ model: 'claude-opus-4-20250514' }, k.key), 403, 'permission_error', 'model_not_allowed')
    refused(await draw({}, k.key), 403, 'permission_error', 'model_not_allowed')
    assert.ok(!(await g.req({ path: '/api/v1/models', key: k.key })).text.includes('claude-opus'))
    refused(await g.req({ path: '/api/v1/models/claude-opus-4-20250514', key: k.key }), 403, 'permission_error', 'model_not_allowed')
    await g.ctl('account', 'suspend', k.account)
    refused(await chat({}, k.key), 403, 'permission_error', 'account_suspended')
  })
  test('404 not_found_error: no such model, no such resource', async () => {
    refused(await chat({ model: 'gpt-9' }), 404, 'not_found_error', 'model_not_found')
    refused(await g.req({ path: '/api/v1/models/gpt-9', key: t.key }), 404, 'not_found_error', 'model_not_found')
    refused(await g.req({ path: '/api/v1/nothing', key: t.key }), 404, 'not_found_error', 'unknown_path')
  })
  test('429 rate_limit_error: after the window it goes on', async () => {
    const k = await g.tenant({ tier: 'free', rpm: '60' })
    const list = await Promise.all(Array.from({ length: 80 }, () => chat({ model: 'gpt-4o-mini' }, k.key)))
    const r = refused(list.find((x) => x.status !== 200), 429, 'rate_limit_error', 'rate_limit_exceeded')
    await new Promise((resolve) => setTimeout(resolve, Number(r.headers['retry-after-ms']) + 5))
    assert.equal((await chat({ model: 'gpt-4o-mini' }, k.key)).status, 200)
  })
  test('500 internal_server_error', async () => { refused(await chat({ model: 'crammed' }), 500, 'internal_server_error', 'internal') })
  test('503 service_unavailable_error: the provider is unavailable', async () => {
    up.on('deepseek-chat', status(500))
    refused(await chat({ model: 'deepseek-chat' }), 503, 'service_unavailable_error')
    up.routes.delete('deepseek-chat')
    await g.ctl('upstream', 'drain', 'anthropic')
    refused(await chat({ model: 'claude-sonnet-4-20250514' }), 503, 'service_unavailable_error')
    await g.ctl('upstream', 'enable', 'anthropic')
  })
})
s.documented()
