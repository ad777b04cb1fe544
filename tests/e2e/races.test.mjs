/* Many at once, on four workers: the last cent, limits, places, a revocation, a cost cap. Every client is connected before the
 * first one asks. */
import assert from 'node:assert/strict'
import { before } from 'node:test'
import { Client, startLoop, startProvider } from './lib/chaos.mjs'
import { random } from './lib/random.mjs'
import { startGateway, until } from './lib/gateway.mjs'
import { nano } from './lib/money.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
const CALL_CAP = '0.006' // of the operator, a call of the model "obeys"
let p, g
before(async () => {
  p = await startProvider(shared)
  g = await startGateway(shared, {
    workers: 4, upstreams: [{ name: 'mock', url: p.url, retries: 0 }],
    models: ['whole', 'stream', 'gate', 'whole-five', 'stream-five', 'gate-hundred', { name: 'obeys', call_cap: CALL_CAP }, { name: 'over', call_cap: CALL_CAP }],
    tiers: { hundred: 'rpm 100;', five: 'concurrency 5;', places: 'concurrency 100;' }, top: { access_log: 'off' },
  })
})

let next = 0
async function connected(t, n) {
  const list = Array.from({ length: n }, () => new Client(g.port))
  t.after(() => { for (const c of list) c.close() })
  for (let i = 0; i < n; i += 100) await Promise.all(list.slice(i, i + 100).map((c) => c.connect()))
  return list
}
const tally = (list) => list.reduce((n, r) => ({ ...n, [r.status]: (n[r.status] ?? 0) + 1 }), {})
const id = () => `race-${next++}`

test('1,000 clients on one key with one cent: never below zero, and the rest still buys what it can pay', async (t) => {
  const k = await g.tenant({ credit: '0.01' }), other = await g.tenant()
  // What the smallest call holds, as the server says.
  const small = { model: 'gate', body: { max_tokens: 5, messages: [{ role: 'user', content: 'x' }] } }
  const one = new Client(g.port), asking = one.call({ key: other.key, id: id(), ...small })
  await until(() => p.waiting.size === 1, 'the call at the provider')
  const least = nano((await g.balance(other.account)).held)
  p.open()
  assert.equal((await asking).status, 200)
  one.close()

  const clients = await connected(t, 1000)
  let running = true, lowest = nano('0.01'), looks = 0
  const look = (async () => { while (running) { const b = await g.balance(k.account); looks++; for (const x of [b.balance, b.available]) if (nano(x) < lowest) lowest = nano(x) } })()
  const sum = {}
  await Promise.all(clients.map(async (c) => { // each until it is told that there is no more
    for (;;) {
      const r = await c.call({ key: k.key, id: id(), model: 'whole' })
      sum[r.status] = (sum[r.status] ?? 0) + 1
      if (r.status !== 200) return
    }
  }))
  running = false
  await look
  const b = await g.settled(k.account)
  assert.ok(lowest >= 0n, `${lowest}`)
  assert.deepEqual(Object.keys(sum), ['200', '402'])
  assert.equal(sum[402], 1000)
  const records = (await g.ctl('usage', '--account', k.account, '--limit', 1000)).usage
  assert.equal(nano('0.01') - records.reduce((n, u) => n + nano(u.cost), 0n), nano(b.balance))
  assert.equal(records.length, sum[200])
  assert.ok(nano(b.balance) >= least, `${b.balance} are left`)
  const last = clients[0].call({ key: k.key, id: id(), ...small })
  await until(() => p.waiting.size === 1, 'the last call at the provider')
  p.open()
  assert.equal((await last).status, 200)
  await g.audit()
  t.diagnostic(`${sum[200]} calls for one cent, ${looks} looks, lowest ${lowest} nano`)
})

test('a limit of 100 a minute and 1,000 at once: exactly 100', async (t) => {
  const clients = await connected(t, 1000)
  for (let round = 0; ; round++) { // one comes back every 600 ms: a round that took longer is tried again
    const k = await g.tenant({ tier: 'hundred' }), begin = performance.now(), before = p.arrived
    const list = await Promise.all(clients.map((c) => c.call({ key: k.key, id: id(), model: 'whole' })))
    const back = Math.floor((performance.now() - begin) / 600), n = tally(list)
    assert.equal(p.arrived - before, n[200])
    assert.equal(n[200] + n[429], 1000)
    assert.ok(n[200] >= 100 && n[200] <= 100 + back, `${n[200]} of 100, ${back} came back`)
    if (back > 0 && round < 5) continue
    t.diagnostic(`${n[200]} of 1,000, ${back} could have come back, round ${round + 1}`)
    return
  }
})

test('100 places and 1,000 at once: exactly 100 at the provider', async (t) => {
  const clients = await connected(t, 1000), k = await g.tenant({ tier: 'places' })
  let refused = 0
  const calls = clients.map((c) => c.call({ key: k.key, id: id(), model: 'gate-hundred' }).then((r) => { if (r.status === 429) refused++; return r }))
  await until(() => refused === 900, 'the other 900 to be refused')
  await until(() => p.waiting.size >= 100, 'a hundred at the provider')
  assert.equal(p.waiting.size, 100)
  p.open()
  assert.deepEqual(tally(await Promise.all(calls)), { 200: 100, 429: 900 })
})

test('five places and 500 clients that come again and again: never six at the provider, and five afterwards', async (t) => {
  const k = await g.tenant({ tier: 'five', credit: '1000' }), rnd = random(1)
  const loop = startLoop({ port: g.port, keys: [k], clients: 500, rnd, mix: () => (rnd() < 0.6 ? { model: 'whole-five', stream: false } : { model: 'stream-five', stream: true }), prefix: 'five-', rest: 150 })
  t.after(() => loop.stop())
  // Calls by the wire: those of both models together are never six.
  let most = 0
  const watch = setInterval(() => { const n = (p.active.get('whole-five') ?? 0) + (p.active.get('stream-five') ?? 0); if (n > most) most = n }, 0)
  t.after(() => clearInterval(watch))
  await until(() => loop.statuses[200] >= 100, '100 calls')
  await loop.stop()
  assert.ok(Math.max(most, p.most.get('stream-five')) <= 5, `${most}`)
  assert.equal(p.most.get('stream-five'), 5, 'and five it was')
  assert.ok(loop.statuses[429] >= 500)
  await g.settled(k.account)
  const calls = Array.from({ length: 6 }, () => new Client(g.port)).map((c) => c.call({ key: k.key, id: id(), model: 'gate' }).finally(() => c.close()))
  await until(() => p.waiting.size === 5, 'five calls at the provider')
  const sixth = await Promise.race(calls)
  assert.equal(sixth.status, 429)
  p.open()
  assert.deepEqual(tally(await Promise.all(calls)), { 200: 5, 429: 1 })
  await g.audit()
})

test('revoked under load: no request that starts after the acknowledgement passes, on any worker', async (t) => {
  for (let round = 0; round < 3; round++) {
    const k = await g.tenant(), clients = await connected(t, 60), calls = []
    let running = true
    const all = clients.map(async (c) => {
      while (running) {
        const sent = performance.now(), r = await c.call({ key: k.key, id: id(), model: 'whole' })
        calls.push({ sent, status: r.status })
      }
    })
    await until(() => calls.length > 300, 'load')
    await g.ctl('key', 'revoke', k.id)
    const acknowledged = performance.now()
    await until(() => calls.filter((c) => c.sent > acknowledged).length > 300, 'calls after it')
    running = false
    await Promise.all(all)
    const late = calls.filter((c) => c.sent > acknowledged)
    assert.deepEqual(tally(late), { 403: late.length })
    assert.ok(calls.some((c) => c.status === 200))
  }
})

test('100 at once around a cost cap: no settled cost exceeds the lowest cap that applies', async (t) => {
  const plain = await g.tenant(), tight = await g.tenant(), clients = await connected(t, 100)
  await g.ctl('cap', 'set', tight.account, 'obeys', '0.005')
  const own = await g.key(tight.account)
  await g.ctl('cap', 'set', own.id, 'obeys', '0.004')
  const caps = new Map([[plain.id, CALL_CAP], [tight.id, '0.005'], [own.id, '0.004']])
  for (const [model, allowed] of [['obeys', [200, 402]], ['over', [200, 402]]]) {
    const list = await Promise.all(clients.map((c, i) => c.call({ // outputs and inputs from far below to far above the cap
      key: [plain.key, tight.key, own.key][i % 3], id: id(), model, stream: false, body: { max_tokens: 20 + i * 8, messages: [{ role: 'user', content: `${id()} ${'word '.repeat(i % 10 === 9 ? 2000 : i)}` }] },
    })))
    const n = tally(list)
    assert.ok(Object.keys(n).every((s) => allowed.includes(Number(s))), JSON.stringify(n))
    assert.ok(n[200] >= 50 && n[402] >= 10, JSON.stringify(n))
    for (const r of list) if (r.status === 402) assert.match(r.text, /"call_cap_exceeded"/)
  }
  let cut = 0
  for (const k of [plain, tight]) {
    await g.settled(k.account)
    for (const u of (await g.ctl('usage', '--account', k.account, '--limit', 1000)).usage) {
      const cap = nano(u.model === 'obeys' ? caps.get(u.key) : CALL_CAP)
      assert.ok(nano(u.cost) <= cap, `${u.cost} of at most ${cap}: ${JSON.stringify(u)}`)
      if (nano(u.cost) > cap * 9n / 10n) cut++
    }
  }
  assert.ok(cut > 10, `${cut} calls came near their cap`)
  await g.audit()
})

test('1,000 connections spread over four workers within 20%, at once and one after the other', async (t) => {
  for (const [how, step] of [['at once', 1000], ['one after the other', 1]]) {
    const list = Array.from({ length: 1000 }, () => new Client(g.port))
    t.after(() => { for (const c of list) c.close() })
    const counts = async () => (await g.ctl('status')).workers.map((w) => w.connections)
    await until(async () => (await counts()).every((n) => n === 0), 'an empty server')
    for (let i = 0; i < 1000; i += step) await Promise.all(list.slice(i, i + step).map((c) => c.connect()))
    const spread = await until(async () => { const n = await counts(); return n.reduce((a, b) => a + b) === 1000 && n }, 'all to be accepted')
    t.diagnostic(`${how}: ${spread.join(', ')}`)
    for (const n of spread) assert.ok(n >= 200 && n <= 300, `${how}: ${spread}`)
    for (const c of list) c.close()
  }
})
