/* Usage, reports and audit over many records: how long each takes, what they do to calls that run meanwhile, and the
 * memory of each process before and after. ledger_bench makes the records, by the ledger's own code; a server of its
 * own is started on them, on free ports, with the echo upstream. All of it is under DIR and stays there for the next
 * run (rm -r DIR).
 *
 * usage: node tools/bench/usage.mjs [RECORDS [DIR]]
 *        RECORDS 10000000, DIR /tmp/tollgate-usage-RECORDS; B is the build folder */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../tests/e2e/lib/gateway.mjs'
import { request } from '../../tests/e2e/lib/http.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
const build = path.resolve(root, process.env.B ?? 'build')
const records = Number(process.argv[2] ?? 10_000_000)
const dir = process.argv[3] ?? `/tmp/tollgate-usage-${records}`
const state = path.join(dir, 'state'), keyFile = path.join(dir, 'keys')
const conf = path.join(dir, 'gateway.conf'), socket = path.join(dir, 'c.sock')
const segment = `/dev/shm/tollgate-usage-${process.pid}.mem`
const ADMIN = 'usage-bench', DAY = 86400e3
const port = await freePort(), admin = await freePort()

/* ---- records, server --------------------------------------------------------------------------------------------- */

mkdirSync(dir, { recursive: true })
if (!existsSync(keyFile)) {
  rmSync(state, { recursive: true, force: true })
  writeFileSync(keyFile, execFileSync(path.join(build, 'bench/ledger_bench'), ['leave', state, String(records)]))
}
const keys = {}
for (const line of readFileSync(keyFile, 'utf8').split('\n').filter((l) => l.includes(' sk-'))) {
  const [name, id, secret] = line.split(' ')
  keys[name] = { id, secret }
}
const model = (name, to) => `model ${name} { route ${to}; price input 1 output 2; max_output 100; context 1000; }\n`
writeFileSync(conf, `workers 2; listen 127.0.0.1:${port}; admin_listen 127.0.0.1:${admin}; admin_token ${ADMIN};
control ${socket}; state_dir ${state}; shm_file ${segment}; max_accounts 20000; max_keys 40000; max_active 512;
access_log off; error_log ${dir}/error.log; upstream echo { dialect echo; }
${model('gpt-4o', 'echo')}${model('mini', 'echo')}${model('fam/*', 'echo as *')}
tier free { rpm 20; } tier pro { } group resale { models *; ratio 2; }
`)
const server = spawn(path.join(build, 'tollgate'), ['-c', conf], { stdio: 'inherit' })
const ended = new Promise((resolve) => server.on('exit', resolve))
process.on('exit', () => { server.kill('SIGKILL'); rmSync(segment, { force: true }) })
const started = performance.now()
for (;;) {
  if (server.exitCode !== null) process.exit(1)
  try { if ((await request({ port: admin, path: '/readyz' })).status === 200) break } catch { /* not yet */ }
  await new Promise((r) => setTimeout(r, 5))
}
console.log(`start on ${records.toLocaleString('en')} records: ${((performance.now() - started) / 1000).toFixed(2)} s`)

/* ---- asking ------------------------------------------------------------------------------------------------------ */

const ctl = (...args) => new Promise((resolve, reject) => {
  const child = spawn(path.join(build, 'tollctl'), ['-s', socket, '--json', ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] })
  const parts = []
  child.stdout.on('data', (c) => parts.push(c))
  child.on('close', (code) => {
    const text = Buffer.concat(parts).toString()
    if (code === 0) resolve(JSON.parse(text))
    else reject(new Error(`tollctl ${args.join(' ')}: ${code} ${text}`))
  })
})
const get = async (p, o = {}) => {
  const r = await request({ port, path: p, ...o })
  if (r.status !== 200) throw new Error(`${p}: ${r.status} ${r.text}`)
  return r.json
}
const mine = (query) => get(`/billing/usage?${query}`, { key: keys.main.secret })
const all = (query) => get(`/admin/usage?${query}`, { port: admin, key: ADMIN })
const ago = (days) => new Date(Date.now() - days * DAY).toISOString()
const cursorAt = async (days) => (await mine(`limit=1&until=${ago(days)}`)).next_cursor

/* [name, ask, what the answer must be, times] */
const full = (r) => r.usage.length === 50, some = (r) => r.usage.length > 0, none = (r) => r.usage.length === 0
const middle = await cursorAt(15), oldest = await cursorAt(29.5)
const theirs = await all(`account=n7@x.y&limit=1&until=${ago(15)}`), foreign = theirs.usage[0].id
const asked = [
  ['/billing/usage, first page', () => mine(''), full],
  ['/billing/usage?limit=1000', () => mine('limit=1000'), (r) => r.usage.length === 1000],
  ['… cursor at the middle', () => mine(`cursor=${middle}`), full],
  ['… cursor near the oldest', () => mine(`cursor=${oldest}`), full],
  ['… cursor that was never one of its own', () => mine(`cursor=${foreign}`), full],
  ['… until 15 days ago', () => mine(`until=${ago(15)}`), full],
  ['… since 20, until 19.5 days ago', () => mine(`since=${ago(20)}&until=${ago(19.5)}`), full],
  ['… key=, 1 call in 50,000', () => mine(`key=${keys.rare.id}`), some],
  ['… key=, unused for 28 days', () => mine(`key=${keys.old.id}`), full],
  ['… key=, until 15 days ago', () => mine(`key=${keys.main.id}&until=${ago(15)}`), full],
  ['… key= (rare), until 15 days ago', () => mine(`key=${keys.rare.id}&until=${ago(15)}`), some],
  ['… model=, 1 call in 200', () => mine('model=mini'), full],
  ['… model=, 1 call in 500,000', () => mine('model=fam/rare'), some],
  ['… model= of a family, never called', () => mine('model=fam/never'), none],
  ['… model= that never was', () => mine('model=never'), none],
  ['… key= (old) and model= (1 in 200)', () => mine(`key=${keys.old.id}&model=mini`), some],
  ['… model= (1 in 200), until 15 days ago', () => mine(`model=mini&until=${ago(15)}`), full],
  ['/admin/usage?account= (1 call in 4,000)', () => all('account=n7@x.y'), full],
  ['… of it, model= (1 in 200)', () => all('account=n7@x.y&model=mini'), some],
  ['/admin/usage, first page', () => all(''), full],
  ['/admin/usage?model= (1 in 200)', () => all('model=mini'), full],
  ['/admin/usage?model= (1 in 500,000)', () => all('model=fam/rare'), some],
  ['/admin/usage?model=, never called', () => all('model=fam/never'), none],
  ['/admin/usage, until 15 days ago', () => all(`until=${ago(15)}`), full],
  ['/admin/usage?by=day', () => all('by=day'), some],
  ['/admin/usage?by=model&since=7d', () => all('by=model&since=7d'), some],
  ['tollctl usage', () => ctl('usage'), full],
  ['tollctl usage --by day', () => ctl('usage', '--by', 'day'), some],
  ['tollctl usage --by model', () => ctl('usage', '--by', 'model'), some],
  ['tollctl usage --by account', () => ctl('usage', '--by', 'account'), (r) => r.usage.length === 2000],
  ['… --by day --account (half of all)', () => ctl('usage', '--by', 'day', '--account', 'n1@x.y'), some],
  ['… --by day --key (4.75 in 10)', () => ctl('usage', '--by', 'day', '--key', keys.main.id), some, 5],
  ['… --by day --model (1 in 500,000)', () => ctl('usage', '--by', 'day', '--model', 'fam/rare'), some, 5],
  ['tollctl audit', () => ctl('audit'), (r) => r.differences.length === 0 && r.usage_records >= records, 3],
]

/* ---- calls meanwhile: a steady 100 a second over kept connections ------------------------------------------------ */

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 })
const body = { model: 'gpt-4o', max_tokens: 8, messages: [{ role: 'user', content: 'Hello' }] }
async function calls(seconds) {
  const times = [], under = new Set(), begin = performance.now()
  let bad = 0
  for (let n = 0; n < seconds * 100; n++) {
    const wait = begin + n * 10 - performance.now()
    if (wait > 0) await new Promise((r) => setTimeout(r, wait))
    const from = performance.now()
    const one = request({ port, agent, path: '/v1/chat/completions', key: keys.main.secret, body })
      .then((r) => { times.push(performance.now() - from); bad += r.status !== 200 }, () => { bad++ })
      .finally(() => under.delete(one))
    under.add(one)
  }
  await Promise.all(under)
  times.sort((a, b) => a - b)
  const q = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(2)
  return `${times.length} calls, ${bad} failed; p50 ${q(0.5)} ms, p99 ${q(0.99)} ms, longest ${q(1)} ms`
}
/* What each process has for itself, KiB: the database's pages are the page cache's. */
function memory() {
  const out = []
  for (const pid of readdirSync('/proc').filter((d) => /^\d+$/.test(d)))
    try {
      const s = readFileSync(`/proc/${pid}/status`, 'utf8')
      if (Number(pid) !== server.pid && !s.includes(`PPid:\t${server.pid}\n`)) continue
      const name = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim().replace(/ -c .*/, '')
      out.push([path.basename(name), Number(/RssAnon:\s+(\d+)/.exec(s)[1])])
    } catch { /* gone */ }
  return out.sort()
}
const pad = (c, i, widths) => (i ? String(c).padStart(widths[i]) : String(c).padEnd(widths[i]))
const line = (cells, widths) => console.log(cells.map((c, i) => pad(c, i, widths)).join('  '))

await calls(1)
const before = memory()
console.log(`\ncalls alone:          ${await calls(8)}\n`)
line(['asked', 'first ms', 'p50 ms', 'max ms', 'records'], [44, 8, 8, 8, 8])
for (const [name, ask, good, times = 15] of asked) {
  const ms = []
  let answer
  for (let i = 0; i < times; i++) {
    const from = performance.now()
    answer = await ask()
    ms.push(performance.now() - from)
    if (!good(answer)) throw new Error(`${name}: ${JSON.stringify(answer).slice(0, 400)}`)
  }
  const first = ms[0]
  ms.sort((a, b) => a - b)
  const figures = [first, ms[ms.length >> 1], ms.at(-1)].map((n) => n.toFixed(1))
  line([name, ...figures, answer.usage_records ?? answer.usage.length], [44, 8, 8, 8, 8])
}
let over = false, reports = 0
const busy = (async () => {
  while (!over)
    for (const [, ask] of asked) {
      if (over) break
      await ask()
      reports++
    }
})()
console.log(`\ncalls during reports: ${await calls(15)}`)
over = true
await busy
console.log(`                      (${reports} of the above meanwhile, one after the other)\n`)
const later = memory()
line(['memory of its own, KiB', 'before', 'after'], [44, 8, 8])
for (const [i, [name, kib]] of before.entries()) line([name, kib, later[i]?.[1]], [44, 8, 8])
server.kill('SIGTERM')
await ended
process.exit(0)
