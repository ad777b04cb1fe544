/* How each coding agent is set up, as docs/agents.md says it, and how it is asked for one file without a terminal.
 *
 *   package, bin    what the npm registry calls it, and its command
 *   node            it is a script of Node's
 *   setup(o)        o: home, base (http://host:port), key, model → {args, env}; writes its configuration under home
 *   write(o)        o: tools (their names), file, text → {name, args}: the call that makes it write the file */
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

function put(home, file, text) {
  mkdirSync(path.dirname(path.join(home, file)), { recursive: true })
  writeFileSync(path.join(home, file), text)
}
const ASK = 'Create the file hello.txt with the words of the day in it.'
const opencode = (npm) => ({
  package: 'opencode-ai', bin: 'opencode',
  setup({ home, base, key, model }) {
    put(home, '.config/opencode/opencode.json', JSON.stringify({ $schema: 'https://opencode.ai/config.json', model: `tollgate/${model}`, small_model: `tollgate/${model}`, autoupdate: false, share: 'disabled',
      provider: { tollgate: { npm, name: 'Tollgate', options: { baseURL: `${base}/v1`, apiKey: '{env:TOLLGATE_KEY}' }, models: { [model]: { name: model, tool_call: true } } } } }))
    return { args: ['run', ASK], env: { TOLLGATE_KEY: key, OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_MODELS_FETCH: '1', OPENCODE_DISABLE_LSP_DOWNLOAD: '1' } }
  },
  write: ({ file, text }) => ({ name: 'write', args: { filePath: file, content: text } }),
})

export const AGENTS = {
  'claude-code': {
    package: '@anthropic-ai/claude-code', bin: 'claude',
    setup: ({ base, key, model }) => ({ args: ['-p', ASK, '--permission-mode', 'acceptEdits'],
      env: { ANTHROPIC_BASE_URL: base, ANTHROPIC_AUTH_TOKEN: key, ANTHROPIC_MODEL: model, ANTHROPIC_DEFAULT_HAIKU_MODEL: model, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1' } }),
    write: ({ file, text }) => ({ name: 'Write', args: { file_path: file, content: text } }),
  },
  codex: {
    package: '@openai/codex', bin: 'codex', node: true,
    setup({ home, base, key, model }) {
      put(home, '.codex/config.toml', `model = "${model}"\nmodel_provider = "tollgate"\n\n[model_providers.tollgate]\nname = "Tollgate"\nbase_url = "${base}/v1"\nenv_key = "TOLLGATE_KEY"\nwire_api = "responses"\n`)
      return { args: ['exec', '--skip-git-repo-check', '--sandbox', 'danger-full-access', ASK], env: { TOLLGATE_KEY: key } }
    },
    write({ tools, file, text }) {
      const sh = `printf %s '${text}' > '${file}'`
      if (tools.includes('shell_command')) return { name: 'shell_command', args: { command: sh } }
      if (tools.includes('exec_command')) return { name: 'exec_command', args: { cmd: sh } }
      return { name: 'shell', args: { command: ['bash', '-c', sh] } }
    },
  },
  'gemini-cli': {
    package: '@google/gemini-cli', bin: 'gemini', node: true,
    setup({ home, base, key, model }) {
      put(home, '.gemini/settings.json', JSON.stringify({ security: { auth: { selectedType: 'gemini-api-key' } }, general: { enableAutoUpdate: false }, privacy: { usageStatisticsEnabled: false } }))
      return { args: ['-m', model, '--approval-mode', 'yolo', '-p', ASK], env: { GOOGLE_GEMINI_BASE_URL: base, GEMINI_API_KEY: key, GEMINI_CLI_TRUST_WORKSPACE: 'true' } }
    },
    write: ({ file, text }) => ({ name: 'write_file', args: { file_path: file, content: text } }),
  },
  opencode: { ...opencode('@ai-sdk/openai-compatible') },
  'opencode-messages': { ...opencode('@ai-sdk/anthropic') },
  'qwen-code': {
    package: '@qwen-code/qwen-code', bin: 'qwen', node: true,
    setup: ({ base, key, model }) => ({ args: ['--auth-type', 'openai', '--approval-mode', 'yolo', '-p', ASK], env: { OPENAI_BASE_URL: `${base}/v1`, OPENAI_API_KEY: key, OPENAI_MODEL: model } }),
    write: ({ file, text }) => ({ name: 'write_file', args: { file_path: file, content: text } }),
  },
}
