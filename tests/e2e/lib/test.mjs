/* node:test's `test` with a bound: what hangs is a failure, not a run that never ends. The bound is for that alone, so nothing
 * that works comes near it, on a machine that is many times slower or busy with other things. */
import { after, test as unbounded } from 'node:test'
import { cleanUp } from './clean.mjs'

const LIMIT_MS = 180_000

export function test(name, a, b) {
  const [options, f] = typeof a === 'function' ? [{}, a] : [a, b]
  return unbounded(name, { timeout: LIMIT_MS, ...options }, f)
}

/* The clean-ups of a file, or of a `describe`, whose tests share what is started: const shared = cleanUps() */
export function cleanUps() {
  const list = []
  after(() => cleanUp(list))
  return list
}
