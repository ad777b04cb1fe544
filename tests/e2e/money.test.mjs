/* Money to the last nano-dollar: what a call costs, what it holds while it runs, what a client that leaves pays, and
 * that no interleaving overdraws. After each part the ledger audits itself. */
import assert from 'node:assert/strict'
import { afterEach, before, describe } from 'node:test'
import { PRICE, startGateway, until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf, nano } from './lib/money.mjs'
import { chat, hangs, json, newGate, sse, startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

/* The price list of a reseller, USD per million tokens in and out. */
const MODELS = {
  'gpt-4o': ['2.75', '11.00'], 'gpt-4o-mini': ['0.165', '0.66'], 'gpt-4.1': ['2.20', '8.80'], 'gpt-4.1-mini': ['0.44', '1.76'],
  'gpt-4.1-nano': ['0.11', '0.44'], o3: ['11.00', '44.00'], 'o4-mini': ['1.21', '4.84'], 'claude-sonnet-4-20250514': ['3.30', '16.50'],
  'claude-3-5-haiku-20241022': ['0.88', '4.40'], 'claude-opus-4-20250514': ['16.50', '82.50'], 'gemini-2.5-pro': ['1.38', '11.00'],
  'gemini-2.5-flash': ['0.083', '0.33'], 'deepseek-chat': ['0.15', '0.33'], 'deepseek-reasoner': ['0.60', '2.42'], 'llama-3.1-405b': ['3.30', '3.30'],
}
const shared = cleanUps()
let up, g
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url, retries: 0 }, { name: 'faulty', url: up.url, retries: 0, cooldown: '1s' }],
    models: [...Object.entries(MODELS).map(([name, [input, output]]) => ({ name, price: { input, output } })), { name: 'f/*', route: 'mock as *' },
      { name: 'bad/*', route: 'faulty as *' }, { name: 'capped', call_cap: '0.01' }, { name: 'gift', price: 'free' }, { name: 'half', price: { input: '0.0005', output: '0.0005' } },
      { name: 'full', price: { input: '2', output: '8', cached_input: '0.5', cache_write: '2.5', reasoning: '16', audio_input: '40', audio_output: '80' } }],
    groups: { odd: 'models *; ratio 1.37;' },
  })
})
afterEach(async () => { await g.audit() })

async function spent(t) { return nano(t.credit) - nano((await g.settled(t.account)).balance) }

describe('the cost of a call', () => {
  for (const [name, [input, output]] of Object.entries(MODELS)) {
    test(`${name}, whole and streamed`, async () => {
      const usage = { prompt_tokens: 1237, completion_tokens: 911, total_tokens: 2148 }
      up.on(name, chat({ usage }))
      const t = await g.tenant()
      const want = cost({ input: 1237, output: 911 }, { input, output })
      const r = await g.chat(t.key, { model: name })
      assert.equal(digitsOf(r.text, 'cost_usd'), decimal(want))
      const s = g.stream(t.key, { model: name })
      await s.all()
      assert.equal(digitsOf(s.text, 'cost_usd'), decimal(want))
      const [a, b] = await g.usage(t.account, 2)
      for (const u of [a, b]) {
        assert.equal(u.cost, decimal(want))
        assert.equal(u.input_tokens, 1237)
        assert.equal(u.output_tokens, 911)
        assert.equal(u.estimated, false)
        assert.equal(u.model, name)
        assert.equal(u.status, 200)
      }
      assert.deepEqual([a.stream, b.stream], [true, false])
      assert.equal(await spent(t), want * 2n)
    })
  }
  test('the classic example: 24 in, 156 out', async () => {
    up.on('gpt-4o', chat())
    const t = await g.tenant()
    assert.equal(digitsOf((await g.chat(t.key)).text, 'cost_usd'), '0.001782')
  })
  test('one token of the cheapest, and rounding half to even once for the whole call', async () => {
    for (const [i, o] of [[1, 0], [3, 1], [7, 5]]) {
      const usage = { prompt_tokens: i, completion_tokens: o, total_tokens: i + o }
      up.on('gpt-4o-mini', json({ usage }))
      const t = await g.tenant({ group: 'odd' })
      const want = cost({ input: i, output: o }, { input: '0.165', output: '0.66' }, '1.37')
      assert.equal(digitsOf((await g.chat(t.key, { model: 'gpt-4o-mini' })).text, 'cost_usd'), decimal(want))
      assert.equal(await spent(t), want)
    }
  })
  test('half a nano-dollar goes to the even side', async () => {
    for (const [tokens, want] of [[1, '0'], [3, '0.000000002'], [5, '0.000000002'], [7, '0.000000004'], [4, '0.000000002']]) {
      up.on('half', json({ usage: { prompt_tokens: tokens, completion_tokens: 0, total_tokens: tokens } }))
      const t = await g.tenant()
      assert.equal(digitsOf((await g.chat(t.key, { model: 'half' })).text, 'cost_usd'), want)
      assert.equal(decimal(await spent(t)), want)
    }
  })
  test('cached, written, reasoning and audio tokens at their own prices, each once', async () => {
    const usage = { prompt_tokens: 1000, completion_tokens: 500, total_tokens: 1500, prompt_tokens_details: { cached_tokens: 300, cache_write_tokens: 200, audio_tokens: 100 },
      completion_tokens_details: { reasoning_tokens: 120, audio_tokens: 60, accepted_prediction_tokens: 0 } }
    up.on('full', json({ usage }))
    const t = await g.tenant()
    const r = await g.chat(t.key, { model: 'full' })
    const want = cost({ input: 400, cached_input: 300, cache_write: 200, audio_input: 100, output: 320, reasoning: 120, audio_output: 60 },
      { input: '2', output: '8', cached_input: '0.5', cache_write: '2.5', reasoning: '16', audio_input: '40', audio_output: '80' })
    assert.equal(digitsOf(r.text, 'cost_usd'), decimal(want))
    const [u] = await g.usage(t.account)
    assert.deepEqual([u.input_tokens, u.cached_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens], [1000, 300, 200, 500, 120])
  })
  test('a free model costs nothing and needs no money', async () => {
    const t = await g.tenant({ credit: null })
    const r = await g.chat(t.key, { model: 'gift' })
    assert.equal(r.status, 200)
    assert.equal(r.json.usage.cost_usd, 0)
  })
  test('a call that the provider refused or broke is not charged', async () => {
    const t = await g.tenant()
    up.on('e400', status(400, { error: { message: 'context too long', code: 'context_length_exceeded', type: 'invalid_request_error' } })).on('e500', status(500)).on('cut0', sse({ cut: 0 }))
    assert.equal((await g.chat(t.key, { model: 'f/e400' })).status, 400)
    assert.equal((await g.chat(t.key, { model: 'bad/e500' })).status, 502)
    await g.stream(t.key, { model: 'bad/cut0' }).all().catch(() => {})
    assert.equal(await spent(t), 0n)
  })
})

describe('the hold', () => {
  test('what runs is held, then given back; available is the rest', async () => {
    const { gate, open } = newGate()
    up.on('held', sse({ tokens: 1, gate, gateAt: 1 }))
    const t = await g.tenant({ credit: '10' })
    const s = g.stream(t.key, { model: 'f/held', max_tokens: 1000 })
    await s.head
    const b = await until(async () => { const x = await g.balance(t.account); return x.held !== '0' && x }, 'a hold')
    assert.equal(b.unit, 'usd')
    assert.ok(nano(b.held) >= cost({ output: 1000 }, PRICE), `${b.held} for 1,000 tokens of output`)
    assert.ok(nano(b.held) < cost({ output: 1000 }, PRICE) * 2n, `${b.held} is no more than a small prompt adds`)
    assert.equal(nano(b.available), nano(b.balance) - nano(b.held))
    open()
    await s.all()
    assert.equal(await spent(t), cost({ input: 24, output: 1 }, PRICE))
  })
  test('n answers hold n times', async () => {
    up.on('held-n', hangs())
    const t = await g.tenant({ credit: '10' })
    const s = g.stream(t.key, { model: 'f/held-n', max_tokens: 1000, n: 4 })
    const b = await until(async () => { const x = await g.balance(t.account); return x.held !== '0' && x }, 'a hold')
    assert.ok(nano(b.held) >= cost({ output: 4000 }, PRICE))
    s.abort()
    assert.equal(await spent(t), 0n)
  })
  test('without a limit of the client\'s the output limit is what half of the balance pays', async () => {
    up.on('gpt-4o', chat())
    const t = await g.tenant({ credit: '0.05' })
    const r = await g.chat(t.key)
    assert.equal(r.status, 200)
    const sent = up.of('gpt-4o').at(-1).json
    const limit = sent.max_completion_tokens ?? sent.max_tokens
    assert.equal(Number(r.headers['x-tollgate-max-tokens']), limit)
    assert.ok(cost({ output: limit }, PRICE) <= nano('0.025') && limit > 1500, `${limit}`)
  })
  test('with much money the model\'s max_output stands and nothing was cut', async () => {
    const t = await g.tenant({ credit: '100' })
    const r = await g.chat(t.key)
    assert.equal(r.headers['x-tollgate-max-tokens'], undefined)
    const named = await g.chat(t.key, { max_tokens: 50 })
    assert.equal(named.headers['x-tollgate-max-tokens'], undefined)
    assert.equal(up.of('gpt-4o').at(-1).json.max_tokens, 50)
  })
  test('a limit that the balance does not pay is cut to what it pays', async () => {
    const t = await g.tenant({ credit: '0.05' })
    const r = await g.chat(t.key, { max_tokens: 16000 })
    assert.equal(r.status, 200)
    const limit = up.of('gpt-4o').at(-1).json.max_tokens
    assert.equal(Number(r.headers['x-tollgate-max-tokens']), limit)
    assert.ok(cost({ output: limit }, PRICE) <= nano('0.05') && limit > 3000, `${limit}`)
  })
  test('below the floor of 256 tokens it is a 402', async () => {
    const t = await g.tenant({ credit: '0.002' })
    const r = await g.chat(t.key)
    assert.equal(r.status, 402)
    assert.equal(r.json.error.code, 'insufficient_balance')
  })
  test('many calls at once on a small balance never take it below zero', async () => {
    up.on('many', chat({ usage: { prompt_tokens: 20, completion_tokens: 300, total_tokens: 320 }, wait: 20 }))
    const t = await g.tenant({ credit: '0.05' })
    const list = await Promise.all(Array.from({ length: 60 }, () => g.chat(t.key, { model: 'f/many', max_tokens: 300 })))
    const ok = list.filter((r) => r.status === 200)
    for (const r of list) assert.ok([200, 402].includes(r.status), `${r.status}`)
    assert.ok(ok.length >= 5)
    const b = await g.settled(t.account)
    assert.ok(nano(b.balance) >= 0n)
    const records = (await g.usage(t.account, ok.length)).filter((u) => u.status === 200)
    const sum = ok.reduce((n, r) => n + nano(digitsOf(r.text, 'cost_usd')), 0n)
    assert.equal(nano('0.05') - nano(b.balance), sum)
    assert.equal(records.reduce((n, u) => n + nano(u.uncollected), 0n), 0n)
  })
  test('a provider that counts more than was held: the rest is recorded as uncollected', async () => {
    const usage = { prompt_tokens: 24, completion_tokens: 9_000_000, total_tokens: 9_000_024 }
    up.on('liar', json({ usage }))
    const t = await g.tenant({ credit: '1' })
    assert.equal((await g.chat(t.key, { model: 'f/liar', max_tokens: 300 })).status, 200)
    const b = await g.settled(t.account)
    assert.ok(nano(b.balance) >= 0n)
    const [u] = await g.usage(t.account)
    assert.ok(nano(u.uncollected) > 0n)
    assert.equal(nano('1') - nano(b.balance), nano(u.cost))
    assert.equal(nano(u.cost) + nano(u.uncollected), cost({ input: 24, output: 9_000_000 }, PRICE))
  })
})

describe('caps', () => {
  test('a key\'s limit', async () => {
    up.on('gpt-4o', chat())
    const t = await g.tenant({ limit: '0.02' })
    let r
    for (let i = 0; i < 12 && (r = await g.chat(t.key, { max_tokens: 300 })).status === 200; i++) await g.settled(t.account)
    assert.equal(r.status, 402)
    assert.equal(r.json.error.code, 'key_limit_exceeded')
    const k = await g.ctl('key', 'show', t.id)
    assert.ok(nano(k.spent) <= nano('0.02') && nano(k.spent) > 0n)
    assert.equal(await spent(t), nano(k.spent))
    const other = await g.key(t.account)
    assert.equal((await g.chat(other.key)).status, 200, 'another key of the account goes on')
  })
  test('a model\'s call_cap and a cap of the account or key cut the output limit, or refuse', async () => {
    const t = await g.tenant()
    up.on('capped', chat())
    const r = await g.chat(t.key, { model: 'capped' })
    assert.equal(r.status, 200)
    const limit = Number(r.headers['x-tollgate-max-tokens'])
    assert.ok(limit > 600 && cost({ output: limit }, PRICE) <= nano('0.01'), `${limit}`)
    const big = await g.chat(t.key, { model: 'capped', messages: [{ role: 'user', content: 'x'.repeat(60000) }] })
    assert.equal(big.status, 402)
    assert.equal(big.json.error.code, 'call_cap_exceeded')
    await g.ctl('cap', 'set', t.account, 'gpt-4o', '0.02')
    const a = Number((await g.chat(t.key)).headers['x-tollgate-max-tokens'])
    assert.ok(cost({ output: a }, PRICE) <= nano('0.02') && a > 1000, `${a}`)
    await g.ctl('cap', 'set', t.id, 'gpt-4o', '0.01')
    const k = Number((await g.chat(t.key)).headers['x-tollgate-max-tokens'])
    assert.ok(k < a, 'the lowest applies')
    assert.ok((await g.ctl('cap', 'list')).caps.length >= 2)
    await g.ctl('cap', 'remove', t.id, 'gpt-4o')
    await g.ctl('cap', 'remove', t.account, 'gpt-4o')
    assert.equal((await g.chat(t.key)).headers['x-tollgate-max-tokens'], undefined)
  })
})

describe('a client that leaves', () => {
  test('mid-stream, on_client_abort cancel: the provider is told, and what was delivered is paid by an estimate', async () => {
    up.on('long', sse({ tokens: 500, every: 10 }))
    const t = await g.tenant()
    const n = up.of('long').length
    const s = g.stream(t.key, { model: 'f/long', messages: [{ role: 'user', content: 'y'.repeat(400) }] })
    for (let i = 0; i < 6; i++) await s.next()
    s.abort()
    const call = up.of('long')[n].call
    await call.closed
    assert.ok((up.of('long')[n].delivered ?? 0) < 400, 'the provider was stopped')
    const [u] = await g.usage(t.account)
    assert.equal(u.estimated, true)
    assert.ok(u.output_tokens >= 5 && u.output_tokens < 1000, `${u.output_tokens}`)
    assert.ok(u.input_tokens >= 100, `${u.input_tokens} for 400 bytes`)
    assert.equal(await spent(t), nano(u.cost))
    assert.ok(nano(u.cost) > 0n)
  })
  test('before anything came: nothing is charged', async () => {
    up.on('silent', hangs())
    const t = await g.tenant()
    const n = up.of('silent').length
    const s = g.stream(t.key, { model: 'f/silent' })
    await until(() => up.of('silent').length > n, 'the call upstream')
    s.abort()
    await up.of('silent')[n].call.closed
    assert.equal(await spent(t), 0n)
  })
  test('on_client_abort finish: the provider\'s answer is read to its end and its exact usage is charged', async (tt) => {
    const f = await startGateway(tt, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'slow-model'], top: { on_client_abort: 'finish' } })
    up.on('slow-model', sse({ tokens: 60, every: 5 }))
    const t = await f.tenant()
    const s = f.stream(t.key, { model: 'slow-model' })
    for (let i = 0; i < 4; i++) await s.next()
    s.abort()
    const [u] = await f.usage(t.account)
    assert.equal(u.estimated, false)
    assert.equal(u.output_tokens, 60)
    assert.equal(u.cost, decimal(cost({ input: 24, output: 60 }, PRICE)))
    assert.equal(up.of('slow-model').at(-1).delivered, 60)
    await f.audit()
  })
})

describe('other deployments', () => {
  test('a stream that the provider cuts is charged for what was delivered, by an estimate', async () => {
    up.on('half', sse({ tokens: 30, cut: 12 }))
    const t = await g.tenant()
    await g.stream(t.key, { model: 'bad/half' }).all().catch(() => {})
    const [u] = await g.usage(t.account)
    assert.equal(u.estimated, true)
    assert.ok(nano(u.cost) > 0n && nano(u.cost) < cost({ input: 1000, output: 400 }, PRICE))
  })
  test('unit tokens: balances and costs are tokens', async (tt) => {
    const f = await startGateway(tt, { upstreams: [{ name: 'mock', url: up.url }], models: [{ name: 'gpt-4o', tokens: 'input 1 output 2' }], billing: { unit: 'tokens' } })
    const t = await f.tenant({ credit: '1000000' })
    const r = await f.chat(t.key)
    assert.equal(r.status, 200)
    assert.equal(digitsOf(r.text, 'cost_tokens'), String(24 + 156 * 2))
    const b = await f.settled(t.account)
    assert.equal(b.unit, 'tokens')
    assert.equal(b.balance, String(1000000 - 336))
    await f.audit()
  })
})
