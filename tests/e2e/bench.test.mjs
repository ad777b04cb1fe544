/* The benchmark kit in small: generator, provider and gateway agree on what went through, in every dialect; a soak of
 * some seconds finds nothing (`make soak` runs for SOAK_MINUTES). */
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { load, newBench, startMock, startTollgate } from '../../tools/bench/kit.mjs'
import { soak } from '../../tools/bench/soak.mjs'
import { test } from './lib/test.mjs'

let b, mock, g
before(async () => {
  b = newBench()
  mock = await startMock(b)
  g = await startTollgate(b, mock, { unpinned: true })
})
after(() => b.end())

test('every front end before every provider: calls, events and tokens agree', async () => {
  const dialects = ['chat', 'messages', 'responses', 'gemini'], before = await mock.stats()
  let calls = 0, events = 0
  for (const client of dialects) {
    for (const up of dialects) {
      for (const s of [false, true]) {
        const r = await load(b, g, { k: client, m: `${up}/mock-e7`, s, c: 2, e: 3, w: 0, t: 0.01 })
        assert.deepEqual([r.all.requests, r.all.ok, r.all.unfinished], [6, 6, 0], `${client} ${up} ${s}`)
        calls += r.all.requests
        events += r.all.events
      }
    }
  }
  const stats = await mock.stats()
  assert.equal(stats.completed - before.completed, calls)
  assert.equal(stats.cut, before.cut)
  assert.ok(events >= 16 * 6 * 7, `${events} events`)
  await g.settled(g.account)
  const [usage] = (await g.ctl('usage', '--account', g.account, '--by', 'account')).usage
  assert.equal(usage.requests, calls)
  assert.equal(usage.output_tokens, stats.tokens - before.tokens)
  await g.audit()
})

test('a provider that resets in the middle of a stream is counted as such', async () => {
  const r = await load(b, g, { m: 'chat/mock-e7-reset', s: true, c: 2, e: 2, w: 0, t: 0.01 })
  assert.equal(r.all.requests, 4)
  assert.equal(r.all.unfinished + r.all.cut, 4)
})

test('a short soak', async () => {
  assert.ok(await soak({ minutes: 0.15, rate: 0.3, strict: false }))
})
