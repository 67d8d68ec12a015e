import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runChild } from '../cache/child.ts';

/** Files of a certificate and its key. */
export type Pair = { cert: string; key: string };

/** A certificate that is wanted: `subject` as openssl writes it, `names` as in subjectAltName, `use` of the key. */
export type WantedCert = { name: string; subject: string; names?: readonly string[]; use: 'server' | 'client' | 'both' };

/** A certificate authority and what it signs. */
export type WantedAuthority = { name: string; certs: readonly WantedCert[] };

const days = 3650;
const renewedBeforeMs = 60 * 24 * 3600 * 1000;
const uses = { server: 'serverAuth', client: 'clientAuth', both: 'serverAuth,clientAuth' };

/** The files of a certificate in `dir`. */
export const pairOf = (dir: string, name: string): Pair => ({ cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) });

/**
 * Whether a certificate can be used: key and certificate belong together, the authority signed it, it names what is wanted and
 * holds for two more months. `texts` are PEM; undefined when a file is missing.
 */
const isUsable = (texts: { cert?: string | undefined; key?: string | undefined; authority?: string | undefined }, names: readonly string[], now: Date): boolean => {
  const { cert, key, authority } = texts;
  if (cert === undefined || key === undefined) return false;
  try {
    const parsed = new X509Certificate(cert);
    if (!parsed.checkPrivateKey(createPrivateKey(key))) return false;
    if (authority !== undefined && !parsed.verify(new X509Certificate(authority).publicKey)) return false;
    const held = (parsed.subjectAltName ?? '').replaceAll('IP Address:', 'IP:').split(', ').filter((each) => each !== '');
    return names.every((name) => held.includes(name)) && Date.parse(parsed.validTo) - now.getTime() > renewedBeforeMs;
  } catch {
    return false;
  }
};

const text = (file: string) => readFile(file, 'utf8').catch(() => undefined);

/**
 * Makes what is missing or unusable of authorities, certificates and the key that signs ServiceAccount tokens, all in `dir`
 * (0700). A new authority has all of its certificates made anew. Files get their names by rename: a torn run leaves none.
 * Source: openssl-req(1).
 */
export const ensureKeys = async (dir: string, authorities: readonly WantedAuthority[], signal: AbortSignal): Promise<void> => {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await chmod(dir, 0o700);
  // An empty configuration: that of the system would add extensions of an authority to every certificate.
  await writeFile(join(dir, 'openssl.cnf'), '[req]\ndistinguished_name=dn\n[dn]\n');
  await Promise.all([...authorities.map((each) => ensureAuthority(dir, each, signal)), ensureSigningKey(dir)]);
};

const ensureAuthority = async (dir: string, { name, certs }: WantedAuthority, signal: AbortSignal): Promise<void> => {
  const authority = pairOf(dir, name);
  const now = new Date();
  if (!isUsable({ cert: await text(authority.cert), key: await text(authority.key) }, [], now)) {
    await make(dir, authority, ['-subj', `/CN=strato-${name}`, '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'], signal);
  }
  await Promise.all(certs.map(async (wanted) => {
    const pair = pairOf(dir, wanted.name);
    const names = wanted.names ?? [];
    if (isUsable({ cert: await text(pair.cert), key: await text(pair.key), authority: await text(authority.cert) }, names, now)) return;
    await make(dir, pair, [
      '-subj', wanted.subject, '-CA', authority.cert, '-CAkey', authority.key,
      '-addext', 'basicConstraints=critical,CA:FALSE', '-addext', `extendedKeyUsage=${uses[wanted.use]}`,
      ...(names.length === 0 ? [] : ['-addext', `subjectAltName=${names.join(',')}`]),
    ], signal);
  }));
};

const make = async (dir: string, pair: Pair, args: readonly string[], signal: AbortSignal): Promise<void> => {
  const fresh = { cert: `${pair.cert}.new`, key: `${pair.key}.new` };
  await openssl(dir, ['req', '-x509', '-config', 'openssl.cnf', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-sha256', '-days', String(days), '-keyout', fresh.key, '-out', fresh.cert, ...args], signal);
  // Without its certificate the old key is unusable, so a run that ends between the two renames is repaired by the next.
  await rm(pair.cert, { force: true });
  await rename(fresh.key, pair.key);
  await rename(fresh.cert, pair.cert);
};

const ensureSigningKey = async (dir: string): Promise<void> => {
  const key = join(dir, 'service-accounts.key');
  const publicKey = join(dir, 'service-accounts.pub');
  const held = await text(key);
  const spki = (pem: string) => createPublicKey(pem).export({ type: 'spki', format: 'pem' }).toString();
  if (held !== undefined && (await text(publicKey)) === spki(held)) return;
  const pem = held ?? generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  await writeFile(`${key}.new`, pem, { mode: 0o600 });
  await rename(`${key}.new`, key);
  await writeFile(`${publicKey}.new`, spki(pem));
  await rename(`${publicKey}.new`, publicKey);
};

const openssl = (dir: string, args: readonly string[], signal: AbortSignal): Promise<string> =>
  runChild('openssl', args, { cwd: dir, env: { PATH: process.env.PATH }, signal, timeoutMs: 30_000 });
