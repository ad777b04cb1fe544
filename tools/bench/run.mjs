#!/usr/bin/env node
/* The benchmarks that take a running server. Needs the build with its load generator (`make bench-build`), openssl for
 * the certificates, taskset; nginx and haproxy where they are compared with.
 *
 * usage: tools/bench/run.mjs compare [SCENARIO...] [--rounds N] [--seconds S]
 *        tools/bench/run.mjs scale [PART...] [--rounds N] [--seconds S] [--full]
 *        tools/bench/run.mjs soak [--minutes N] [--seed N] */
import { parseArgs } from 'node:util'
import { SCENARIOS, compare } from './compare.mjs'
import { machine } from './kit.mjs'
import { PARTS, scale } from './scale.mjs'
import { soak } from './soak.mjs'

const {
  values,
  positionals: [command, ...only],
} = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    minutes: { type: 'string' },
    seed: { type: 'string' },
    full: { type: 'boolean' },
  },
})
const commands = { compare: [compare, SCENARIOS], scale: [scale, PARTS], soak: [soak, {}] }
const [f, names] = commands[command] ?? []
const unknown = f ? only.find((n) => !(n in names)) : command
if (!f || unknown) {
  console.error(`usage: tools/bench/run.mjs compare|scale|soak [NAME...]
         [--rounds N] [--seconds S] [--minutes N] [--full]
compare: ${Object.keys(SCENARIOS).join(' ')}
scale:   ${Object.keys(PARTS).join(' ')}`)
  process.exit(2)
}
console.log(`${machine()}\n`)
const options = { only: only.length ? only : undefined, full: values.full }
for (const n of ['rounds', 'seconds', 'minutes', 'seed']) if (values[n] !== undefined) options[n] = Number(values[n])
process.exit((await f(options)) ? 0 : 1)
