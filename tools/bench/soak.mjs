/* A long mixed run: is everything at the end as it was near the beginning?
 *
 * Every front end, passed and translated, whole and streamed, embeddings, clients that hang up, requests that are bad,
 * keys made and revoked, people who register and log in, a reload a minute, and a provider that resets, closes, hangs,
 * answers 429, 500 and garbage. The rates leave half of a two-core machine idle. After a warm-up of a tenth, the first
 * third is compared with the last: memory and descriptors of each process, latency of each kind of traffic. At the end
 * nothing is held and the audit is clean. */
import { readFileSync, readdirSync } from 'node:fs'
import { raw } from '../../tests/e2e/lib/http.mjs'
import { random } from '../../tests/e2e/lib/random.mjs'
import { load, median, newBench, number, request, startMock, startTollgate, table, until } from './kit.mjs'

/* What may differ between the first third and the last. Memory: what a process has for itself (Pss_Anon); pages of the
 * database and of shared memory that were touched for the first time are shown, but are no growth. Latency
 * is judged only where the machine treated both thirds alike: the share of its time that a worker was ready to run and
 * waited for a CPU (schedstat) must not have grown by more than WAITED. Calls to the provider past the gateway show the
 * same from outside. */
const MEMORY_SHARE = 1.05,
  MEMORY_KB = 1024,
  DESCRIPTORS = 1.1,
  DESCRIPTORS_MORE = 20,
  WAITED = 0.02,
  LATENCY = 1.5,
  LATENCY_MORE_US = 5000

/* name: client's dialect, model, options of the load; faulty: anything but silence is an answer */
const STREAM = 'mock-e32-d20'
const DIRECT = 'to the provider directly'
const TRAFFIC = [
  [DIRECT, { k: 'chat', m: 'chat/mock', r: 40 }],
  ['chat', { k: 'chat', m: 'chat/mock', r: 120 }],
  ['messages', { k: 'messages', m: 'messages/mock', r: 30 }],
  ['responses', { k: 'responses', m: 'responses/mock', r: 15 }],
  ['gemini', { k: 'gemini', m: 'gemini/mock', r: 15 }],
  ['chat to Anthropic', { k: 'chat', m: 'messages/mock', r: 30 }],
  ['messages to OpenAI', { k: 'messages', m: 'chat/mock', r: 30 }],
  ['embeddings', { k: 'embeddings', m: 'embed/mock', r: 20 }],
  ['large bodies', { k: 'chat', m: 'chat/mock', b: 200000, r: 3 }],
  ['chat stream', { k: 'chat', m: `chat/${STREAM}`, s: true, r: 30 }],
  ['messages stream', { k: 'messages', m: `messages/${STREAM}`, s: true, r: 10 }],
  ['responses stream', { k: 'responses', m: `responses/${STREAM}`, s: true, r: 5 }],
  ['gemini stream', { k: 'gemini', m: `gemini/${STREAM}`, s: true, r: 5 }],
  ['chat stream from Anthropic', { k: 'chat', m: `messages/${STREAM}`, s: true, r: 15 }],
  ['messages stream from OpenAI', { k: 'messages', m: `chat/${STREAM}`, s: true, r: 15 }],
  ['responses stream from Gemini', { k: 'responses', m: `gemini/${STREAM}`, s: true, r: 5 }],
  ['gemini stream from OpenAI', { k: 'gemini', m: `chat/${STREAM}`, s: true, r: 5 }],
  ['clients that hang up', { k: 'chat', m: `chat/${STREAM}`, s: true, r: 8, a: 5 }, 'faulty'],
  ['provider: 500', { k: 'chat', m: 'flaky/mock-every3-500', r: 4 }, 'faulty'],
  ['provider: 429', { k: 'messages', m: 'flaky/mock-every3-429', r: 4 }, 'faulty'],
  ['provider: reset', { k: 'chat', m: 'flaky/mock-every3-reset', s: true, r: 4 }, 'faulty'],
  ['provider: close', { k: 'responses', m: 'flaky/mock-every3-close', s: true, r: 4 }, 'faulty'],
  ['provider: garbage', { k: 'gemini', m: 'flaky/mock-every3-garbage', r: 4 }, 'faulty'],
  ['provider: hang', { k: 'chat', m: 'flaky/mock-every3-hang', r: 1 }, 'faulty'],
]
const BAD = [
  'GET / HTTP/1.1\r\n\r\n',
  'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc',
  'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{"mod',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  `GET /${'x'.repeat(9000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
  'POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{}',
]

const sleep = (ms) => new Promise((r) => setTimeout(r, ms))

/* ---- what goes on beside the load ---- */
async function forEver(state, everyMs, f) {
  while (!state.stop) {
    try {
      await f()
    } catch (e) {
      state.wrong.push(`${new Date().toISOString()} ${e.message}`)
    }
    await sleep(everyMs * (0.5 + state.rnd()))
  }
}
function expect(what, got, ...wanted) {
  if (!wanted.includes(got)) throw new Error(`${what}: ${got} instead of ${wanted.join(' or ')}`)
}

async function keyChurn(g) {
  const key = await g.key(g.account, { name: 'churn', limit: '1' })
  const ask = () => g.chat(key.key, { model: 'chat/mock' })
  expect('a new key', (await ask()).status, 200)
  await g.ctl('key', 'revoke', key.id)
  expect('a revoked key', (await ask()).status, 403)
}
async function person(g, state) {
  const email = `p${state.seed}-${++state.people}@example.com`,
    body = { email, password: 'correct horse' }
  const r = await g.req({ method: 'POST', path: '/auth/register', body })
  expect('register', r.status, 200)
  expect('a call by a new person', (await g.chat(r.json.api_key, { model: 'chat/mock' })).status, 200)
  expect('login', (await g.req({ method: 'POST', path: '/auth/login', body })).status, 200)
  const made = await g.req({ method: 'POST', path: '/api-keys', body: { name: 'second' }, key: r.json.token })
  expect('a second key', made.status, 200)
  expect('keys', (await g.req({ path: '/api-keys', key: r.json.token })).json.keys.length, 2)
  expect('usage', (await g.req({ path: '/billing/usage?limit=10', key: r.json.token })).status, 200)
  expect(
    'delete',
    (await g.req({ method: 'DELETE', path: `/api-keys/${made.json.id}`, key: r.json.token })).status,
    200,
  )
}
async function badRequest(g, state) {
  const r = await raw({ port: g.port, ms: 300 }, BAD[Math.floor(state.rnd() * BAD.length)])
  if (/^HTTP\/1.1 [25]/.test(r.text)) throw new Error(`a bad request got ${r.text.slice(0, 60)}`)
  expect('no key', (await g.chat('sk-nobody', { model: 'chat/mock' })).status, 401)
  expect('no JSON', (await g.chat(g.bearer, '{"model":')).status, 400)
}
async function reload(g, state) {
  const price = ['2.75', '3'][++state.reloads % 2]
  const models = g.o.models.map((m) => (m.name === 'chat/*' ? { ...m, price: `input ${price} output 11` } : m))
  const r = await g.reload({ models })
  if (r.code !== 0) throw new Error(`reload: ${r.stdout}${r.stderr}`)
}

/* ---- what is looked at ---- */
function processes(g) {
  const out = {}
  for (const p of g.processes()) {
    if (p.pid !== g.pid && p.ppid !== g.pid) continue // a helper that the ledger forked for one call
    const name = p.pid === g.pid ? 'master' : (p.cmd.match(/tollgate: (\S+)/)?.[1] ?? 'other')
    try {
      const memory = readFileSync(`/proc/${p.pid}/smaps_rollup`, 'utf8')
      const kb = (field) => Number(memory.match(new RegExp(`^${field}:\\s+(\\d+)`, 'm'))[1])
      out[name] = {
        pid: p.pid,
        waited: Number(readFileSync(`/proc/${p.pid}/schedstat`, 'utf8').split(' ')[1]),
        rss: kb('Rss'),
        pss: kb('Pss'),
        anon: kb('Pss_Anon'),
        descriptors: readdirSync(`/proc/${p.pid}/fd`).length,
      }
    } catch {
      /* it ended: a helper */
    }
  }
  return out
}
async function sample(g, begun) {
  const text = (await request({ port: g.admin, path: '/metrics' })).text
  const gauge = (name) => Number(text.match(new RegExp(`^tollgate_${name} (\\d+)`, 'm'))?.[1] ?? NaN)
  return {
    at: (performance.now() - begun) / 1000,
    processes: processes(g),
    ring: gauge('ring_depth'),
    held: gauge('holds_nano'),
    active: gauge('exchanges_active'),
    shed: gauge('shed'),
  }
}

/* ---- the verdict ---- */
function thirds(list, seconds) {
  const from = seconds / 10,
    third = (seconds - from) / 3
  return [list.filter((x) => x.at >= from && x.at < from + third), list.filter((x) => x.at >= seconds - third)]
}
function compareMemory(samples, seconds, faults) {
  const [first, last] = thirds(samples, seconds),
    rows = []
  const names = [...new Set(samples.flatMap((s) => Object.keys(s.processes)))].filter((n) => n !== 'other').sort()
  for (const name of names) {
    const of = (list, field) => median(list.filter((s) => s.processes[name]).map((s) => s.processes[name][field]))
    const [a, b] = [of(first, 'anon'), of(last, 'anon')],
      [c, d] = [of(first, 'descriptors'), of(last, 'descriptors')]
    const pids = new Set(samples.filter((s) => s.processes[name]).map((s) => s.processes[name].pid)).size
    if (!(b <= a * MEMORY_SHARE + MEMORY_KB)) faults.push(`${name}: own memory went from ${a} to ${b} KB`)
    if (!(d <= c * DESCRIPTORS + DESCRIPTORS_MORE)) faults.push(`${name}: descriptors went from ${c} to ${d}`)
    if (pids > 1) faults.push(`${name} was replaced ${pids - 1} times`)
    rows.push([
      name,
      number(a, 5),
      number(b, 5),
      number(of(first, 'pss'), 6),
      number(of(last, 'pss'), 6),
      number(of(last, 'rss'), 6),
      c,
      d,
    ])
  }
  table(
    [
      'process',
      'own KB, first third',
      'last',
      'PSS KB, first third',
      'last',
      'RSS KB, last',
      'descriptors, first third',
      'last',
    ],
    rows,
  )
  const peak = (field) => Math.max(...samples.map((s) => s[field]))
  console.log(
    `ring depth: at most ${peak('ring')}; calls in flight: at most ${peak('active')}; held: at most ` +
      `${peak('held')} nano; shed in ${samples.filter((s) => s.shed > 0).length} of ${samples.length} samples\n`,
  )
}
/* The share of the time that a worker waited for a CPU, over a run of samples. */
function waited(list) {
  const [a, b] = [list[0], list.at(-1)]
  const names = Object.keys(a?.processes ?? {}).filter((n) => n.startsWith('worker') && b.processes[n])
  const ns = names.reduce((sum, n) => sum + b.processes[n].waited - a.processes[n].waited, 0)
  return ns / 1e9 / names.length / (b.at - a.at)
}
function compareLatency(segments, samples, seconds, faults, strict) {
  const rows = [],
    shares = thirds(samples, seconds).map(waited),
    alike = shares[1] <= shares[0] + WAITED
  for (const [name, , faulty] of TRAFFIC) {
    const all = segments.filter((s) => s.name === name),
      [first, last] = thirds(all, seconds)
    const of = (list, q) => median(list.map((s) => s.report.latency_us[q]))
    const sum = (f) => all.reduce((n, s) => n + f(s.report), 0)
    const statuses = {}
    for (const s of all)
      for (const [k, v] of Object.entries(s.report.all.status)) statuses[k] = (statuses[k] ?? 0) + v
    const broken = sum((r) => r.all.cut + r.all.garbled + r.all.unfinished + r.all.refused + r.left)
    if (!faulty) {
      if (broken || Object.keys(statuses).some((k) => k !== '200'))
        faults.push(`${name}: ${broken} broken, statuses ${JSON.stringify(statuses)}`)
      for (const q of strict && alike ? ['p50', 'p99'] : []) {
        const [a, b] = [of(first, q), of(last, q)]
        if (!(b <= a * LATENCY + LATENCY_MORE_US))
          faults.push(`${name}: ${q} went from ${number(a)} to ${number(b)} µs`)
      }
    }
    rows.push([
      name,
      sum((r) => r.all.requests),
      number(of(first, 'p50')),
      number(of(last, 'p50')),
      number(of(first, 'p99')),
      number(of(last, 'p99')),
      broken,
      Object.entries(statuses)
        .map((x) => x.join(': '))
        .join(', '),
    ])
  }
  table(
    ['traffic', 'calls', 'p50 µs, first third', 'last', 'p99 µs, first third', 'last', 'broken', 'statuses'],
    rows,
  )
  const percent = shares.map((x) => `${(x * 100).toFixed(1)}%`)
  console.log(
    `workers waited for a CPU ${percent[0]} of the first third, ${percent[1]} of the last` +
      `${alike ? '' : ': latency is not judged'}\n`,
  )
}

/* Share of the machine's CPU time that was used, since the earlier reading. */
function cpuTimes() {
  const v = readFileSync('/proc/stat', 'utf8').split('\n')[0].trim().split(/\s+/).slice(1).map(Number)
  return { all: v.slice(0, 8).reduce((a, b) => a + b, 0), idle: v[3] + v[4] }
}
function busyShare(from, to) {
  return 1 - (to.idle - from.idle) / Math.max(1, to.all - from.all)
}

async function soakServer(b, mock) {
  const flaky = {
    name: 'flaky',
    dialect: 'openai',
    url: `http://127.0.0.1:${mock.port}/v1`,
    retries: 1,
    first_byte_timeout: '2s',
    idle_timeout: '2s',
    max_connections: 1000,
  }
  const g = await startTollgate(b, mock, {
    workers: 2,
    unpinned: true,
    tiers: { trial: '' },
    billing: { signup: 'on', signup_credit: '5', signup_tier: 'trial', signup_rate: '100000/h' },
    top: { max_accounts: 20000, max_keys: 60000, max_active: 4096, keepalive_timeout: '75s' },
    extra: { upstreams: [flaky], models: [{ name: 'flaky/*', route: 'flaky as *' }] },
  })
  return g
}

/* rate: share of the traffic; strict: latency is judged too (not while other tests run beside). */
export async function soak({ minutes = 30, seed = Date.now() % 1000000, rate = 1, strict = true }) {
  const seconds = minutes * 60,
    segment = Math.max(2, Math.min(30, seconds / 12))
  console.log(`soak of ${minutes} minutes, seed ${seed}, segments of ${segment} s\n`)
  const b = newBench(),
    state = { stop: false, seed, rnd: random(seed), wrong: [], people: 0, reloads: 0 }
  const faults = [],
    samples = [],
    segments = []
  try {
    const mock = await startMock(b),
      g = await soakServer(b, mock)
    const begun = performance.now(),
      passed = () => (performance.now() - begun) / 1000,
      cpu = cpuTimes()
    const beside = [
      forEver(state, 500, () => keyChurn(g)),
      forEver(state, 2000, () => person(g, state)),
      forEver(state, 200, () => badRequest(g, state)),
      forEver(state, Math.min(60000, segment * 1000), () => reload(g, state)),
      forEver(state, segment * 200, async () => {
        samples.push(await sample(g, begun))
      }),
    ]
    const flows = TRAFFIC.map(async ([name, o]) => {
      while (passed() < seconds - segment / 2) {
        const at = passed()
        const report = await load(b, name === DIRECT ? mock : g, {
          ...o,
          r: o.r * rate,
          p: undefined,
          c: 64,
          w: 0,
          t: segment,
          d: 20,
        })
        segments.push({ name, at, report })
      }
    })
    await Promise.all(flows)
    state.stop = true
    await Promise.all(beside)
    const busy = busyShare(cpu, cpuTimes())
    compareLatency(segments, samples, seconds, faults, strict)
    compareMemory(samples, seconds, faults)
    for (const w of state.wrong.slice(0, 20)) faults.push(w)
    await finish(g, faults)
    console.log(
      `${state.reloads} reloads, ${state.people} people, the machine's CPUs busy to ${(busy * 100).toFixed(0)}%`,
    )
    const stuck = g
      .errorLog()
      .split('\n')
      .filter((l) => / error /.test(l))
    for (const l of stuck.slice(0, 10)) faults.push(`error log: ${l}`)
  } finally {
    state.stop = true
    await b.end()
  }
  for (const f of faults) console.log(`NOT FLAT OR WRONG: ${f}`)
  console.log(faults.length ? `soak: ${faults.length} findings` : 'soak: flat, clean')
  return faults.length === 0
}

/* Nothing held, nothing in flight, nothing taken, the books right. */
async function finish(g, faults) {
  const wait = async (what, probe) => {
    try {
      await until(probe, what, 15000)
    } catch (e) {
      faults.push(e.message)
    }
  }
  await wait('nothing in flight', async () => (await g.metric('tollgate_exchanges_active')) === 0)
  await wait('nothing held', async () => (await g.metric('tollgate_holds_nano')) === 0)
  await wait('an empty ring', async () => (await g.metric('tollgate_ring_depth')) === 0)
  const r = await g.ctlRaw('--json', 'audit')
  if (r.code !== 0) faults.push(`audit: ${r.stdout}`)
  const held = (await g.ctl('balance', g.account)).held
  if (held !== '0') faults.push(`held: ${held}`)
  console.log(
    `audit: ${r.json?.usage_records} records, ${r.json?.entries} entries, ${r.json?.differences.length} differences; ` +
      `held ${held}; uncollected ${await g.metric('tollgate_uncollected_nano_total')}, ` +
      `estimates ${await g.metric('tollgate_estimates_total')}`,
  )
}
