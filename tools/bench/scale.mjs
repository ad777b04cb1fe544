/* Whether the cost of a call, and the memory behind it, depend on how much else there is: keys, connections, streams,
 * records, status calls; and what translating costs beside passing. Each part starts a server of its own. */
import { execFileSync } from 'node:child_process'
import { rmSync, statSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { BUILD } from '../../tests/e2e/lib/gateway.mjs'
import {
  TOLLCTL,
  errors,
  freePort,
  load,
  median,
  newBench,
  number,
  perConnection,
  run,
  startHaproxy,
  startMock,
  startNginx,
  startTollgate,
  table,
  treeKb,
  which,
  withSpread,
} from './kit.mjs'
import { makeCerts } from '../../tests/e2e/lib/certs.mjs'

const MB = 1024
const cpu = (runs) => runs.map((r) => r.cpu_us_per_request)
async function rounds(n, f) {
  const out = []
  for (let i = 0; i < n; i++) out.push(await f(i))
  return out
}
async function timed(f) {
  const t = performance.now()
  const r = await f()
  return [(performance.now() - t) / 1000, r]
}
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

/* ---- a million keys ---- */
const importedKey = (i) => `sk-${String(i).padStart(32, 'k')}`
/* `used` of a server's keys, from all over its table, into a file for the generator. */
function keyFile(b, count, used) {
  const file = path.join(b.dir, `keys-${count}-${used}`)
  const list = range(0, used).map((i) => importedKey(i * Math.floor(count / used)))
  writeFileSync(file, list.join('\n') + '\n')
  return file
}
async function keyServer(b, mock, count) {
  const g = await startTollgate(b, mock, { top: { max_keys: count + 1000, max_accounts: 1000 } })
  const args = ['-s', g.control, '--json', 'key', 'import', '--account', g.account, keyFile(b, count, count)]
  const [imported, r] = await timed(() => run(TOLLCTL, args, { ms: 300000 }))
  if (r.code !== 0) throw new Error(`import: ${r.code} ${r.stdout}${r.stderr}`)
  const start = () => timed(() => g.start({ wait: false }).then(() => g.ready(60000)))
  await g.stop()
  const [kept] = await start()
  await g.stop()
  rmSync(g.shm)
  const [fresh] = await start()
  g.pin()
  return { g, imported, kept, fresh, memory: treeKb(g), shm: statSync(g.shm).size / 1024 }
}
async function keys(b, { rounds: n, seconds }) {
  const mock = await startMock(b),
    few = await keyServer(b, mock, 10),
    many = await keyServer(b, mock, 1000000)
  table(
    ['keys', 'import s', 'start s', 'start s, new shared memory', 'memory MB', 'shared memory MB', 'database MB'],
    [
      [10, few],
      [1000000, many],
    ].map(([count, s]) => {
      const db = statSync(path.join(s.g.dir, 'state/ledger.mdb')).size / 1024
      return [count, ...[s.imported, s.kept, s.fresh, s.memory / MB, s.shm / MB, db / MB].map((x) => number(x))]
    }),
  )
  const rows = [
    [10, 10, few.g],
    [1000000, 10, many.g],
    [1000000, 50000, many.g],
  ].map(([count, used, g]) => ({
    count,
    used,
    g,
    F: keyFile(b, count, used),
    runs: [],
    paced: [],
  }))
  for (let i = 0; i < n; i++) {
    for (const { g, F, runs, paced } of rows) {
      runs.push(await load(b, g, { m: 'chat/mock', F, c: 64, t: seconds }))
      paced.push(await load(b, g, { m: 'chat/mock', F, c: 64, r: 1000, t: seconds }))
    }
  }
  table(
    ['keys', 'of them in use', 'CPU µs a call', 'p50 µs at 1,000/s', 'p99 µs at 1,000/s', 'errors'],
    rows.map((x) => [
      x.count,
      x.used,
      withSpread(cpu(x.runs)),
      withSpread(x.paced.map((r) => r.latency_us.p50)),
      withSpread(x.paced.map((r) => r.latency_us.p99)),
      [...x.runs, ...x.paced].reduce((s, r) => s + errors(r), 0),
    ]),
  )
}

/* ---- idle connections ---- */
async function idle(b) {
  const mock = await startMock(b),
    rows = []
  for (const c of [1000, 10000]) {
    const g = await startTollgate(b, mock)
    // Heap alone: the database's file, of which the ledger maps what the calls added, is no connection's.
    await load(b, g, { m: 'chat/mock', c: 64, e: 1000, t: 0.1 })
    const r = await load(b, g, { m: 'chat/mock', c, e: 1, t: 1, R: 1500 }),
      heap = (r.memory.loaded_anon_kb - r.memory.idle_anon_kb) / c
    rows.push([c, 'plain', number(heap, 3), number(r.cpu_us / r.seconds, 3), r.all.requests - r.all.ok])
    await g.stop()
  }
  rows.push(await idleTls(b, mock, 1000))
  table(['idle clients', '', 'KB a connection', 'CPU µs a second, all of them', 'errors'], rows)
}
async function idleTls(b, mock, count) {
  const dir = path.join(b.dir, 'front'),
    certs = makeCerts(dir)
  writeFileSync(path.join(dir, 'front.pem'), certs.good.cert)
  writeFileSync(path.join(dir, 'front.key'), certs.good.key)
  const port = await freePort()
  const g = await startTollgate(b, mock, {
    top: {
      listen: [`127.0.0.1:${await freePort()}`, `127.0.0.1:${port} tls`],
      certificate: path.join(dir, 'front.pem'),
      certificate_key: path.join(dir, 'front.key'),
    },
  })
  const before = treeKb(g),
    agent = new https.Agent({ keepAlive: true, maxSockets: count, maxFreeSockets: count, rejectUnauthorized: false })
  const one = () =>
    new Promise((resolve, reject) =>
      https
        .get({ port, host: '127.0.0.1', path: '/api/status', agent }, (res) => {
          res.resume()
          res.on('end', () => resolve(res.statusCode))
        })
        .on('error', reject),
    )
  const got = await Promise.all(range(0, count).map(one))
  const after = treeKb(g)
  agent.destroy()
  return [count, 'TLS', number((after - before) / count, 3), '-', got.filter((s) => s !== 200).length]
}

/* ---- concurrent streams ---- */
async function streams(b, { full }) {
  const mock = await startMock(b),
    rows = []
  for (const [count, tls] of [[2000, false], [10000, false], [2000, true], ...(full ? [[10000, true]] : [])]) {
    const ramp = tls ? 150 : 2000,
      lasts = Math.ceil(count / ramp) + 40 // TLS handshakes cost the one CPU milliseconds each
    const g = await startTollgate(b, mock, { tls, workers: count > 9000 ? 2 : 1 })
    const r = await load(b, g, {
      m: `chat/mock-e${lasts}-d1000`,
      s: true,
      c: count,
      R: ramp,
      w: 4,
      t: 5,
      d: 0,
      W: 170,
    })
    rows.push([
      count,
      tls ? 'TLS' : 'plain',
      number(perConnection(r), 3),
      number(r.memory.loaded_kb / MB, 3),
      withSpread([r.cpu_us_per_event]),
      number(r.window.events / r.seconds, 4),
      number(r.gap_us.p99 / 1000, 4),
      errors(r),
    ])
    await g.stop()
  }
  table(
    [
      'streams',
      'provider',
      'KB a stream',
      'all processes MB',
      'CPU µs an event',
      'events/s',
      'p99 between events ms (sent every 1,000)',
      'errors',
    ],
    rows,
  )
}

/* ---- connections ---- */
async function connections(b, { rounds: n, seconds }) {
  const mock = await startMock(b)
  const g = await startTollgate(b, mock, { top: { max_connections: 11000 }, upstream: { max_connections: 5000 } })
  const paced = new Map([10, 100, 1000, 10000].map((c) => [c, []])),
    busy = new Map([10, 100, 1000, 4000].map((c) => [c, new Map()])),
    servers = [g]
  if (which('nginx')) servers.push(await startNginx(b, mock))
  if (which('haproxy')) servers.push(await startHaproxy(b, mock))
  for (let i = 0; i < n; i++) {
    for (const [c, runs] of paced) {
      runs.push(await load(b, g, { m: 'chat/mock', c, r: 8000, w: c / 8000 + 1.5, t: seconds }))
    }
    for (const [c, runs] of busy) {
      for (const s of servers) {
        runs.set(s.name, [...(runs.get(s.name) ?? []), await load(b, s, { m: 'chat/mock', c, w: 1.5, t: seconds })])
      }
    }
  }
  table(
    ['connections, 8,000 calls a second over all of them', 'CPU µs a call', 'p50 µs', 'p99 µs', 'errors'],
    [...paced].map(([c, runs]) => [
      c,
      withSpread(cpu(runs)),
      withSpread(runs.map((r) => r.latency_us.p50)),
      withSpread(runs.map((r) => r.latency_us.p99)),
      runs.reduce((sum, r) => sum + errors(r), 0),
    ]),
  )
  table(
    ['connections, all of them always busy', ...servers.map((s) => `CPU µs a call, ${s.name}`), 'errors'],
    [...busy].map(([c, runs]) => [
      c,
      ...servers.map((s) => withSpread(cpu(runs.get(s.name)))),
      [...runs.values()].flat().reduce((sum, r) => sum + errors(r), 0),
    ]),
  )
}

/* ---- records ---- */
async function records(b, { rounds: n, seconds, full }) {
  const mock = await startMock(b),
    servers = []
  for (const count of [100, full ? 10000000 : 1000000]) {
    const state = path.join(b.dir, `state-${count}`)
    execFileSync(path.join(BUILD, 'bench/ledger_bench'), ['leave', state, String(count)], { stdio: 'ignore' })
    const top = { state_dir: state, max_accounts: 20000, max_keys: 40000 }
    const [start, g] = await timed(() => startTollgate(b, mock, { top }))
    servers.push({ count, g, start, state, runs: [] })
  }
  for (let i = 0; i < n; i++) {
    for (const s of servers) s.runs.push(await load(b, s.g, { m: 'chat/mock', c: 64, t: seconds }))
  }
  for (const s of servers) {
    // tools/bench/usage.mjs has the other reports
    const under = load(b, s.g, { m: 'chat/mock', c: 64, r: 1000, w: 0.5, t: 3 })
    ;[s.audit] = await timed(() => s.g.audit())
    s.under = await under
  }
  table(
    [
      'records',
      'database MB',
      'start s, with an account made',
      'CPU µs a call',
      'memory MB',
      'audit s',
      'p99 µs at 1,000/s meanwhile',
      'errors',
    ],
    servers.map((s) => [
      s.count,
      number(statSync(path.join(s.state, 'ledger.mdb')).size / 1048576),
      number(s.start),
      withSpread(cpu(s.runs)),
      number(treeKb(s.g) / MB),
      number(s.audit, 2),
      number(s.under.latency_us.p99),
      [...s.runs, s.under].reduce((e, r) => e + errors(r), 0),
    ]),
  )
}

/* ---- translation ---- */
const PAIRS = [
  ['chat', 'messages'],
  ['messages', 'chat'],
  ['responses', 'gemini'],
  ['gemini', 'chat'],
  ['chat', 'gemini'],
  ['messages', 'responses'],
]
async function translate(b, { rounds: n, seconds }) {
  const mock = await startMock(b),
    g = await startTollgate(b, mock)
  const results = new Map()
  const once = async (client, up, s) => {
    const r = await load(b, g, { k: client, m: `${up}/mock`, s, c: 64, w: 0.5, t: seconds })
    const key = `${client} ${up} ${s}`
    if (!results.has(key)) results.set(key, [])
    results.get(key).push(r)
  }
  const all = [...Object.keys({ chat: 1, messages: 1, responses: 1, gemini: 1 }).map((d) => [d, d]), ...PAIRS]
  for (let i = 0; i < n; i++) for (const s of [false, true]) for (const [client, up] of all) await once(client, up, s)
  const figure = (client, up, s) =>
    results.get(`${client} ${up} ${s}`).map((r) => (s ? r.cpu_us_per_event : r.cpu_us_per_request))
  const beside = (client, up, s) => {
    // the same events from the provider, passed to a client of its own dialect
    const t = median(figure(client, up, s)),
      p = median(figure(up, up, s))
    return client === up ? '1' : (t / p).toFixed(2)
  }
  const perStream = (client, up) => median(results.get(`${client} ${up} true`).map((r) => r.cpu_us_per_request))
  table(
    [
      'client',
      'provider',
      'CPU µs a call',
      'of passing it',
      'CPU µs an event',
      'of passing it',
      'CPU µs a stream',
      'of passing it',
      'errors',
    ],
    all.map(([client, up]) => [
      client,
      up,
      withSpread(figure(client, up, false)),
      beside(client, up, false),
      withSpread(figure(client, up, true)),
      beside(client, up, true),
      number(perStream(client, up)),
      (perStream(client, up) / perStream(up, up)).toFixed(2),
      [...results.get(`${client} ${up} false`), ...results.get(`${client} ${up} true`)].reduce(
        (e, r) => e + errors(r),
        0,
      ),
    ]),
  )
}
/* Streams that have come so far and go on. */
async function translated(b) {
  const mock = await startMock(b),
    rows = []
  for (const [client, up] of [['chat', 'chat'], ...PAIRS.slice(0, 4)]) {
    const memory = []
    for (const events of [64, 4096]) {
      const h = await startTollgate(b, mock)
      const r = await load(b, h, {
        k: client,
        m: `${up}/mock-e${events + 400}-d4`,
        s: true,
        c: 200,
        w: events * 0.0045,
        t: 0.2,
        d: 0,
      })
      memory.push(number(perConnection(r)), number(r.all.events / 200, 4))
      await h.stop()
    }
    rows.push([client, up, ...memory])
  }
  table(['client', 'provider', 'KB a stream', 'after events', 'KB a stream', 'after events'], rows)
}

/* ---- status calls beside chat calls ---- */
/* Chat calls keep the worker busy throughout, so that no call pays for waking it up; what a status call costs then is
 * measured alone and taken off. */
async function status(b, { rounds: n, seconds }) {
  const mock = await startMock(b),
    g = await startTollgate(b, mock)
  const chat = { m: 'chat/mock', c: 64, t: seconds },
    asked = { k: 'status', K: undefined, c: 64, t: seconds },
    alone = [],
    only = [],
    both = [],
    rates = [],
    costs = []
  for (let i = 0; i < n; i++) {
    alone.push(await load(b, g, chat))
    only.push(await load(b, g, asked))
    const [c, s] = await Promise.all([load(b, g, chat), load(b, g, { ...asked, r: 10000 })])
    const rate = s.window.requests / s.seconds
    both.push(c)
    rates.push(rate)
    costs.push((c.cpu_us - rate * c.seconds * only[i].cpu_us_per_request) / c.window.requests)
  }
  const row = (name, figure, runs) => [
    name,
    withSpread(figure),
    withSpread(runs.map((r) => r.window.requests / r.seconds)),
    runs.reduce((e, r) => e + errors(r), 0),
  ]
  table(
    ['', 'CPU µs a call', 'calls/s', 'errors'],
    [
      row('status calls alone', cpu(only), only),
      row('chat calls alone', cpu(alone), alone),
      row(`chat calls beside ${number(median(rates), 5)} status calls a second, those taken off`, costs, both),
    ],
  )
}

export const PARTS = { keys, idle, streams, connections, records, translate, translated, status }
export async function scale({ only, rounds: n = 3, seconds = 3, full = false }) {
  for (const [name, part] of Object.entries(PARTS).filter(([x]) => !only || only.includes(x))) {
    console.log(`### ${name}\n`)
    const b = newBench()
    const [took] = await timed(async () => {
      try {
        await part(b, { rounds: n, seconds, full })
      } finally {
        await b.end()
      }
    })
    console.log(`(${took.toFixed(0)} s)\n`)
  }
  return true
}
