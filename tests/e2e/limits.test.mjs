/* RPM, TPM and concurrency: exact over all workers, announced in headers, given back when a call ends in whatever way. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { chat, hangs, json, newGate, resets, sse, startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up, g
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url, retries: 0, cooldown: '1s' }, { name: 'faulty', url: up.url, retries: 0, cooldown: '1s', first_byte_timeout: '1s' }],
    models: ['gpt-4o', { name: 'f/*', route: 'mock as *' }, { name: 'bad/*', route: 'faulty as *' }],
    tiers: {
      three: 'rpm 3;', fifty: 'rpm 50;', tokens: 'tpm 10000;', few: 'concurrency 5;', one: 'concurrency 1;', burst: 'rpm 60 burst 2;', both: 'rpm 2; concurrency 1;',
    },
  })
})

function limited(r, param) {
  assert.equal(r.status, 429, r.text)
  assert.equal(r.json.error.type, 'rate_limit_error')
  assert.equal(r.json.error.code, 'rate_limit_exceeded')
  assert.equal(r.json.error.param, param)
}

describe('requests a minute', () => {
  test('the limit is admitted, the next is not; the headers count down', async () => {
    const t = await g.tenant({ tier: 'three' })
    for (const left of ['2', '1', '0']) {
      const r = await g.chat(t.key)
      assert.equal(r.status, 200)
      assert.equal(r.headers['x-ratelimit-limit'], '3')
      assert.equal(r.headers['x-ratelimit-remaining'], left)
      assert.equal(r.headers['x-ratelimit-remaining-requests'], left)
    }
    const r = await g.chat(t.key)
    limited(r, 'requests')
    const after = Number(r.headers['retry-after']), ms = Number(r.headers['retry-after-ms'])
    assert.ok(after >= 1 && after <= 20, `20 s a request: ${after}`)
    assert.ok(ms > 0 && ms <= after * 1000 && ms > (after - 1) * 1000 - 1)
    assert.equal(r.headers['x-ratelimit-remaining'], '0')
  })
  test('exact over two workers and many connections at once', async () => {
    const t = await g.tenant({ tier: 'fifty' })
    const begin = performance.now()
    const list = await Promise.all(Array.from({ length: 150 }, () => g.chat(t.key)))
    const seconds = (performance.now() - begin) / 1000
    const ok = list.filter((r) => r.status === 200).length
    assert.ok(ok >= 50 && ok <= 50 + Math.ceil(seconds / 1.2), `${ok} of 50 in ${seconds} s`)
    for (const r of list) if (r.status !== 200) limited(r, 'requests')
  })
  test('waiting as long as Retry-After says is enough', async () => {
    const t = await g.tenant({ tier: 'burst' }) // one a second, two at once
    const list = await Promise.all(Array.from({ length: 20 }, () => g.chat(t.key)))
    assert.ok(list.filter((x) => x.status === 200).length >= 2)
    const r = list.findLast((x) => x.status !== 200)
    limited(r, 'requests')
    await new Promise((resolve) => setTimeout(resolve, Number(r.headers['retry-after-ms']) + 5))
    assert.equal((await g.chat(t.key)).status, 200)
  })
  test('refused calls do not count; lists and errors before admission do not either', async () => {
    const t = await g.tenant({ tier: 'three' })
    for (let i = 0; i < 5; i++) assert.equal((await g.chat(t.key, '{')).status, 400)
    for (let i = 0; i < 5; i++) assert.equal((await g.chat(t.key, { model: 'nothing' })).status, 404)
    for (let i = 0; i < 5; i++) assert.equal((await g.req({ path: '/v1/models', key: t.key })).status, 200)
    for (let i = 0; i < 3; i++) assert.equal((await g.chat(t.key)).status, 200)
    limited(await g.chat(t.key), 'requests')
  })
  test('limits are by key, not by account; a key\'s own wins over the tier\'s', async () => {
    const t = await g.tenant({ tier: 'three' })
    const other = await g.key(t.account)
    const own = await g.key(t.account, { rpm: 1 })
    for (let i = 0; i < 3; i++) assert.equal((await g.chat(t.key)).status, 200)
    limited(await g.chat(t.key), 'requests')
    assert.equal((await g.chat(other.key)).status, 200)
    const r = await g.chat(own.key)
    assert.equal(r.headers['x-ratelimit-limit'], '1')
    limited(await g.chat(own.key), 'requests')
  })
})

describe('tokens a minute', () => {
  test('the estimate is bytes/4 plus the output limit, at most 1,024 of it, and is corrected at the end', async () => {
    const t = await g.tenant({ tier: 'tokens' })
    up.on('gpt-4o', chat())
    const begin = performance.now()
    const r = await g.chat(t.key, { max_tokens: 4000 })
    assert.equal(r.status, 200)
    assert.equal(r.headers['x-ratelimit-limit-tokens'], '10000')
    const first = Number(r.headers['x-ratelimit-remaining-tokens'])
    assert.ok(first <= 10000 - 1024 && first > 10000 - 1024 - 200, `${first}`)
    await g.settled(t.account)
    // 180 tokens were used: the next answer's figure is 10000 - 180 - its own estimate, and what was refilled meanwhile.
    const next = await g.chat(t.key, { max_tokens: 100 })
    const left = Number(next.headers['x-ratelimit-remaining-tokens']), refilled = (performance.now() - begin) / 6
    assert.ok(left <= 10000 - 180 - 100 + refilled && left > 10000 - 180 - 100 - 200, `${left}`)
  })
  test('a call that is larger than the whole limit: 429 that says not to try again', async () => {
    const t = await g.tenant({ tier: 'tokens' })
    const r = await g.chat(t.key, { messages: [{ role: 'user', content: 'x'.repeat(44000) }] })
    limited(r, 'tokens')
    assert.equal(r.headers['x-should-retry'], 'false')
    assert.equal(r.headers['retry-after'], undefined)
  })
  test('used up: 429 with the time that is enough; the actual use counts, not the guess', async () => {
    const t = await g.tenant({ tier: 'tokens' })
    up.on('big', json({ usage: { prompt_tokens: 9000, completion_tokens: 2500, total_tokens: 11500 } }))
    assert.equal((await g.chat(t.key, { model: 'f/big', max_tokens: 10 })).status, 200)
    await g.settled(t.account)
    const r = await g.chat(t.key, { max_tokens: 10 })
    limited(r, 'tokens')
    const ms = Number(r.headers['retry-after-ms'])
    assert.ok(ms > 8000 && ms < 12000, `1,500 tokens over at 166.7 a second: ${ms} ms`)
  })
})

describe('concurrency', () => {
  test('exactly the limit at once, over two workers', async () => {
    const { gate, open } = newGate()
    up.on('held', sse({ tokens: 2, gate, gateAt: 1 }))
    const t = await g.tenant({ tier: 'few' })
    const streams = Array.from({ length: 40 }, () => g.stream(t.key, { model: 'f/held' }))
    const heads = await Promise.all(streams.map((s) => s.head))
    const ok = streams.filter((_, i) => heads[i].status === 200)
    assert.equal(ok.length, 5)
    const refused = heads.findIndex((h) => h.status === 429)
    assert.equal(heads[refused].headers['retry-after'], '1')
    assert.match(streams[refused].text, /"concurrency"/)
    open()
    for (const s of ok) assert.equal((await s.all()).at(-1), '[DONE]')
    await g.settled(t.account)
    const again = await Promise.all(Array.from({ length: 5 }, () => g.chat(t.key)))
    assert.deepEqual(again.map((r) => r.status), [200, 200, 200, 200, 200])
  })
  const endings = {
    'a client that leaves': async (t) => { up.on('hang-mid', sse({ hangAt: 2 })); const s = g.stream(t.key, { model: 'f/hang-mid' }); await s.next(); s.abort() },
    'a client that leaves before the first byte': async (t) => {
      up.on('hang', hangs())
      const n = up.of('hang').length
      const s = g.stream(t.key, { model: 'f/hang' })
      await until(() => up.of('hang').length > n, 'the call upstream')
      s.abort()
    },
    'an error of the provider': async (t) => { up.on('e500', status(500)); assert.equal((await g.chat(t.key, { model: 'bad/e500' })).status, 502) },
    'a reset by the provider': async (t) => { up.on('rst', resets()); assert.ok((await g.chat(t.key, { model: 'bad/rst' })).status >= 500) },
    'a provider that says nothing': async (t) => { up.on('mute', hangs()); assert.equal((await g.chat(t.key, { model: 'bad/mute' })).status, 504) },
    'a stream that is cut': async (t) => { up.on('cut', sse({ cut: 3 })); await g.stream(t.key, { model: 'bad/cut' }).all().catch(() => {}) },
  }
  for (const [name, end] of Object.entries(endings)) {
    test(`the place is free again after ${name}`, async () => {
      const t = await g.tenant({ tier: 'one' })
      await end(t)
      await g.settled(t.account)
      await until(async () => (await g.chat(t.key)).status === 200, 'a free place')
    })
  }
  test('a call refused for concurrency takes nothing of the others\' limits', async () => {
    const t = await g.tenant({ tier: 'both' })
    const { gate, open } = newGate()
    up.on('held2', sse({ tokens: 1, gate, gateAt: 1 }))
    const s = g.stream(t.key, { model: 'f/held2' })
    await s.head
    for (let i = 0; i < 5; i++) limited(await g.chat(t.key), 'concurrency')
    open()
    await s.all()
    await g.settled(t.account)
    await until(async () => (await g.chat(t.key)).status !== 429, 'the second of two requests', 20_000) // the next one comes after 30 s
  })
})
