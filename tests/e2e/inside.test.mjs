/* A worker that is taken over: what it has, and what it can do. tests/inside/inside.c runs within a worker of an unchanged
 * server and tries. docs/threat-model.md is the list. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, readSync, statSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { before, describe } from 'node:test'
import { folder } from './lib/clean.mjs'
import { BUILD, root, startGateway, until } from './lib/gateway.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const ACT = { look: 1, calls: 2, write: 3, forge: 4, call: 5, head: 6 }
const PAGE = 1 << 20
const SECRETS = { admin: 'admin-token-that-no-worker-needs', jwt: 'jwt-secret-that-no-worker-needs', env: 'a-secret-of-the-environment-that-nobody-named', provider: 'sk-the-provider-key-that-a-worker-must-have' }
const shared = cleanUps()
const sanitized = /(^|\/)san-/.test(BUILD) // its own library must come first, and the filter is off
const root_user = process.getuid() === 0
let up, g, mine, victim, dir, page, state

before(async () => {
  if (sanitized) return
  dir = folder(shared)
  const so = path.join(dir, 'inside.so'), file = path.join(dir, 'page')
  execFileSync(process.env.CC ?? 'cc', ['-std=c11', '-D_GNU_SOURCE', '-I.', '-O1', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror',
    '-fno-strict-aliasing', '-o', so, 'tests/inside/inside.c', 'shm/tables.c', ...['crypto', 'check', 'cpu', 'slice'].map((f) => `proto/base/${f}.c`), '-Wl,--as-needed', '-ldl'], { cwd: root })
  mkdirSync(state = path.join(dir, 'state'), { mode: 0o700 })
  if (root_user) { chmodSync(dir, 0o755); execFileSync('chown', ['nobody', state]) }
  writeFileSync(file, Buffer.alloc(PAGE))
  page = openSync(file, 'r+')
  shared.push(() => closeSync(page))
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    workers: 1, upstreams: [{ name: 'mock', url: up.url, api_key: SECRETS.provider }], models: ['gpt-4o'],
    top: { admin_token: SECRETS.admin, state_dir: state, user: root_user ? 'nobody' : undefined }, billing: { signup: 'on', jwt_secret: SECRETS.jwt },
    env: { LD_PRELOAD: so, TG_INSIDE: file, UNRELATED_SECRET: SECRETS.env, ...Object.fromEntries(Object.values(SECRETS).map((s, i) => [`TG_NEEDLE_${i}`, s])) },
  })
  victim = await g.tenant({ credit: '50' })
  mine = await g.tenant({ credit: '10' })
  for (let i = 0; i < 5; i++) assert.equal((await g.chat(mine.key)).status, 200)
  await g.settled(mine.account)
})

/* Has the library do something in the worker; the lines that it wrote, by their first word. */
async function inside(what, text = '') {
  const head = Buffer.alloc(12)
  writeSync(page, Buffer.concat([Buffer.from(text), Buffer.from([0])]), 0, Buffer.byteLength(text) + 1, 12)
  head.writeUInt32LE(0, 4)
  head.writeUInt32LE(ACT[what], 0)
  writeSync(page, head, 0, 12, 0)
  await until(() => { readSync(page, head, 0, 12, 0); return head.readUInt32LE(4) === ACT[what] }, `the worker to ${what}`)
  const out = Buffer.alloc(head.readUInt32LE(8))
  readSync(page, out, 0, out.length, 12)
  const lines = out.toString('latin1').split('\n').filter(Boolean)
  return Object.assign((word) => lines.filter((l) => l.startsWith(`${word} `)).map((l) => l.slice(word.length + 1)), { lines })
}

describe('inside a worker', { skip: sanitized }, () => {
  let seen
  test('nothing of the ledger is mapped: not a page, not a descriptor', async () => {
    seen = await inside('look')
    const maps = seen('map')
    assert.ok(maps.length > 10)
    assert.ok(!maps.some((m) => /ledger\.mdb|pepper|gateway\.conf/.test(m)), maps.join('\n'))
    const place = (f) => { const s = statSync(path.join(state, f)); return `${s.dev}:${s.ino}` }
    const files = seen('fd').filter((f) => / (file|dir) /.test(f))
    for (const f of ['ledger.mdb', 'ledger.mdb-lock']) assert.ok(!files.some((x) => x.includes(place(f))), f)
    for (const f of [g.conf, g.shm]) { const s = statSync(f); assert.ok(!files.some((x) => x.includes(`${s.dev}:${s.ino} `)), f) }
    assert.ok(!files.some((f) => / dir /.test(f)), 'no folder from which to open')
  })
  test('shared memory: the tables read-only, the words writable, and nothing twice', () => {
    const ours = seen('map').filter((m) => m.includes('/dev/shm/'))
    assert.deepEqual(ours.map((m) => m.split(' ')[0]).sort(), ['r--s', 'rw-s'])
    assert.ok(seen('map').filter((m) => m.includes('tollgate-snapshot')).every((m) => m.startsWith('r--s')))
    assert.ok(!seen('map').some((m) => /^.w.*x/.test(m.split(' ')[0]) || /^rwx/.test(m)), 'no page that can be written and run')
    assert.ok(!seen('map').some((m) => m.includes('tollgate-ledger-snapshot')), 'and not the ledger\'s own configuration')
  })
  test('no control socket, no Unix socket with a name', () => {
    const sockets = seen('fd').filter((f) => f.includes('socket'))
    assert.ok(sockets.length >= 2, 'its listener and its channel')
    for (const s of sockets) assert.match(s, /name '' peer ''/, s)
  })
  test('no secret but the providers\': not the operator\'s token, not the tokens\' key, not the environment', () => {
    const found = seen('needle').map((l) => Number(l.split(' ')[1]))
    assert.deepEqual(Object.keys(SECRETS).map((k, i) => [k, found[i] > 0]), [['admin', false], ['jwt', false], ['env', false], ['provider', true]])
  })
  test('it has dropped to its user', { skip: !root_user }, () => {
    const [uid, gid] = seen('who')[0].split(' ').map(Number)
    assert.ok(uid > 0 && gid > 0)
  })
  test('no file, no program, no other process, no other socket: each such call is refused', async () => {
    const r = await inside('calls')
    const calls = r('call').map((l) => l.split(' '))
    assert.ok(calls.length > 60, `${calls.length}`)
    for (const [name, result, errno] of calls) assert.deepEqual([name, result, errno], [name, '-1', '1'], `${name}: EPERM`)
    assert.deepEqual(r('may'), ['socket 0'], 'TCP to a provider is what it is for')
  })
  test('a write to a table faults, and it cannot be made writable', async () => {
    const r = await inside('write')
    const writes = r('write')
    assert.ok(writes.length >= 9, r.lines.join('\n'))
    for (const w of writes) assert.match(w, /faults$/)
    for (const c of r('call')) assert.match(c, /-1 (13|1)$/, c)
    const shm = statSync(g.shm).ino
    assert.ok(!r('mapped').some((m) => m.endsWith(` ${shm}`)), 'no descriptor maps it again')
  })
  test('calls to the ledger bear the worker\'s origin, whatever it writes on them', async () => {
    const before = await g.balance(mine.account)
    await inside('call', [
      { cmd: 'credit', account: mine.account, amount: '1000000' }, { cmd: 'account.create', email: 'evil@example.com', credit: '5' },
      { cmd: 'key.create', account: victim.account }, { cmd: 'key.revoke', key: victim.id }, { cmd: 'account.suspend', account: victim.account },
      { cmd: 'stop' }, { cmd: 'reload' }, { cmd: 'backup', file: path.join(state, 'stolen') }, { cmd: 'audit', file: '/etc/passwd' },
      { cmd: 'names.intern', names: [] }, { cmd: 'admin_credit', credentials: ['wrong'], account: mine.account, amount: '7' },
    ].map((c) => `${JSON.stringify(c)}\n`).join(''))
    assert.equal((await g.chat(victim.key)).status, 200, 'the key still serves')
    await g.settled(victim.account)
    const after = await g.balance(mine.account)
    assert.equal(after.balance, before.balance)
    const accounts = (await g.ctl('account', 'list')).accounts
    assert.equal(accounts.length, 2)
    assert.equal((await g.ctl('key', 'list', '--account', victim.account)).keys.length, 1)
    assert.throws(() => statSync(path.join(state, 'stolen')))
  })
  test('forged records are put aside and reported; nobody\'s balance moves', async () => {
    const before = [await g.balance(mine.account), await g.balance(victim.account)]
    const r = await inside('forge')
    assert.deepEqual(r('forged'), ['10'])
    assert.equal((await g.chat(mine.key)).status, 200, 'an honest call behind them')
    const audit = await until(async () => { const a = await g.ctlRaw('--json', 'audit'); return a.json?.quarantined >= 10 && a }, 'ten records in quarantine')
    assert.equal(audit.json.quarantined, 10)
    assert.equal(audit.code, 0)
    assert.deepEqual(audit.json.differences, [])
    await until(() => /put into quarantine/.test(g.errorLog()), 'a line for the operator')
    await g.settled(mine.account)
    const after = [await g.balance(mine.account), await g.balance(victim.account)]
    assert.equal(after[1].balance, before[1].balance)
    assert.equal(after[1].available, before[1].available)
    const cost = Number(before[0].balance) - Number(after[0].balance)
    assert.ok(cost > 0 && cost < 0.01, `one honest call: ${cost}`)
    assert.equal(after[0].available, after[0].balance)
  })
  test('a head that no ring could have: the worker goes, another serves, nothing is charged', async () => {
    const [old] = await g.workers()
    const before = await g.settled(mine.account)
    await inside('head')
    await until(async () => { const [now] = await g.workers(); return now && now !== old }, 'another worker')
    await until(async () => (await g.chat(mine.key)).status === 200, 'it serves')
    await g.settled(mine.account)
    await g.audit()
    const cost = Number(before.balance) - Number((await g.balance(mine.account)).balance)
    assert.ok(cost > 0 && cost < 0.05, `${cost}`)
    assert.match(readFileSync(path.join(g.dir, 'error.log'), 'utf8'), /quarantine/)
  })
})
