import { mkdir, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { type DesiredImage, desiredImage, uid as uidForm } from '#crds/wire/desired.ts';
import { errnoOf, syncDirectory, writeWhole } from '../storage/durable.ts';
import { seal, unseal } from './sealed.ts';
import { slots } from '#crds/kit/slots.ts';

const hex64 = z.string().regex(/^[0-9a-f]{64}$/);
const content = z.strictObject({
  /** Of the fetched bytes, in hex; the name of the content. */
  sha256: hex64,
  sha512: z.string().regex(/^[0-9a-f]{128}$/).optional(),
  format: z.enum(['qcow2', 'raw']),
  /** Of the fetched file. */
  sizeBytes: z.int().min(0),
  virtualSizeBytes: z.int().min(1),
  /** Of our own qcow2. */
  fileBytes: z.int().min(1),
  /** The image that it was imported for first; tells whose it is when a crash came before the claim was completed. */
  importedFor: uidForm,
});
const claim = z.strictObject({ desire: desiredImage, sha256: hex64.optional() });

/** One imported content. */
export type Content = z.output<typeof content>;
/** That an image is wanted, and which content it turned out to be. */
export type Claim = z.output<typeof claim>;

/**
 * What lies in the image cache. A content counts only with its sidecar, which is written last.
 *
 *   SHA256.qcow2     our own qcow2, root, 0444, never written again
 *   SHA256.json      its sidecar: sizes and hashes, sealed
 *   wanted/UID.json  a claim: which image is wanted, and its content once that is known; sealed
 *   partial/KEY/     a download that may be unfinished, of those who share it (see downloadKey); taken up again after a restart
 *   partial/ID/      one conversion; whatever is there at a start is rubbish
 */
export type Cache = {
  directory: string;
  partial: string;
  /** Forgets what was downloaded under a key. */
  dropPartial: (key: string) => Promise<void>;
  file: (sha256: string) => string;
  /** A content that is known to be what the image asks for, by hash or by an earlier import; undefined when only a download can tell. */
  find: (desire: DesiredImage, known?: string) => Content | undefined;
  get: (sha256: string) => Content | undefined;
  /** Takes a finished qcow2 into the cache: rename, sidecar, fsync. The file must be synced already. */
  commit: (finished: string, entry: Content) => Promise<void>;
  /** Writes the sidecar of a content that is there, with one more hash. */
  amend: (entry: Content) => Promise<void>;
  evict: (sha256: string) => Promise<void>;
  claim: (claim: Claim) => Promise<void>;
  unclaim: (uid: string) => Promise<void>;
  freeBytes: () => Promise<number>;
};

/** Whether a content is what an image asks for; undefined when the answer needs a hash that was not made. Pure. */
export const fits = (desire: DesiredImage, entry: Pick<Content, 'sha256' | 'sha512' | 'format'>): boolean | undefined => {
  if (desire.format !== entry.format) return false;
  if (desire.digest !== undefined && desire.digest !== `sha256:${entry.sha256}`) return false;
  if (desire.checksum === undefined) return true;
  if (desire.checksum.startsWith('sha256:')) return desire.checksum === `sha256:${entry.sha256}`;
  return entry.sha512 === undefined ? undefined : desire.checksum === `sha512:${entry.sha512}`;
};

/** What makes two images one download: bytes that are known to be the same, else only the image itself. In hex. Pure. */
export const downloadKey = ({ uid, format, digest, checksum, checksumUrl, url }: DesiredImage): string =>
  digestOf([format, digest ?? checksum ?? (checksumUrl === undefined ? uid : [checksumUrl, url])]);

/** Opens the cache (one process at a time: the agent's lock sees to that), clears what crashes left behind, and tells the claims that were found. */
export const openCache = async (directory: string, log: Pick<Logger, 'warn'>): Promise<{ cache: Cache; claims: Claim[] }> => {
  const wanted = join(directory, 'wanted');
  const partial = join(directory, 'partial');
  const file = (sha256: string) => join(directory, `${sha256}.qcow2`);
  const sidecar = (sha256: string) => join(directory, `${sha256}.json`);
  const owner = { mode: 0o644, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  // What can not be tidied now (a full disk, a read-only one) is tidied at a later start; what is there can be used.
  const tidied = (doing: Promise<void>): Promise<void> => doing.catch((thrown: unknown) => log.warn({ directory, err: thrown }, 'the image cache could not be tidied'));
  for (const each of [directory, wanted, partial]) await mkdir(each, { recursive: true, mode: 0o711 });

  const contents = new Map<string, Content>();
  // Contents and claims change one at a time: a removal must not take the file of an import that ends meanwhile.
  const turn = slots(1);
  const inTurn = (act: () => Promise<void>): Promise<void> => turn(act, new AbortController().signal);
  const evict = async (sha256: string): Promise<void> => {
    contents.delete(sha256);
    await rm(sidecar(sha256), { force: true });
    await rm(file(sha256), { force: true });
    await syncDirectory(directory);
  };
  const describe = async (entry: Content): Promise<void> => {
    await writeWhole(sidecar(entry.sha256), owner, async (handle) => {
      await handle.writeFile(seal(entry));
    });
    contents.set(entry.sha256, entry);
  };

  const { claims, damaged } = await readClaims(wanted, log);
  const names = await readdir(directory);
  for (const sha256 of new Set(names.flatMap((name) => /^([0-9a-f]{64})\.(qcow2|json)(\.new)?$/.exec(name)?.[1] ?? []))) {
    const entry = await readContent(sidecar(sha256), file(sha256), sha256);
    // With a damaged claim, nobody can tell what is unclaimed.
    if (entry && (damaged || claims.some((each) => isClaimedBy(entry, each)))) contents.set(sha256, entry);
    else {
      log.warn({ sha256 }, 'an unfinished, damaged or unclaimed content is removed from the image cache');
      await tidied(evict(sha256));
    }
    await tidied(rm(`${sidecar(sha256)}.new`, { force: true }));
  }

  const completed = claims.map((each) => ({ ...each, ...sha256Of([...contents.values()].find((entry) => isClaimedBy(entry, each))) }));
  const unfinished = completed.filter(({ sha256 }) => sha256 === undefined || !contents.has(sha256)).map(({ desire }) => downloadKey(desire));
  for (const name of await readdir(partial)) if (!unfinished.includes(name)) await tidied(rm(join(partial, name), { recursive: true, force: true }));

  const cache: Cache = {
    directory,
    partial,
    dropPartial: (key) => rm(join(partial, hex64.parse(key)), { recursive: true, force: true }),
    file,
    get: (sha256) => contents.get(sha256),
    find: (desire, known) => {
      const certain = desire.digest !== undefined || desire.checksum !== undefined;
      return [...contents.values()].find((entry) => (certain || entry.sha256 === known) && fits(desire, entry) === true);
    },
    commit: (finished, entry) => inTurn(async () => {
      await rename(finished, file(entry.sha256));
      await describe(entry);
    }),
    amend: (entry) => inTurn(() => describe(entry)),
    evict: (sha256) => inTurn(() => evict(sha256)),
    claim: (made) => inTurn(() =>
      writeWhole(join(wanted, `${uidForm.parse(made.desire.uid)}.json`), owner, async (handle) => {
        await handle.writeFile(seal(made));
      })),
    unclaim: (uid) => inTurn(async () => {
      await rm(join(wanted, `${uidForm.parse(uid)}.json`), { force: true });
      await syncDirectory(wanted);
    }),
    freeBytes: async () => {
      const { bsize, bavail } = await statfs(directory);
      return bsize * bavail;
    },
  };
  return { cache, claims: completed };
};

const sha256Of = (entry: Content | undefined): { sha256?: string } => (entry ? { sha256: entry.sha256 } : {});

const isClaimedBy = (entry: Content, by: Claim): boolean =>
  by.sha256 === undefined ? entry.importedFor === by.desire.uid && fits(by.desire, entry) === true : by.sha256 === entry.sha256;

const readClaims = async (wanted: string, log: Pick<Logger, 'warn'>): Promise<{ claims: Claim[]; damaged: boolean }> => {
  const claims: Claim[] = [];
  let damaged = false;
  for (const name of await readdir(wanted)) {
    const found = unseal(await readFile(join(wanted, name), 'utf8'), claim);
    if (found && name === `${found.desire.uid}.json`) claims.push(found);
    else {
      damaged ||= !name.endsWith('.new');
      // It is only a memory aid: the operator says again what it wants.
      log.warn({ file: name }, 'a damaged or unfinished claim is removed from the image cache');
      await rm(join(wanted, name), { recursive: true, force: true }).catch(() => {});
    }
  }
  return { claims, damaged };
};

const readContent = async (sidecar: string, file: string, sha256: string): Promise<Content | undefined> => {
  try {
    const entry = unseal(await readFile(sidecar, 'utf8'), content);
    const { size } = await stat(file);
    return entry?.sha256 === sha256 && entry.fileBytes === size ? entry : undefined;
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
};
