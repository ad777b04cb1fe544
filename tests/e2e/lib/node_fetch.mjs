/* Does this Node's http let node-fetch 2 read chunked answers over kept connections? openai 4 brings node-fetch 2, which takes
 * an answer for cut when, as it ends, its socket still has a listener: some Nodes leave one (nodejs/node#63989, in Debian 13's
 * 20.19.2 and others), and every server's answers fail. Asked of a server of Node's own; the exit code says it.
 * tests/e2e/run then has openai 4 use Node's fetch, by the package's own switch (openai/shims/web). */
import http from 'node:http'
import { createRequire } from 'node:module'

const fetch = createRequire(createRequire(import.meta.url).resolve('openai'))('node-fetch')
const server = http.createServer((_, answer) => { answer.write('all '); answer.end('of it') })
server.listen(0, '127.0.0.1', async () => {
  const agent = new http.Agent({ keepAlive: true })
  try {
    const body = await (await fetch(`http://127.0.0.1:${server.address().port}/`, { agent })).text()
    process.exit(body === 'all of it' ? 0 : 1)
  } catch { process.exit(1) }
})
