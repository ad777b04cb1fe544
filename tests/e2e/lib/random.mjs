/* Random choices that can be made again: seeded(process.env.X_SEED); undefined or empty: a new seed, kept in .seed. */
import { randomInt } from 'node:crypto'

/* mulberry32: the same choices from the same seed. */
export function random(seed) {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

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
