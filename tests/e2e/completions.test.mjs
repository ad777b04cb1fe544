/* The legacy completions: by passing to servers that have them, as a conversation to all others. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { PRICE, startGateway, until } from './lib/gateway.mjs'
import { cost, decimal, digitsOf } from './lib/money.mjs'
import { cleanUps, test } from './lib/test.mjs'
import { json, newGate, sse, startUpstream } from './upstream.mjs'

const shared = cleanUps()
let up, g, t, branded
before(async () => {
  up = await startUpstream(shared)
  const o = {
    upstreams: [{ name: 'oai', url: up.url }, { name: 'ant', url: up.url, dialect: 'anthropic' }],
    models: [{ name: 'davinci', route: 'oai as inner-davinci' }, { name: 'claude', route: 'ant as inner-claude' }, { name: 'echo', route: 'local' },
      { name: 'emb', kind: 'embedding', route: 'oai', max_output: null }],
    text: 'upstream local { dialect echo; }\n',
  }
  g = await startGateway(shared, o)
  t = await g.tenant()
  branded = await startGateway(shared, { ...o, brand: { id_prefix: '"hjl-"' } })
  branded.t = await branded.tenant()
})

const complete = (body, o = {}) => g.req({ path: '/v1/completions', method: 'POST', key: t.key, body: typeof body === 'string' ? body : JSON.stringify(body), ...o })
const last = () => up.requests.at(-1)
const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
const text = (o = {}) => json({ body: JSON.stringify({ id: 'cmpl-abc', object: 'text_completion', created: 1, model: 'inner-davinci', choices: [{ text: ' world', index: 0, logprobs: null, finish_reason: 'stop' }], usage: USAGE, ...o }) })
const price = (u) => decimal(cost({ input: u.prompt_tokens, output: u.completion_tokens }, PRICE))
const chunk = (o) => JSON.stringify({ id: 'cmpl-abc', object: 'text_completion', created: 1, model: 'm', ...o })
const choice = (t2, finish_reason = null, index = 0) => ({ text: t2, index, logprobs: null, finish_reason })
/* As OpenAI: usage in a chunk of its own where it was asked for. */
const streamed = (list, u = USAGE) => (c) => sse({ raw: [...list, ...(u && c.req.json.stream_options?.include_usage ? [chunk({ choices: [], usage: u })] : [])] })(c)

describe('openai-compatible upstream', () => {
  test('passes but for the model; cost_usd in usage', async () => {
    up.on('inner-davinci', text())
    const body = '{"prompt":"h\\u0069","suffix":"!", "logprobs":2,"echo":true,"best_of":2,"x":[1.50],"model":"davinci","max_tokens":20}'
    const r = await complete(body)
    assert.equal(r.status, 200)
    assert.equal(last().path, '/v1/completions')
    assert.equal(last().body.toString(), body.replace('"davinci"', '"inner-davinci"'))
    assert.equal(r.json.choices[0].text, ' world')
    assert.equal(r.json.id, 'cmpl-abc')
    assert.equal(digitsOf(r.text, 'cost_usd'), price(USAGE))
    await g.settled(t.account)
    assert.equal((await g.usage(t.account))[0].cost, price(USAGE))
  })
  test('every kind of prompt, and max_tokens 0', async () => {
    up.on('inner-davinci', text())
    for (const prompt of ['a', ['a', 'b'], [1, 2], [[1, 2], [3]]]) {
      assert.equal((await complete({ model: 'davinci', prompt, max_tokens: 5 })).status, 200, JSON.stringify(prompt))
      assert.deepEqual(last().json.prompt, prompt)
    }
    assert.equal((await complete({ model: 'davinci', prompt: 'a', max_tokens: 0, echo: true, logprobs: 1 })).status, 200)
    assert.equal(last().json.max_tokens, 0)
  })
  test('a stream: the usage rides on the chunk with the finish_reason', async () => {
    up.on('inner-davinci', streamed([chunk({ choices: [choice(' wor')] }), chunk({ choices: [choice('ld')] }), chunk({ choices: [choice('', 'stop')] })]))
    const r = await complete({ model: 'davinci', prompt: 'x', stream: true })
    assert.equal(last().json.stream_options.include_usage, true)
    const list = r.events
    assert.equal(list.at(-1), '[DONE]')
    assert.equal(list.length, 4)
    assert.equal(list.slice(0, -1).map((c) => c.choices[0].text).join(''), ' world')
    assert.deepEqual(list.slice(0, 2).map((c) => c.usage), [undefined, undefined])
    assert.equal(list[2].usage.completion_tokens, 7)
    assert.equal(digitsOf(r.text, 'cost_usd'), price(USAGE))
  })
  test('a stream with include_usage: in the standard last chunk, also where the provider sends none', async () => {
    for (const usage of [USAGE, null]) {
      up.on('inner-davinci', streamed([chunk({ choices: [choice('word', null)] }), chunk({ choices: [choice('', 'length')] })], usage))
      const r = await complete({ model: 'davinci', prompt: 'abcd', stream: true, stream_options: { include_usage: true } })
      const end = r.events.at(-2)
      assert.deepEqual(end.choices, [])
      assert.equal(end.object, 'text_completion')
      assert.equal(end.id, 'cmpl-abc')
      assert.equal(end.usage.completion_tokens, usage ? 7 : 1)
      assert.ok(end.usage.cost_usd > 0)
    }
  })
  test('id_prefix replaces cmpl-', async () => {
    up.on('inner-davinci', text())
    const ask = (o) => branded.req({ path: '/api/v1/completions', method: 'POST', key: branded.t.key, body: JSON.stringify({ model: 'davinci', prompt: 'x', ...o }) })
    assert.equal((await ask({})).json.id, 'hjl-abc')
    up.on('inner-davinci', streamed([chunk({ choices: [choice('word', 'stop')] })]))
    for (const c of (await ask({ stream: true, stream_options: { include_usage: true } })).events.slice(0, -1)) assert.equal(c.id, 'hjl-abc')
  })
  test('every answer is held: n, best_of and the number of prompts', async () => {
    const held = async (o) => {
      const { gate, open } = newGate()
      up.on('inner-davinci', async (c) => { await gate; return text()(c) })
      const who = await g.tenant({ credit: '100' })
      const n = up.requests.length
      const answer = complete({ model: 'davinci', max_tokens: 1000, ...o }, { key: who.key })
      await until(() => up.requests.length > n, 'the call upstream')
      const h = Number((await g.balance(who.account)).held)
      open()
      assert.equal((await answer).status, 200)
      return h
    }
    const one = await held({ prompt: 'x' })
    assert.ok(one >= 0.011 && one < 0.012, `${one}`)
    assert.ok(await held({ prompt: 'x', n: 2 }) > 0.022)
    assert.ok(await held({ prompt: 'x', n: 2, best_of: 5 }) > 0.055)
    assert.ok(await held({ prompt: ['x', 'y', 'z'], n: 2 }) > 0.066)
  })
})

describe('what is refused', () => {
  for (const [body, param] of [[{ prompt: 'x' }, 'model'], [{ model: 'davinci' }, 'prompt'], [{ model: 'davinci', prompt: [] }, 'prompt'], [{ model: 'davinci', prompt: [1, 'x'] }, 'prompt'],
    [{ model: 'davinci', prompt: 'x', n: 0 }, 'n'], [{ model: 'davinci', prompt: 'x', best_of: 129 }, 'best_of'], [{ model: 'davinci', prompt: 'x', stream: 'yes' }, 'stream'],
    ['{"model":"davinci","prompt":"x","best_of":1,"best_of":20}', 'best_of'], [{ model: 'emb', prompt: 'x' }, 'model'],
    [{ model: 'claude', prompt: ['a', 'b'] }, 'prompt'], [{ model: 'claude', prompt: [1] }, 'prompt'], [{ model: 'claude', prompt: 'x', echo: true }, 'echo'], [{ model: 'claude', prompt: 'x', suffix: 'y' }, 'suffix']]) {
    test(JSON.stringify(body), async () => {
      const n = up.requests.length
      const r = await complete(body)
      assert.equal(r.status, 400, r.text)
      assert.equal(r.json.error.param, param)
      assert.equal(up.requests.length, n)
    })
  }
})

describe('anthropic upstream', () => {
  const answer = { id: 'msg_1', type: 'message', role: 'assistant', model: 'inner-claude', content: [{ type: 'text', text: 'Hello' }, { type: 'text', text: ' you' }], stop_reason: 'max_tokens', usage: { input_tokens: 9, output_tokens: 3 } }
  test('a whole answer', async () => {
    up.on('inner-claude', json({ body: JSON.stringify(answer) }))
    const r = await complete({ model: 'claude', prompt: ['Say "hi"'], max_tokens: 10, temperature: 0.5, stop: ['z'], best_of: 1, logprobs: 2 })
    assert.equal(r.status, 200, r.text)
    assert.equal(last().path, '/v1/messages')
    assert.equal(last().json.max_tokens, 10)
    assert.equal(last().json.temperature, 0.5)
    assert.deepEqual(last().json.stop_sequences, ['z'])
    assert.equal(JSON.stringify(last().json.messages[0].content).includes('Say \\"hi\\"'), true)
    assert.match(r.json.id, /^cmpl-/)
    assert.equal(r.json.object, 'text_completion')
    assert.deepEqual(r.json.choices, [{ text: 'Hello you', index: 0, logprobs: null, finish_reason: 'length' }])
    assert.equal(r.json.usage.total_tokens, 12)
    assert.equal(digitsOf(r.text, 'cost_usd'), price({ prompt_tokens: 9, completion_tokens: 3 }))
    assert.deepEqual(r.headers['x-tollgate-dropped'].split(',').sort(), ['best_of', 'logprobs'])
  })
  const events = [
    { type: 'message_start', message: { ...answer, content: [], stop_reason: null, usage: { input_tokens: 9, output_tokens: 1 } } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hel' } }, { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'lo' } },
    { type: 'content_block_stop', index: 0 }, { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 3 } }, { type: 'message_stop' },
  ].map((e) => JSON.stringify(e))
  for (const asked of [false, true]) {
    test(`a stream, include_usage ${asked}`, async () => {
      up.on('inner-claude', sse({ raw: events, done: false }))
      const r = await complete({ model: 'claude', prompt: 'x', stream: true, ...(asked ? { stream_options: { include_usage: true } } : {}) })
      const list = r.events
      assert.equal(list.at(-1), '[DONE]')
      const withChoices = list.slice(0, asked ? -2 : -1)
      assert.equal(withChoices.map((c) => c.choices[0].text).join(''), 'Hello')
      assert.equal(withChoices.at(-1).choices[0].finish_reason, 'stop')
      assert.equal(list.at(-2).usage.total_tokens, 12)
      assert.equal(list.at(-2).choices.length, asked ? 0 : 1)
      for (const c of list.slice(0, -1)) assert.equal(c.object, 'text_completion')
      assert.ok(list.at(-2).usage.cost_usd > 0)
    })
  }
  test('a stream that is cut does not end well', async () => {
    up.on('inner-claude', sse({ raw: events.slice(0, 3), done: false }))
    const r = await complete({ model: 'claude', prompt: 'x', stream: true })
    assert.ok(r.events.at(-1).error)
  })
})

describe('echo', () => {
  test('whole and streamed', async () => {
    const r = await complete({ model: 'echo', prompt: 'one two' })
    assert.equal(r.json.choices[0].text, 'Echo: one two')
    assert.match(r.json.id, /^cmpl-/)
    const s = await complete({ model: 'echo', prompt: 'one two', stream: true })
    assert.equal(s.events.slice(0, -1).map((c) => c.choices[0].text).join(''), 'Echo: one two')
    assert.ok(s.events.at(-2).usage.cost_usd > 0)
  })
  test('the official package', async () => {
    const { default: OpenAI } = await import('openai')
    const client = new OpenAI({ apiKey: t.key, baseURL: `http://127.0.0.1:${g.port}/v1` })
    assert.equal((await client.completions.create({ model: 'echo', prompt: 'hi' })).choices[0].text, 'Echo: hi')
    let out = ''
    for await (const c of await client.completions.create({ model: 'echo', prompt: 'hi there', stream: true })) out += c.choices[0].text
    assert.equal(out, 'Echo: hi there')
  })
})
test('the books balance', async () => { await g.settled(t.account); await g.audit() })
