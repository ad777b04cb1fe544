/* tollgate -t, -T and -V: errors with their place and the nearest known name, the normal form, the example. */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe } from 'node:test'
import { folder } from './lib/clean.mjs'
import { TOLLGATE, root, run, startGateway } from './lib/gateway.mjs'
import { cleanUps, test } from './lib/test.mjs'

const dir = folder(cleanUps())

const GOOD = `workers 2;
listen 127.0.0.1:8080;
state_dir ./state;
upstream mock { dialect openai; base_url http://127.0.0.1:9/v1; api_key env:UP_KEY; }
model gpt-4o { route mock; price input 2.75 output 11; max_output 16384; context 128000; }
`
function check(text, flag = '-t', env = { UP_KEY: 'sk-very-secret' }) {
  const file = path.join(dir, 'gateway.conf')
  writeFileSync(file, text)
  return run(TOLLGATE, [flag, '-c', file], { env })
}
async function wrong(text, line, column, ...patterns) {
  const r = await check(text)
  assert.equal(r.code, 1, r.stdout + r.stderr)
  const out = r.stdout + r.stderr
  assert.match(out, new RegExp(`gateway\\.conf:${line}:${column ?? '\\d+'}: `), out)
  for (const p of patterns) assert.match(out, p)
  return out
}
const line = (extra) => [GOOD + extra, GOOD.split('\n').length]

describe('-t', () => {
  test('a good one: exit 0 and the size of the shared memory', async () => {
    const r = await check(GOOD)
    assert.equal(r.code, 0, r.stderr)
    assert.match(r.stdout + r.stderr, /\d+(\.\d+)? ?(bytes|[KMG]i?B)/i)
  })
  const cases = [
    ['an unknown directive names the nearest', 'worker 2;\n', /workers/],
    ['an unknown directive in a block', 'upstream x { dialect openai; base_urk http://a/v1; }\n', /base_url/],
    ['an unknown block', 'upstraem x { }\n', /upstream/],
    ['a misplaced directive', 'base_url http://a/v1;\n', /base_url/],
    ['a missing semicolon', 'workers 2\nlisten 127.0.0.1:1;\n', null],
    ['an open block', 'upstream x { dialect openai;\n', null],
    ['an open string', 'brand { error_code "HJL-%d; }\n', null],
    ['a number that is none', 'max_keys many;\n', /many/],
    ['a size that is none', 'max_body 32q;\n', /32q/],
    ['a time that is none', 'drain_timeout 10parsecs;\n', /10parsecs/],
    ['an address that is none', 'listen nowhere:99999;\n', null],
    ['a dialect that is none', 'upstream x { dialect openia; base_url http://a/v1; }\n', /openai/],
    ['a model without a price', 'model x { route mock; max_output 1; context 1; }\n', /price/],
    ['a priced model without context', 'model x { route mock; price input 1 output 1; max_output 10; }\n', /context/],
    ['a priced model without max_output', 'model x { route mock; price input 1 output 1; context 10; }\n', /max_output/],
    ['a route to nowhere', 'model x { route mokc; price free; }\n', /mock/],
    ['a model twice', 'model gpt-4o { route mock; price free; }\n', /gpt-4o/],
    ['a price with too many digits', 'model x { route mock; price input 0.0000001 output 1; max_output 1; context 1; }\n', null],
    ['a negative price', 'model x { route mock; price input -1 output 1; max_output 1; context 1; }\n', null],
    ['a secret from an environment variable that is not set', 'upstream y { dialect openai; base_url http://a/v1; api_key env:NOT_SET_ANYWHERE; }\n', /NOT_SET_ANYWHERE/],
    ['a secret from a file that is not there', 'upstream y { dialect openai; base_url http://a/v1; api_key file:./nothing; }\n', /nothing/],
    ['an include of a file with an error', 'include bad.inc;\n', null],
    ['a URL that is none', 'upstream y { dialect openai; base_url ftp://a/v1; }\n', null],
  ]
  for (const [name, extra, pattern] of cases) {
    test(name, async () => {
      if (name.includes('include')) {
        writeFileSync(path.join(dir, 'bad.inc'), '\nworkers x;\n')
        const r = await check(GOOD + extra)
        assert.equal(r.code, 1)
        assert.match(r.stdout + r.stderr, /bad\.inc:2:\d+: /)
        return
      }
      const [text, at] = line(extra)
      const out = await wrong(text, `(${at}|${at + 1}|${at + 2})`)
      if (pattern) assert.match(out, pattern)
    })
  }
  test('the column is the word\'s', async () => {
    await wrong(GOOD + 'upstream x { dialect openai; base_urk http://a/v1; }\n', GOOD.split('\n').length, 30)
  })
  test('every error is told, not only the first', async () => {
    const out = await wrong(GOOD + 'nonsense 1;\nmax_body 1q;\n', GOOD.split('\n').length)
    assert.match(out, new RegExp(`:${GOOD.split('\n').length + 1}:\\d+: `))
  })
  test('a secret never shows', async () => {
    writeFileSync(path.join(dir, 'key'), 'sk-from-file\n')
    const text = GOOD + 'upstream f { dialect openai; base_url http://a/v1; api_key file:./key; api_key "sk-literal"; }\n'
    for (const flag of ['-t', '-T']) {
      const r = await check(text + (flag === '-t' ? 'worker 2;\n' : ''), flag)
      assert.ok(!/sk-very-secret|sk-from-file/.test(r.stdout + r.stderr), flag)
    }
  })
  test('no such file, no arguments', async () => {
    const r = await run(TOLLGATE, ['-t', '-c', path.join(dir, 'nothing.conf')])
    assert.equal(r.code, 1)
    assert.match(r.stderr + r.stdout, /nothing\.conf/)
    assert.notEqual((await run(TOLLGATE, ['--frobnicate'])).code, 0)
  })
})

describe('-T', () => {
  test('the normal form parses to itself', async () => {
    mkdirSync(path.join(dir, 'inc'), { recursive: true })
    writeFileSync(path.join(dir, 'inc/a.conf'), 'tier gold { rpm 10 burst 3; tpm 5000; }\n')
    const text = GOOD + `include inc/*.conf;
brand { key_prefix "ab-"; error_code "HJL-%d"; }
billing { unit usd; hold_share 0.25; }
group resale { models gpt-* o3; ratio 1.25; }
upstream tls { dialect anthropic; base_url https://api.example/v1; api_key env:UP_KEY; header X-A "b c"; query api-version 1; retries 1; }
model fam/* { route mock as *; route tls as x weight 3 priority 1; price input 1 output 2 cached_input 0.5; max_output 10; context 20; strip temperature; allow service_tier; }
`
    const first = await check(text, '-T')
    assert.equal(first.code, 0, first.stderr)
    const second = await check(first.stdout, '-T')
    assert.equal(second.code, 0, second.stderr)
    assert.equal(second.stdout, first.stdout)
    assert.match(first.stdout, /env:UP_KEY/)
    assert.match(first.stdout, /rpm\s+10 burst 3/)
  })
})

describe('gateway.conf.example', () => {
  const example = () => readFileSync(path.join(root, 'gateway.conf.example'), 'utf8')
  const env = Object.fromEntries(['OPENAI_API_KEY', 'ANTHROPIC_API_KEY', 'GEMINI_API_KEY', 'GOOGLE_API_KEY', 'DEEPSEEK_API_KEY', 'FIREWORKS_API_KEY',
    'TOLLGATE_ADMIN_TOKEN', 'TOLLGATE_JWT_SECRET'].map((k) => [k, 'x'.repeat(40)]))
  test('is right, and its normal form too', async () => {
    const r = await check(example(), '-t', env)
    assert.equal(r.code, 0, r.stderr)
    const t = await check(example(), '-T', env)
    assert.equal((await check(t.stdout, '-T', env)).stdout, t.stdout)
  })
  test('has the fifteen models and the three tiers', () => {
    const text = example()
    for (const m of ['gpt-4o', 'gpt-4o-mini', 'gpt-4.1', 'gpt-4.1-mini', 'gpt-4.1-nano', 'o3', 'o4-mini', 'claude-sonnet-4-20250514', 'claude-3-5-haiku-20241022',
      'claude-opus-4-20250514', 'gemini-2.5-pro', 'gemini-2.5-flash', 'deepseek-chat', 'deepseek-reasoner', 'llama-3.1-405b']) assert.match(text, new RegExp(`^model ${m.replace(/\./g, '\\.')} `, 'm'), m)
    for (const [tier, rpm, tpm, c] of [['free', 20, 40000, 5], ['standard', 120, 200000, 20], ['pro', 600, 1000000, 50]]) {
      assert.match(text, new RegExp(`^tier ${tier}\\s+\\{[^}]*rpm\\s+${rpm};[^}]*tpm\\s+${tpm};[^}]*concurrency\\s+${c};`, 'm'), tier)
    }
  })
})

test('-V names the versions', async () => {
  const r = await run(TOLLGATE, ['-V'])
  assert.equal(r.code, 0)
  for (const p of [/tollgate/i, /mbed ?tls/i, /lmdb/i, /gcc|clang/i]) assert.match(r.stdout + r.stderr, p)
})

test('the configuration of the README is right', async () => {
  const text = /```nginx\n([^]*?)```/.exec(readFileSync(path.join(root, 'README.md'), 'utf8'))[1].replace(/^user .*$/m, '')
  const r = await check(text, '-t', { OPENAI_API_KEY: 'x', ANTHROPIC_API_KEY: 'x', GEMINI_API_KEY: 'x' })
  assert.equal(r.code, 0, r.stderr)
})
test('started as root it makes its folders, and `user` works in them', { skip: process.getuid() !== 0 }, async (t) => {
  const open = folder(t)
  chmodSync(open, 0o755)
  const g = await startGateway(t, { models: [{ name: 'echo', route: 'local' }], text: 'upstream local { dialect echo; }\n', top: { user: 'nobody', state_dir: path.join(open, 'var/lib/state') } })
  assert.equal((await g.chat((await g.tenant()).key, { model: 'echo' })).status, 200)
})
