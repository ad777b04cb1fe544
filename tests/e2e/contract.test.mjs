/* What the outside promises, row by row, for every dialect in front: the error table with statuses, codes, types and headers,
 * the four places of a key, request ids, limits' headers, costs, model lists. One gateway, one table of calls, one of refusals. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { raw } from './lib/http.mjs'
import { cleanUps, test } from './lib/test.mjs'
import { bytes, chat, hangs, newGate, startUpstream, status } from './upstream.mjs'

const shared = cleanUps()
let up, g, rich
before(async () => {
  up = await startUpstream(shared)
  up.on('bad', status(500)).on('mute', hangs()).on('denied', status(401)).on('unpaid', status(402)).on('closed', status(403))
    .on('limited', status(429, { headers: { 'Retry-After': '7' } })).on('unready', status(503))
    .on('long', status(400, { error: { message: 'This prompt is too long for me.', type: 'invalid_request_error', code: 'context_length_exceeded' } }))
    .on('huge', status(413, { error: { message: 'This body is too large for me.' } })).on('odd', status(422, { error: { message: 'This makes no sense to me.' } }))
    .on('noise', bytes('this is not HTTP\r\n\r\n'))
  const own = (name, more) => ({ name, url: up.url, retries: 0, cooldown: '1s', ...more })
  g = await startGateway(shared, {
    upstreams: [own('mock'), own('silent', { first_byte_timeout: '300ms' }), own('patient'), own('drained'), 'upstream local { dialect echo; }\n'],
    models: [{ name: 'mute', route: 'silent as mute' }, { name: 'held', route: 'patient as held' }, ...['bad', 'denied', 'unpaid', 'closed', 'limited', 'unready', 'long', 'huge', 'odd', 'noise'].map((name) => ({ name })),
      { name: 'echo', route: 'local', alias: 'echo-alias' }, { name: 'hidden', route: 'local' }, { name: 'away', route: 'drained' },
      { name: 'capped', route: 'local', call_cap: '0.000001' },
      { name: 'vendor/deep/model', route: 'local', capabilities: 'tools vision reasoning', created: 1715367049, owned_by: 'vendor', provider: '"A Vendor"', call_cap: '0.5' },
      { name: 'openrouter/*', route: 'local as *' },
      { name: 'embed', route: 'local', kind: 'embedding', price: 'input 0.1', max_output: null }, { name: 'bare-embed', kind: 'embedding', price: 'input 0.1', max_output: null },
      { name: 'paint', route: 'local', kind: 'image', price: 'image 0.04', max_output: null, context: null }],
    tiers: { wide: 'rpm 1000; tpm 10000000; concurrency 50; images_rpm 1000;', one: 'rpm 1; images_rpm 1;', tokens: 'tpm 2000;', alone: 'concurrency 1;', narrow: 'models nothing;' },
    groups: { outside: 'models nothing;' },
    top: { max_body: '64k', client_timeout: '1s', cors_origin: '*' },
  })
  await g.ctl('upstream', 'drain', 'drained')
  rich = await g.tenant({ tier: 'wide' })
})

/* Every path that generates, by the name of its dialect: how a model is asked there, and what its shape of errors is. */
const CALLS = {
  chat: { shape: 'openai', missing: 'messages', ask: (model, more) => ['/v1/chat/completions', { model, messages: [{ role: 'user', content: 'Hello' }], ...more }] },
  completions: { shape: 'openai', missing: 'prompt', ask: (model, more) => ['/v1/completions', { model, prompt: 'Hello', ...more }] },
  responses: { shape: 'openai', missing: 'input', ask: (model, more) => ['/v1/responses', { model, input: 'Hello', ...more }] },
  messages: { shape: 'anthropic', missing: 'messages', ask: (model, more) => ['/v1/messages', { model, max_tokens: 300, messages: [{ role: 'user', content: 'Hello' }], ...more }] },
  gemini: { shape: 'gemini', missing: 'contents', ask: (model, more) => [`/v1beta/models/${model}:generateContent`, { contents: [{ role: 'user', parts: [{ text: 'Hello' }] }], ...more }] },
  'gemini stream': { shape: 'gemini', missing: 'contents', ask: (model, more) => [`/v1beta/models/${model}:streamGenerateContent?alt=sse`, { contents: [{ role: 'user', parts: [{ text: 'Hello' }] }], ...more }] },
}
const ROWS = { // the error table: OpenAI's type, Anthropic's type, Gemini's status
  400: ['invalid_request_error', 'invalid_request_error', 'INVALID_ARGUMENT'], 401: ['authentication_error', 'authentication_error', 'UNAUTHENTICATED'],
  402: ['insufficient_quota', 'billing_error', 'RESOURCE_EXHAUSTED'], 403: ['permission_error', 'permission_error', 'PERMISSION_DENIED'],
  404: ['not_found_error', 'not_found_error', 'NOT_FOUND'], 413: ['invalid_request_error', 'request_too_large', 'INVALID_ARGUMENT'],
  429: ['rate_limit_error', 'rate_limit_error', 'RESOURCE_EXHAUSTED'], 500: ['internal_server_error', 'api_error', 'INTERNAL'],
  502: ['upstream_error', 'api_error', 'UNAVAILABLE'], 503: ['service_unavailable_error', 'overloaded_error', 'UNAVAILABLE'],
  504: ['upstream_error', 'timeout_error', 'DEADLINE_EXCEEDED'],
}
for (const s of [405, 408, 414, 415, 431, 501, 505]) ROWS[s] = ROWS[400]

/* r is an answer {status, headers, text}; it must be this row of the table in this shape. */
function refused(r, shape, code, symbol, { param, message } = {}) {
  assert.equal(r.status, code, r.text)
  assert.match(r.headers['content-type'], /^application\/json/)
  assert.match(r.headers['x-request-id'], /^[A-Za-z0-9._-]{1,128}$/)
  const body = JSON.parse(r.text), e = body.error, [openai, anthropic, gemini] = ROWS[code]
  assert.ok(typeof e.message === 'string' && e.message.length > 5)
  if (message) assert.match(e.message, message)
  if (shape === 'openai') {
    assert.deepEqual(Object.keys(body), ['error'])
    assert.deepEqual(Object.keys(e), ['message', 'type', 'param', 'code'])
    assert.deepEqual([e.type, e.code], [openai, symbol], r.text)
    if (param !== undefined) assert.equal(e.param, param)
  } else if (shape === 'anthropic') {
    assert.deepEqual(Object.keys(body), ['type', 'error', 'request_id'])
    assert.deepEqual([body.type, e.type, e.details.error_code], ['error', anthropic, symbol], r.text)
    assert.equal(body.request_id, r.headers['request-id'])
    assert.equal(body.request_id, r.headers['x-request-id'])
  } else {
    assert.deepEqual(Object.keys(body), ['error'])
    assert.deepEqual([e.code, e.status], [code, gemini], r.text)
    const info = e.details.find((d) => d['@type'] === 'type.googleapis.com/google.rpc.ErrorInfo')
    assert.equal(info.reason, symbol)
    assert.equal(e.details.some((d) => d['@type'] === 'type.googleapis.com/google.rpc.RetryInfo'), 'retry-after' in r.headers && code === 429)
  }
  if ([401, 402, 403].includes(code)) assert.deepEqual([r.headers['x-should-retry'], r.headers['retry-after']], ['false', undefined])
}
function limitsOf(r, requests, tokens) {
  for (const [h, value] of [['', requests], ['-requests', requests], ['-tokens', tokens]]) {
    const found = ['limit', 'remaining', 'reset'].map((x) => r.headers[`x-ratelimit-${x}${h}`])
    if (value === undefined) { assert.deepEqual(found, [undefined, undefined, undefined]); continue }
    assert.equal(found[0], String(value), `x-ratelimit-limit${h} on a ${r.status}`)
    assert.match(found[1], /^\d+$/)
    const now = Date.now() / 1000
    assert.ok(Number(found[2]) >= Math.floor(now) - 1 && Number(found[2]) <= now + 121, found[2])
  }
}
const send = (name, model, more, o = {}) => {
  const [path, body] = CALLS[name].ask(model, more)
  return g.req({ method: 'POST', key: rich.key, path, body, ...o })
}

describe('the error table', () => {
  for (const [name, { shape, missing }] of Object.entries(CALLS)) {
    const text = (n) => 'x'.repeat(n)
    const larger = (n) => ({ [missing]: { prompt: text(n), input: text(n), messages: [{ role: 'user', content: text(n) }], contents: [{ parts: [{ text: text(n) }] }] }[missing] })
    const answer = (r, code, symbol, o) => { refused(r, shape, code, symbol, o); limitsOf(r, 1000, 10000000) }
    test(`${name}: 400`, async () => {
      answer(await send(name, 'echo', {}, { body: '{"model": "echo", ' }), 400, 'invalid_json')
      answer(await send(name, 'echo', {}, { body: '' }), 400, 'invalid_json')
      answer(await send(name, 'echo', { [missing]: undefined }), 400, 'missing_field', { param: missing })
      answer(await send(name, 'echo', { [missing]: 5 }), 400, 'invalid_value', { param: missing })
      if (shape !== 'gemini') {
        answer(await send(name, undefined), 400, 'missing_field', { param: 'model' })
        answer(await send(name, 7), 400, 'invalid_value', { param: 'model' })
        answer(await send(name, 'echo', { stream: 'yes' }), 400, 'invalid_value', { param: 'stream' })
        answer(await send(name, 'echo', { service_tier: 'priority' }), 400, 'unsupported_parameter', { param: 'service_tier' })
      }
      answer(await send(name, 'embed'), 400, 'invalid_value')
    })
    test(`${name}: 401`, async () => {
      for (const key of [undefined, 'sk-nobody', `${rich.key}x`]) {
        const r = await send(name, 'echo', {}, { key })
        refused(r, shape, 401, 'invalid_api_key')
        limitsOf(r)
      }
    })
    test(`${name}: 402`, async () => {
      const poor = await g.tenant({ credit: null })
      refused(await send(name, 'echo', {}, { key: poor.key }), shape, 402, 'insufficient_balance')
      const spent = await g.tenant({ limit: '0.000000001' })
      refused(await send(name, 'echo', {}, { key: spent.key }), shape, 402, 'key_limit_exceeded')
      answer(await send(name, 'capped'), 402, 'call_cap_exceeded')
    })
    test(`${name}: 403`, async () => {
      const t = await g.tenant({ tier: 'wide' })
      await g.ctl('key', 'revoke', t.id)
      answer(await send(name, 'echo', {}, { key: t.key }), 403, 'key_revoked')
      const old = await g.tenant({ tier: 'wide', expires: '2020-01-01' })
      answer(await send(name, 'echo', {}, { key: old.key }), 403, 'key_expired')
      const out = await g.tenant({ tier: 'wide' })
      await g.ctl('account', 'suspend', out.account)
      answer(await send(name, 'echo', {}, { key: out.key }), 403, 'account_suspended')
      refused(await send(name, 'echo', {}, { key: (await g.tenant({ tier: 'narrow' })).key }), shape, 403, 'model_not_allowed')
      answer(await send(name, 'echo', {}, { key: (await g.tenant({ tier: 'wide', models: 'other*' })).key }), 403, 'model_not_allowed')
    })
    test(`${name}: 404, 405, 413, 415`, async () => {
      answer(await send(name, 'nothing'), 404, 'model_not_found')
      if (shape !== 'gemini') answer(await send(name, 'echo\0b'), 404, 'model_not_found', { message: /'echo\?b'/ })
      answer(await send(name, 'echo', {}, { key: (await g.tenant({ tier: 'wide', group: 'outside' })).key }), 404, 'model_not_found')
      const [path] = CALLS[name].ask('echo')
      for (const method of ['DELETE', 'PUT', 'PATCH']) {
        const r = await g.req({ path, method, key: rich.key })
        answer(r, 405, 'method_not_allowed')
        assert.match(r.headers.allow, /POST/)
      }
      answer(await send(name, 'echo', { padding: 'x'.repeat(70000) }), 413, 'body_too_large')
      answer(await send(name, 'echo', {}, { headers: { 'Content-Encoding': 'gzip' } }), 415, 'unsupported_encoding')
      answer(await send(name, 'echo', {}, { path: `/api${path.split('?')[0]}x` }), 404, 'unknown_path')
    })
    test(`${name}: 429`, async () => {
      const waits = (r, least, most) => {
        const s = Number(r.headers['retry-after']), ms = Number(r.headers['retry-after-ms'])
        assert.ok(Number.isInteger(s) && s >= least && s <= most && ms <= s * 1000 && ms > (s - 1) * 1000, `${r.headers['retry-after']}, ${ms}`)
        assert.equal(r.headers['x-should-retry'], undefined)
      }
      const once = await g.tenant({ tier: 'one' })
      assert.equal((await send(name, 'echo', {}, { key: once.key })).status, 200)
      const requests = await send(name, 'echo', {}, { key: once.key })
      refused(requests, shape, 429, 'rate_limit_exceeded', { param: 'requests' })
      waits(requests, 55, 60)
      limitsOf(requests, 1)
      const few = await g.tenant({ tier: 'tokens' })
      const big = await send(name, 'echo', larger(9000), { key: few.key })
      refused(big, shape, 429, 'rate_limit_exceeded', { param: 'tokens' })
      assert.deepEqual([big.headers['x-should-retry'], big.headers['retry-after'], big.headers['retry-after-ms']], ['false', undefined, undefined])
      limitsOf(big, undefined, 2000)
      const alone = await g.tenant({ tier: 'alone' })
      const { gate, open } = newGate(), n = up.of('held').length
      up.on('held', async (c) => { await gate; return chat()(c) })
      const held = send(name, 'held', {}, { key: alone.key })
      await until(() => up.of('held').length > n, 'the call upstream')
      const second = await send(name, 'echo', {}, { key: alone.key })
      refused(second, shape, 429, 'rate_limit_exceeded', { param: 'concurrency' })
      assert.deepEqual([second.headers['retry-after'], second.headers['retry-after-ms']], ['1', '1000'])
      open()
      assert.equal((await held).status, 200)
    })
    test(`${name}: 502, 503, 504, and a provider's own words`, async () => {
      for (const model of ['bad', 'denied', 'unpaid', 'closed', 'noise', 'unready']) answer(await send(name, model), 502, 'upstream_failed')
      const away = await send(name, 'away')
      answer(away, 503, 'no_upstream')
      answer(await send(name, 'mute'), 504, 'upstream_timeout')
      answer(await send(name, 'long'), 400, 'context_length_exceeded', { message: /too long for me/ })
      refused(await send(name, 'huge'), shape, 413, 'body_too_large', { message: /too large for me/ })
      const odd = await send(name, 'odd')
      assert.ok([400, 422].includes(odd.status), odd.text)
      assert.match(odd.text, /makes no sense to me/)
      const limited = await send(name, 'limited')
      answer(limited, 429, 'rate_limit_exceeded')
      assert.equal(limited.headers['retry-after'], '7')
    })
  }
  test('408, 414, 431, 501, 505 in the shape of the path that was called', async () => {
    await Promise.all(Object.values(CALLS).map(async ({ shape, ask }) => {
      const [path] = ask('echo'), auth = `Host: x\r\nAuthorization: Bearer ${rich.key}\r\n`
      const of = async (...parts) => (await raw({ port: g.port, answers: 1 }, ...parts)).answers[0]
      refused(await of(`POST ${path} HTTP/1.1\r\n${auth}Content-Length: 10\r\n\r\n{`), shape, 408, 'request_timeout')
      refused(await of(`POST ${path}${path.includes('?') ? '&' : '?'}a=${'x'.repeat(20000)} HTTP/1.1\r\n${auth}\r\n`), shape, 414, 'uri_too_long')
      refused(await of(`POST ${path} HTTP/1.1\r\n${auth}X-Big: ${'x'.repeat(100000)}\r\n\r\n`), shape, 431, 'headers_too_large')
      refused(await of(`POST ${path} HTTP/1.1\r\n${auth}Transfer-Encoding: gzip, chunked\r\n\r\n`), shape, 501, 'not_implemented')
      refused(await of(`POST ${path} HTTP/3.0\r\n${auth}\r\n`), shape, 505, 'http_version')
    }))
  })
})

describe('a key', () => {
  const PATHS = [['GET', '/v1/models'], ['GET', '/v1/models/echo'], ['GET', '/v1beta/models'], ['GET', '/v1beta/models/echo'], ['GET', '/v1/key'], ['GET', '/billing/balance'],
    ['GET', '/billing/usage?limit=1'], ...['chat', 'responses', 'messages', 'gemini'].map((name) => ['POST', ...CALLS[name].ask('echo')]),
    ['POST', '/v1/messages/count_tokens', { model: 'echo', messages: [{ role: 'user', content: 'Hello' }] }],
    ['POST', '/v1beta/models/echo:countTokens', { contents: [{ parts: [{ text: 'Hello' }] }] }],
    ['POST', '/v1/embeddings', { model: 'embed', input: 'Hello' }], ['POST', '/v1/images/generations', { model: 'paint', prompt: 'Hello' }],
    ['POST', '/v1beta/models/embed:embedContent', { content: { parts: [{ text: 'Hello' }] } }],
    ['POST', '/v1beta/models/embed:batchEmbedContents', { requests: [{ model: 'models/embed', content: { parts: [{ text: 'Hello' }] } }] }]]
  for (const [method, path, body] of PATHS) {
    test(`in four places, also under /api, first known first: ${method} ${path}`, async () => {
      const other = await g.tenant({ tier: 'tokens' }), with_ = `${path}${path.includes('?') ? '&' : '?'}key=`
      const ways = [{ headers: { Authorization: `Bearer ${rich.key}` } }, { headers: { 'x-api-key': rich.key } }, { headers: { 'x-goog-api-key': rich.key } }, { path: `${with_}${rich.key}` },
        { headers: { Authorization: 'Bearer sk-nobody', 'x-api-key': rich.key, 'x-goog-api-key': other.key } },
        { headers: { 'x-api-key': 'sk-nobody', 'x-goog-api-key': rich.key }, path: `${with_}${other.key}` }, { headers: { 'x-goog-api-key': 'sk-nobody' }, path: `${with_}${rich.key}` }]
      for (const way of ways) for (const prefix of ['', '/api']) {
        const r = await g.req({ method, body, ...way, path: prefix + (way.path ?? path) })
        assert.equal(r.status, 200, `${JSON.stringify(way.headers)}: ${r.text}`)
        limitsOf(r, 1000, 10000000)
      }
      if (!path.startsWith('/billing')) assert.equal((await g.req({ method, path, body })).status, 401)
    })
  }
  test('limits are told on paths that need no key, and on /v1/models/M/cap', async () => {
    for (const path of ['/api/status', '/v1/status', '/api-keys', '/v1/models/echo/cap', '/auth/login', '/nothing']) limitsOf(await g.req({ path, key: rich.key }), 1000, 10000000)
  })
})

describe('request ids', () => {
  test('every answer has one, the client\'s if it is decent; /v1/messages twice', async () => {
    for (const path of ['/', '/api/status', '/v1/models', '/v1beta/models', '/v1/messages', '/auth/login', '/billing/balance', '/api-keys', '/v1/key', '/v1/nothing'])
      for (const method of ['GET', 'HEAD', 'OPTIONS', 'POST']) {
        const mine = `id-${'x'.repeat(120)}.A_9`
        const r = await g.req({ path, method, headers: { 'X-Request-Id': mine } })
        assert.equal(r.headers['x-request-id'], mine)
        assert.equal(r.headers['request-id'], path.includes('messages') ? mine : undefined)
        assert.match((await g.req({ path, method, headers: { 'X-Request-Id': 'not decent' } })).headers['x-request-id'], /^req_[a-z0-9]{24}$/)
      }
  })
})

describe('costs', () => {
  const NUMBER = '(0|[1-9]\\d*)(\\.\\d{0,8}[1-9])?'
  /* the figure as it stands in the text, wherever it stands; every one of them is plain decimal */
  const costs = (text) => [...text.matchAll(/"(?:cost_usd|costUsd)":([^,}\]]+)/g)].map((m) => { assert.match(m[1], new RegExp(`^${NUMBER}$`)); return m[1] })
  const streams = { chat: { stream: true }, completions: { stream: true }, responses: { stream: true }, messages: { stream: true } }
  for (const name of Object.keys(CALLS)) {
    test(`${name}: once, in the last usage, and the record\'s`, async () => {
      const t = await g.tenant()
      const whole = await send(name, 'echo', {}, { key: t.key })
      const list = costs(whole.text)
      assert.equal(list.length, 1, whole.text)
      const [u] = await g.usage(t.account)
      assert.equal(u.cost, list[0])
      if (!name.includes('stream')) assert.equal(whole.headers['x-tollgate-cost'], list[0])
      if (name in streams) {
        const r = await send(name, 'echo', streams[name], { key: t.key })
        assert.match(r.headers['content-type'], /^text\/event-stream/)
        assert.equal(r.headers['x-tollgate-cost'], undefined)
        assert.deepEqual(costs(r.text), list)
        const events = r.events.filter((e) => JSON.stringify(e).includes('cost_usd'))
        assert.equal(events.length, 1)
        const where = { chat: () => events[0].choices[0].finish_reason && events[0].usage, completions: () => events[0].choices[0].finish_reason && events[0].usage,
          responses: () => events[0].type === 'response.completed' && events[0].response.usage, messages: () => events[0].type === 'message_delta' && events[0].usage }[name]()
        assert.equal(String(where.cost_usd), String(Number(list[0])))
      }
      if (name.startsWith('gemini')) assert.match(whole.text, new RegExp(`"usageMetadata":\\{[^{}]*"costUsd":${list[0]}`))
    })
  }
  test('a stream of Gemini\'s without alt=sse is one JSON array, its last element has the cost', async () => {
    for (const alt of ['', '?alt=json']) {
      const r = await send('gemini', 'echo', {}, { path: `/v1beta/models/echo:streamGenerateContent${alt}` })
      assert.match(r.headers['content-type'], /^application\/json/)
      assert.ok(r.json.length > 1 && r.json.at(-1).usageMetadata.costUsd > 0)
      assert.equal(costs(r.text).length, 1)
    }
  })
  test('embeddings and pictures: usage is made where the provider sends none', async () => {
    up.on('bare-embed', bytes('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n' +
      '{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]}]}     ', 'keep'))
    const e = await g.req({ path: '/v1/embeddings', key: rich.key, body: { model: 'bare-embed', input: 'Hello there' } })
    assert.ok(e.json.usage.prompt_tokens > 0 && costs(e.text).length === 1, e.text)
    assert.equal(e.headers['x-tollgate-cost'], costs(e.text)[0])
    const i = await g.req({ path: '/v1/images/generations', key: rich.key, body: { model: 'paint', prompt: 'Hello', n: 2 } })
    assert.deepEqual(costs(i.text), ['0.08'])
    assert.equal(i.json.usage.cost_usd, 0.08)
  })
})

describe('model lists', () => {
  test('three shapes, with a key', async () => {
    const openai = await g.req({ path: '/v1/models', key: rich.key })
    assert.deepEqual(Object.keys(openai.json), ['object', 'data'])
    const m = openai.json.data.find((x) => x.id === 'vendor/deep/model')
    assert.deepEqual(m, { id: 'vendor/deep/model', object: 'model', created: 1715367049, owned_by: 'vendor', provider: 'A Vendor', kind: 'chat',
      capabilities: { streaming: true, tools: true, vision: true, reasoning: true },
      pricing: { prompt: '0.00000275', completion: '0.000011', input_cache_read: '0.000001375', input_cache_write: '0.00000275', input_per_1m: 2.75, output_per_1m: 11 },
      context_length: 128000, max_output_tokens: 16384, call_cap: 0.5 })
    assert.equal(openai.json.data.find((x) => x.id === 'paint').pricing.image, '0.04')
    assert.ok(!openai.text.includes('openrouter'))
    const anthropic = await g.req({ path: '/v1/models', key: rich.key, headers: { 'anthropic-version': '2023-06-01' } })
    assert.deepEqual(Object.keys(anthropic.json), ['data', 'has_more', 'first_id', 'last_id'])
    assert.deepEqual(anthropic.json.data.find((x) => x.id === 'vendor/deep/model'), { type: 'model', id: 'vendor/deep/model', display_name: 'vendor/deep/model', created_at: '2024-05-10T18:50:49Z' })
    assert.deepEqual(anthropic.json.data.map((x) => x.id), openai.json.data.map((x) => x.id))
    assert.equal(anthropic.json.has_more, false)
    assert.ok(anthropic.headers['request-id'])
    const gemini = await g.req({ path: '/v1beta/models', key: rich.key })
    assert.deepEqual(gemini.json.models.map((x) => x.name), openai.json.data.map((x) => `models/${x.id}`))
  })
  test('one of them, raw and as %2F, by alias, of a family; refusals in the list\'s own shape', async () => {
    for (const path of ['/v1/models/vendor/deep/model', '/v1/models/vendor%2Fdeep%2Fmodel', '/v1/models/vendor%2fdeep/model', '/api/v1/models/vendor/deep/model'])
      assert.equal((await g.req({ path, key: rich.key })).json.id, 'vendor/deep/model', path)
    for (const path of ['/v1beta/models/vendor/deep/model', '/v1beta/models/vendor%2Fdeep%2Fmodel']) assert.equal((await g.req({ path, key: rich.key })).json.name, 'models/vendor/deep/model')
    assert.equal((await g.req({ path: '/v1/models/openrouter/a/b', key: rich.key })).json.id, 'openrouter/a/b')
    assert.equal((await g.req({ path: '/v1/models/echo-alias', key: rich.key })).status, 200)
    const version = { 'anthropic-version': '2023-06-01' }
    for (const [path, headers, shape] of [['/v1/models', {}, 'openai'], ['/v1/models', version, 'anthropic'], ['/v1beta/models', {}, 'gemini']]) {
      refused(await g.req({ path, headers }), shape, 401, 'invalid_api_key')
      refused(await g.req({ path: `${path}/nothing`, headers, key: rich.key }), shape, 404, 'model_not_found')
      refused(await g.req({ path: `${path}/hidden`, headers, key: (await g.tenant({ models: 'echo' })).key }), shape, 403, 'model_not_allowed')
    }
  })
})

describe('what nobody wrote down', () => {
  test('CORS: a preflight is let through on every path, without a key', async () => {
    for (const path of ['/v1/chat/completions', '/v1/messages', '/v1beta/models/echo:generateContent', '/v1/key', '/auth/login', '/api/status', '/v1/models/echo/cap']) {
      const r = await g.req({ path, method: 'OPTIONS', headers: { Origin: 'https://a.example', 'Access-Control-Request-Method': 'PUT', 'Access-Control-Request-Headers': 'authorization,x-stainless-os' } })
      assert.equal(r.status, 204)
      assert.equal(r.headers['access-control-allow-headers'], 'authorization,x-stainless-os')
      assert.match(r.headers['access-control-allow-methods'], /PUT/)
      assert.equal(r.headers['access-control-allow-origin'], '*')
      const exposed = (await g.req({ path, key: rich.key })).headers['access-control-expose-headers'].toLowerCase().split(', ')
      for (const h of ['x-request-id', 'request-id', 'retry-after', 'x-ratelimit-limit', 'x-ratelimit-remaining-tokens']) assert.ok(exposed.includes(h), h)
    }
  })
  test('a slash at the end, a query nobody asked for, a charset, unknown members and headers', async () => {
    for (const [name, { ask }] of Object.entries(CALLS)) {
      const [path, body] = ask('echo', { x_unknown: { a: [1] }, _y: null })
      const [p, q] = path.split('?')
      const r = await g.req({ path: `${p}/?${q ? `${q}&` : ''}beta=true&a=%20`, key: rich.key, body,
        headers: { 'Content-Type': 'application/json; charset=utf-8', 'anthropic-beta': 'a-1,b-2', 'x-stainless-retry-count': '0', Accept: '*/*' } })
      assert.equal(r.status, 200, `${name}: ${r.text}`)
    }
  })
  test('Gemini\'s own ways: one content or part alone, snake_case, the first version\'s path, an escaped colon', async () => {
    for (const path of ['/v1/models/echo:generateContent', '/v1beta/models/echo%3AgenerateContent', '/v1/models/vendor%2Fdeep/model%3agenerateContent', '/api/v1/models/vendor/deep/model:generateContent'])
      assert.equal((await send('gemini', 'echo', {}, { path })).json.candidates?.[0].finishReason, 'STOP', path)
    for (const path of ['/v1beta/models/echo:dance', '/v1/models/echo:dance', '/v1beta/models/:generateContent', '/v1beta/models/echo', '/v1beta/models/%zz:generateContent'])
      refused(await send('gemini', 'echo', {}, { path }), 'gemini', 404, 'unknown_path')
    assert.equal((await send('gemini', 'echo', {}, { path: '/v1/models/echo' })).status, 405)
    for (const [base, shape] of [['/v1beta', 'gemini'], ['/api/v1beta', 'gemini'], ['/v1', 'openai']])
      for (const call of ['echo:generateContent', 'echo:streamGenerateContent?alt=sse', 'vendor%2Fdeep/model%3acountTokens', 'embed:embedContent', 'nothing:batchEmbedContents/'])
        for (const method of ['GET', 'HEAD', 'DELETE']) {
          const r = await g.req({ method, path: `${base}/models/${call}`, key: rich.key })
          assert.deepEqual([r.status, r.headers.allow], [405, 'POST, OPTIONS'], `${method} ${base}/models/${call}`)
          if (method !== 'HEAD') refused(r, shape, 405, 'method_not_allowed')
        }
    assert.equal((await g.req({ path: '/v1beta/models/openrouter/llama:8b', key: rich.key })).json.name, 'models/openrouter/llama:8b')
    for (const body of [{ contents: { parts: { text: 'Hello' } } }, { contents: [{ parts: { text: 'Hello' } }], system_instruction: { parts: { text: 'Be brief' } }, generation_config: { max_output_tokens: 50 } }])
      assert.match((await send('gemini', 'echo', {}, { body })).json.candidates?.[0].content.parts[0].text ?? '', /Hello/)
  })
  test('a member that is null was not given', async () => {
    const none = (...names) => Object.fromEntries(names.map((n) => [n, null]))
    const nulls = { chat: none('stream', 'max_tokens', 'tools', 'tool_choice', 'stop', 'n', 'metadata', 'store', 'prediction', 'service_tier', 'functions', 'x_new'), responses: none('stream', 'instructions', 'max_output_tokens', 'tools', 'text', 'metadata', 'truncation', 'previous_response_id', 'x_new'),
      messages: none('system', 'tools', 'stop_sequences', 'metadata', 'stream', 'thinking', 'mcp_servers', 'x_new'), gemini: none('systemInstruction', 'tools', 'generationConfig', 'safetySettings', 'cachedContent', 'x_new') }
    for (const [name, more] of Object.entries(nulls)) {
      const r = await send(name, 'echo', more)
      assert.equal(r.status, 200, `${name}: ${r.text}`)
      assert.equal(r.headers['x-tollgate-dropped'], undefined, name)
    }
  })
  test('no list of messages, or an empty one', async () => {
    for (const name of ['chat', 'messages', 'gemini']) refused(await send(name, 'echo', { [CALLS[name].missing]: [] }), CALLS[name].shape, 400, 'invalid_value', { param: CALLS[name].missing })
  })
  test('HEAD where there is GET; none where there is not', async () => {
    for (const path of ['/v1/models', '/v1/key', '/api/status', '/v1beta/models']) {
      const r = await g.req({ path, method: 'HEAD', key: rich.key })
      assert.deepEqual([r.status, r.text], [200, ''])
      assert.ok(Number(r.headers['content-length']) > 10)
    }
    assert.equal((await g.req({ path: '/v1/messages', method: 'HEAD', key: rich.key })).status, 405)
    assert.equal((await g.req({ path: '/', method: 'HEAD' })).status, 404)
  })
})
