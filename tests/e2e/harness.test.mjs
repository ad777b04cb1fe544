/* The harness itself: what the other suites trust. */
import assert from 'node:assert/strict'
import { events, raw, request, stream } from './lib/http.mjs'
import { cost, decimal, digitsOf, nano } from './lib/money.mjs'
import { bytes, chat, sequence, sse, startUpstream, status } from './upstream.mjs'
import { test } from './lib/test.mjs'

test('amounts: exact, half to even', () => {
  assert.equal(nano('0.000000001'), 1n)
  assert.equal(nano('-2.5'), -2_500_000_000n)
  assert.equal(decimal(1_782_000n), '0.001782')
  assert.throws(() => nano('1e3'))
  assert.throws(() => nano('0.0000000001'))
  assert.equal(cost({ input: 24, output: 156 }, { input: '2.75', output: '11.00' }), 1_782_000n)
  assert.equal(cost({ input: 1 }, { input: '0.0005' }), 0n, 'half a nano-dollar goes to the even side')
  assert.equal(cost({ input: 3 }, { input: '0.0005' }), 2n)
  assert.equal(cost({ input: 1 }, { input: '0.001' }, '1.5'), 2n)
  assert.equal(digitsOf('{"a":{"cost_usd":0.0000010}}', 'cost_usd'), '0.0000010')
})
test('the provider: whole, streamed, in order, cut', async (t) => {
  const up = await startUpstream(t)
  up.on('twice', sequence(status(429, { headers: { 'Retry-After': '1' } }), chat())).on('cut', sse({ cut: 2 })).on('bytes', sse({ split: 1, tokens: 2 }))
  const ask = (model, more) => ({ port: up.port, path: '/v1/chat/completions', body: { model, ...more } })
  assert.equal((await request(ask('twice'))).headers['retry-after'], '1')
  assert.equal((await request(ask('twice'))).json.usage.total_tokens, 180)
  assert.equal((await stream(ask('bytes', { stream: true })).all()).at(-1), '[DONE]')
  await assert.rejects(stream(ask('cut', { stream: true })).all())
  up.otherwise = bytes('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc')
  await assert.rejects(request(ask('short')))
  assert.deepEqual(up.requests.map((r) => r.model), ['twice', 'twice', 'bytes', 'cut', 'short'])
})
test('raw bytes and answers in a row', async (t) => {
  const up = await startUpstream(t)
  const one = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}'
  const r = await raw({ port: up.port, answers: 2 }, one, 10, one)
  assert.deepEqual(r.answers.map((a) => a.status), [200, 200])
  assert.deepEqual(events('data: {"a":1}\n\n: ping\n\ndata: [DONE]\n\n'), [{ a: 1 }, '[DONE]'])
})
