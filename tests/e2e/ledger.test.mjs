/* A ledger that cannot write: new billable work is shed with 503, nothing is lost, and it heals by itself. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import path from 'node:path'
import { before } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { digitsOf, nano } from './lib/money.mjs'
import { sse, startUpstream } from './upstream.mjs'
import { smallDisk } from './lib/disk.mjs'
import { cleanUps, test } from './lib/test.mjs'

const shared = cleanUps()
let up
before(async () => {
  up = await startUpstream(shared)
})

/* Calls until one is shed; gives what the good ones cost together. */
async function callUntilShed(g, t, ms) {
  let sum = 0n
  const shed = await until(async () => {
    const r = await g.chat(t.key)
    if (r.status === 200) { sum += nano(digitsOf(r.text, 'cost_usd')); return false }
    return r
  }, 'a call that is shed', ms)
  return { shed, sum }
}

test('a ledger that is stuck: 503 after two seconds, readyz says so, and all is charged when it goes on', async (t) => {
  const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o', 'running'] })
  const k = await g.tenant()
  up.on('running', sse({ tokens: 40, every: 100 }))
  const s = g.stream(k.key, { model: 'running' })
  await s.next()
  const pid = (await g.ctl('status')).ledger.pid
  process.kill(pid, 'SIGSTOP')
  let shed, sum
  try {
    ({ shed, sum } = await callUntilShed(g, k, 15000))
    assert.equal(shed.status, 503)
    assert.equal(shed.json.error.type, 'service_unavailable_error')
    assert.equal(shed.json.error.code, 'overloaded')
    assert.ok(shed.headers['retry-after'])
    assert.equal((await g.req({ path: '/v1/models', key: k.key })).status, 200, 'what costs nothing is served')
    assert.equal((await g.adminGet('/healthz')).status, 200)
    assert.equal((await g.adminGet('/metrics')).status, 200)
    const ready = await until(async () => { const r = await g.adminGet('/readyz'); return r.status === 503 && r }, 'not ready')
    assert.match(ready.text, /ledger stuck/)
    assert.equal((await s.all()).at(-1), '[DONE]', 'a stream that runs goes on to its end')
  } finally { try { process.kill(pid, 'SIGCONT') } catch { /* it was replaced */ } }
  await until(async () => (await g.chat(k.key, {}, { path: '/v1/chat/completions' })).status === 200, 'service again')
  const last = nano(digitsOf((await g.chat(k.key)).text, 'cost_usd'))
  const b = await g.settled(k.account)
  assert.equal(nano('100') - nano(b.balance), sum + nano(digitsOf(s.text, 'cost_usd')) + last * 2n)
  await g.audit()
})

test('a full disk: 503, nothing lost, and service again once there is room', async (t) => {
  const disk = smallDisk(t)
  if (!disk) return t.skip('mounting a small disk needs root')
  const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { state_dir: path.join(disk.dir, 'state') } })
  const k = await g.tenant()
  disk.fill()
  const { shed, sum } = await callUntilShed(g, k, 30000)
  assert.equal(shed.status, 503)
  await until(() => /space|full|ENOSPC/i.test(g.errorLog()), 'a word to the operator')
  disk.empty()
  const again = await until(async () => { const r = await g.chat(k.key); return r.status === 200 && r }, 'service again')
  const b = await g.settled(k.account)
  assert.equal(nano('100') - nano(b.balance), sum + nano(digitsOf(again.text, 'cost_usd')))
  await g.audit()
})

test('what was acknowledged survives the end of every process at once', async (t) => {
  const g = await startGateway(t, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'] })
  const k = await g.tenant({ credit: null })
  const c = await g.ctl('credit', k.account, '7', '--idempotency-key', 'x')
  const key = await g.key(k.account)
  await g.killAll()
  await g.start()
  assert.equal((await g.balance(k.account)).balance, '7')
  assert.deepEqual(await g.ctl('credit', k.account, '7', '--idempotency-key', 'x'), c)
  assert.equal((await g.balance(k.account)).balance, '7')
  assert.equal((await g.chat(key.key)).status, 200)
  await g.ctl('key', 'revoke', key.id)
  await g.usage(k.account, 1) // committed: with the segment gone, the last few milliseconds may be lost
  await g.killAll()
  rmSync(g.shm, { force: true }) // as after a reboot
  await g.start()
  assert.equal((await g.chat(key.key)).status, 403)
  assert.equal((await g.usage(k.account, 1)).length, 1)
  await g.audit()
})
