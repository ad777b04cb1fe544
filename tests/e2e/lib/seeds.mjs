/* The five product documents: each has a configuration and its examples in tests/seeds/, a suite seedN.test.mjs, and a
 * section in docs/seeds.md that says which of the suite's tests holds each of its sentences.
 *
 *   const s = seed(1, {crammed, begin})    s.test as test(); it notes the names for s.documented(). In the file's tests: s.g, s.up, a
 *                                          server with the product's configuration and a scripted provider behind it; s.shared, its clean-ups
 *   await s.curl('cURL', {key})            an example, word for word but for host and credentials: {status, headers, text, json}
 *   await s.program('JavaScript', {key})   the same for a JavaScript or Python example: what it printed
 *   s.documented()                         last, two tests: the configuration is good as it stands; the section and the suite name the
 *                                          same tests, and all examples were run */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { before } from 'node:test'
import { TOLLGATE, root, run, startGateway } from './gateway.mjs'
import { cleanUps, test as bounded } from './test.mjs'
import { startUpstream } from '../upstream.mjs'
import { vendor } from './vendors.mjs'

const folder = path.join(root, 'tests/seeds')
const MARK = '# ---- the product ----\n'
/* Every provider's key that the configurations take from the environment. */
const SECRETS = Object.fromEntries(['OPENAI', 'ANTHROPIC', 'GEMINI', 'DEEPSEEK', 'FIREWORKS', 'DEEPINFRA', 'DASHSCOPE', 'ZHIPU'].map((n) => [`${n}_API_KEY`, `provider-${n.toLowerCase()}`]))

/* Nothing but an operator's own mistake makes the server fail inside: a provider whose headers fill more than a head. */
const CRAMMED = `upstream crammed { dialect openai; base_url http://127.0.0.1:9/v1; probe 0; ${Array.from({ length: 40 }, (_, i) => `header X-${i} "${'v'.repeat(1000)}";`).join(' ')} }
model crammed { route crammed; price input 1 output 1; max_output 1000; context 1000; }\n`

/* more: text added to the product, for what no product has; crammed: a model of that name at which the server fails inside;
 * begin: called when the server is there, before any test */
export function seed(n, { more = '', crammed = false, begin = () => {} } = {}) {
  const stem = readdirSync(folder).find((f) => f.startsWith(`${n}-`) && f.endsWith('.conf')).slice(0, -5)
  const conf = readFileSync(path.join(folder, `${stem}.conf`), 'utf8')
  const examples = examplesOf(readFileSync(path.join(folder, `${stem}.examples`), 'utf8'))
  const names = new Set(), ran = new Set()
  const s = {
    n, conf, examples, shared: cleanUps(),
    test(name, ...rest) {
      assert.ok(!names.has(name), `two tests are called ${name}`)
      names.add(name)
      return bounded(name, ...rest)
    },
    async curl(name, o = {}) {
      const text = given(s, take(examples, ran, name), o)
      const r = await run('bash', ['-c', text.replace(/^curl /m, 'curl -sS -i -N ')], { env: { YOUR_API_KEY: o.key ?? '' } })
      assert.equal(r.code, 0, `${text}\n${r.stderr}`)
      return answerOf(r.stdout)
    },
    async program(name, o = {}) {
      const { default: OpenAI } = await import('openai')
      const text = given(s, (o.before ? take(examples, ran, o.before) + '\n' : '') + take(examples, ran, name), o)
      let printed = ''
      const out = (x) => { printed += x }
      const AsyncFunction = (async () => {}).constructor
      const script = /\bfrom openai|^import openai$|print\(/m.test(text) ? javascriptOf(text) : text.replace(/^import .*$/gm, '')
      const client = new OpenAI({ apiKey: o.key, baseURL: `${s.url()}/${/\/api\/v1"/.test(conf) ? 'api/v1' : 'v1'}` })
      await new AsyncFunction('OpenAI', 'console', 'process', ...(/\bclient =/.test(script) ? [] : ['client']), script)(
        OpenAI, { log: (x) => out(`${x}\n`) }, { stdout: { write: out } }, client)
      return printed
    },
    json(name) { return JSON.parse(take(examples, ran, name)) }, // an example that is a body
    url: () => `http://127.0.0.1:${s.g.port}`,
    documented() {
      s.test('tollgate -t takes the configuration as it stands', async () => {
        const r = await run(TOLLGATE, ['-t', '-c', path.join(folder, `${stem}.conf`)], { env: SECRETS })
        assert.equal(r.code, 0, r.stderr)
      })
      bounded('the document and these tests name each other, and every example was run', () => {
        const named = testsOf(sectionOf(readFileSync(path.join(root, 'docs/seeds.md'), 'utf8'), n))
        assert.deepEqual([...named].filter((x) => !names.has(x)), [], 'docs/seeds.md names tests that are not there')
        assert.deepEqual([...names].filter((x) => !named.has(x)), [], 'tests that no row of docs/seeds.md names')
        assert.deepEqual(Object.keys(examples).filter((x) => !ran.has(x)), [], 'examples that were not run')
      })
    },
  }
  before(async () => {
    s.up = await startUpstream(s.shared)
    s.up.otherwise = vendor(s.up)
    s.g = await startGateway(s.shared, { product: ours(conf, s.up) + (crammed ? CRAMMED : '') + more, env: SECRETS, top: { admin_token: '"admin-token-of-the-test"' } })
    await begin()
  })
  return s
}

/* The product's part of a configuration, its providers played by `up`: they are not tried twice, come back soon, and are
 * asked nothing in between. All of a test's people register from one address. */
function ours(conf, up) {
  const text = conf.slice(conf.indexOf(MARK) + MARK.length)
  return text.replace(/base_url https:\/\/[^/;]+([^;]*);/g, `base_url http://127.0.0.1:${up.port}$1; retries 0; cooldown 200ms; probe 0;`)
    .replace(/signup +on;/, 'signup on; signup_rate 1000/h;')
}
function examplesOf(text) {
  return Object.fromEntries(text.split(/^### /m).slice(1).map((e) => [e.slice(0, e.indexOf('\n')), e.slice(e.indexOf('\n') + 1)]))
}
function take(examples, ran, name) {
  assert.ok(name in examples, `no example is called ${name}`)
  ran.add(name)
  return examples[name]
}
/* Host and credentials of this server in the place of the document's. */
function given(s, text, o) {
  let out = text.replaceAll(/https:\/\/(your-domain\.com|YOUR-HOST)/g, s.url())
  if (o.key) out = out.replaceAll(/hjl_sk_YOUR_KEY|afk-YOUR_KEY|sk-your-apihub-key|\bYOUR_API_KEY\b(?<!\$YOUR_API_KEY)/g, o.key)
  if (o.token) out = out.replaceAll('YOUR_JWT_TOKEN', o.token)
  for (const [from, to] of Object.entries(o.instead ?? {})) {
    assert.ok(out.includes(from), `${from} is not in the example`)
    out = out.replaceAll(from, to)
  }
  return out
}
/* What curl -i printed: interim answers left out. */
function answerOf(printed) {
  const cut = printed.indexOf('\r\n\r\n'), [first, ...lines] = printed.slice(0, cut).split('\r\n')
  const status = Number(first.split(' ')[1])
  if (status < 200) return answerOf(printed.slice(cut + 4))
  const headers = Object.fromEntries(lines.map((l) => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]))
  const text = printed.slice(cut + 4)
  return { status, reason: first.slice(first.indexOf(' ', 9) + 1), headers, text, get json() { return JSON.parse(text) } }
}

/* The documents' Python uses few forms: imports, calls with keyword arguments, print, one loop. The same calls in
 * JavaScript (the two SDKs are generated from one description, so that they send the same). */
function javascriptOf(text) {
  const names = { api_key: 'apiKey', base_url: 'baseURL', True: 'true', False: 'false', None: 'null' }
  const keywords = (args) => args.replace(/(^|[\s,(])(\w+)=/g, (m, a, k) => `${a}${names[k] ?? k}: `).replace(/\b(True|False|None)\b/g, (k) => names[k])
  return text.replace(/^#.*$/gm, '').replace(/^(from|import) .*$/gm, '')
    .replace(/(?:openai\.)?\bOpenAI\(([^)]*)\)/g, (m, args) => `new OpenAI({${keywords(args)}})`)
    .replace(/\.(create|generate)\(([^)]*)\)/g, (m, f, args) => `.${f}({${keywords(args)}})`)
    .replace(/^(\w+) = (client\.)?/gm, (m, name, call) => `var ${name} = ${call ? 'await client.' : ''}`)
    .replace(/^for (\w+) in (\w+):$/gm, 'for await (const $1 of $2)')
    .replace(/print\((.*) or "", end=""\)/g, 'process.stdout.write($1 ?? "")').replace(/^\s*print\((.*)\)$/gm, 'console.log($1)')
}

/* ---- docs/seeds.md ---- */
function sectionOf(text, n) {
  const part = text.split(/^## /m).find((p) => p.startsWith(`Product document ${n}`))
  assert.ok(part, `docs/seeds.md has no section for product document ${n}`)
  return part
}
/* The last cell of each row of the section's tables: test names in backquotes, or a sentence in brackets where nothing is to be held. */
function testsOf(section) {
  const named = new Set()
  for (const row of section.split('\n').filter((l) => /^\| /.test(l) && !/^\| (says|---)/.test(l))) {
    const last = row.replace(/\s*\|\s*$/, '').split(/(?<!\\)\|/).at(-1).trim()
    const tests = [...last.matchAll(/`([^`]+)`/g)].map((m) => m[1])
    assert.ok(tests.length > 0 || /^\(.+\)$/.test(last), `a row without a test: ${row}`)
    for (const t of tests) named.add(t)
  }
  return named
}
