import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { refused } from '../inspect/refused.ts';
import { type Guard, parseSource, shown } from './guard.ts';
import { openUrl, type OpenLimits } from './open.ts';

/** Bounds of one download. `idleMs` bounds each wait for more bytes. */
export type FetchLimits = OpenLimits & { idleMs: number; totalMs: number; maxBytes: number; keepFreeBytes: number };

/** What to fetch, and where to put it. `freeBytes` says how much the file system still takes. */
export type FetchTask = {
  url: string;
  file: FileHandle;
  sha512: boolean;
  guard: Guard;
  limits: FetchLimits;
  freeBytes: () => Promise<number>;
  /** Called with each arrived part; `total` when the server said so. */
  progress: (received: number, total: number | undefined) => void;
};

/** What was fetched; hashes in hex. */
export type Fetched = { sizeBytes: number; sha256: string; sha512?: string };

const spaceCheckBytes = 64 * 1024 * 1024;

/**
 * Streams a URL into a file, hashing on the way; memory use does not depend on the size. The bytes are taken as they
 * come (no content encoding). Faults: SourceRefused, DownloadFailed (named by HTTP status or
 * network error; later), ImageRefused (too large), NoSpace. Source: RFC 9110.
 */
export const fetchTo = async (task: FetchTask, signal: AbortSignal): Promise<Fetched> => {
  const whole = AbortSignal.any([signal, AbortSignal.timeout(task.limits.totalMs)]);
  const source = parseSource(task.url);
  try {
    const response = await openUrl({ url: task.url, accept: [200] }, task.guard, task.limits, whole);
    try {
      return await receive(response, task, whole);
    } finally {
      response.destroy();
    }
  } catch (thrown) {
    signal.throwIfAborted();
    const code = Error.isError(thrown) && 'code' in thrown && thrown.code === 'ENOSPC' ? 'NoSpace' : 'DownloadFailed';
    throw asFault(thrown, code, `fetching ${shown(source)}`);
  }
};

const receive = async (response: IncomingMessage, task: FetchTask, signal: AbortSignal): Promise<Fetched> => {
  const { limits } = task;
  const length = response.headers['content-length'];
  const total = length === undefined ? undefined : Number(length);
  if (total !== undefined && total > limits.maxBytes) return tooLarge(limits.maxBytes);
  await checkSpace(task, total ?? 0);
  const sha256 = createHash('sha256');
  const sha512 = task.sha512 ? createHash('sha512') : undefined;
  const parts: AsyncIterator<Buffer> = response.iterator({ destroyOnReturn: true });
  let received = 0;
  let checked = 0;
  for (;;) {
    const part = await nextPart(parts, response, limits.idleMs);
    signal.throwIfAborted();
    if (part.done === true) break;
    received += part.value.byteLength;
    if (received > limits.maxBytes) return tooLarge(limits.maxBytes);
    sha256.update(part.value);
    sha512?.update(part.value);
    await writeAll(task.file, part.value);
    task.progress(received, total);
    if (received - checked >= spaceCheckBytes) {
      checked = received;
      await checkSpace(task, 0);
    }
  }
  if (total !== undefined && received !== total) throw new Fault('DownloadFailed', `it ended after ${received} of ${total} bytes`);
  return { sizeBytes: received, sha256: sha256.digest('hex'), ...(sha512 ? { sha512: sha512.digest('hex') } : {}) };
};

const tooLarge = (most: number): never => refused(`the file is larger than ${most} bytes, the most that this node fetches`);

/** Ends the response when nothing arrives; time that we ourselves spend on writing does not count. */
const nextPart = async (parts: AsyncIterator<Buffer>, response: IncomingMessage, idleMs: number): Promise<IteratorResult<Buffer>> => {
  const timer = setTimeout(() => response.destroy(new Fault('DownloadFailed', `no byte arrived for ${idleMs / 1000} s`)), idleMs);
  try {
    return await parts.next();
  } finally {
    clearTimeout(timer);
  }
};

const writeAll = async (file: FileHandle, bytes: Buffer): Promise<void> => {
  for (let at = 0; at < bytes.byteLength; ) at += (await file.write(bytes, at, bytes.byteLength - at)).bytesWritten;
};

const checkSpace = async ({ freeBytes, limits }: FetchTask, coming: number): Promise<void> => {
  const free = await freeBytes();
  if (free - coming >= limits.keepFreeBytes) return;
  throw new Fault('NoSpace', `the image cache has ${free} bytes free; ${coming} more are needed, and ${limits.keepFreeBytes} are kept free`);
};
