// What the dialects' writers make, held to the types of the vendors' own newest SDKs: every golden request that goes to a provider and
// every golden answer that a client gets is compiled as a constant of the type that its receiver has for it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from './lib/test.mjs'

const tests = join(dirname(fileURLToPath(import.meta.url)), '..')

// Google's enums are TypeScript enums, which no literal fits: Lit makes unions of their words. What goes over the wire there is not what
// the SDK's functions take, but is made of the same parts.
const HEAD = `import OpenAI from 'openai-latest'; import Anthropic from 'anthropic-latest'; import * as G from 'genai-latest'
type Lit<T> = T extends string ? \`\${T}\` : T extends (infer U)[] ? Lit<U>[] : T extends object ? { [K in keyof T]: Lit<T[K]> } : T
type NoText<T> = T extends (infer U)[] ? NoText<U>[] : T extends object ? { [K in keyof T as K extends 'output_text' ? never : K]: NoText<T[K]> } : T
type openai_request = OpenAI.ChatCompletionCreateParams
type openai_answer = OpenAI.ChatCompletion
type openai_event = OpenAI.ChatCompletionChunk
type responses_request = OpenAI.Responses.ResponseCreateParams
type responses_answer = NoText<OpenAI.Responses.Response>
type responses_event = NoText<OpenAI.Responses.ResponseStreamEvent>
type anthropic_request = Anthropic.MessageCreateParams | Anthropic.Beta.MessageCreateParams
type anthropic_answer = Anthropic.Message
type anthropic_event = Anthropic.RawMessageStreamEvent
type gemini_request = { contents: Lit<G.Content>[]; systemInstruction?: Lit<G.Content>; tools?: Lit<G.Tool>[]; toolConfig?: Lit<G.ToolConfig>;
  safetySettings?: Lit<G.SafetySetting>[]; labels?: Record<string, string>; store?: boolean; generationConfig?: Lit<G.GenerationConfig> }
type gemini_answer = { candidates?: Lit<G.Candidate>[]; promptFeedback?: Lit<G.GenerateContentResponsePromptFeedback>;
  usageMetadata?: Lit<G.GenerateContentResponseUsageMetadata>; modelVersion?: string; responseId?: string }
type gemini_event = gemini_answer
`

// Members of this gateway's own, and of compatible servers, that no vendor's type has.
const OURS = new Set(['cost_usd', 'costUsd', 'reasoning_content', 'reasoning_details', 'images', 'extra_content'])
const without = (o) => Array.isArray(o) ? o.map(without)
  : o && typeof o === 'object' ? Object.fromEntries(Object.entries(o).filter(([k]) => !OURS.has(k)).map(([k, v]) => [k, without(v)])) : o

// Where the vendor's own API says what its types do not, or takes it.
const KNOWN = {
  openai: {
    event: (o) => { for (const c of o.choices ?? []) delete c.delta?.annotations }, // in the message alone
  },
  responses: {
    request: (o) => {
      delete o.client_metadata // of an agent, carried between two of its own dialect
      for (const i of o.input) if (i.type === 'reasoning') i.id = 'rs_1' // not needed beside its encrypted content
    },
    answer: (o) => {
      delete o.store
      for (const k of ['user', 'usage']) if (o[k] === null) delete o[k]
      for (const i of o.output) if (i.type === 'custom_tool_call') delete i.status
    },
    event: (o) => {
      if (o.response) KNOWN.responses.answer(o.response)
      if (o.item?.type === 'custom_tool_call') delete o.item.status
      if (o.type === 'response.function_call_arguments.done') delete o.name
      for (const l of o.logprobs ?? []) for (const x of [l, ...l.top_logprobs ?? []]) delete x.bytes
    },
  },
  anthropic: {
    request: (o) => { for (const k of ['temperature', 'top_p', 'top_k']) delete o[k] }, // of the version that is asked for, not of the newest
    event: (o) => { if (o.type === 'message_delta') delete o.usage.cache_creation },
  },
  gemini: {
    request: (o) => { for (const t of o.tools ?? []) for (const f of t.functionDeclarations ?? []) proto(f.parameters) },
  },
}
// Types in either case, and 64-bit integers in either form, are one to proto3's reader.
function proto(schema) {
  for (const [k, v] of Object.entries(schema ?? {})) {
    if (k === 'type' && typeof v === 'string') schema[k] = v.toUpperCase()
    else if (/^m(in|ax)(Items|Length|Properties)$/.test(k)) schema[k] = String(v)
    else if (v && typeof v === 'object') proto(v)
  }
}

function* golden() {
  const read = (folder, name) => readFileSync(join(tests, 'dialect', folder, name), 'utf8')
  for (const name of readdirSync(join(tests, 'dialect', 'requests'))) {
    const to = name.match(/\.to\.(\w+)$/)?.[1]
    const text = to && read('requests', name)
    if (text?.startsWith('{')) yield [name, to, 'request', JSON.parse(text.split('\n')[0])]
  }
  for (const name of readdirSync(join(tests, 'dialect', 'answers'))) {
    const to = name.match(/\.as\.(\w+)$/)?.[1]
    const text = to ? read('answers', name) : ''
    const all = text.startsWith('{') ? [['answer', text]]
      : text.split(/\r?\n/).filter((l) => l.startsWith('data: {')).map((l) => ['event', l.slice(6)])
    for (const [kind, json] of all) {
      const o = JSON.parse(json)
      if (!(o.type === 'error' || (o.error && !o.object && !o.type))) yield [name, to, kind, o]
    }
  }
}

test('what is sent and answered has the types of the newest SDKs', () => {
  const folder = mkdtempSync(join(tests, 'node_modules', '.types-'))
  try {
    const lines = HEAD.split('\n'), first = lines.length, names = []
    for (const [name, dialect, kind, object] of golden()) {
      const o = without(object)
      KNOWN[dialect]?.[kind]?.(o)
      lines.push(`const x${names.length}: ${dialect}_${kind} = ${JSON.stringify(o)}`)
      names.push(name)
    }
    assert.ok(names.length > 300, `only ${names.length}`)
    writeFileSync(join(folder, 'golden.ts'), `${lines.join('\n')}\nexport {}\n`)
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ files: ['golden.ts'], compilerOptions: { strict: true, noEmit: true, target: 'es2022',
      module: 'nodenext', moduleResolution: 'nodenext', skipLibCheck: true, types: [] } }))
    const tsc = join(tests, 'node_modules', '.bin', 'tsc')
    assert.ok(existsSync(tsc), 'npm ci in tests/')
    const r = spawnSync(tsc, ['-p', folder, '--pretty', 'false'], { encoding: 'utf8', maxBuffer: 1 << 26 })
    const said = r.stdout.replace(/^.*golden\.ts\((\d+),\d+\): /gm, (_, line) => `${names[line - 1 - first] ?? `line ${line}`}: `)
    assert.equal(r.status, 0, said.slice(0, 4000) || r.stderr)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
