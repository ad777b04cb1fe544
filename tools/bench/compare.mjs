/* The gateway beside nginx and HAProxy: the same traffic through each in turn, round after round, so that what disturbs
 * the machine disturbs all of them. nginx and HAProxy only forward (keep-alive on both sides, one log line a request);
 * tollgate authenticates, limits, holds, meters, charges, records. CPU time of all processes of a server a request, or
 * an event, is what is compared: throughput depends on the load's own CPU. */
import {
  errors,
  load,
  median,
  newBench,
  number,
  startHaproxy,
  startMock,
  startNginx,
  startTollgate,
  table,
  which,
  withSpread,
} from './kit.mjs'

export const SCENARIOS = {
  small: { what: 'JSON, 1 KB in, 0.6 KB out, 64 connections', load: { c: 64 } },
  tls: { what: 'the same, provider over TLS', tls: true, load: { c: 64 } },
  stream: { what: 'streams of 68 events without pause, 64 connections', stream: true, load: { c: 64, s: true } },
  'stream-tls': { what: 'the same, provider over TLS', tls: true, stream: true, load: { c: 64, s: true } },
  large: { what: 'JSON, 100 KB in, 32 connections', load: { c: 32, b: 102400 } },
  paced: { what: 'JSON, 1 KB, 1,000 a second (added latency)', direct: true, load: { c: 64, r: 1000 } },
}

async function servers(b, mock, s) {
  const list = [await startTollgate(b, mock, s)]
  for (const [name, start] of [
    ['nginx', startNginx],
    ['haproxy', startHaproxy],
  ]) {
    if (which(name)) list.push(await start(b, mock, s))
  }
  if (s.direct) list.push({ name: 'direct', port: mock.port, stop() {} })
  return list
}

function report(s, results) {
  const unit = s.stream ? 'event' : 'request'
  const own = median(results.get('tollgate').map((r) => r[`cpu_us_per_${unit}`]))
  table(
    [`CPU µs a ${unit}`, "of tollgate's", 'requests/s', 'p50 µs', 'p99 µs', 'errors', 'server'],
    [...results].map(([name, runs]) => {
      const cpu = runs.map((r) => r[`cpu_us_per_${unit}`]).filter((x) => x !== undefined)
      return [
        cpu.length ? withSpread(cpu) : '-',
        cpu.length ? `${(median(cpu) / own).toFixed(2)}` : '-',
        withSpread(runs.map((r) => r.window.requests / r.seconds)),
        withSpread(runs.map((r) => r.latency_us.p50)),
        withSpread(runs.map((r) => r.latency_us.p99)),
        runs.reduce((n, r) => n + errors(r), 0),
        name,
      ]
    }),
  )
}

/* What went in must have come out: requests and tokens of both ends, and of the ledger. */
async function reconcile(gateway, mock, sent) {
  const seen = await mock.stats()
  const settled = await gateway.settled(gateway.account)
  const usage = (await gateway.ctl('usage', '--account', gateway.account, '--by', 'account')).usage[0]
  const audit = await gateway.audit()
  console.log(
    `ledger: ${usage.requests} calls, ${usage.output_tokens} tokens out, held ${settled.held}, ` +
      `audit ${audit.differences.length} differences` +
      `; load: ${sent} calls; provider (all servers): ${seen.completed} whole answers\n`,
  )
  return usage.requests === sent
}

export async function compare({ only, rounds = 5, seconds = 3 }) {
  let clean = true
  for (const name of ['nginx', 'haproxy']) if (!which(name)) console.log(`${name} is not installed: left out`)
  for (const [name, s] of Object.entries(SCENARIOS).filter(([n]) => !only || only.includes(n))) {
    console.log(`### ${name}: ${s.what}\n`)
    const b = newBench()
    try {
      const mock = await startMock(b)
      const list = await servers(b, mock, s)
      const results = new Map(list.map((x) => [x.name, []]))
      let sent = 0
      for (let round = 0; round < rounds; round++) {
        for (const server of list) {
          const r = await load(b, server, { m: 'chat/mock', w: 0.7, t: seconds, ...s.load })
          if (server.name === 'tollgate') sent += r.all.ok
          results.get(server.name).push(r)
        }
      }
      report(s, results)
      clean = (await reconcile(list[0], mock, sent)) && clean
    } finally {
      await b.end()
    }
  }
  return clean
}
export { number }
