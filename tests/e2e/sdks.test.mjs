/* Every vendor's SDK in front of every kind of provider. The providers are played by a second tollgate whose echo answers in all four
 * dialects, so that each pair is translated there and back: text, stream, a tool's round trip, errors, abort. */
import assert from 'node:assert/strict'
import { after, before, describe } from 'node:test'
import { cleanUp, startGateway, until } from './lib/gateway.mjs'
import { test } from './lib/test.mjs'

const KINDS = { openai: 'v1', 'openai-responses': 'v1', anthropic: 'v1', gemini: 'v1beta' }
const NODE = Number(process.versions.node.split('.')[0])
const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const shared = []
let back, g, tenant
before(async () => {
  back = await startGateway(shared, { models: [{ name: 'echo', route: 'local' }], text: 'upstream local { dialect echo; }\n' })
  const provider = await back.tenant({ credit: '100000' })
  g = await startGateway(shared, {
    upstreams: Object.entries(KINDS).map(([dialect, path]) => ({ name: `via-${dialect}`, url: `http://127.0.0.1:${back.port}/${path}`, dialect, api_key: provider.key, retries: 0, cooldown: '1s' })),
    models: Object.keys(KINDS).map((dialect) => ({ name: `m-${dialect}`, route: `via-${dialect} as echo` })),
  })
  tenant = await g.tenant({ credit: '100000' })
})
after(() => cleanUp(shared))
const url = () => `http://127.0.0.1:${g.port}`
async function noted(what) { // the call's record bears the cost that was told
  await g.settled(tenant.account)
  const [u] = await g.usage(tenant.account)
  assert.ok(Number(u.cost) > 0 && u.output_tokens > 0 && !u.estimated, `${what}: ${JSON.stringify(u)}`)
}
const rejected = (p) => p.then(() => { throw new Error('no error') }, (e) => e)

for (const name of ['@anthropic-ai/sdk', ...(NODE >= 20 ? ['anthropic-latest'] : [])]) {
  describe(name, () => {
    let Anthropic, client
    before(async () => { Anthropic = (await import(name)).default; client = new Anthropic({ apiKey: tenant.key, baseURL: url() }) })
    for (const kind of Object.keys(KINDS)) {
      const model = `m-${kind}`
      const ask = (content, more) => ({ model, max_tokens: 500, messages: [{ role: 'user', content }], ...more })
      test(`${kind}: text`, async () => {
        const r = await client.messages.create(ask('a penguin', { system: 'Be brief.' }))
        assert.equal(r.type, 'message')
        assert.match(r.content[0].text, /penguin/)
        assert.equal(r.stop_reason, 'end_turn')
        assert.ok(r.usage.cost_usd > 0)
        await noted(kind)
      })
      test(`${kind}: stream`, async () => {
        const s = client.messages.stream(ask('count the penguins'))
        const seen = []
        s.on('text', (t) => seen.push(t))
        const whole = await s.finalMessage()
        assert.match(whole.content[0].text, /count the penguins/)
        assert.equal(seen.join(''), whole.content[0].text)
        assert.ok(seen.length > 1)
        assert.equal(whole.stop_reason, 'end_turn')
        await noted(kind)
      })
      test(`${kind}: a tool, its result, the answer; whole and streamed`, async () => {
        const tools = [{ name: 'weather', description: 'The weather', input_schema: SCHEMA }]
        for (const streamed of [false, true]) {
          const first = streamed ? await client.messages.stream(ask('weather?', { tools })).finalMessage() : await client.messages.create(ask('weather?', { tools }))
          assert.equal(first.stop_reason, 'tool_use')
          const use = first.content.find((c) => c.type === 'tool_use')
          assert.equal(use.name, 'weather')
          assert.equal(typeof use.input.city, 'string')
          const messages = [{ role: 'user', content: 'weather?' }, { role: 'assistant', content: first.content },
            { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'forty degrees' }] }]
          const second = await client.messages.create({ ...ask('', { tools }), messages })
          assert.match(second.content[0].text, /forty degrees/)
        }
      })
    }
    test('errors are its own classes', async () => {
      const once = { maxRetries: 0 }
      const body = { model: 'm-openai', max_tokens: 10, messages: [{ role: 'user', content: 'x' }] }
      const e401 = await rejected(new Anthropic({ apiKey: 'sk-wrong', baseURL: url() }).messages.create(body, once))
      assert.ok(e401 instanceof Anthropic.AuthenticationError, e401)
      assert.equal(e401.error.error.type, 'authentication_error')
      assert.ok(await rejected(client.messages.create({ ...body, model: 'nothing' }, once)) instanceof Anthropic.NotFoundError)
      assert.ok(await rejected(client.messages.create({ ...body, messages: 'no' }, once)) instanceof Anthropic.BadRequestError)
    })
    test('abort', async () => {
      const s = client.messages.stream({ model: 'm-gemini', max_tokens: 500, messages: [{ role: 'user', content: 'word '.repeat(400) }] })
      for await (const e of s) if (e.type === 'content_block_delta') { s.abort(); break }
      await until(async () => (await g.balance(tenant.account)).held === '0', 'nothing held')
    })
  })
}

for (const name of ['openai', ...(NODE >= 20 ? ['openai-latest'] : [])]) {
  describe(`${name}, chat and responses`, () => {
    let client
    before(async () => { const OpenAI = (await import(name)).default; client = new OpenAI({ apiKey: tenant.key, baseURL: `${url()}/v1` }) })
    for (const kind of Object.keys(KINDS)) {
      const model = `m-${kind}`
      test(`${kind}: chat, text, stream, tool`, async () => {
        const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'a penguin' }]
        const r = await client.chat.completions.create({ model, messages })
        assert.match(r.choices[0].message.content, /penguin/)
        assert.equal(r.choices[0].finish_reason, 'stop')
        assert.ok(r.usage.cost_usd > 0)
        let text = ''
        for await (const c of await client.chat.completions.create({ model, messages, stream: true })) text += c.choices[0].delta.content ?? ''
        assert.match(text, /penguin/)
        const tools = [{ type: 'function', function: { name: 'weather', parameters: SCHEMA } }]
        const call = (await client.chat.completions.create({ model, messages, tools })).choices[0]
        assert.equal(call.finish_reason, 'tool_calls')
        assert.equal(typeof JSON.parse(call.message.tool_calls[0].function.arguments).city, 'string')
        const done = await client.chat.completions.create({ model, tools, messages: [...messages, call.message, { role: 'tool', tool_call_id: call.message.tool_calls[0].id, content: 'forty degrees' }] })
        assert.match(done.choices[0].message.content, /forty degrees/)
      })
      test(`${kind}: responses, text, stream, tool`, async () => {
        const r = await client.responses.create({ model, instructions: 'Be brief.', input: 'a penguin', store: false })
        assert.match(r.output_text, /penguin/)
        assert.equal(r.status, 'completed')
        assert.ok(r.usage.cost_usd > 0)
        const types = []
        let text = '', last
        for await (const e of await client.responses.create({ model, input: 'count penguins', stream: true, store: false })) {
          types.push(e.type)
          if (e.type === 'response.output_text.delta') text += e.delta
          last = e
        }
        assert.match(text, /count penguins/)
        assert.equal(types[0], 'response.created')
        assert.equal(last.type, 'response.completed')
        assert.ok(last.response.usage.cost_usd > 0)
        const tools = [{ type: 'function', name: 'weather', parameters: SCHEMA, strict: false }]
        const first = await client.responses.create({ model, input: 'weather?', tools, store: false })
        const call = first.output.find((o) => o.type === 'function_call')
        assert.equal(typeof JSON.parse(call.arguments).city, 'string')
        const input = [{ role: 'user', content: 'weather?' }, call, { type: 'function_call_output', call_id: call.call_id, output: 'forty degrees' }]
        assert.match((await client.responses.create({ model, input, tools, store: false })).output_text, /forty degrees/)
      })
    }
  })
}

describe('@google/genai', { skip: NODE < 20 && 'it needs Node 20' }, () => {
  let genai, client
  before(async () => {
    genai = await import('@google/genai')
    client = new genai.GoogleGenAI({ apiKey: tenant.key, httpOptions: { baseUrl: url() } })
  })
  for (const kind of Object.keys(KINDS)) {
    const model = `m-${kind}`
    test(`${kind}: text, stream, tool`, async () => {
      const r = await client.models.generateContent({ model, contents: 'a penguin', config: { systemInstruction: 'Be brief.' } })
      assert.match(r.text, /penguin/)
      assert.equal(r.candidates[0].finishReason, 'STOP')
      assert.ok(r.usageMetadata.totalTokenCount > 0)
      let text = ''
      for await (const c of await client.models.generateContentStream({ model, contents: 'count penguins' })) text += c.text ?? ''
      assert.match(text, /count penguins/)
      const tools = [{ functionDeclarations: [{ name: 'weather', description: 'w', parameters: { type: genai.Type.OBJECT, properties: { city: { type: genai.Type.STRING } }, required: ['city'] } }] }]
      const first = await client.models.generateContent({ model, contents: 'weather?', config: { tools } })
      const call = first.functionCalls[0]
      assert.equal(call.name, 'weather')
      assert.equal(typeof call.args.city, 'string')
      const contents = [{ role: 'user', parts: [{ text: 'weather?' }] }, first.candidates[0].content,
        { role: 'user', parts: [{ functionResponse: { id: call.id, name: 'weather', response: { output: 'forty degrees' } } }] }]
      assert.match((await client.models.generateContent({ model, contents, config: { tools } })).text, /forty degrees/)
      await noted(kind)
    })
  }
  test('an error is its own class, with the status', async () => {
    const e = await rejected(client.models.generateContent({ model: 'nothing', contents: 'x' }))
    assert.equal(e.status, 404)
    assert.match(e.message, /NOT_FOUND/)
  })
})
