/* JSON as strangers send it, through the server: accepted or refused as RFC 8259 says. What is accepted reaches the
 * provider byte for byte; of what is refused the provider sees nothing. The same rows go through the parser alone in
 * tests/unit/json_test.c's own tables. */
import assert from 'node:assert/strict'
import { before, test as plain } from 'node:test'
import { startGateway } from './lib/gateway.mjs'
import { startUpstream } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const deep = (n, a = '[', b = ']') => a.repeat(n) + b.repeat(n)
/* Values, by section of RFC 8259. Latin-1 strings: a character is a byte. */
const GOOD = {
  '3 values': ['null', 'true', 'false', '0', '-0', '""', '[]', '{}', ' [ 1 , 2 ] ', '\t\n\r 1 \t\n\r', '[[[[]]]]', '{"a":{"b":[{}]}}'],
  '4 objects': ['{"":1}', '{"a":1,"a":2}', '{"\\u0061":1,"a":2}', '{"a":[],"b":{}}', '{"a b":1}', '{"\\u0000":1}'],
  '6 numbers': ['123', '-1', '0.5', '1e5', '1E+5', '1e-5', '0e0', '-0.0', '1.7976931348623157e308', '1e400', '-1e-400', '1' + '0'.repeat(500), '0.' + '0'.repeat(500) + '1', '18446744073709551616', '-9223372036854775809', '0.1e1', '123456789012345678901234567890.5e-10'],
  '7 strings': ['"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0000"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\uD83D\\uDE00"', '"\\uffff"', '"\\ufdd0"', '"\x7f"', '" "', `"${'x'.repeat(50000)}"`, '"\\u2028\\u2029"'],
  '8.1 UTF-8': ['"\xc3\xa9"', '"\xe2\x82\xac"', '"\xf0\x9f\x98\x80"', '"\xef\xbf\xbf"', '"\xf4\x8f\xbf\xbf"', '"\xed\x9f\xbf"', '"\xee\x80\x80"', '"\xe2\x80\xa8"', '"\xc2\x80"'],
  '9 depth': [deep(60), `${'{"a":'.repeat(60)}1${'}'.repeat(60)}`],
}
const BAD = {
  '2 grammar': ['', ' ', ',', ':', '1 2', '[1 2]', '[1,]', '[,1]', '[1,,2]', '[', ']', '[1', '1]', '[[]', '{', '}', '{"a"', '{"a":', '{"a":1', '{"a":1,}', '{,"a":1}', '{"a" 1}', '{"a"::1}', '{a:1}', '{\'a\':1}', '{1:2}', '{null:1}', '{"a":1 "b":2}', '[1}', '{"a":1]', '[1]x', '"a" "b"', '1/*c*/', '//c\n1', '#c\n1', '1;'],
  '3 literals': ['nul', 'nulll', 'NULL', 'True', 'FALSE', 'tru', 'undefined', 'NaN', 'Infinity', '-Infinity', 'nan', 'inf', 't', 'n'],
  '6 numbers': ['01', '-01', '00', '1.', '.5', '-.5', '-', '+1', '1e', '1e+', '1E-', '1.e5', '1e5.5', '0x1', '0b1', '1_000', '1,000', '--1', '1-', '1+2', '١', '1a', '0.1.2', '1e1e1', '\xef\xbc\x91'],
  '7 strings': ['"', '"a', 'a"', "'a'", '"\\"', '"\\x41"', '"\\a"', '"\\u"', '"\\u12"', '"\\u12g4"', '"\\U0041"', '"\\0"', '"\\\n"', '"\n"', '"\r"', '"\t"', '"\0"', '"\x01"', '"\x1f"', '`a`'],
  '8.1 a byte-order mark': ['\xef\xbb\xbf1', '\xef\xbb\xbf{}', '\xfe\xff\x00\x31', '\xff\xfe\x31\x00'],
  '8.1 UTF-8': ['"\x80"', '"\xbf"', '"\xc0\x80"', '"\xc1\xbf"', '"\xc3"', '"\xc3\x28"', '"\xe0\x80\x80"', '"\xe0\x9f\xbf"', '"\xe2\x82"', '"\xe2\x28\xa1"', '"\xed\xa0\x80"', '"\xed\xbf\xbf"', '"\xf0\x80\x80\x80"', '"\xf0\x8f\xbf\xbf"', '"\xf0\x9f\x98"', '"\xf4\x90\x80\x80"', '"\xf5\x80\x80\x80"', '"\xf8\x88\x80\x80\x80"', '"\xfe"', '"\xff"', '\xc3\xa9', '[\xff]'],
  '8.2 lone surrogates': ['"\\ud800"', '"\\udfff"', '"\\ud83d"', '"\\ude00\\ud83d"', '"\\ud83d\\u0041"', '"\\ud83dx"', '"\\ud800\\ud800"', '{"\\ud800":1}'],
  '9 depth': [deep(5000), deep(100000), '['.repeat(100000), '{"a":'.repeat(50000), `${deep(3000, '[{"a":', '}]')}`],
}
const shared = cleanUps()
let up, g, key
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, { upstreams: [{ name: 'mock', url: up.url }], models: ['gpt-4o'], top: { max_body: '2m' } })
  key = (await g.tenant()).key
})
const inside = (v) => Buffer.from(`{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"metadata_of_mine":${v}}`, 'latin1')
const ask = (body) => g.req({ method: 'POST', path: '/v1/chat/completions', key, body })

for (const [section, list] of Object.entries(GOOD)) {
  test(`accepted (${section}): and goes up as it came`, async () => {
    for (const v of list) {
      const r = await ask(inside(v))
      assert.equal(r.status, 200, `${v.slice(0, 80)}: ${r.text}`)
      assert.ok(up.requests.at(-1).body.equals(inside(v)), v.slice(0, 80))
    }
  })
}
for (const [section, list] of Object.entries(BAD)) {
  test(`refused (${section})`, async () => {
    const n = up.requests.length
    for (const v of list) for (const body of [inside(v), Buffer.from(v, 'latin1')]) {
      const r = await ask(body)
      assert.equal(r.status, 400, `${v.slice(0, 80)}: ${r.status}`)
      if (v !== '') assert.equal(r.json.error.code, 'invalid_json', `${v.slice(0, 80)}: ${r.text}`)
    }
    assert.equal(up.requests.length, n)
  })
}
test('what is JSON and no request is refused by what it lacks', async () => {
  for (const v of ['null', '7', '"x"', '[]', '{}', '[{"model":"gpt-4o"}]']) {
    const r = await ask(Buffer.from(v))
    assert.equal(r.status, 400)
    assert.notEqual(r.json.error.code, 'invalid_json', v)
  }
})
test('a megabyte of small values, and of one key', async () => {
  for (const v of [`[${'1,'.repeat(100000)}1]`, `{${'"k":1,'.repeat(50000)}"k":1}`, `[${'{},'.repeat(100000)}{}]`]) {
    const r = await ask(inside(v))
    assert.ok(r.status === 200 || (r.status === 400 && /invalid_json/.test(r.text)), `${v.slice(0, 20)}: ${r.text.slice(0, 200)}`)
  }
})
plain('the other dialects refuse the same', async () => {
  for (const [path, status] of [['/v1/messages', 400], ['/v1/responses', 400], ['/v1beta/models/gpt-4o:generateContent', 400], ['/v1/embeddings', 400], ['/auth/login', 400]]) {
    for (const v of ['{"a":01}', '{"a":"\\ud800"}', '\xef\xbb\xbf{}', deep(5000)]) assert.equal((await g.req({ method: 'POST', path, key, body: Buffer.from(v, 'latin1') })).status, status, `${path} ${v.slice(0, 20)}`)
  }
})
