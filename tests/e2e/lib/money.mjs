/* Amounts in tests: decimal strings to and from integer nano-dollars, and the cost of a call by its prices. */
export function nano(decimal) {
  const [, sign, whole, part = ''] = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(String(decimal)) ?? []
  if (whole === undefined) throw new Error(`not a plain decimal of at most 9 digits: ${decimal}`)
  const n = BigInt(whole) * 1_000_000_000n + BigInt(part.padEnd(9, '0'))
  return sign ? -n : n
}
export function decimal(n) {
  const sign = n < 0n ? '-' : '', a = n < 0n ? -n : n
  const part = (a % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '')
  return sign + (a / 1_000_000_000n) + (part ? `.${part}` : '')
}
/* prices: USD per million tokens as decimal strings of at most 6 digits, so micro-dollars per million tokens are exact.
 * Summed over the meters, times the ratio (micro), rounded once, half to even, to nano-dollars. */
export function cost(meters, prices, ratio = '1') {
  const micro = (d) => nano(d) / 1000n
  let sum = 0n
  for (const [name, tokens] of Object.entries(meters)) sum += BigInt(tokens) * micro(prices[name])
  sum *= micro(ratio) // micro-dollars x tokens / 1e6 tokens x 1e6: divide by 1e9 for nano-dollars
  return halfEven(sum, 1_000_000_000n)
}
function halfEven(n, d) {
  const q = n / d, r = n % d
  if (r * 2n > d || (r * 2n === d && q % 2n === 1n)) return q + 1n
  return q
}
/* The digits that stand in a JSON text for a member, unchanged by floating point. */
export function digitsOf(text, member) {
  return new RegExp(`"${member}"\\s*:\\s*(-?[0-9][^,}\\]\\s]*)`).exec(text)?.[1]
}
