/* Who may call what: credentials, refusals, their statuses, codes and headers, and the brand's variants of them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g, tenant, base
before(async () => {
  up = await startUpstream(shared)
  up.on('broken', status(500))
  base = {
    upstreams: [{ name: 'mock', url: up.url, retries: 0 }],
    models: ['gpt-4o', 'gpt-4o-mini', 'other', 'broken', { name: 'tiered', allow: 'service_tier' }],
    tiers: { narrow: 'models gpt-*;', wide: 'rpm 100; tpm 100000; concurrency 10;' },
    top: { max_body: '64k' },
  }
  g = await startGateway(shared, base)
  tenant = await g.tenant({ tier: 'wide' })
})

const LIMIT_HEADERS = ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset', 'x-ratelimit-limit-requests',
  'x-ratelimit-remaining-requests', 'x-ratelimit-reset-requests', 'x-ratelimit-limit-tokens', 'x-ratelimit-remaining-tokens', 'x-ratelimit-reset-tokens']
function refused(r, code, type, symbol, param) {
  assert.equal(r.status, code, r.text)
  assert.match(r.headers['content-type'], /^application\/json/)
  const e = r.json.error
  assert.equal(e.type, type)
  assert.equal(e.code, symbol)
  assert.ok(typeof e.message === 'string' && e.message.length > 5)
  assert.ok('param' in e)
  if (param !== undefined) assert.equal(e.param, param)
  assert.ok(r.headers['x-request-id'])
  if ([401, 402, 403].includes(code)) {
    assert.equal(r.headers['x-should-retry'], 'false')
    assert.equal(r.headers['retry-after'], undefined)
  }
}

describe('credentials', () => {
  test('every accepted place, on every path', async () => {
    const ways = { bearer: { headers: { Authorization: `Bearer ${tenant.key}` } }, lower: { headers: { authorization: `bearer ${tenant.key}` } },
      'x-api-key': { headers: { 'x-api-key': tenant.key } }, 'x-goog-api-key': { headers: { 'x-goog-api-key': tenant.key } } }
    for (const [name, o] of Object.entries(ways)) {
      assert.equal((await g.chat(undefined, {}, o)).status, 200, name)
      assert.equal((await g.req({ path: '/v1/models', ...o })).status, 200, name)
    }
    assert.equal((await g.chat(undefined, {}, { path: `/v1/chat/completions?key=${tenant.key}` })).status, 200)
    assert.equal((await g.req({ path: `/v1/models?a=1&key=${tenant.key}` })).status, 200)
  })
  test('the first that is a known key wins', async () => {
    const r = await g.chat(undefined, {}, { headers: { Authorization: 'Bearer sk-nobody', 'x-api-key': tenant.key } })
    assert.equal(r.status, 200)
  })
  test('a key never reaches a log, and never the provider', async () => {
    await g.chat(undefined, {}, { path: `/v1/chat/completions?key=${tenant.key}` })
    await g.chat(tenant.key)
    await until(() => g.accessLog().length >= 2, 'the access log')
    assert.ok(!readFileSync(path.join(g.dir, 'access.jsonl'), 'utf8').includes(tenant.key))
    assert.ok(!g.errorLog().includes(tenant.key))
    for (const r of up.requests) assert.ok(!(r.head + r.body).includes(tenant.key))
  })
  test('none, a wrong one, an empty one, one of another scheme: 401', async () => {
    const list = [{}, { headers: { Authorization: 'Bearer sk-wrong' } }, { headers: { Authorization: 'Bearer ' } }, { headers: { Authorization: 'Basic eDp5' } },
      { headers: { 'x-api-key': tenant.key.slice(0, -1) } }, { headers: { 'x-api-key': `${tenant.key}x` } }]
    for (const o of list) {
      const r = await g.chat(undefined, {}, o)
      refused(r, 401, 'authentication_error', 'invalid_api_key')
      assert.equal(r.headers['x-ratelimit-limit'], undefined, 'limits are a known key\'s')
    }
    assert.equal(up.of('gpt-4o').every((r) => r.headers.authorization === 'Bearer sk-upstream'), true)
  })
  test('a revoked key: 403 from the next request on, on every worker', async () => {
    const t = await g.tenant()
    for (let i = 0; i < 4; i++) assert.equal((await g.chat(t.key)).status, 200)
    await g.ctl('key', 'revoke', t.id)
    for (let i = 0; i < 8; i++) refused(await g.chat(t.key), 403, 'permission_error', 'key_revoked')
  })
  test('an expired key: 403', async () => {
    const t = await g.tenant({ expires: '2020-01-01' })
    refused(await g.chat(t.key), 403, 'permission_error', 'key_expired')
  })
  test('a suspended account: 403, and back', async () => {
    const t = await g.tenant()
    await g.ctl('account', 'suspend', t.account)
    refused(await g.chat(t.key), 403, 'permission_error', 'account_suspended')
    await g.ctl('account', 'resume', t.account)
    assert.equal((await g.chat(t.key)).status, 200)
  })
  test('a model that the key or the tier does not allow: 403', async () => {
    const byKey = await g.tenant({ models: 'gpt-4o,other*' })
    assert.equal((await g.chat(byKey.key)).status, 200)
    assert.equal((await g.chat(byKey.key, { model: 'other' })).status, 200)
    refused(await g.chat(byKey.key, { model: 'gpt-4o-mini' }), 403, 'permission_error', 'model_not_allowed')
    const byTier = await g.tenant({ tier: 'narrow' })
    assert.equal((await g.chat(byTier.key, { model: 'gpt-4o-mini' })).status, 200)
    refused(await g.chat(byTier.key, { model: 'other' }), 403, 'permission_error', 'model_not_allowed')
    const list = (await g.req({ path: '/v1/models', key: byTier.key })).json.data.map((m) => m.id)
    assert.deepEqual(list.sort(), ['gpt-4o', 'gpt-4o-mini'])
  })
  test('no money: 402', async () => {
    const t = await g.tenant({ credit: null })
    refused(await g.chat(t.key), 402, 'insufficient_quota', 'insufficient_balance')
  })
})

describe('requests that are wrong', () => {
  const bad = [
    ['not JSON', '{"model": "gpt-4o", "messages": [}', 'invalid_json'], ['nothing', '', 'invalid_json'], ['no object', '[1,2]', null],
    ['two values', '{"model":"gpt-4o","messages":[]} {}', 'invalid_json'], ['a lone surrogate', '{"model":"gpt-4o","messages":[{"role":"user","content":"\\ud800"}]}', 'invalid_json'],
    ['no model', { model: undefined }, 'missing_field', 'model'], ['no messages', { messages: undefined }, 'missing_field', 'messages'],
    ['a model that is a number', { model: 5 }, 'invalid_value', 'model'], ['messages that are a string', { messages: 'hi' }, 'invalid_value', 'messages'],
    ['stream that is a string', { stream: 'yes' }, 'invalid_value', 'stream'], ['max_tokens that is negative', { max_tokens: -1 }, 'invalid_value', 'max_tokens'],
    ['max_tokens that is a string', { max_tokens: '10' }, 'invalid_value', 'max_tokens'],
    ['a model twice', '{"model":"gpt-4o","model":"other","messages":[{"role":"user","content":"x"}]}', null],
    ['n that is zero', { n: 0 }, 'invalid_value', 'n'],
  ]
  for (const [name, body, code, param] of bad) {
    test(`${name}: 400`, async () => {
      const n = up.requests.length
      const r = await g.chat(tenant.key, body)
      assert.equal(r.status, 400, r.text)
      assert.equal(r.json.error.type, 'invalid_request_error')
      if (code) assert.equal(r.json.error.code, code)
      if (param) assert.equal(r.json.error.param, param)
      assert.equal(up.requests.length, n, 'it never reached the provider')
    })
  }
  test('a member that changes the price: 400 unless the model allows it', async () => {
    refused(await g.chat(tenant.key, { service_tier: 'priority' }), 400, 'invalid_request_error', 'unsupported_parameter', 'service_tier')
    assert.equal((await g.chat(tenant.key, { model: 'tiered', service_tier: 'priority' })).status, 200)
  })
  test('an unknown model, an unknown path, a wrong method', async () => {
    refused(await g.chat(tenant.key, { model: 'nothing' }), 404, 'not_found_error', 'model_not_found')
    refused(await g.req({ path: '/v1/nothing', key: tenant.key }), 404, 'not_found_error', 'unknown_path')
    const r = await g.req({ path: '/v1/chat/completions', key: tenant.key, method: 'GET' })
    refused(r, 405, 'invalid_request_error', 'method_not_allowed')
    assert.match(r.headers.allow ?? '', /POST/)
    refused(await g.req({ path: '/v1/models', key: tenant.key, method: 'DELETE' }), 405, 'invalid_request_error', 'method_not_allowed')
  })
  test('a body that is too large: 413; a compressed one: 415', async () => {
    refused(await g.chat(tenant.key, { messages: [{ role: 'user', content: 'x'.repeat(70000) }] }), 413, 'invalid_request_error', 'body_too_large')
    refused(await g.chat(tenant.key, {}, { headers: { 'Content-Encoding': 'gzip' } }), 415, 'invalid_request_error', 'unsupported_encoding')
  })
  test('the content type is not looked at', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', undefined]) {
      assert.equal((await g.chat(tenant.key, {}, { headers: type ? { 'Content-Type': type } : {} })).status, 200)
    }
  })
  test('none of it was charged', async () => {
    const t = await g.tenant()
    for (const [, body] of bad) await g.chat(t.key, body)
    await g.chat(t.key, { model: 'broken' })
    const b = await g.settled(t.account)
    assert.equal(b.balance, '100')
  })
})

describe('headers', () => {
  test('limits are on every answer to a known key, also on errors', async () => {
    for (const r of [await g.chat(tenant.key), await g.chat(tenant.key, '{'), await g.chat(tenant.key, { model: 'nothing' }), await g.req({ path: '/v1/models', key: tenant.key }),
      await g.req({ path: '/v1/nothing', key: tenant.key })]) {
      for (const h of LIMIT_HEADERS) assert.match(r.headers[h] ?? '', /^\d+$/, `${h} on ${r.status}`)
      assert.equal(r.headers['x-ratelimit-limit'], '100')
      assert.equal(r.headers['x-ratelimit-limit-tokens'], '100000')
      const reset = Number(r.headers['x-ratelimit-reset'])
      assert.ok(reset >= Math.floor(Date.now() / 1000) - 1 && reset < Date.now() / 1000 + 120, 'epoch seconds')
    }
  })
  test('a limit that is absent sends no header', async () => {
    const t = await g.tenant()
    const r = await g.chat(t.key)
    assert.equal(r.headers['x-ratelimit-limit'], undefined)
    assert.equal(r.headers['x-ratelimit-limit-tokens'], undefined)
  })
  test('the request id is the client\'s where it is decent', async () => {
    assert.equal((await g.chat(tenant.key, {}, { headers: { 'X-Request-Id': 'abc.DEF_1-2' } })).headers['x-request-id'], 'abc.DEF_1-2')
    for (const odd of ['with space', 'x'.repeat(129), 'ü']) {
      const id = (await g.chat(tenant.key, {}, { headers: { 'X-Request-Id': Buffer.from(odd).toString('latin1') } })).headers['x-request-id']
      assert.ok(id && id !== odd)
    }
    const t = await g.tenant()
    for (let i = 0; i < 3; i++) await g.chat(t.key, {}, { headers: { 'X-Request-Id': 'same' } })
    assert.equal((await g.usage(t.account, 3)).length, 3, 'billing does not depend on it')
  })
})

describe('brand', () => {
  test('error_code, error_detail, revoked_key_status, upstream_error_status, key_prefix', async (t) => {
    const b = await startGateway(t, { ...base, brand: { error_code: '"HJL-%d"', error_detail: 'on', revoked_key_status: 401, upstream_error_status: 503, key_prefix: '"hjl_sk_"' } })
    const k = await b.tenant()
    assert.match(k.key, /^hjl_sk_[A-Za-z0-9]{32}$/)
    const e401 = await b.chat('hjl_sk_nobody')
    assert.equal(e401.status, 401)
    assert.equal(e401.json.error.code, 'HJL-401')
    assert.equal(e401.json.error.reason, 'invalid_api_key')
    assert.equal(e401.json.error.type, 'authentication_error')
    assert.equal(e401.json.detail, e401.json.error.message)
    const cap = await b.req({ path: '/v1/models/gpt-4o/cap' })
    assert.deepEqual([cap.status, cap.json.error.code, cap.json.error.reason, cap.json.detail], [401, 'HJL-401', 'invalid_api_key', cap.json.error.message])
    const e404 = await b.chat(k.key, { model: 'nothing' })
    assert.equal(e404.json.error.code, 'HJL-404')
    assert.equal(e404.json.error.reason, 'model_not_found')
    const e400 = await b.chat(k.key, '{')
    assert.equal(e400.json.error.code, 'HJL-400')
    const e5 = await b.chat(k.key, { model: 'broken' })
    assert.equal(e5.status, 503)
    assert.equal(e5.json.error.code, 'HJL-503')
    await b.ctl('key', 'revoke', k.id)
    const revoked = await b.chat(k.key)
    assert.equal(revoked.status, 401)
    assert.equal(revoked.json.error.type, 'authentication_error')
    const poor = await b.tenant({ credit: null })
    assert.equal((await b.chat(poor.key)).json.error.code, 'HJL-402')
  })
})
