/* What the benchmarks share: the programs load and mock, the servers between them, medians and tables.
 *
 * One worker on one CPU, everything else on the others, so that what is measured never competes with its own load.
 * Where the machine has one CPU, or no taskset, nothing is pinned and the first line of the output says so. */
import { execFileSync, spawn } from 'node:child_process'
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { BUILD, TOLLCTL, freePort, run, startGateway, until } from '../../tests/e2e/lib/gateway.mjs'
import { makeCerts } from '../../tests/e2e/lib/certs.mjs'
import { request } from '../../tests/e2e/lib/http.mjs'

export { freePort, request, run, until }
const LOAD = path.join(BUILD, 'bench/load'),
  MOCK = path.join(BUILD, 'bench/mock')
export const DIALECTS = { chat: 'openai', messages: 'anthropic', responses: 'openai-responses', gemini: 'gemini' }

/* ---- the machine ---- */
const CPUS = os.cpus().length
export function which(program) {
  for (const d of `${process.env.PATH}:/usr/sbin:/sbin`.split(':')) {
    try {
      accessSync(path.join(d, program), constants.X_OK)
      return path.join(d, program)
    } catch {
      /* not there */
    }
  }
  return null
}
export const pinned = CPUS > 1 && which('taskset') !== null
const SERVER_CPU = '0',
  LOAD_CPUS = CPUS > 2 ? `1-${CPUS - 1}` : '1'
const pin = (cpus, program, args) => (pinned ? ['taskset', ['-c', cpus, program, ...args]] : [program, args])
export function machine() {
  const cpu = readFileSync('/proc/cpuinfo', 'utf8').match(/model name\s*: (.*)/)?.[1] ?? os.arch()
  return `${CPUS} x ${cpu}, Linux ${os.release()}${pinned ? '' : ', nothing pinned to a CPU'}`
}
/* All processes of a tree go to the server's CPU; what they start later inherits it. */
function pinTree(pids) {
  if (pinned)
    for (const p of pids) execFileSync('taskset', ['-a', '-c', '-p', SERVER_CPU, String(p)], { stdio: 'ignore' })
}

/* ---- a bench: a folder, and what is started for it; `end` stops and removes it all ---- */
export function newBench() {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tg-bench-'))
  const b = { dir, ends: [], children: new Set() }
  const kill = () => {
    for (const c of b.children) c.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
  process.on('exit', kill)
  b.end = async () => {
    for (const f of b.ends.reverse()) await f()
    for (const c of b.children) await stopChild(c)
    kill()
  }
  return b
}
function child(b, program, args, cpus, options = {}) {
  const c = spawn(...pin(cpus, program, args), { stdio: ['ignore', 'ignore', 'inherit'], ...options })
  b.children.add(c)
  c.on('close', () => b.children.delete(c))
  return c
}
export function stopChild(c) {
  return new Promise((resolve) => {
    if (c.exitCode !== null || c.signalCode !== null) return resolve()
    c.on('close', resolve)
    c.kill('SIGTERM')
  })
}

/* The provider: {port, tlsPort, ca, pid, stats()} */
export async function startMock(b) {
  const certs = makeCerts(path.join(b.dir, 'certs'))
  const pem = path.join(b.dir, 'mock.pem'),
    key = path.join(b.dir, 'mock.key')
  writeFileSync(pem, certs.good.cert)
  writeFileSync(key, certs.good.key, { mode: 0o600 })
  const port = await freePort(),
    tlsPort = await freePort()
  const c = child(b, MOCK, [port, tlsPort, pem, key].map(String), LOAD_CPUS)
  const stats = async () => (await request({ port, path: '/stats' })).json
  await until(() => c.exitCode !== null || stats(), 'the provider')
  if (c.exitCode !== null) throw new Error(`${MOCK} ended with ${c.exitCode} (make bench-build)`)
  return { port, tlsPort, ca: certs.ca, pid: c.pid, stats }
}

/* ---- servers: {name, port, pid, stop()} ---- */
const TIER = 'rpm 1000000000; tpm 1000000000000; concurrency 1000000;'
/* The gateway, fully governed: keys, limits, holds, ledger, access log. Models: chat/NAME, messages/NAME, …: NAME at
 * the provider that speaks that dialect. o: workers, tls (to the provider), extra ({upstreams, models}), and
 * startGateway's. bearer is a key; pin() again after a start. */
export async function startTollgate(b, mock, o = {}) {
  const base = o.tls ? `https://localhost:${mock.tlsPort}` : `http://127.0.0.1:${mock.port}`
  const upstreams = Object.entries(DIALECTS).map(([name, dialect]) => ({
    name,
    dialect,
    url: `${base}/${name === 'gemini' ? 'v1beta' : 'v1'}`,
    ...(o.tls ? { ca_file: mock.ca } : {}),
    max_connections: 16384,
    keepalive: 16384,
    connect_timeout: '60s',
    first_byte_timeout: '120s',
    ...o.upstream,
  }))
  const models = [
    ...Object.keys(DIALECTS).map((d) => ({ name: `${d}/*`, route: `${d} as *` })),
    { name: 'embed/*', kind: 'embedding', route: 'chat as *', max_output: undefined, price: 'input 0.02' },
  ]
  const g = await startGateway(b.ends, {
    workers: o.workers ?? 1,
    upstreams: [...upstreams, ...(o.extra?.upstreams ?? [])],
    models: [...models, ...(o.extra?.models ?? [])],
    tiers: { bench: TIER, ...o.tiers },
    billing: o.billing,
    brand: o.brand,
    top: { max_active: 16384, max_connections: 20000, keepalive_timeout: '10m', ...o.top },
    env: o.env,
  })
  g.name = 'tollgate'
  const tenant = await g.tenant({ tier: 'bench', credit: '1000000000' })
  g.bearer = tenant.key
  g.account = tenant.account
  g.pin = () => pinTree(g.processes().map((p) => p.pid))
  g.pin()
  return g
}

function nginxText(dir, port, mock, { tls, stream }) {
  const target = tls ? `https://llm` : `http://llm`
  const secure =
    'proxy_ssl_server_name on; proxy_ssl_name localhost; proxy_ssl_verify on; ' +
    `proxy_ssl_trusted_certificate ${mock.ca};`
  return `daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log warn; worker_rlimit_nofile 20000;
events { worker_connections 16384; multi_accept on; }
http {
  access_log ${dir}/access.log combined; tcp_nodelay on; keepalive_timeout 600s; keepalive_requests 1000000000;
  client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u;
  scgi_temp_path ${dir}/s;
  client_body_buffer_size 256k; client_max_body_size 32m; proxy_read_timeout 300s;
  upstream llm {
    server 127.0.0.1:${tls ? mock.tlsPort : mock.port};
    keepalive 8192; keepalive_requests 1000000000; keepalive_timeout 600s;
  }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass ${target}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      ${stream ? 'proxy_buffering off;' : ''} ${tls ? secure : ''} }
  }
}
`
}
function haproxyText(port, mock, { tls }) {
  const server = tls
    ? `127.0.0.1:${mock.tlsPort} ssl verify required ca-file ${mock.ca} sni str(localhost) verifyhost localhost`
    : `127.0.0.1:${mock.port}`
  return `global
  nbthread 1
  maxconn 9000
  tune.pool-high-fd-ratio 95
  tune.pool-low-fd-ratio 90
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend f
  bind 127.0.0.1:${port} backlog 4096
  default_backend b
backend b
  server s1 ${server} pool-max-conn -1 pool-purge-delay 600s
`
}
async function startProxy(b, name, args, port, options) {
  const c = child(b, which(name), args, SERVER_CPU, options)
  await until(async () => (await request({ port, path: '/stats' })).status === 200, name)
  return { name, port, pid: c.pid, stop: () => stopChild(c) }
}
export async function startNginx(b, mock, o = {}) {
  const port = await freePort(),
    dir = path.join(b.dir, `nginx-${port}`)
  mkdirSync(dir)
  writeFileSync(path.join(dir, 'nginx.conf'), nginxText(dir, port, mock, o))
  return startProxy(b, 'nginx', ['-p', dir, '-c', path.join(dir, 'nginx.conf')], port, { stdio: 'ignore' })
}
export async function startHaproxy(b, mock, o = {}) {
  const { openSync } = await import('node:fs')
  const port = await freePort(),
    dir = path.join(b.dir, `haproxy-${port}`)
  mkdirSync(dir)
  writeFileSync(path.join(dir, 'haproxy.cfg'), haproxyText(port, mock, o))
  return startProxy(b, 'haproxy', ['-db', '-f', path.join(dir, 'haproxy.cfg')], port, {
    stdio: ['ignore', openSync(path.join(dir, 'log'), 'w'), 'ignore'],
  })
}

/* ---- load: options of the program by their letters; the parsed report. server: {port, pid, bearer} ---- */
export function load(b, server, o = {}) {
  const args = []
  const all = { p: server.pid, ...(server.bearer && !o.F ? { K: server.bearer } : {}), ...o }
  for (const [k, v] of Object.entries(all)) {
    if (v === undefined || v === false) continue
    args.push(`-${k}`)
    if (v !== true) args.push(String(v))
  }
  return new Promise((resolve, reject) => {
    const c = child(b, LOAD, [...args, `127.0.0.1:${server.port}`], LOAD_CPUS, {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let out = ''
    c.stdout.on('data', (x) => {
      out += x
    })
    c.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(out))
      else reject(new Error(`load ended with ${code}`))
    })
  })
}
/* Everything that is not an answer with status 200, whole. */
export const errors = (r) => r.window.requests - r.window.ok + r.window.unfinished

/* ---- figures ---- */
export function median(list) {
  const s = [...list].sort((a, b) => a - b),
    n = s.length
  return n === 0 ? NaN : n % 2 ? s[(n - 1) / 2] : (s[n / 2 - 1] + s[n / 2]) / 2
}
/* half of what lies between the extremes, as a share of the median */
export function spread(list) {
  return (Math.max(...list) - Math.min(...list)) / 2 / median(list)
}
export const number = (x, digits = 3) =>
  !Number.isFinite(x)
    ? '-'
    : x === 0
      ? '0'
      : Math.abs(x) >= 10 ** digits
        ? x.toFixed(0)
        : String(Number(x.toPrecision(digits)))
export const withSpread = (list, digits) =>
  list.length > 1
    ? `${number(median(list), digits)} ±${(spread(list) * 100).toFixed(0)}%`
    : number(median(list), digits)
export function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`
  console.log([line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n') + '\n')
}
/* User-space memory of a connection in KB: of all processes, shared pages counted once. */
export const perConnection = (r) => (r.memory.loaded_kb - r.memory.idle_kb) / r.connections

export { TOLLCTL }

/* User-space memory of a process in KB, and how many descriptors it has open. */
export function pssKb(pid) {
  return Number(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').match(/^Pss:\s+(\d+)/m)[1])
}
export const treeKb = (gateway) => gateway.processes().reduce((n, p) => n + pssKb(p.pid), 0)
