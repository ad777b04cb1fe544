/* Real coding agents, from the npm registry, through a gateway of their own, in front of a scripted provider of each kind: one
 * file written by a tool call, streamed, two turns, nothing asked twice, the charge exact to the last digit.
 *
 *   make agents                   all of them in front of all kinds (the packages are big: 1.6 GB, once, in build/agents)
 *   make agents AGENTS=codex      one of them; KINDS=anthropic,gemini chooses the providers
 *
 * Each runs in a folder and a HOME of its own under /tmp, bounded in time. As root the whole run happens in a network namespace that
 * has nothing but loopback, so that an agent which asks elsewhere is not served. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { cleanUp } from '../e2e/lib/clean.mjs'
import { root, startGateway, until } from '../e2e/lib/gateway.mjs'
import { decimal, nano } from '../e2e/lib/money.mjs'
import { startProvider } from '../e2e/lib/provider.mjs'
import { AGENTS } from './drivers.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const FOLDER = path.join(root, 'build/agents'), KINDS = ['openai', 'openai-responses', 'anthropic', 'gemini']
const LIMIT_MS = 120000, PER_CALL = nano('0.00018'), TEXT = 'written by a tool' // 100 tokens at $1 and 40 at $2 a million
const chosen = (name, all) => (process.env[name] ? process.env[name].split(',').map((s) => s.trim()) : all)

/* The packages of package.json, installed again only when it changed. */
function install() {
  const wanted = readFileSync(path.join(here, 'package.json'), 'utf8'), at = path.join(FOLDER, 'package.json'), done = path.join(FOLDER, '.installed')
  if (existsSync(done) && readFileSync(done, 'utf8') === wanted) return
  mkdirSync(FOLDER, { recursive: true })
  writeFileSync(at, wanted)
  console.log('installing the agents into build/agents')
  const r = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: FOLDER, stdio: 'inherit' })
  if (r.status !== 0) { console.log('npm install failed\n0 passed, 1 failed'); process.exit(1) }
  writeFileSync(done, wanted)
}
/* Starts over in a network of its own, where one can be made. */
function isolate() {
  if (process.env.AGENTS_ISOLATED || process.getuid() !== 0 || spawnSync('unshare', ['-n', 'ip', 'link', 'set', 'lo', 'up']).status !== 0) return
  const r = spawnSync('unshare', ['-n', 'sh', '-c', 'ip link set lo up && exec "$0" "$@"', process.execPath, fileURLToPath(import.meta.url)], { stdio: 'inherit', env: { ...process.env, AGENTS_ISOLATED: '1' } })
  process.exit(r.status ?? 1)
}

/* What the provider says: the call that writes the file, then a closing word; a name where no tools are offered (titles of sessions). */
const script = (agent, file, seen) => (view) => {
  const results = view.turns.at(-1).results
  if (results.length > 0) { seen.results.push(results.map((r) => r.text).join()); return { text: 'The file is there.' } }
  if (view.tools.length === 0) { seen.asides++; return { text: 'A file' } }
  seen.asked++
  return { text: 'I write it.', calls: [agent.write({ tools: view.tools.map((t) => t.name), file, text: TEXT })] }
}
/* Runs the command to its end or its limit: {code, output}. */
function runAgent(agent, o, cwd) {
  const bin = path.join(FOLDER, 'node_modules/.bin', agent.bin), node = path.join(FOLDER, 'node_modules/node/bin/node')
  const { args, env } = agent.setup(o)
  return new Promise((resolve) => {
    const child = spawn(agent.node ? node : bin, agent.node ? [bin, ...args] : args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: `${path.dirname(node)}:/usr/local/bin:/usr/bin:/bin`, HOME: o.home, XDG_CONFIG_HOME: `${o.home}/.config`, XDG_DATA_HOME: `${o.home}/.local/share`, XDG_CACHE_HOME: `${o.home}/.cache`, XDG_STATE_HOME: `${o.home}/.local/state`, TMPDIR: o.home, LANG: 'C.UTF-8', CI: '1', NO_COLOR: '1', ...env } })
    let output = ''
    child.stdout.on('data', (c) => { output += c })
    child.stderr.on('data', (c) => { output += c })
    const end = () => { try { process.kill(-child.pid, 'SIGKILL') } catch { /* gone */ } }
    const timer = setTimeout(() => { output += '\n(no end)'; end() }, LIMIT_MS)
    child.on('close', (code) => { clearTimeout(timer); end(); resolve({ code, output }) })
    child.on('error', (e) => { clearTimeout(timer); resolve({ code: -1, output: String(e) }) })
  })
}
async function trial(name, kind) {
  const agent = AGENTS[name], clean = [], wrong = [], seen = { asked: 0, asides: 0, results: [] }
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tg-agent-')), home = path.join(dir, 'home'), work = path.join(dir, 'work'), file = path.join(work, 'hello.txt')
  clean.push(async () => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }))
  mkdirSync(home)
  mkdirSync(work)
  const must = (ok, text) => { if (!ok) wrong.push(text) }
  try {
    const p = await startProvider(clean, kind, { script: script(agent, file, seen) })
    const model = name === 'gemini-cli' ? 'gemini-2.5-pro' : 'some-model'
    const g = await startGateway(clean, { upstreams: [{ name: 'provider', url: p.url, dialect: kind, retries: 0 }], models: [{ name: model, route: `provider as text`, price: 'input 1 output 2', capabilities: 'tools vision reasoning', max_output: 64000, context: 200000 }] })
    const t = await g.tenant()
    const begin = performance.now(), r = await runAgent(agent, { home, base: `http://127.0.0.1:${g.port}`, key: t.key, model }, work)
    const seconds = ((performance.now() - begin) / 1000).toFixed(1)
    must(r.code === 0, `exit ${r.code}`)
    must(existsSync(file) && readFileSync(file, 'utf8') === TEXT, 'the file was not written')
    must(seen.asked === 1 && seen.results.length === 1, `asked ${seen.asked} times, ${seen.results.length} results`)
    must(p.complaints.length === 0, `the provider complains: ${p.complaints[0]}`)
    const main = p.requests.filter((q) => q.view?.tools.length > 0)
    must(main.every((q) => q.view.stream), 'not streamed')
    must(p.requests.length === 2 + seen.asides, `${p.requests.length} calls at the provider`)
    must(new Set(p.requests.map((q) => JSON.stringify(q.body))).size === p.requests.length, 'a call came twice')
    await g.settled(t.account)
    const list = await g.usage(t.account, p.requests.length)
    const sum = list.reduce((n, u) => n + nano(u.cost), 0n), due = PER_CALL * BigInt(p.requests.length)
    must(sum === due, `charged ${decimal(sum)}, not ${decimal(due)}`)
    must(nano((await g.balance(t.account)).balance) === nano('100') - due, 'the balance is another')
    const bad = await until(() => { const l = g.accessLog().filter((x) => x.model); return l.length >= list.length && l }, 'the access log')
    must(bad.every((x) => x.status === 200), `statuses ${bad.map((x) => x.status)}`)
    const other = g.accessLog().filter((x) => !x.model).map((x) => `${x.path || 'unknown'} ${x.status}`)
    await g.audit()
    console.log(`${wrong.length ? 'FAIL' : 'ok  '} ${name.padEnd(20)} → ${kind.padEnd(17)} ${seconds} s, ${p.requests.length} calls, ${Math.round(Math.max(...p.requests.map((q) => JSON.stringify(q.body ?? '').length)) / 1000)} KB${other.length ? `, also ${[...new Set(other)].join(', ')}` : ''}`)
    if (wrong.length) console.log(wrong.map((w) => `     ${w}`).join('\n'), '\n', r.output.slice(-3000).replace(/^/gm, '     | '))
  } catch (e) {
    wrong.push(e.stack)
    console.log(`FAIL ${name} → ${kind}: ${e.stack}`)
  } finally { await cleanUp(clean) }
  return wrong.length === 0
}

install()
isolate()
let passed = 0, failed = 0
for (const name of chosen('AGENTS', Object.keys(AGENTS))) for (const kind of chosen('KINDS', KINDS))
  if (await trial(name, kind)) passed++
  else failed++
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)
