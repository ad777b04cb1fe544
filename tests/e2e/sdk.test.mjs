/* The official openai package for Node, unmodified: the version that still runs on Node 18, and a newer one where Node is.
 * OPENAI_SDK names others: packages or paths to their entry, separated by commas. */
import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { startGateway, until } from './lib/gateway.mjs'
import { chat, json, sequence, sse, startUpstream, status } from './upstream.mjs'
import { cleanUps, test } from './lib/test.mjs'

const versions = process.env.OPENAI_SDK?.split(',') ??
  ['openai', ...(Number(process.versions.node.split('.')[0]) >= 20 ? ['openai-latest'] : [])]
const shared = cleanUps()
let up, g, tenant
before(async () => {
  up = await startUpstream(shared)
  g = await startGateway(shared, {
    upstreams: [{ name: 'mock', url: up.url, retries: 0, cooldown: '1s' }, { name: 'faulty', url: up.url, retries: 0, cooldown: '1s' }],
    models: ['gpt-4o', { name: 'f/*', route: 'mock as *' }, { name: 'bad', route: 'faulty' }, { name: 'echo', route: 'local' }], text: 'upstream local { dialect echo; }\n',
    tiers: { slow: 'rpm 30 burst 1;', once: 'rpm 1;', none: 'models nothing;' },
  })
  tenant = await g.tenant()
})

for (const name of versions) {
  describe(name, () => {
    let OpenAI, client
    const clientOf = (apiKey, o = {}) => new OpenAI({ apiKey, baseURL: `http://127.0.0.1:${g.port}/v1`, ...o })
    const messages = [{ role: 'user', content: 'Hello' }]
    before(async () => { OpenAI = (await import(name)).default; client = clientOf(tenant.key) })

    test('completion', async () => {
      const r = await client.chat.completions.create({ model: 'gpt-4o', messages })
      assert.equal(r.choices[0].message.content, 'Hello from upstream')
      assert.equal(r.usage.total_tokens, 180)
      assert.ok(r.usage.cost_usd > 0)
      assert.ok(r._request_id)
    })
    test('stream, read the way everybody does', async () => {
      const s = await client.chat.completions.create({ model: 'gpt-4o', messages, stream: true })
      let text = '', usage
      for await (const chunk of s) { text += chunk.choices[0].delta.content ?? ''; usage = chunk.usage ?? usage }
      assert.equal(text, 'word0 word1 word2 word3 word4 ')
      assert.equal(usage.completion_tokens, 5)
    })
    test('stream with include_usage', async () => {
      const s = await client.chat.completions.create({ model: 'gpt-4o', messages, stream: true, stream_options: { include_usage: true } })
      const list = []
      for await (const chunk of s) list.push(chunk)
      assert.deepEqual(list.at(-1).choices, [])
      assert.ok(list.at(-1).usage.cost_usd > 0)
    })
    test('the stream helper puts the answer together', async () => {
      const helper = (client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions)
      const whole = await helper.stream({ model: 'gpt-4o', messages }).finalChatCompletion()
      assert.equal(whole.choices[0].message.content, 'word0 word1 word2 word3 word4 ')
      assert.equal(whole.choices[0].finish_reason, 'stop')
    })
    test('tools: the helper calls the function and sends its result back', async () => {
      const helper = (client.chat.completions.runTools ? client.chat.completions : client.beta.chat.completions)
      const asked = []
      const runner = helper.runTools({ model: 'echo', messages: [{ role: 'user', content: 'weather' }],
        tools: [{ type: 'function', function: { name: 'weather', parse: JSON.parse, description: 'The weather',
          parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
          function: (a) => { asked.push(a); return 'twenty degrees' } } }] })
      const text = await runner.finalContent()
      assert.equal(asked.length, 1)
      assert.equal(typeof asked[0].city, 'string')
      assert.match(text, /twenty degrees/)
    })
    test('streamed tool calls', async () => {
      const deltas = [{ tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: '' } }] }, { tool_calls: [{ index: 0, function: { arguments: '{"a":1}' } }] }]
      up.on('calls', sse({ deltas, finish: 'tool_calls' }))
      const helper = (client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions)
      const whole = await helper.stream({ model: 'f/calls', messages, tools: [{ type: 'function', function: { name: 'f' } }] }).finalChatCompletion()
      assert.equal(whole.choices[0].message.tool_calls[0].function.arguments, '{"a":1}')
    })
    test('models', async () => {
      const ids = []
      for await (const m of client.models.list()) ids.push(m.id)
      assert.ok(ids.includes('gpt-4o'))
      assert.equal((await client.models.retrieve('gpt-4o')).id, 'gpt-4o')
    })
    test('errors are its own classes', async () => {
      up.on('bad', status(500))
      const once = { maxRetries: 0 }
      const of = (p) => p.then(() => { throw new Error('no error') }, (e) => e)
      const e401 = await of(clientOf('sk-wrong').chat.completions.create({ model: 'gpt-4o', messages }))
      assert.ok(e401 instanceof OpenAI.AuthenticationError)
      assert.equal(e401.code, 'invalid_api_key')
      const narrow = await g.tenant({ tier: 'none' })
      assert.ok(await of(clientOf(narrow.key).chat.completions.create({ model: 'gpt-4o', messages })) instanceof OpenAI.PermissionDeniedError)
      assert.ok(await of(client.chat.completions.create({ model: 'nothing', messages })) instanceof OpenAI.NotFoundError)
      assert.ok(await of(client.chat.completions.create({ model: 'gpt-4o', messages: 'no' })) instanceof OpenAI.BadRequestError)
      assert.ok(await of(client.chat.completions.create({ model: 'bad', messages }, once)) instanceof OpenAI.InternalServerError)
      const poor = await g.tenant({ credit: null })
      const e402 = await of(clientOf(poor.key).chat.completions.create({ model: 'gpt-4o', messages }))
      assert.equal(e402.status, 402)
      assert.equal(e402.code, 'insufficient_balance')
      const refused = () => g.accessLog().filter((l) => l.key === poor.id)
      await until(() => refused().length > 0, 'a line in the access log')
      assert.equal(refused().length, 1, 'it does not try again')
      const s = clientOf((await g.tenant({ tier: 'once' })).key, once)
      await s.chat.completions.create({ model: 'gpt-4o', messages })
      assert.ok(await of(s.chat.completions.create({ model: 'gpt-4o', messages })) instanceof OpenAI.RateLimitError)
    })
    test('it waits as Retry-After says and succeeds', async () => {
      const slow = await g.tenant({ tier: 'slow' })
      const c = clientOf(slow.key)
      await c.chat.completions.create({ model: 'gpt-4o', messages })
      const begin = performance.now()
      assert.ok((await c.chat.completions.create({ model: 'gpt-4o', messages })).id)
      const ms = performance.now() - begin
      assert.ok(ms > 300 && ms < 10000, `${ms} ms`) // two seconds, and a minute if it read them wrong
    })
    test('it tries again after a 429 of the provider', async () => {
      up.on(`limited-${name}`, sequence(status(429, { headers: { 'Retry-After': '1' } }), json()))
      assert.ok((await client.chat.completions.create({ model: `f/limited-${name}`, messages })).id)
    })
    test('abort ends the call upstream too', async () => {
      const model = `abort-${name}`
      up.on(model, sse({ tokens: 1000, every: 10 }))
      const s = await client.chat.completions.create({ model: `f/${model}`, messages, stream: true })
      let n = 0
      for await (const chunk of s) if (chunk && ++n === 5) s.controller.abort()
      await up.of(model)[0].call.closed
      assert.ok(up.of(model)[0].delivered < 900)
      const other = new AbortController()
      up.on(`hang-${model}`, (c) => c.hang())
      const p = client.chat.completions.create({ model: `f/hang-${model}`, messages }, { signal: other.signal })
      setTimeout(() => other.abort(), 50)
      await assert.rejects(p, OpenAI.APIUserAbortError)
    })
    test('many at once over its own pool', async () => {
      up.on('gpt-4o', chat())
      const list = await Promise.all(Array.from({ length: 40 }, () => client.chat.completions.create({ model: 'gpt-4o', messages })))
      assert.equal(list.length, 40)
    })
  })
}
