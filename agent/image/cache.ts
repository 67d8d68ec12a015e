import { mkdir, readdir, readFile, rename, rm, stat, statfs, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type DesiredImage, uid as uidForm } from '#crds/wire/desired.ts';
import { slots } from '#crds/kit/slots.ts';
import { errnoOf, syncDirectory, writeWhole } from '../storage/durable.ts';
import { type Claim, claim, type Content, content, downloadKey, fits, hex64, isClaimedBy } from './content.ts';
import type { Cached } from './evict.ts';
import { seal, unseal } from './sealed.ts';

/**
 * What lies in the image cache. A content counts only with its sidecar, which is written last.
 *
 *   SHA256.qcow2     our own qcow2, root, 0444, never written again
 *   SHA256.json      its sidecar: sizes and hashes, sealed; its time is that of the last use, within ten minutes
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
  /** From now on a content is not there; its files go with `evict`. */
  forget: (sha256: string) => void;
  /** Removes the files of a content that was forgotten, unless it has come anew meanwhile. */
  evict: (sha256: string) => Promise<void>;
  /** Every content, with what decides whether it stays. */
  survey: () => Promise<Cached[]>;
  /** A content is in use. */
  touch: (sha256: string) => void;
  claim: (claim: Claim) => Promise<void>;
  unclaim: (uid: string) => Promise<void>;
  freeBytes: () => Promise<number>;
};

const noteEachMs = 600_000;

/**
 * Opens the cache (one process at a time: the agent's lock sees to that), clears what crashes left behind, and tells the
 * claims that were found. `nowMs` is the wall clock.
 */
export const openCache = async (directory: string, nowMs: () => number, log: Pick<Logger, 'warn'>): Promise<{ cache: Cache; claims: Claim[] }> => {
  const wanted = join(directory, 'wanted');
  const partial = join(directory, 'partial');
  const file = (sha256: string) => join(directory, `${sha256}.qcow2`);
  const sidecar = (sha256: string) => join(directory, `${sha256}.json`);
  const owner = { mode: 0o644, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  // What can not be tidied now (a full disk, a read-only one) is tidied at a later start; what is there can be used.
  const tidied = (doing: Promise<void>): Promise<void> => doing.catch((thrown: unknown) => log.warn({ directory, err: thrown }, 'the image cache could not be tidied'));
  for (const each of [directory, wanted, partial]) await mkdir(each, { recursive: true, mode: 0o711 });

  const contents = new Map<string, Content>();
  // When each was last used, and when that was last written down.
  const used = new Map<string, { atMs: number; notedMs: number }>();
  // Contents and claims change one at a time: a removal must not take the file of an import that ends meanwhile.
  const turn = slots(1);
  const inTurn = (act: () => Promise<void>): Promise<void> => turn(act, new AbortController().signal);
  const evict = async (sha256: string): Promise<void> => {
    if (contents.has(sha256)) return;
    used.delete(sha256);
    await rm(sidecar(sha256), { force: true });
    await rm(file(sha256), { force: true });
    await syncDirectory(directory);
  };
  const describe = async (entry: Content): Promise<void> => {
    const now = nowMs();
    await writeWhole(sidecar(entry.sha256), owner, async (handle) => {
      await handle.writeFile(seal(entry));
      await handle.utimes(now / 1000, now / 1000);
    });
    contents.set(entry.sha256, entry);
    used.set(entry.sha256, { atMs: now, notedMs: now });
  };

  const { claims, damaged } = await readClaims(wanted, log);
  const names = await readdir(directory);
  for (const sha256 of new Set(names.flatMap((name) => /^([0-9a-f]{64})\.(qcow2|json)(\.new)?$/.exec(name)?.[1] ?? []))) {
    const found = await readContent(sidecar(sha256), file(sha256), sha256);
    // While any claim is damaged every content may be claimed.
    if (found && (damaged || claims.some((each) => isClaimedBy(found.entry, each)))) {
      contents.set(sha256, found.entry);
      // A node that has set its clock back would keep what it used before for as long.
      const atMs = Math.min(found.usedMs, nowMs());
      used.set(sha256, { atMs, notedMs: atMs });
    } else {
      log.warn({ sha256 }, 'an unfinished, damaged or unclaimed content is removed from the image cache');
      await tidied(evict(sha256));
    }
    await tidied(rm(`${sidecar(sha256)}.new`, { force: true }));
  }

  const completed = claims.map((each): Claim => {
    const sha256 = [...contents.values()].find((entry) => isClaimedBy(entry, each))?.sha256;
    return { ...each, ...(sha256 === undefined ? {} : { sha256 }) };
  });
  const unfinished = completed.filter(({ sha256, evicted }) => !evicted && (sha256 === undefined || !contents.has(sha256))).map(({ desire }) => downloadKey(desire));
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
    amend: (entry) => inTurn(async () => {
      if (contents.has(entry.sha256)) await describe(entry);
    }),
    forget: (sha256) => void contents.delete(sha256),
    evict: (sha256) => inTurn(() => evict(sha256)),
    survey: () => Promise.all([...contents.values()].map(async ({ sha256, fileBytes }): Promise<Cached> => {
      const links = await stat(file(sha256)).then(({ nlink }) => nlink, () => 1);
      return { sha256, fileBytes, lastUsedMs: used.get(sha256)?.atMs ?? 0, linked: links > 1 };
    })),
    touch: (sha256) => {
      const now = nowMs();
      const notedMs = used.get(sha256)?.notedMs ?? 0;
      const due = now - notedMs >= noteEachMs;
      used.set(sha256, { atMs: now, notedMs: due ? now : notedMs });
      // Only for the order of evictions after a restart: when it can't be written, nothing is lost.
      if (due) void utimes(sidecar(sha256), now / 1000, now / 1000).catch(() => {});
    },
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

const readContent = async (sidecar: string, file: string, sha256: string): Promise<{ entry: Content; usedMs: number } | undefined> => {
  try {
    const entry = unseal(await readFile(sidecar, 'utf8'), content);
    const { size } = await stat(file);
    return entry?.sha256 === sha256 && entry.fileBytes === size ? { entry, usedMs: (await stat(sidecar)).mtimeMs } : undefined;
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
};
