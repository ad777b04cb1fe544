/* Every vendor's SDK, unmodified, in two versions, in front of a strict provider of every kind: text, stream, system, a tool's round
 * trip with two calls at once, a picture, structured output, thinking that comes back, a client that leaves, errors as the SDK's own
 * classes. The provider refuses what its vendor would refuse, so that a 200 also says that what it was sent is right. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { IN, OUT, PNG, VECTOR, startProvider } from './lib/provider.mjs'
import { SCHEMA, SDKS } from './lib/sdks.mjs'
import { cleanUps, test } from './lib/test.mjs'

const KINDS = ['openai', 'openai-responses', 'anthropic', 'gemini']
const COST = 0.00018 // 100 tokens at $1 and 40 at $2 a million
const shared = cleanUps(), providers = {}
let g
before(async () => {
  for (const kind of KINDS) {
    providers[kind] = await startProvider(shared, kind)
  }
  g = await startGateway(shared, {
    upstreams: KINDS.map((kind) => ({ name: kind, url: providers[kind].url, dialect: kind, retries: 0, cooldown: '100ms', header: 'X-Mine "a b"' })),
    models: [...KINDS.map((kind) => ({ name: `${kind}/*`, route: `${kind} as *`, price: 'input 1 output 2', capabilities: 'tools vision reasoning' })),
      ...KINDS.map((kind) => ({ name: `plain-${kind}`, route: `${kind} as text`, price: 'input 1 output 2', strip: 'temperature top_p', limit_field: 'max_completion_tokens', call_cap: '0.004' })),
      ...['openai', 'gemini'].flatMap((kind) => [{ name: `embed-${kind}`, kind: 'embedding', route: `${kind} as embed`, price: 'input 1', max_output: null },
        { name: `paint-${kind}`, kind: 'image', route: `${kind} as paint`, price: 'image 0.04', max_output: null, context: null }])],
    tiers: { one: 'rpm 1;', none: 'models nothing;' },
  })
})
const base = () => `http://127.0.0.1:${g.port}`
const failed = (p) => p.then((r) => { throw new Error(`no error but ${JSON.stringify(r)}`) }, (e) => e)

for (const sdk of SDKS) for (const kind of KINDS) {
  describe(`${sdk.name} → ${kind}`, () => {
    let t, s
    const p = () => providers[kind]
    const talk = async (model, o) => {
      const r = await s.talk({ ...o, model: `${kind}/${model}` })
      if (r.usage) { assert.deepEqual(r.usage, { in: IN, out: OUT }); assert.equal(r.cost, COST) }
      return r
    }
    const content = () => { const list = p().complaints.splice(0); assert.deepEqual(list, []) }
    before(async () => { t = await g.tenant(); s = await sdk.open(base(), t.key) })

    test('text, system', async () => {
      for (const stream of [false, true]) {
        const r = await talk('text', { say: 'a penguin', system: 'Be brief.', stream })
        assert.deepEqual([r.text, r.stop, r.calls], ['You said: a penguin (Be brief.)', 'end', []])
        const more = await talk('text', { say: 'and another', history: r.history, stream })
        assert.match(more.text, /^You said: and another/)
      }
      content()
    })
    test('two calls at once, their results, the answer', async () => {
      for (const stream of [false, true]) {
        const first = await talk('tools', { say: 'The weather?', tools: true, stream })
        assert.equal(first.stop, 'calls')
        assert.deepEqual(first.calls.map((c) => [c.name, c.args]), [['weather', { city: 'Paris' }], ['weather', { city: 'Røm"e' }]])
        const second = await talk('tools', { history: first.history, tools: true, stream, results: first.calls.map((call, i) => ({ call, text: `${i + 20} degrees` })) })
        assert.equal(second.text, 'It is 20 degrees and 21 degrees.')
      }
      content()
    })
    test('a picture, structured output', async () => {
      const seen = await talk('image', { say: 'What is this?', image: PNG })
      assert.match(seen.text, /^A picture of [0-9a-f]{8}$/)
      for (const stream of [false, true]) {
        const r = await talk('schema', { say: 'Where and how warm?', schema: SCHEMA, stream })
        assert.deepEqual(JSON.parse(r.text), { city: 'Paris', degrees: 20 })
      }
      content()
    })
    test('thinking, shown, and sent back with the call it led to', async () => {
      for (const stream of [false, true]) {
        const first = await talk('think', { say: 'The weather?', tools: true, think: true, stream })
        assert.equal(first.thinking, 'I should look it up.')
        const second = await talk('think', { history: first.history, tools: true, think: true, stream, results: first.calls.map((call) => ({ call, text: '20 degrees' })) })
        assert.deepEqual([second.thinking, second.text], ['Now I know.', 'It is 20 degrees.'])
      }
      content()
    })
    test('a client that leaves ends the call at the provider', async () => {
      const leave = new AbortController()
      let n = 0
      const said = await s.talk({ model: `${kind}/slow`, say: 'Talk', stream: true, signal: leave.signal, onDelta: () => { if (++n === 5) leave.abort() } }).catch((e) => e)
      if (said instanceof Error) assert.match(said.constructor.name + said.name + said.message, /[Aa]bort/)
      else assert.equal(said.stop, undefined, 'openai ends the loop without a word')
      await p().requests.at(-1).gone
      await g.settled(t.account)
      content()
    })
    test('a provider that breaks off in a stream is an error', async () => {
      const e = await failed(s.talk({ model: `${kind}/break`, say: 'Talk', stream: true }))
      assert.ok(e instanceof Error)
      content()
    })
    test('errors of the provider and of the gateway are the SDK\'s own classes', async () => {
      const cases = [['error-400', 400, 'BadRequestError', 'context_length_exceeded'], ['error-404', 404, 'NotFoundError', 'model_not_found'], ['error-429', 429, 'RateLimitError', 'rate_limit_exceeded'], ['error-401', 502, 'InternalServerError', 'upstream_failed'], ['error-500', 502, 'InternalServerError', 'upstream_failed'], ['error-529', 502, 'InternalServerError', 'upstream_failed']]
      const is = async (client, o, status, name, code) => {
        const e = await failed(client.talk({ say: 'x', ...o }))
        assert.equal(client.status(e), status, e.stack)
        assert.equal(client.code(e), code, e.message)
        if (client.errors[name]) assert.ok(e instanceof client.errors[name], `${e.constructor.name} is no ${name}`)
        else assert.ok(e instanceof client.errors.ApiError)
      }
      for (const [model, status, name, code] of cases) for (const stream of [false, true])
        await until(() => is(s, { model: `${kind}/${model}`, stream }, status, name, code).then(() => true), model, 3000) // a cool-down may still hold from the case before
      const wrong = await sdk.open(base(), 'sk-wrong')
      await is(wrong, { model: `${kind}/text` }, 401, 'AuthenticationError', 'invalid_api_key')
      await is(s, { model: 'nothing' }, 404, 'NotFoundError', 'model_not_found')
      await is(await sdk.open(base(), (await g.tenant({ tier: 'none' })).key), { model: `${kind}/text` }, 403, 'PermissionDeniedError', 'model_not_allowed')
      await is(await sdk.open(base(), (await g.tenant({ credit: null })).key), { model: `${kind}/text` }, 402, 'APIError', 'insufficient_balance')
      const slow = await sdk.open(base(), (await g.tenant({ tier: 'one' })).key)
      await slow.talk({ model: `${kind}/text`, say: 'x' })
      await is(slow, { model: `${kind}/text` }, 429, 'RateLimitError', 'rate_limit_exceeded')
    })
  })
}
test('what a model\'s configuration says holds in every pair: strip, limit_field, call_cap, a provider\'s headers', async () => {
  const { key } = await g.tenant(), sampling = { temperature: 0.5, top_p: 0.5 }, turn = { role: 'user', content: 'x' }
  const FRONTS = { chat: (m) => ['/v1/chat/completions', { model: m, messages: [turn], ...sampling }], responses: (m) => ['/v1/responses', { model: m, input: 'x', ...sampling }],
    messages: (m) => ['/v1/messages', { model: m, max_tokens: 4000, messages: [turn], ...sampling }],
    gemini: (m) => [`/v1beta/models/${m}:generateContent`, { contents: [{ role: 'user', parts: [{ text: 'x' }] }], generationConfig: { temperature: 0.5, topP: 0.5 } }] }
  const LIMITS = { openai: (b) => b.max_completion_tokens, 'openai-responses': (b) => b.max_output_tokens, anthropic: (b) => b.max_tokens, gemini: (b) => b.generationConfig.maxOutputTokens }
  for (const kind of KINDS) for (const [name, ask] of Object.entries(FRONTS)) {
    const [path, body] = ask(`plain-${kind}`), r = await g.req({ path, body, key }), sent = providers[kind].requests.at(-1)
    assert.equal(r.status, 200, r.text)
    assert.doesNotMatch(JSON.stringify(sent.body), /temperature|top_?p/i, `${name} over ${kind}`)
    assert.equal(LIMITS[kind](sent.body), Number(r.headers['x-tollgate-max-tokens']), `${name} over ${kind}`)
    assert.ok(LIMITS[kind](sent.body) > 1900 && LIMITS[kind](sent.body) < 2000, 'what $0.004 pays')
    assert.match(r.headers['x-tollgate-dropped'], /temperature.*top_?p/i)
    assert.equal(sent.headers['x-mine'], 'a b')
  }
})
test('instructions alone, which OpenAI answers, are said to the others by the user', async () => {
  const { key } = await g.tenant(), alone = [{ role: 'system', content: 'Greet me.' }]
  for (const kind of KINDS) for (const [path, body, front] of [['/v1/chat/completions', { messages: alone }, 'openai'], ['/v1/responses', { input: alone }, 'openai-responses']]) {
    if (front === kind) continue // goes through as it is
    const r = await g.req({ path, key, body: { model: `${kind}/text`, ...body } })
    assert.match(r.text, /You said: Greet me\./, `${front} over ${kind}`)
  }
})
test('a stream that has gone silent is kept alive, in each dialect\'s own way', async (t) => {
  const FRONTS = { chat: ['/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] }, /\n: ?\w*\n\n/], responses: ['/v1/responses', { input: 'x' }, /\n: ?\w*\n\n/],
    messages: ['/v1/messages', { max_tokens: 99, messages: [{ role: 'user', content: 'x' }] }, /event: ping\ndata: ?\{"type": ?"ping"\}\n\n/],
    sse: [':streamGenerateContent?alt=sse', { contents: [{ role: 'user', parts: [{ text: 'x' }] }] }, /\n: ?\w*\r?\n\r?\n/], array: [':streamGenerateContent', { contents: [{ role: 'user', parts: [{ text: 'x' }] }] }, /[^\s"] +,?\r?\n? *\{/] }
  const p = await startGateway(t, { upstreams: KINDS.map((kind) => ({ name: kind, url: providers[kind].url, dialect: kind })), models: KINDS.map((kind) => ({ name: `${kind}/*`, route: `${kind} as *` })), top: { stream_ping: '200ms' } })
  const { key } = await p.tenant()
  await Promise.all(Object.entries(FRONTS).flatMap(([name, [path, body, form]]) => KINDS.map(async (kind) => {
    const model = `${kind}/pause`, n = Math.random().toString(36).slice(2)
    const s = p.stream(key, {}, { path: path.startsWith(':') ? `/v1beta/models/${model}${path}` : path, body: JSON.stringify(JSON.parse(JSON.stringify({ ...body, ...(path.startsWith(':') ? {} : { model, stream: true }) }).replaceAll('"x"', `"${n}"`))) })
    const all = s.all()
    const call = await until(() => providers[kind].requests.find((r) => r.resume && JSON.stringify(r.body).includes(n)), `${name} over ${kind}`)
    await s.head
    const begun = s.text.length
    await until(() => s.text.length > begun, `a ping of ${name} over ${kind}`)
    await until(() => form.test(name === 'array' ? `${s.text}{` : s.text), `the form of it: ${name} over ${kind}: ${JSON.stringify(s.text.slice(-200))}`)
    call.resume()
    await all
    const text = name === 'array' ? JSON.parse(s.text).map((c) => c.candidates?.[0].content?.parts?.[0].text ?? '').join('') : s.text
    assert.match(text, /three|\bth/, `${name} over ${kind}`)
  })))
})
describe('embeddings and pictures', () => {
  for (const sdk of SDKS.filter((x) => x.dialect === 'chat' || x.dialect === 'gemini')) for (const kind of ['openai', 'gemini'])
    test(`${sdk.pack} → ${kind}`, async () => {
      const { client } = await sdk.open(base(), (await g.tenant()).key)
      if (sdk.dialect === 'gemini') {
        for (const contents of ['one', ['one', 'two']]) {
          const r = await client.models.embedContent({ model: `embed-${kind}`, contents })
          assert.deepEqual(r.embeddings.map((e) => e.values), [contents].flat().map(() => VECTOR))
        }
      } else {
        for (const encoding_format of [undefined, 'float', 'base64']) {
          const r = await client.embeddings.create({ model: `embed-${kind}`, input: ['one', 'two'], encoding_format })
          assert.deepEqual(r.data.map((d) => d.embedding), [VECTOR, VECTOR].map((v) => (encoding_format === 'base64' ? Buffer.from(new Float32Array(v).buffer).toString('base64') : v)))
          assert.deepEqual([r.usage.prompt_tokens, r.usage.cost_usd], [100, 0.0001])
        }
        const r = await client.images.generate({ model: `paint-${kind}`, prompt: 'a cat' })
        assert.deepEqual([r.data[0].b64_json, r.usage.cost_usd], [PNG, 0.04])
      }
      assert.deepEqual(providers[kind].complaints.splice(0), [])
    })
  test('lists of models, in each SDK\'s own shape', async () => {
    for (const sdk of SDKS) {
      const { client } = await sdk.open(base(), (await g.tenant()).key), ids = []
      for await (const m of await client.models.list()) ids.push(m.id ?? m.name)
      assert.ok(ids.includes(sdk.dialect === 'gemini' ? 'models/embed-openai' : 'embed-openai'), `${sdk.name}: ${ids}`)
      const one = sdk.dialect === 'gemini' ? await client.models.get({ model: 'gemini/text' }) : await client.models.retrieve('gemini/text')
      assert.match(one.id ?? one.name, /gemini\/text$/)
    }
  })
})
test('the books balance', async () => { await g.audit() })
