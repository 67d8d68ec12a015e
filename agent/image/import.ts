import { randomUUID } from 'node:crypto';
import { chmod, chown, type FileHandle, link, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { type Cache, type Content, downloadKey } from './cache.ts';
import { attemptFiles, convert, type ConvertLimits } from './convert.ts';
import { type Fetched, type FetchLimits, fetchTo } from './web/fetch.ts';
import type { Guard } from './web/guard.ts';
import { headBytes, inspect, type Sample, tailBytes, type Verdict } from './inspect/inspect.ts';
import { openPartial, type Partial } from './partial.ts';

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

/** One attempt: what is wanted (asked again once the bytes are there: it may have been pinned meanwhile), and who listens. */
export type ImportTask = { desire: () => DesiredImage; progress: (percent: number) => void };

const fetchShare = 90;

/**
 * One attempt to import an image: fetch and hash, compare, inspect, convert, take into the cache. What was fetched stays for the
 * next attempt when that may go better, of all else no partial file stays; a crash leaves one that the next start clears and
 * nobody uses. Nobody else imports under the same key meanwhile. Faults: those of `fetchTo`, `inspect` and `convert`, and
 * ChecksumMismatch, DigestMismatch (both for ever).
 */
export const importOnce = async (kit: ImportKit, task: ImportTask, signal: AbortSignal): Promise<Content> => {
  const key = downloadKey(task.desire());
  try {
    const content = await attempt(kit, task, join(kit.cache.partial, key), signal);
    await kit.cache.dropPartial(key);
    return content;
  } catch (thrown) {
    // On a full disk what is there of one image is the room of another.
    const useless = thrown instanceof Fault && (thrown.retry === 'never' || thrown.code === 'NoSpace');
    if (useless || downloadKey(task.desire()) !== key) await kit.cache.dropPartial(key);
    throw thrown;
  }
};

const attempt = async (kit: ImportKit, task: ImportTask, directory: string, signal: AbortSignal): Promise<Content> => {
  const { cache, limits } = kit;
  const { format, uid } = task.desire();
  await using partial = await openPartial(directory, kit.bootId);
  const fetched = await fetchRight(kit, task, partial, signal);
  const verdict = inspect(await sampleOf(partial.file, fetched.sizeBytes), format, limits.maxVirtualBytes);
  const known = cache.get(fetched.sha256);
  if (known?.format === format) return await amended(cache, known, fetched);
  task.progress(fetchShare);
  return await convertIn(kit, partial, verdict, task.progress, signal, ({ fileBytes, virtualSizeBytes }) => ({
    sha256: fetched.sha256, ...(fetched.sha512 === undefined ? {} : { sha512: fetched.sha512 }), format, sizeBytes: fetched.sizeBytes,
    virtualSizeBytes, fileBytes, importedFor: uid,
  }));
};

/** Fetches the bytes that are asked for. Wrong ones that arrived in several parts may have been joined wrongly: they are fetched anew, once. */
const fetchRight = async (kit: ImportKit, task: ImportTask, partial: Partial, signal: AbortSignal): Promise<Fetched> => {
  const desire = task.desire();
  const fetchTask = {
    url: desire.url, guard: kit.guard, limits: kit.limits.fetch, freeBytes: kit.cache.freeBytes,
    sha512: desire.checksum?.startsWith('sha512:') ?? false,
    progress: (received: number, total: number | undefined) => task.progress(total === undefined || total === 0 ? 0 : Math.floor((received / total) * fetchShare)),
  };
  const fetched = await fetchTo({ ...fetchTask, partial }, signal);
  try {
    compare(task.desire(), fetched);
    return fetched;
  } catch (thrown) {
    if (!fetched.resumed) throw thrown;
    const again = await fetchTo({ ...fetchTask, partial: { ...partial, found: undefined } }, signal);
    compare(task.desire(), again);
    return again;
  }
};

/** Converts in a directory of its own, which the user of conversions may enter, and takes the result into the cache. */
const convertIn = async (
  kit: ImportKit,
  partial: Partial,
  verdict: Verdict,
  progress: (percent: number) => void,
  signal: AbortSignal,
  describe: (result: { fileBytes: number; virtualSizeBytes: number }) => Content,
): Promise<Content> => {
  const { cache, limits, unixId } = kit;
  const directory = join(cache.partial, randomUUID());
  await mkdir(directory, { mode: 0o700 });
  try {
    await link(partial.path, join(directory, attemptFiles.fetched));
    await partial.file.chown(0, unixId);
    await partial.file.chmod(0o440);
    await chown(directory, 0, unixId);
    await chmod(directory, 0o750);
    const finished = join(directory, attemptFiles.converted);
    await using converted = await open(finished, 'wx+', 0o600);
    await converted.chown(unixId, unixId);
    await kit.turn(() => convertOrNoSpace(kit, directory, verdict, progress, signal), signal);
    const result = inspect(await sampleOf(converted), 'qcow2', Math.max(limits.maxVirtualBytes, verdict.virtualSizeBytes));
    await converted.chown(0, 0);
    await converted.chmod(0o444);
    await converted.sync();
    signal.throwIfAborted();
    const entry = describe({ fileBytes: (await converted.stat()).size, virtualSizeBytes: result.virtualSizeBytes });
    await cache.commit(finished, entry);
    return entry;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

/** Another image has brought the same bytes already; perhaps this one asked for one more hash of them. */
const amended = async (cache: Cache, known: Content, { sha512 }: Fetched): Promise<Content> => {
  if (sha512 === undefined || known.sha512 !== undefined) return known;
  const entry = { ...known, sha512 };
  await cache.amend(entry);
  return entry;
};

const compare = (desire: DesiredImage, got: Fetched): void => {
  const digest = `sha256:${got.sha256}`;
  const sum = desire.checksum?.startsWith('sha512:') ? `sha512:${got.sha512 ?? ''}` : digest;
  if (desire.checksum !== undefined && desire.checksum !== sum) {
    throw new Fault('ChecksumMismatch', `the fetched bytes hash to ${sum}, but ${desire.checksum} is expected; correct the checksum or the source in a new image`, { retry: 'never' });
  }
  if (desire.digest !== undefined && desire.digest !== digest) {
    throw new Fault('DigestMismatch', `the source now serves ${digest}, but this image was first imported as ${desire.digest}; create another image for the new content`, { retry: 'never' });
  }
};

const convertOrNoSpace = async (
  { cache, limits, unixId }: ImportKit,
  directory: string,
  verdict: Verdict,
  progress: (percent: number) => void,
  signal: AbortSignal,
): Promise<void> => {
  try {
    await convert(
      { directory, ...verdict, unixId, limits: limits.convert, progress: (percent) => progress(fetchShare + Math.floor((percent * (99 - fetchShare)) / 100)) },
      signal,
    );
  } catch (cause) {
    signal.throwIfAborted();
    const free = await cache.freeBytes();
    if (free >= limits.fetch.keepFreeBytes) throw cause;
    throw new Fault('NoSpace', `the image cache has ${free} bytes free, too few to convert the image`, { cause });
  }
};

const sampleOf = async (file: FileHandle, knownBytes?: number): Promise<Sample> => {
  const fileBytes = knownBytes ?? (await file.stat()).size;
  const read = async (bytes: number, at: number): Promise<Uint8Array> => {
    const buffer = Buffer.alloc(bytes);
    const { bytesRead } = await file.read(buffer, 0, bytes, at);
    return buffer.subarray(0, bytesRead);
  };
  const tail = Math.min(tailBytes, fileBytes);
  return { head: await read(Math.min(headBytes, fileBytes), 0), tail: await read(tail, fileBytes - tail), fileBytes };
};
