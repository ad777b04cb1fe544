/* node:test's `test` with a bound: what hangs is a failure, not a run that never ends. */
import { test as unbounded } from 'node:test'

const LIMIT_MS = 45000

export function test(name, a, b) {
  const [options, f] = typeof a === 'function' ? [{}, a] : [a, b]
  return unbounded(name, { timeout: LIMIT_MS, ...options }, f)
}
