/* A private certificate authority and certificates of every sort, made with openssl in a folder of the caller's.
 * All for the name "localhost" and the address 127.0.0.1, but for `wrong`. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const CA_CONF = (dir) => `
[ca]
default_ca = ours
[ours]
dir = ${dir}
new_certs_dir = ${dir}
database = ${dir}/index
serial = ${dir}/serial
certificate = ${dir}/ca.pem
private_key = ${dir}/ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = dn
prompt = no
[dn]
CN = localhost
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[clientonly]
extendedKeyUsage = clientAuth
[plain]
basicConstraints = critical,CA:FALSE
`
const DAY_MS = 24 * 3600 * 1000
const stamp = (t) => new Date(t).toISOString().replace(/[-:T]/g, '').slice(0, 14) + 'Z'

/* {ca, good, rsa, wrong, expired, notyet, selfsigned, …}: ca is a path, the others {key, cert} in PEM; `chained` has its
 * intermediate behind it, `truncated` is the same without. */
export function makeCerts(dir) {
  mkdirSync(dir, { recursive: true })
  const openssl = (...args) => execFileSync('openssl', args, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] })
  writeFileSync(path.join(dir, 'index'), '')
  writeFileSync(path.join(dir, 'serial'), '1000\n')
  writeFileSync(path.join(dir, 'ca.cnf'), CA_CONF(dir))
  const ec = (file) => openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', file)
  ec('ca.key')
  openssl('req', '-x509', '-config', 'ca.cnf', '-extensions', 'authority', '-key', 'ca.key', '-subj', '/CN=Test authority',
    '-days', '30', '-out', 'ca.pem')
  const pair = (name) => ({ key: readFileSync(path.join(dir, `${name}.key`), 'utf8'), cert: readFileSync(path.join(dir, `${name}.pem`), 'utf8') })
  const issue = (name, { san = 'DNS:localhost,IP:127.0.0.1', from = Date.now() - DAY_MS, to = Date.now() + 30 * DAY_MS, rsa = false, bits = '2048', md = 'sha256', ext, by } = {}) => {
    if (rsa) openssl('genrsa', '-out', `${name}.key`, bits)
    else ec(`${name}.key`)
    openssl('req', '-new', '-config', 'ca.cnf', '-key', `${name}.key`, '-subj', `/CN=${name}`, '-addext', `subjectAltName=${san}`,
      '-out', `${name}.csr`)
    openssl('ca', '-batch', '-notext', '-config', 'ca.cnf', '-md', md, ...(ext ? ['-extensions', ext] : []),
      ...(by ? ['-cert', `${by}.pem`, '-keyfile', `${by}.key`] : []), '-startdate', stamp(from), '-enddate', stamp(to), '-in', `${name}.csr`,
      '-out', `${name}.pem`)
    return pair(name)
  }
  const out = {
    ca: path.join(dir, 'ca.pem'),
    good: issue('good'),
    rsa: issue('rsa', { rsa: true }),
    wrong: issue('wrong', { san: 'DNS:elsewhere.example' }),
    expired: issue('expired', { from: Date.now() - 20 * DAY_MS, to: Date.now() - DAY_MS }),
    notyet: issue('notyet', { from: Date.now() + 10 * DAY_MS }),
  }
  Object.assign(out, {
    clientonly: issue('clientonly', { ext: 'clientonly' }),
    weak: issue('weak', { rsa: true, bits: '1024' }),
    sha1: issue('sha1', { md: 'sha1' }),
    middle: issue('middle', { ext: 'authority' }),
    chained: issue('chained', { by: 'middle' }),
    noauthority: issue('noauthority', { ext: 'plain' }),
    byleaf: issue('byleaf', { by: 'noauthority' }),
    noname: issue('noname', { san: 'IP:127.0.0.9' }),
  })
  out.truncated = { ...out.chained }
  out.chained = { key: out.chained.key, cert: out.chained.cert + out.middle.cert }
  out.byleaf.cert += out.noauthority.cert
  ec('self.key')
  openssl('req', '-x509', '-config', 'ca.cnf', '-key', 'self.key', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
    '-days', '30', '-out', 'self.pem')
  out.selfsigned = pair('self')
  return out
}
