import { randomUUID } from 'node:crypto';
import { chmod, chown, type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import type { Cache, Content } from './cache.ts';
import { attemptFiles, convert, type ConvertLimits } from './convert.ts';
import { type Fetched, type FetchLimits, fetchTo } from './web/fetch.ts';
import type { Guard } from './web/guard.ts';
import { headBytes, inspect, type Sample, tailBytes } from './inspect/inspect.ts';

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
  /** Lets only so many conversions run at a time. */
  turn: <T>(act: () => Promise<T>, signal: AbortSignal) => Promise<T>;
};

/** One attempt: what is wanted (asked again once the bytes are there: it may have been pinned meanwhile), and who listens. */
export type ImportTask = { desire: () => DesiredImage; progress: (percent: number) => void };

const fetchShare = 90;

/**
 * One attempt to import an image: fetch and hash, compare, inspect, convert, take into the cache. Whatever way it ends,
 * no partial file stays; a crash leaves one that the next start clears and nobody uses. Faults: those of `fetchTo`,
 * `inspect` and `convert`, and ChecksumMismatch, DigestMismatch (both for ever).
 */
export const importOnce = async (kit: ImportKit, task: ImportTask, signal: AbortSignal): Promise<Content> => {
  const { cache, guard, limits, unixId } = kit;
  const desire = task.desire();
  const directory = join(cache.partial, randomUUID());
  await mkdir(directory, { mode: 0o700 });
  try {
    const path = join(directory, attemptFiles.fetched);
    await using fetchedFile = await open(path, 'wx+', 0o600);
    const fetched = await fetchTo(
      {
        url: desire.url,
        file: fetchedFile,
        sha512: desire.checksum?.startsWith('sha512:') ?? false,
        guard,
        limits: limits.fetch,
        freeBytes: cache.freeBytes,
        progress: (received, total) => task.progress(total === undefined || total === 0 ? 0 : Math.floor((received / total) * fetchShare)),
      },
      signal,
    );
    compare(task.desire(), fetched);
    const verdict = inspect(await sampleOf(fetchedFile, fetched.sizeBytes), desire.format, limits.maxVirtualBytes);
    const known = cache.get(fetched.sha256);
    if (known?.format === desire.format) return await amended(cache, known, fetched);

    task.progress(fetchShare);
    await fetchedFile.chown(0, unixId);
    await fetchedFile.chmod(0o440);
    await chown(directory, 0, unixId);
    await chmod(directory, 0o750);
    const { virtualSizeBytes } = verdict;
    const finished = join(directory, attemptFiles.converted);
    await using converted = await open(finished, 'wx+', 0o600);
    await converted.chown(unixId, unixId);
    await kit.turn(() => convertOrNoSpace(kit, directory, verdict, task.progress, signal), signal);
    const result = inspect(await sampleOf(converted), 'qcow2', Math.max(limits.maxVirtualBytes, virtualSizeBytes));
    await converted.chown(0, 0);
    await converted.chmod(0o444);
    await converted.sync();
    signal.throwIfAborted();
    const entry: Content = {
      ...fetched,
      format: desire.format,
      virtualSizeBytes: result.virtualSizeBytes,
      fileBytes: (await converted.stat()).size,
      importedFor: desire.uid,
    };
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
  verdict: { format: 'qcow2' | 'raw'; virtualSizeBytes: number },
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
