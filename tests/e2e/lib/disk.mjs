/* Disks in trouble, by mounts, which take root: null where they cannot be had. Unmounted after the test. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { later } from './clean.mjs'

const mount = (...args) => execFileSync('mount', args, { stdio: 'pipe' })
const unmount = (dir) => { try { execFileSync('umount', ['-l', dir], { stdio: 'pipe' }) } catch { /* gone */ } }

/* mounts(dir), then gone after the test, and also where the test process ends before its time */
function mounted(t, mounts) {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tg-disk-'))
  const gone = () => { unmount(dir); rmSync(dir, { recursive: true, force: true }) }
  try { mounts(dir) } catch { gone(); return null }
  process.once('exit', gone)
  later(t, () => { process.off('exit', gone); gone() })
  return dir
}

/* A disk of 24 MB: {dir, fill(), empty()} */
export function smallDisk(t) {
  const dir = mounted(t, (d) => mount('-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', d)), filler = path.join(dir ?? '', 'filler')
  return dir && {
    dir,
    fill() { // to the last block: what is written frees and takes some itself
      mkdirSync(filler)
      for (let i = 0; i < 4; i++) {
        const { bavail, bsize } = statfsSync(dir)
        try { writeFileSync(path.join(filler, `${i}`), Buffer.alloc(bavail * bsize, 1)) } catch { /* full */ }
      }
    },
    empty() { rmSync(filler, { recursive: true, force: true }) },
  }
}
/* A folder that can be made read-only for those who come, while who has files open there goes on: {dir, lock(), unlock()} */
export function lockableDisk(t) {
  const over = (d) => { mount('--bind', d, d); mount('-o', 'remount,bind,ro', d) }
  const dir = mounted(t, (d) => { over(d); unmount(d) })
  return dir && { dir, lock: () => over(dir), unlock: () => unmount(dir) }
}
