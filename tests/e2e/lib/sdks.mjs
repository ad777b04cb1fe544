/* The vendors' SDKs for Node behind one interface, each used the way its own documentation does. talk(o) is one turn:
 *
 *   o: model, say | results [{call, text}] | image (a PNG in base64), history, stream, tools, schema, think, system, signal, retries
 *   → {text, thinking, calls: [{id, name, args, ...}], stop: 'end' | 'calls', usage: {in, out}, cost, history}
 *
 * SDKS names them with the package each is made of; a package that this Node does not run is left out. */
const NODE = Number(process.versions.node.split('.')[0])
const TOOL = { name: 'weather', description: 'The weather of a city', schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false } }
export const SCHEMA = { type: 'object', properties: { city: { type: 'string' }, degrees: { type: 'integer' } }, required: ['city', 'degrees'], additionalProperties: false }

function chat(sdk, base, apiKey) {
  const client = new sdk.default({ apiKey, baseURL: `${base}/v1` })
  return {
    errors: sdk.default, abortError: sdk.default.APIUserAbortError, client, status: (e) => e.status, code: (e) => e.code,
    async talk(o) {
      const messages = [...(o.history ?? (o.system ? [{ role: 'system', content: o.system }] : []))]
      if (o.say) messages.push({ role: 'user', content: o.image ? [{ type: 'text', text: o.say }, { type: 'image_url', image_url: { url: `data:image/png;base64,${o.image}` } }] : o.say })
      for (const r of o.results ?? []) messages.push({ role: 'tool', tool_call_id: r.call.id, content: r.text })
      const body = { model: o.model, messages, max_completion_tokens: 3000, ...(o.tools ? { tools: [{ type: 'function', function: { name: TOOL.name, description: TOOL.description, parameters: TOOL.schema } }] } : {}),
        ...(o.schema ? { response_format: { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema: o.schema } } } : {}), ...(o.think ? { reasoning_effort: 'low' } : {}) }
      const options = { signal: o.signal, maxRetries: o.retries ?? 0 }
      let message, usage, finish
      if (!o.stream) {
        const r = await client.chat.completions.create(body, options)
        message = r.choices[0].message; usage = r.usage; finish = r.choices[0].finish_reason
      } else {
        message = { role: 'assistant', content: null }
        for await (const c of await client.chat.completions.create({ ...body, stream: true }, options)) {
          o.onDelta?.()
          const d = c.choices[0].delta // no chunk without a choice, as nobody asked for one
          if (d.content) message.content = (message.content ?? '') + d.content
          if (d.reasoning_content) message.reasoning_content = (message.reasoning_content ?? '') + d.reasoning_content
          for (const x of d.reasoning_details ?? []) merge((message.reasoning_details ??= []), x, ['text', 'data', 'signature'])
          for (const x of d.tool_calls ?? []) {
            const { function: f, ...rest } = x
            const call = merge((message.tool_calls ??= []), { ...rest, function: {} }, [])
            call.function = { ...call.function, ...(f.name ? { name: f.name } : {}), arguments: (call.function.arguments ?? '') + (f.arguments ?? '') }
          }
          finish = c.choices[0].finish_reason ?? finish
          usage = c.usage ?? usage
        }
        for (const c of message.tool_calls ?? []) delete c.index
      }
      return { text: message.content ?? '', thinking: message.reasoning_content ?? '', stop: { stop: 'end', tool_calls: 'calls' }[finish], cost: usage?.cost_usd, usage: usage && { in: usage.prompt_tokens, out: usage.completion_tokens },
        calls: (message.tool_calls ?? []).map((c) => ({ id: c.id, name: c.function.name, args: JSON.parse(c.function.arguments) })), history: [...messages, message] }
    },
  }
}
/* Adds a piece of a stream to the member of the list that has its index. */
function merge(list, piece, texts) {
  const i = piece.index ?? 0
  const at = (list[i] ??= {})
  for (const [k, v] of Object.entries(piece)) at[k] = texts.includes(k) && at[k] !== undefined ? at[k] + v : k === 'function' ? at[k] ?? v : v
  return at
}

function responses(sdk, base, apiKey) {
  const client = new sdk.default({ apiKey, baseURL: `${base}/v1` })
  return {
    errors: sdk.default, abortError: sdk.default.APIUserAbortError, client, status: (e) => e.status, code: (e) => e.code,
    async talk(o) {
      const input = [...(o.history ?? [])]
      if (o.say) input.push({ role: 'user', content: o.image ? [{ type: 'input_text', text: o.say }, { type: 'input_image', detail: 'auto', image_url: `data:image/png;base64,${o.image}` }] : o.say })
      for (const r of o.results ?? []) input.push({ type: 'function_call_output', call_id: r.call.id, output: r.text })
      const body = { model: o.model, input, store: false, max_output_tokens: 3000, include: ['reasoning.encrypted_content'], ...(o.system ? { instructions: o.system } : {}),
        ...(o.tools ? { tools: [{ type: 'function', name: TOOL.name, description: TOOL.description, parameters: TOOL.schema, strict: true }] } : {}),
        ...(o.schema ? { text: { format: { type: 'json_schema', name: 'answer', strict: true, schema: o.schema } } } : {}), ...(o.think ? { reasoning: { effort: 'low', summary: 'auto' } } : {}) }
      const options = { signal: o.signal, maxRetries: o.retries ?? 0 }
      let r
      if (!o.stream) r = await client.responses.create(body, options)
      else {
        const s = client.responses.stream(body, options)
        s.on('response.output_text.delta', () => o.onDelta?.())
        r = await s.finalResponse()
      }
      if (r.status !== 'completed') throw new Error(`status ${r.status}`)
      const calls = r.output.filter((x) => x.type === 'function_call').map((x) => ({ id: x.call_id, name: x.name, args: JSON.parse(x.arguments) }))
      return { text: r.output_text ?? r.output.filter((x) => x.type === 'message').flatMap((x) => x.content).map((c) => c.text).join(''), calls, stop: calls.length ? 'calls' : 'end', cost: r.usage.cost_usd, usage: { in: r.usage.input_tokens, out: r.usage.output_tokens },
        thinking: r.output.filter((x) => x.type === 'reasoning').flatMap((x) => x.summary).map((s) => s.text).join(''), history: [...input, ...r.output] }
    },
  }
}

function messages(sdk, base, apiKey) {
  const client = new sdk.default({ apiKey, baseURL: base })
  return {
    errors: sdk.default, abortError: sdk.default.APIUserAbortError, client, status: (e) => e.status, code: (e) => e.error?.error?.details?.error_code,
    async talk(o) {
      const list = [...(o.history ?? [])]
      if (o.say) list.push({ role: 'user', content: o.image ? [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: o.image } }, { type: 'text', text: o.say }] : o.say })
      if (o.results) list.push({ role: 'user', content: o.results.map((r) => ({ type: 'tool_result', tool_use_id: r.call.id, content: r.text })) })
      const body = { model: o.model, max_tokens: 3000, messages: list, ...(o.system ? { system: o.system } : {}), ...(o.tools ? { tools: [{ name: TOOL.name, description: TOOL.description, input_schema: TOOL.schema }] } : {}),
        ...(o.schema ? { output_config: { format: { type: 'json_schema', schema: o.schema } } } : {}), ...(o.think ? { thinking: { type: 'enabled', budget_tokens: 1024 } } : {}) }
      const options = { signal: o.signal, maxRetries: o.retries ?? 0 }
      let m, cost
      if (!o.stream) m = await client.messages.create(body, options)
      else {
        const s = client.messages.stream(body, options)
        s.on('text', () => o.onDelta?.())
        s.on('streamEvent', (e) => { cost = e.usage?.cost_usd ?? cost }) // it keeps no figure that it does not know
        m = await s.finalMessage()
      }
      const of = (type) => m.content.filter((c) => c.type === type)
      return { text: of('text').map((c) => c.text).join(''), thinking: of('thinking').map((c) => c.thinking).join(''), stop: { end_turn: 'end', tool_use: 'calls' }[m.stop_reason], cost: cost ?? m.usage.cost_usd,
        usage: { in: m.usage.input_tokens, out: m.usage.output_tokens }, calls: of('tool_use').map((c) => ({ id: c.id, name: c.name, args: c.input })), history: [...list, { role: 'assistant', content: m.content }] }
    },
  }
}

function genai(sdk, base, apiKey) {
  const client = new sdk.GoogleGenAI({ apiKey, httpOptions: { baseUrl: base } })
  return {
    errors: sdk, client, status: (e) => e.status, code: (e) => /"reason":"(\w+)"/.exec(e.message)?.[1],
    async talk(o) {
      const contents = [...(o.history ?? [])]
      if (o.say) contents.push({ role: 'user', parts: [...(o.image ? [{ inlineData: { mimeType: 'image/png', data: o.image } }] : []), { text: o.say }] })
      if (o.results) contents.push({ role: 'user', parts: o.results.map((r) => ({ functionResponse: { ...(r.call.id ? { id: r.call.id } : {}), name: r.call.name, response: { output: r.text } } })) })
      const params = { model: o.model, contents, config: { maxOutputTokens: 3000, abortSignal: o.signal, ...(o.system ? { systemInstruction: o.system } : {}),
        ...(o.tools ? { tools: [{ functionDeclarations: [{ name: TOOL.name, description: TOOL.description, parametersJsonSchema: TOOL.schema }] }] } : {}),
        ...(o.schema ? { responseMimeType: 'application/json', responseJsonSchema: o.schema } : {}), ...(o.think ? { thinkingConfig: { includeThoughts: true, thinkingBudget: 1024 } } : {}) } }
      const parts = []
      let finish, usage
      const take = (r) => {
        parts.push(...(r.candidates?.[0]?.content?.parts ?? []))
        finish = r.candidates?.[0]?.finishReason ?? finish
        usage = r.usageMetadata ?? usage
      }
      if (!o.stream) take(await client.models.generateContent(params))
      else for await (const c of await client.models.generateContentStream(params)) { take(c); o.onDelta?.() }
      const kept = parts.filter((x) => x.text !== '' || x.thoughtSignature)
      return { text: parts.filter((x) => x.text && !x.thought).map((x) => x.text).join(''), thinking: parts.filter((x) => x.thought).map((x) => x.text).join(''), stop: finish === 'STOP' ? (parts.some((x) => x.functionCall) ? 'calls' : 'end') : finish,
        cost: usage.costUsd, usage: { in: usage.promptTokenCount, out: (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0) },
        calls: parts.filter((x) => x.functionCall).map((x) => ({ id: x.functionCall.id, name: x.functionCall.name, args: x.functionCall.args })), history: [...contents, { role: 'model', parts: kept }] }
    },
  }
}

const ALL = [['openai', 'chat', chat, 18], ['openai-latest', 'chat', chat, 20], ['openai', 'responses', responses, 18], ['openai-latest', 'responses', responses, 20], ['@anthropic-ai/sdk', 'messages', messages, 18],
  ['anthropic-latest', 'messages', messages, 20], ['@google/genai', 'gemini', genai, 20], ['genai-latest', 'gemini', genai, 20]]
/* [{name, dialect, open(base, apiKey)}] */
export const SDKS = ALL.filter(([, , , node]) => NODE >= node).map(([pack, dialect, make]) => ({ name: `${pack}, ${dialect}`, pack, dialect, open: async (base, apiKey) => make(await import(pack), base, apiKey) }))
