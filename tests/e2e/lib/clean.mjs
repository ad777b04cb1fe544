/* What a test leaves behind, taken away again: whoever starts or makes something says so at once, to its own test or, where
 * a file's tests share it, to a list.
 *
 *   later(t, () => server.close())       t: a test's context, or such a list (`cleanUps()` of test.mjs ends with the file)
 *   folder(t)                            a folder of a test's own; gone also where the test process ends before its time */
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export function later(t, f) {
  if (Array.isArray(t)) t.push(f)
  else t.after(f)
}
/* The last first; one that fails keeps no other from its turn. */
export async function cleanUp(list) {
  const failures = []
  while (list.length > 0) await Promise.resolve().then(list.pop()).catch((e) => failures.push(e))
  if (failures.length > 0) throw failures[0]
}

const folders = new Set()
const remove = (dir) => { rmSync(dir, { recursive: true, force: true }); folders.delete(dir) }
process.on('exit', () => { for (const dir of folders) remove(dir) })
export function folder(t) {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tg-')) // short: a control socket's path has 107 bytes
  folders.add(dir)
  later(t, () => remove(dir))
  return dir
}
