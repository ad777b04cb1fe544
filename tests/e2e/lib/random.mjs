/* Random choices that can be made again: seeded(process.env.X_SEED); undefined or empty: a new seed, kept in .seed. */
import { randomInt } from 'node:crypto'
import { random } from './chaos.mjs'

export function seeded(seed) {
  const first = seed === undefined || seed === '' ? randomInt(2 ** 31) : Number(seed) >>> 0
  const next = random(first)
  const below = (n) => Math.floor(next() * n)
  return {
    seed: first, below,
    of: (list) => list[below(list.length)],
    chance: (p) => next() < p,
    bytes: (n) => Buffer.from(Array.from({ length: n }, () => below(256))),
  }
}
