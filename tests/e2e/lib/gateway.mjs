/* A tollgate of a test's own: generated configuration, free ports, temporary folder, its own shared memory file.
 * Everything is gone after the test, also after a failure: processes (by process group), folder, shared memory.
 *
 *   const g = await startGateway(t, { upstreams: [...], models: [...], ... })   t: a test's context, or a list of clean-ups
 *   g.port g.admin g.ctl('balance', id) g.tenant({credit: '5'}) g.chat(key, body) g.reload(text) g.kill('SIGKILL') g.start() */
import { execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { folder, later } from './clean.mjs'
import { request, stream } from './http.mjs'

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..')
export const BUILD = path.resolve(ROOT, process.env.B ?? 'build')
export const TOLLGATE = path.join(BUILD, 'tollgate'), TOLLCTL = path.join(BUILD, 'tollctl')
export const root = ROOT
/* A build whose steps have names at which TOLLGATE_STEPS and TOLLGATE_FAULTS let a process die, wait or fail; `withSteps`: a test's
 * options where it needs that build. */
export const STEPS_BUILD = path.join(BUILD, 'steps', 'tollgate')
export const withSteps = { skip: !existsSync(STEPS_BUILD) && 'make steps-build' }

/* Whatever is still alive when the test process ends goes with it. */
const alive = new Set()
process.on('exit', () => { for (const g of alive) { killGroup(g.pid, 'SIGKILL'); rmSync(g.shm, { force: true }) } })
for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(s, () => process.exit(1))
function killGroup(pid, signal) { if (pid) try { process.kill(-pid, signal) } catch { /* gone */ } }

/* A port that nobody listens on, below the range that connections take their own from, so that none of those can be in its way. It is
 * this process's until it ends: the other suites that run beside see it taken on an address that serves nothing else. */
const RESERVED = '127.86.71.1'
const listens = (port, host) => new Promise((resolve) => {
  const s = net.createServer().once('error', () => resolve(null))
  s.listen(port, host, () => resolve(s.unref()))
})
export async function freePort() {
  for (let i = 0; i < 200; i++) {
    const port = 10000 + Math.floor(Math.random() * 21000), mine = await listens(port, RESERVED)
    if (!mine) continue
    const free = await listens(port, '127.0.0.1')
    if (free) { await new Promise((resolve) => free.close(resolve)); return port }
    mine.close()
  }
  throw new Error('no free port')
}
/* Waits until probe() gives something true (not undefined, false, or an exception) and gives that back. The bound ends a wait for
 * what will never come; how soon a thing comes is another question, and has an assertion of its own. */
const PATIENCE_MS = 40_000
export async function until(probe, what = 'the condition', ms = PATIENCE_MS) {
  const end = Date.now() + ms
  let last
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 100)) {
    try { const r = await probe(); if (r) return r; last = r } catch (e) { last = e }
    if (Date.now() > end) throw new Error(`${what} did not come within ${ms} ms (${last instanceof Error ? last.message : JSON.stringify(last)})`)
    await new Promise((r) => setTimeout(r, pause))
  }
}
/* What a busy machine may add to a time that is asserted: many times the worst delay that a timer of our own has had since the call, for
 * what is measured takes many turns of several processes. Next to nothing where the machine is idle.
 *   const late = lateness(t) …; assert.ok(ms < 1000 + late()) */
const TURNS = 20, TICK_MS = 10
export function lateness(t) {
  let worst = 0, due = performance.now() + TICK_MS
  const look = () => { worst = Math.max(worst, performance.now() - due) }
  const timer = setInterval(() => { look(); due = performance.now() + TICK_MS }, TICK_MS)
  later(t, () => clearInterval(timer))
  return () => { look(); return TURNS * Math.max(worst, 0) }
}
export function run(program, args, { input, env, cwd, ms = PATIENCE_MS } = {}) {
  return new Promise((resolve) => {
    const child = execFile(program, args, { env: { ...process.env, ...env }, cwd, timeout: ms, maxBuffer: 64 << 20, encoding: 'utf8' },
      (error, stdout, stderr) => resolve({ code: error ? (error.code ?? error.signal ?? 1) : 0, stdout, stderr }))
    if (input !== undefined) child.stdin.write(input)
    child.stdin.end()
  })
}

/* ---- The configuration as text ---- */
/* o.product: the text behind the server's own directives, whole; else it is made from brand, billing, tiers, groups, upstreams, models. */
export const PRICE = { input: '2.75', output: '11.00', cached_input: '1.375' }
/* o: name, url, and any directive of the block by its name (an array repeats it) */
export function upstreamBlock({ name, url, ...rest }) {
  const d = { dialect: 'openai', base_url: url, api_key: 'sk-upstream', probe: '0', ...rest }
  return `upstream ${name} {\n${lines(d)}}\n`
}
/* o: name, route (text behind `route`, or an array), price (object or text) and any other directive */
export function modelBlock({ name, route, price = PRICE, ...rest }) {
  const p = typeof price === 'string' ? price : Object.entries(price).map((x) => x.join(' ')).join(' ')
  const d = { kind: 'chat', route: route ?? `mock as ${name}`, price: p, max_output: 16384, context: 128000, ...rest }
  return `model ${name} {\n${lines(d)}}\n`
}
function lines(d) {
  let out = ''
  for (const [k, v] of Object.entries(d)) {
    if (v === undefined || v === null) continue
    for (const one of Array.isArray(v) ? v : [v]) out += `    ${k} ${one};\n`
  }
  return out
}
function configText(g, o) {
  const blocks = []
  const top = {
    workers: o.workers ?? 2, listen: [`127.0.0.1:${g.port}`, ...(o.listen ?? [])], admin_listen: `127.0.0.1:${g.admin}`,
    control: g.control, state_dir: path.join(g.dir, 'state'), shm_file: g.shm,
    max_accounts: 2000, max_keys: 4000, max_active: 512,
    access_log: path.join(g.dir, 'access.jsonl'), error_log: `${path.join(g.dir, 'error.log')} info`,
    drain_timeout: '5s', ...o.top,
  }
  for (const [k, v] of Object.entries(top)) {
    if (v === undefined || v === null) continue
    for (const one of Array.isArray(v) ? v : [v]) blocks.push(`${k} ${one};\n`)
  }
  if (o.product !== undefined) return blocks.join('') + o.product
  blocks.push(`brand {\n${lines({ ...o.brand })}}\n`, `billing {\n${lines({ unit: 'usd', ...o.billing })}}\n`)
  for (const [name, text] of Object.entries({ ...o.tiers })) blocks.push(`tier ${name} { ${text} }\n`)
  for (const [name, text] of Object.entries({ ...o.groups })) blocks.push(`group ${name} { ${text} }\n`)
  for (const u of o.upstreams ?? []) blocks.push(typeof u === 'string' ? u : upstreamBlock(u))
  for (const m of o.models ?? []) blocks.push(typeof m === 'string' ? (m.includes('{') ? m : modelBlock({ name: m })) : modelBlock(m))
  return blocks.join('') + (o.text ?? '')
}

/* ---- The process ---- */
export async function startGateway(t, o = {}) {
  const dir = folder(t)
  const g = {
    dir, o, shm: `/dev/shm/tg-test-${path.basename(dir)}.mem`, control: path.join(dir, 'c.sock'), pid: 0, output: '',
    port: await freePort(), admin: await freePort(), conf: path.join(dir, 'gateway.conf'), env: o.env ?? {},
  }
  Object.assign(g, methods(g))
  alive.add(g)
  later(t, async () => {
    await g.stop('SIGTERM', 3000)
    alive.delete(g)
    rmSync(g.shm, { force: true })
  })
  g.config = configText(g, o)
  writeFileSync(g.conf, g.config, { mode: 0o600 })
  await g.start()
  return g
}

function methods(g) {
  return {
    /* Starts the master (again) and waits until it is ready. */
    async start({ wait = true } = {}) {
      g.exit = null
      g.closing = false
      const child = spawn(g.o.program ?? TOLLGATE, ['-c', g.conf], { cwd: g.dir, detached: true, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...g.env } })
      g.child = child
      g.pid = child.pid
      child.stdout.on('data', (c) => { g.output += c })
      child.stderr.on('data', (c) => { g.output += c })
      g.ended = new Promise((resolve) => child.on('close', (code, signal) => { g.exit = { code, signal }; resolve(g.exit) }))
      child.on('error', (e) => { g.output += e.message; g.exit = { code: 127 } })
      if (wait) await g.ready()
    },
    async ready() {
      await until(async () => {
        if (g.exit) return true
        return (await request({ port: g.admin, path: '/readyz' })).status === 200
      }, 'readiness').catch((e) => { throw new Error(`${e.message}\n${g.log()}`) })
      if (g.exit) throw new Error(`tollgate ended (${JSON.stringify(g.exit)})\n${g.log()}`)
    },
    /* Ends it by a signal and waits; after `ms` the whole group is killed. */
    async stop(signal = 'SIGTERM', ms = PATIENCE_MS) {
      if (!g.pid) return g.exit
      if (!g.exit) {
        try { process.kill(g.pid, signal) } catch { /* gone */ }
        const timer = setTimeout(() => killGroup(g.pid, 'SIGKILL'), ms)
        await g.ended
        clearTimeout(timer)
      }
      killGroup(g.pid, 'SIGKILL')
      g.pid = 0
      return g.exit
    },
    /* kill -9 to every process of it at once. */
    async killAll() { killGroup(g.pid, 'SIGKILL'); await g.ended; g.pid = 0 },
    log() {
      const tail = (f) => { try { return readFileSync(path.join(g.dir, f), 'utf8').split('\n').slice(-40).join('\n') } catch { return '' } }
      return `--- output\n${g.output.slice(-4000)}\n--- error.log\n${tail('error.log')}`
    },
    accessLog() { try { return readFileSync(path.join(g.dir, 'access.jsonl'), 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l)) } catch { return [] } },
    errorLog() { try { return readFileSync(path.join(g.dir, 'error.log'), 'utf8') } catch { return '' } },

    /* tollctl: {code, stdout, stderr, json} */
    async ctlRaw(...args) {
      const r = await run(TOLLCTL, ['-s', g.control, ...args.map(String)])
      try { r.json = JSON.parse(r.stdout) } catch { /* not JSON */ }
      return r
    },
    /* tollctl --json that must succeed: the document */
    async ctl(...args) {
      const r = await g.ctlRaw('--json', ...args)
      if (r.code !== 0) throw new Error(`tollctl ${args.join(' ')}: exit ${r.code}: ${r.stdout}${r.stderr}`)
      if (r.json === undefined) throw new Error(`tollctl ${args.join(' ')} printed no JSON: ${r.stdout.slice(0, 300)}`)
      return r.json
    },
    /* An account with credit and a key. Options beside these are `key create`'s. */
    async tenant({ credit = '100', tier, group, email, ...key } = {}) {
      const a = ['account', 'create', '--email', email ?? `t${Math.random().toString(36).slice(2)}@example.com`]
      if (tier) a.push('--tier', tier)
      if (group) a.push('--group', group)
      if (credit !== null) a.push('--credit', credit)
      const account = await g.ctl(...a)
      const k = await g.key(account.id, key)
      return { account: account.id, email: account.email, key: k.key, id: k.id, credit }
    },
    async key(account, opts = {}) {
      return g.ctl('key', 'create', '--account', account, ...Object.entries(opts).flatMap(([k, v]) => [`--${k}`, v]))
    },
    async balance(account) { return g.ctl('balance', account) },
    /* The balance once nothing is held any more. */
    async settled(account) {
      return until(async () => { const b = await g.balance(account); return b.held === '0' && b }, 'a settled balance')
    },
    /* The newest usage records of an account once there are at least n. */
    async usage(account, n = 1) {
      return until(async () => {
        const u = (await g.ctl('usage', '--account', account, '--limit', Math.max(n + 5, 20))).usage
        return u.length >= n && u
      }, `${n} usage records`)
    },
    async audit() {
      const r = await g.ctlRaw('--json', 'audit')
      if (r.code !== 0 || r.json?.differences?.length !== 0) throw new Error(`audit: exit ${r.code}: ${r.stdout}${r.stderr}`)
      return r.json
    },
    async workers() { return (await g.ctl('status')).workers.map((w) => w.pid).sort((a, b) => a - b) },
    /* Every process of it, from /proc: [{pid, ppid, name}] */
    processes() {
      const out = []
      for (const pid of readdirSync('/proc').filter((d) => /^\d+$/.test(d))) {
        try {
          const f = readFileSync(`/proc/${pid}/stat`, 'utf8')
          const rest = f.slice(f.lastIndexOf(')') + 2).split(' ')
          if (Number(rest[2]) === g.pid || Number(pid) === g.pid) {
            out.push({ pid: Number(pid), ppid: Number(rest[1]), state: rest[0], cmd: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replace(/\0/g, ' ') })
          }
        } catch { /* it ended */ }
      }
      return out.filter((p) => p.state !== 'Z')
    },
    /* What each process of it takes: {pid: {fds, maps, anonymous_kb}}, fds and maps by what they are. */
    resources() {
      const out = {}
      for (const { pid } of g.processes()) {
        const count = (list) => list.reduce((n, x) => ({ ...n, [x]: (n[x] ?? 0) + 1 }), {})
        const kind = (fd) => { try { return readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$|[ ]?\(deleted\)$/, '') } catch { return 'gone' } }
        const maps = count(readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n').map((l) => l.slice(73).replace(/ \(deleted\)$/, '')))
        out[pid] = { fds: count(readdirSync(`/proc/${pid}/fd`).map(kind)), maps, anonymous_kb: Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) }
      }
      return out
    },
    write(o) { g.o = { ...g.o, ...o }; g.config = configText(g, g.o); writeFileSync(g.conf, g.config) },
    async reload(o) {
      if (o) g.write(o)
      return g.ctlRaw('--json', 'reload')
    },

    /* ---- Requests ---- */
    req: (o) => request({ port: g.port, ...o }),
    chat: (key, body = {}, o = {}) => request({ port: g.port, path: '/v1/chat/completions', method: 'POST', key, body: chatBody(body), ...o }),
    stream: (key, body = {}, o = {}) => stream({ port: g.port, path: '/v1/chat/completions', key, body: chatBody({ stream: true, ...body }), ...o }),
    adminGet: (p) => request({ port: g.admin, path: p }),
    async metric(name) {
      const text = (await request({ port: g.admin, path: '/metrics' })).text
      return text.split('\n').filter((l) => l.startsWith(name) && /[{ ]/.test(l[name.length])).reduce((n, l) => n + Number(l.slice(l.lastIndexOf(' '))), 0)
    },
    exists: () => existsSync(g.shm),
  }
}
export function chatBody(body) {
  if (typeof body === 'string' || Buffer.isBuffer(body)) return body
  return { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }], ...body }
}
