/* Several upstreams behind a model: weights, priorities, what a failing one costs the clients (nothing, where another can serve), keys that
 * cool down, circuits that open, let one request at a time look, and close. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { makeCerts } from './lib/certs.mjs'
import { folder } from './lib/clean.mjs'
import { freePort, lateness, startGateway, until } from './lib/gateway.mjs'
import { digitsOf, nano } from './lib/money.mjs'
import { bytes, chat, hangs, json, newGate, resets, sse, startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const COOLDOWN_MS = 1000, SEEN_MS = 3000 /* after which it must have been seen */
const all = cleanUps()
let certs, good
before(async () => {
  certs = makeCerts(folder(all))
  good = await startUpstream(all)
})

/* A provider that can be taken away and put back on its port. */
async function mortal(t, o) {
  const up = await startUpstream(t, { ...o, port: await freePort() })
  up.gone = async () => { for (const s of up.open) s.destroy(); await new Promise((r) => up.server.close(r)) }
  up.back = () => new Promise((resolve, reject) => { up.server.on('error', reject); up.server.listen(up.port, '127.0.0.1', resolve) })
  return up
}
const behave = (b) => (up) => { up.otherwise = b; return undefined }
const works = (up) => { up.otherwise = chat() }
const half = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{"id":"chatcmpl-1","choi'
/* How it fails, and how that ends. Streams: whether a call that streams can be tried elsewhere too (nothing of it went out). */
const WAYS = {
  'refuses connections': { fail: (up) => up.gone(), heal: (up) => up.back() },
  'resets': { fail: behave(resets()) },
  'says nothing': { fail: behave(hangs()) },
  'says 500': { fail: behave(status(500)) },
  'says 503': { fail: behave(status(503, { headers: { 'Retry-After': '30' } })) },
  'says 429': { fail: behave(status(429, { headers: { 'Retry-After': '1' } })) },
  'says 401': { fail: behave(status(401)) },
  'says garbage': { fail: behave(bytes('\x00\x01\x02garbage\r\n\r\n')) },
  'gives half an answer': { fail: behave(bytes(half)), streams: false },
  'breaks a stream before its first event': { fail: behave(sse({ cut: 0 })), whole: false },
  'shows a wrong certificate': {
    tls: true,
    fail: (up) => { up.server.setSecureContext({ key: certs.wrong.key, cert: certs.wrong.cert }); for (const s of up.open) s.destroy() },
    heal: (up) => up.server.setSecureContext({ key: certs.good.key, cert: certs.good.cert }),
  },
}

/* Calls from `clients` at once until each has made `calls`; every one must be good. Gives what they cost and who served. */
async function load(g, tenant, model, { clients = 6, calls = 10, whole = true, streams = true } = {}) {
  const served = {}
  let cost = 0n, count = 0
  await Promise.all(Array.from({ length: clients }, async (_, c) => {
    for (let i = 0; i < calls; i++) {
      const stream = streams && (!whole || (c + i) % 2 === 1)
      let upstream, text
      if (stream) {
        const s = g.stream(tenant.key, { model, max_tokens: 50 })
        const head = await s.head, list = await s.all()
        assert.equal(head.status, 200, `${model}: ${s.text}`)
        assert.equal(list.at(-1), '[DONE]', `${model}: ${s.text}`)
        upstream = head.headers['x-tollgate-upstream']
        text = s.text
      } else {
        const r = await g.chat(tenant.key, { model, max_tokens: 50 })
        assert.equal(r.status, 200, `${model}: ${r.text}`)
        upstream = r.headers['x-tollgate-upstream']
        text = r.text
      }
      served[upstream] = (served[upstream] ?? 0) + 1
      cost += nano(digitsOf(text, 'cost_usd'))
      count++
    }
  }))
  return { served, cost, count }
}

describe('two upstreams, and one of them', { concurrency: 4 }, () => {
  const shared = cleanUps(), ups = {}
  let g
  before(async () => {
    const upstreams = [{ name: 'good', url: good.url, retries: 2, cooldown: `${COOLDOWN_MS}ms`, first_byte_timeout: '5s' }], models = []
    for (const [i, [name, way]] of Object.entries(WAYS).entries()) {
      ups[name] = await mortal(shared, way.tls ? { cert: certs.good } : {})
      upstreams.push({ name: `bad${i}`, url: ups[name].url, ca_file: way.tls ? certs.ca : undefined, retries: 2, cooldown: `${COOLDOWN_MS}ms`,
        connect_timeout: '3s', first_byte_timeout: name === 'says nothing' ? '800ms' : '4s' })
      models.push({ name: `m${i}`, route: [`bad${i} as m${i} weight 1`, `good as m${i} weight 1`] })
    }
    g = await startGateway(shared, { workers: 2, upstreams, models })
    shared.push(() => g.audit())
  })

  for (const [i, [name, way]] of Object.entries(WAYS).entries()) test(`${name}: no client notices, each call is charged once, and it is used again within its cool-down`, async (t) => {
    const tenant = await g.tenant(), up = ups[name], bad = `bad${i}`, o = { whole: way.whole, streams: way.streams }
    const sum = { cost: 0n, count: 0 }
    const more = async (x) => { const r = await load(g, tenant, `m${i}`, { ...o, ...x }); sum.cost += r.cost; sum.count += r.count; return r }
    const first = await more({ calls: 5 })
    assert.ok(first.served[bad] > 2 && first.served.good > 2, `both serve: ${JSON.stringify(first.served)}`)
    const before = up.requests.length
    const failing = more({ calls: 12 })
    await way.fail(up)
    await failing
    const during = await more({ calls: 5 })
    assert.equal(during.served[bad], undefined, 'what fails serves nobody')
    const asked = up.requests.length - before
    assert.ok(asked < 60, `and is not asked for long: ${asked} requests`)
    await (way.heal ?? works)(up)
    if (!way.heal) works(up)
    const healed = performance.now(), late = lateness(t)
    await until(async () => (await more({ clients: 2, calls: 1 })).served[bad], 'the upstream back')
    const took = performance.now() - healed
    assert.ok(took < COOLDOWN_MS + SEEN_MS + late(), `back after ${took} ms`)
    t.diagnostic(`back after ${Math.round(took)} ms`)
    const again = await more({ calls: 5 })
    assert.ok(again.served[bad] > 2, `and in full: ${JSON.stringify(again.served)}`)
    const b = await g.settled(tenant.account)
    assert.equal(nano('100') - nano(b.balance), sum.cost, 'charged what the answers say')
    const records = (await g.usage(tenant.account, sum.count)).filter((u) => u.status === 200)
    assert.equal(records.length, sum.count, 'one record each')
  })
})

describe('which upstream', () => {
  const shared = cleanUps(), up = {}
  let g, tenant
  before(async () => {
    for (const name of ['a', 'b', 'c']) { up[name] = await startUpstream(shared) }
    const upstreams = ['a', 'b', 'c'].map((name) => ({ name, url: up[name].url, retries: 2, cooldown: '400ms', first_byte_timeout: '5s' }))
    g = await startGateway(shared, { workers: 2, upstreams, models: [
      { name: 'weighted', route: ['a as weighted weight 7', 'b as weighted weight 2', 'c as weighted weight 1'] },
      { name: 'ranked', route: ['a as ranked priority 0', 'b as ranked priority 1', 'c as ranked priority 2'] },
      { name: 'looked', route: ['a as looked weight 1', 'b as looked weight 1'] },
      { name: 'kept', route: ['a as kept weight 1', 'b as kept weight 1'] },
    ] })
    tenant = await g.tenant({ credit: '1000' })
  })
  const upstreamOf = async (model) => {
    const r = await g.chat(tenant.key, { model })
    assert.equal(r.status, 200, r.text)
    return r.headers['x-tollgate-upstream']
  }

  test('by weight', async () => {
    const n = 1000, seen = { a: 0, b: 0, c: 0 }
    for (let i = 0; i < n; i += 50) for (const u of await Promise.all(Array.from({ length: 50 }, () => upstreamOf('weighted')))) seen[u]++
    let chi = 0
    for (const [u, share] of [['a', 0.7], ['b', 0.2], ['c', 0.1]]) chi += (seen[u] - n * share) ** 2 / (n * share)
    assert.ok(chi < 20.7, `chi-squared ${chi} of two degrees is exceeded once in 30,000 runs: ${JSON.stringify(seen)}`)
  })
  test('by priority: the next only while the one before it fails', async () => {
    for (let i = 0; i < 20; i++) assert.equal(await upstreamOf('ranked'), 'a')
    up.a.on('ranked', status(500))
    for (let i = 0; i < 6; i++) assert.equal(await upstreamOf('ranked'), 'b')
    up.b.on('ranked', resets())
    for (let i = 0; i < 6; i++) assert.equal(await upstreamOf('ranked'), 'c')
    up.a.on('ranked', chat())
    up.b.on('ranked', chat())
    await until(async () => await upstreamOf('ranked') === 'a', 'the first again')
    for (let i = 0; i < 10; i++) assert.equal(await upstreamOf('ranked'), 'a')
  })
  test('half open: one request at a time looks, over all workers; its success lets all back', async () => {
    up.a.on('looked', status(500))
    await until(async () => { await upstreamOf('looked'); return (await g.ctl('upstream', 'list')).upstreams.find((u) => u.name === 'a').state === 'down' }, 'an open circuit')
    const { gate, open: let_go } = newGate()
    up.a.on('looked', async (c) => { await gate; await json()(c) })
    const before = up.a.of('looked').length
    const calls = []
    await until(async () => {
      for (let i = 0; i < 10; i++) calls.push(upstreamOf('looked'))
      await Promise.race([Promise.all(calls.slice(-10)), new Promise((r) => setTimeout(r, 100))])
      return up.a.of('looked').length > before
    }, 'a look')
    for (let i = 0; i < 60; i++) calls.push(upstreamOf('looked'))
    await until(async () => {
      const done = await Promise.all(calls.map((c) => Promise.race([c, Promise.resolve(null)])))
      return done.filter((x) => x === null).length === 1
    }, 'all calls but one answered')
    assert.equal(up.a.of('looked').length - before, 1, 'one looked')
    let_go()
    const served = await Promise.all(calls)
    assert.equal(served.filter((u) => u === 'a').length, 1)
    await until(async () => await upstreamOf('looked') === 'a', 'the upstream back')
    const all = await Promise.all(Array.from({ length: 60 }, () => upstreamOf('looked')))
    assert.ok(all.filter((u) => u === 'a').length > 10)
  })
  test('drained: nothing new goes there, what runs there finishes; enabled: it is back', async () => {
    const { gate, open } = newGate()
    up.a.on('kept', sse({ tokens: 4, gate, gateAt: 3 }))
    let s
    for (;;) { // one that runs on a
      s = g.stream(tenant.key, { model: 'kept' })
      if ((await s.head).headers['x-tollgate-upstream'] === 'a') break
      await s.all()
    }
    await g.ctl('upstream', 'drain', 'a')
    for (const u of await Promise.all(Array.from({ length: 30 }, () => upstreamOf('kept')))) assert.equal(u, 'b')
    open()
    assert.equal((await s.all()).at(-1), '[DONE]')
    up.a.on('kept', chat())
    await g.ctl('upstream', 'enable', 'a')
    await until(async () => await upstreamOf('kept') === 'a', 'the upstream back')
  })

  test('every attempt that gave nothing was free', async () => {
    await g.settled(tenant.account)
    const { usage } = await g.ctl('usage', '--account', tenant.account, '--limit', '5000')
    const all = usage.reduce((n, u) => n + nano(u.cost), 0n)
    assert.equal(nano('1000') - nano((await g.balance(tenant.account)).balance), all)
    assert.ok(usage.every((u) => u.status === 200 && nano(u.cost) > 0n))
    assert.equal(new Set(usage.map((u) => u.request_id)).size, usage.length)
    await g.audit()
  })
})

describe('of two keys of an upstream', { concurrency: true }, () => {
  const shared = cleanUps(), date = (s) => new Date(Math.ceil(Date.now() / 1000 + s) * 1000).toUTCString()
  /* name, the answer's status and headers, how long it rests: at least and, where it is asked for, at most (ms) */
  const CASES = [
    ['seconds', 429, () => ({ 'Retry-After': '2' }), 1800, 2900], ['ms', 429, () => ({ 'retry-after-ms': '600' }), 500, 1500],
    ['date', 429, () => ({ 'Retry-After': date(2) }), 1800, 3900],
    ['rfc850', 429, () => ({ 'Retry-After': date(2).replace(/^(...), (..) (...) ..(..)/, '$1day, $2-$3-$4') }), 1800, 3900],
    ['nothing', 429, () => ({}), 800, 1900], ['refused', 401, () => ({}), 800, 1900], ['unpaid', 402, () => ({}), 800, 1900], ['forbidden', 403, () => ({}), 800, 1900],
  ]
  let up, g, tenant
  before(async () => {
    up = await startUpstream(shared)
    g = await startGateway(shared, { workers: 2,
      upstreams: CASES.map(([name]) => ({ name, url: up.url, retries: 3, cooldown: '1s', api_key: ['sk-one', 'sk-two'] })),
      models: CASES.map(([name]) => ({ name, route: `${name} as ${name}` })) })
    tenant = await g.tenant({ credit: '1000' })
  })
  const keyOf = (r) => r.headers.authorization.slice('Bearer '.length)
  for (const [name, code, headers, least, most] of CASES) test(`one rests when it gets ${code} (${name}), the other serves, nobody notices`, async () => {
    const call = async () => { const r = await g.chat(tenant.key, { model: name }); assert.equal(r.status, 200, r.text) }
    const first = (from) => up.of(name).slice(from).some((r) => keyOf(r) === 'sk-one')
    let failing = true
    up.on(name, (c) => (failing && keyOf(c.req) === 'sk-one' ? status(code, { headers: headers(), error: { message: `no ${code}`, type: 'x' } }) : json())(c))
    await until(async () => { await call(); return first(0) }, 'the failing key in use')
    const from = up.of(name).findLast((r) => keyOf(r) === 'sk-one').at, seen = up.of(name).length
    failing = false
    await until(async () => { await call(); return first(seen) }, 'the key back')
    const after = up.of(name).slice(seen), back = after.findIndex((r) => keyOf(r) === 'sk-one'), took = after[back].at - from
    assert.ok(took >= least, `${took} ms`)
    const passed_by = after.slice(0, back).filter((r) => r.at - from > most).length
    assert.ok(passed_by < 8, `${passed_by} calls that it could have served: back after ${took} ms`)
    if (code !== 429) await until(() => new RegExp(`upstream ${name} refuses its API key number 1 .*no ${code}`).test(g.errorLog()), 'a line in the error log')
  })
})

test('a name that is gone: the other upstream serves; and when it is known again both do', async (t) => {
  const up = await startUpstream(t)
  const upstreams = (host) => [{ name: 'good', url: good.url, retries: 2 }, { name: 'named', url: `http://${host}:${up.port}/v1`, retries: 2, cooldown: `${COOLDOWN_MS}ms`, connect_timeout: '1s' }]
  const g = await startGateway(t, { workers: 2, upstreams: upstreams('localhost'), models: [{ name: 'm', route: ['named as m', 'good as m'] }] })
  const tenant = await g.tenant()
  assert.ok((await load(g, tenant, 'm', { calls: 4 })).served.named > 2)
  await g.reload({ upstreams: upstreams('no-such-host.invalid') })
  assert.equal((await load(g, tenant, 'm', { calls: 4 })).served.named, undefined)
  await g.reload({ upstreams: upstreams('localhost') })
  await until(async () => (await load(g, tenant, 'm', { clients: 2, calls: 1 })).served.named, 'the upstream back')
})

test('without a single call: /api/status says degraded within two probes of an upstream\'s end, and ok within two of its return', async (t) => {
  const PROBE_MS = 700, SLACK_MS = 400, gone = await mortal(t), late = lateness(t)
  const o = { workers: 2, upstreams: ['secret-one', 'secret-two'].map((name, i) => ({ name, url: i ? good.url : gone.url, probe: `${PROBE_MS}ms` })), models: [{ name: 'quiet', route: ['secret-one', 'secret-two'] }] }
  const g = await startGateway(t, o)
  const status = async (p = '/api/status') => (await g.req({ path: p })).json
  const within = async (what, word) => {
    const from = performance.now()
    await until(async () => (await status()).status === word, word)
    const ms = performance.now() - from
    t.diagnostic(`${word} ${Math.round(ms)} ms after ${what}`)
    assert.ok(ms <= 2 * PROBE_MS + SLACK_MS + late(), `${ms} ms`)
  }
  await until(async () => (await status()).status === 'ok', 'ok')
  for (let i = 0; i < 2; i++) {
    await gone.gone()
    await within('its end', 'degraded')
    assert.deepEqual((await status('/v1/status')).upstreams.map((u) => u.state)[1], 'up')
    await gone.back()
    await within('its return', 'ok')
  }
  assert.equal(gone.requests.length + good.requests.filter((r) => r.model === 'quiet').length, 0, 'probes are no calls')
  assert.ok(!JSON.stringify(await status()).includes('secret'), 'no names')
  await g.reload({ brand: { status_upstreams: 'on' } })
  assert.deepEqual((await until(async () => { const s = await status(); return s.upstreams[0].name && s }, 'names')).upstreams, [{ name: 'secret-one', state: 'up' }, { name: 'secret-two', state: 'up' }])
})
