import { randomUUID } from 'node:crypto';
import { chmod, chown, type FileHandle, link, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import type { Cache } from './cache.ts';
import { type Content, downloadKey } from './content.ts';
import { attemptFiles, convert, type ConvertLimits } from './convert.ts';
import { syncEarly } from './earlysync.ts';
import { inspect, type Verdict } from './inspect/inspect.ts';
import { mappedOf } from './inspect/mapped.ts';
import { parseQcow2 } from './inspect/qcow2.ts';
import { sampleOf } from './inspect/sample.ts';
import { layOut, layoutOf } from './layout.ts';
import { expectedSum, obtain, type ObtainTask } from './obtain.ts';
import { openPartial, type Partial } from './partial.ts';
import { type Packing, packingOf, unpack } from './unpack.ts';
import type { FetchLimits, Hashed } from './web/fetch.ts';
import type { Guard } from './web/guard.ts';

/** What bounds an import. */
export type ImportLimits = { fetch: FetchLimits; convert: ConvertLimits; maxVirtualBytes: number };

/** What an import works with. */
export type ImportKit = {
  cache: Cache;
  /** Stands in front of every request. */
  guard: Guard;
  limits: ImportLimits;
  /** The Unix user that conversions run as. */
  unixId: number;
  /** Of this boot of the node. */
  bootId: string;
  /** Lets only so many conversions run at a time. */
  turn: <T>(act: () => Promise<T>, signal: AbortSignal) => Promise<T>;
};

/** One attempt: what is wanted, and who listens. */
export type ImportTask = ObtainTask;

/** How far an import is at the end of each of its parts, in percent. */
const shares = { fetched: 80, unpacked: 90, converted: 99 };

/**
 * One attempt to import an image: fetch and hash, compare, unpack, inspect, convert, take into the cache. What was fetched stays
 * for the next attempt when that may go better, of all else no partial file stays; a crash leaves one that the next start
 * clears and nobody uses. Nobody else imports under the same key meanwhile. Faults: those of `obtain`, `unpack`, `inspect`
 * and `convert`.
 */
export const importOnce = async (kit: ImportKit, task: ImportTask, signal: AbortSignal): Promise<Content> => {
  const key = downloadKey(task.desire());
  try {
    const content = await attempt(kit, task, join(kit.cache.partial, key), signal);
    await kit.cache.dropPartial(key);
    return content;
  } catch (thrown) {
    // On a full disk the part that was fetched is removed, to make room for other images.
    const useless = thrown instanceof Fault && (thrown.retry === 'never' || thrown.code === 'NoSpace');
    if (useless || downloadKey(task.desire()) !== key) await kit.cache.dropPartial(key);
    throw thrown;
  }
};

const attempt = async (kit: ImportKit, task: ImportTask, downloads: string, signal: AbortSignal): Promise<Content> => {
  const { cache, guard, limits } = kit;
  const desire = task.desire();
  const { format, uid } = desire;
  const web = { guard, limits: limits.fetch, freeBytes: cache.freeBytes };
  const expected = await expectedSum(web, desire, signal);
  const there = expected === undefined || desire.checksum !== undefined ? undefined : cache.find({ ...desire, checksum: expected });
  if (there) return there;
  await using partial = await openPartial(downloads, kit.bootId);
  const fetching: ObtainTask = { desire: task.desire, progress: (percent) => task.progress(Math.floor((percent * shares.fetched) / 100)) };
  const fetched = await obtain(web, fetching, expected, partial, signal);
  const known = cache.get(fetched.sha256);
  if (known?.format === format) return await amended(cache, known, fetched);
  const directory = join(cache.partial, randomUUID());
  await mkdir(directory, { mode: 0o700 });
  try {
    const verdict = await sourceIn(kit, partial, directory, format, signal);
    task.progress(shares.unpacked);
    const finished = join(directory, attemptFiles.converted);
    await using converted = await open(finished, 'wx+', 0o600);
    const laidOut = await prepared(converted, directory, verdict);
    const early = syncEarly(converted);
    await convertInto(kit, directory, converted, { ...verdict, laidOut }, (percent) => {
      task.progress(percent);
      early.more();
    }, signal);
    const { virtualSizeBytes } = inspect(await sampleOf(converted), 'qcow2', Math.max(limits.maxVirtualBytes, verdict.virtualSizeBytes));
    await converted.chown(0, 0);
    await converted.chmod(0o444);
    await early.end();
    signal.throwIfAborted();
    const entry: Content = { ...fetched, format, virtualSizeBytes, fileBytes: (await converted.stat()).size, importedFor: uid };
    await cache.commit(finished, entry);
    return entry;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

/** Puts the disk into a directory, unpacked if need be, where the user of conversions may read it; only after it was inspected. */
const sourceIn = async (kit: ImportKit, partial: Partial, directory: string, format: 'qcow2' | 'raw', signal: AbortSignal): Promise<Verdict> => {
  const path = join(directory, attemptFiles.source);
  const packed = await sampleOf(partial.file);
  const packing = packingOf(packed.head);
  await chown(directory, 0, kit.unixId);
  await chmod(directory, 0o750);
  if (packing === undefined) {
    const verdict = inspect(packed, format, kit.limits.maxVirtualBytes);
    await link(partial.path, path);
    await lend(partial.file, kit.unixId);
    return verdict;
  }
  await using file = await open(path, 'wx+', 0o600);
  await unpackInto(kit, packing, partial.path, file, directory, signal);
  const verdict = inspect(await sampleOf(file), format, kit.limits.maxVirtualBytes);
  await lend(file, kit.unixId);
  return verdict;
};

const lend = async (file: FileHandle, unixId: number): Promise<void> => {
  await file.chown(0, unixId);
  await file.chmod(0o440);
};

const unpackInto = (kit: ImportKit, packing: Packing, source: string, sink: FileHandle, directory: string, signal: AbortSignal): Promise<void> => {
  const { cache, limits, unixId } = kit;
  return kit.turn(() => unpack({
    packing, source, sink, directory, unixId, limits: limits.convert, maxBytes: limits.maxVirtualBytes,
    checkSpace: async () => {
      const free = await cache.freeBytes();
      if (free < limits.fetch.keepFreeBytes) throw new Fault('NoSpace', `the image cache has ${free} bytes free, too few to unpack the image; ${limits.fetch.keepFreeBytes} are kept free`);
    },
  }, signal), signal);
};

/** Gives the data of a compressed qcow2 its places in the file that it will be converted into. Whether it did. */
const prepared = async (converted: FileHandle, directory: string, { format, virtualSizeBytes }: Verdict): Promise<boolean> => {
  if (format !== 'qcow2') return false;
  await using source = await open(join(directory, attemptFiles.source), 'r');
  const { head, fileBytes } = await sampleOf(source);
  const mapped = await mappedOf(source, parseQcow2(head, fileBytes));
  if (mapped) await layOut(converted, layoutOf(virtualSizeBytes, mapped));
  return mapped !== undefined;
};

/** Converts what lies in a directory into its other file, which is there and empty. `progress` is told each percent of the import once. */
const convertInto = async (kit: ImportKit, directory: string, converted: FileHandle, source: Verdict & { laidOut: boolean }, progress: (percent: number) => void, signal: AbortSignal): Promise<void> => {
  const { cache, limits, unixId } = kit;
  try {
    await converted.chown(unixId, unixId);
    let told = shares.unpacked;
    const share = (percent: number): void => {
      const all = shares.unpacked + Math.floor((percent * (shares.converted - shares.unpacked)) / 100);
      if (all > told) progress(told = all);
    };
    await kit.turn(() => convert({ directory, ...source, unixId, limits: limits.convert, progress: share }, signal), signal);
  } catch (cause) {
    signal.throwIfAborted();
    const free = await cache.freeBytes();
    if (free >= limits.fetch.keepFreeBytes) throw cause;
    throw new Fault('NoSpace', `the image cache has ${free} bytes free, too few to convert the image`, { cause });
  }
};

/** Another image has brought the same bytes already; perhaps this one asked for one more hash of them. */
const amended = async (cache: Cache, known: Content, { sha512 }: Hashed): Promise<Content> => {
  if (sha512 === undefined || known.sha512 !== undefined) return known;
  const entry = { ...known, sha512 };
  await cache.amend(entry);
  return entry;
};
