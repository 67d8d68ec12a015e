import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { errnoOf } from '../../storage/durable.ts';
import { refused } from '../inspect/refused.ts';
import type { Origin, Partial } from '../partial.ts';
import { type Guard, parseSource, shown } from './guard.ts';
import { failed, openUrl, type OpenLimits } from './open.ts';
import { restOf, strongValidator, wholeOfRest } from './range.ts';

/** Bounds of one download. `idleMs` bounds each wait for more bytes, `resumes` how often a cut one is gone on with at once. */
export type FetchLimits = OpenLimits & { idleMs: number; totalMs: number; maxBytes: number; keepFreeBytes: number; resumes: number };

/** What to fetch, and where to put it. `freeBytes` says how much the file system still takes. */
export type FetchTask = {
  url: string;
  partial: Partial;
  sha512: boolean;
  guard: Guard;
  limits: FetchLimits;
  freeBytes: () => Promise<number>;
  /** Called with each arrived part; `total` when the server said so. */
  progress: (received: number, total: number | undefined) => void;
};

/** What is known of bytes; hashes in hex. */
export type Hashed = { sizeBytes: number; sha256: string; sha512?: string };

/** What was fetched. `resumed`: parts of it arrived over different connections. */
export type Fetched = Hashed & { resumed: boolean };

/** How far a download is. */
type Sofar = { origin: Origin; received: number; sha256: Hash; sha512: Hash | undefined; resumed: boolean };

const spaceCheckBytes = 64 * 1024 * 1024;
const readBytes = 1024 * 1024;

/**
 * Streams a URL into a file, hashing on the way; memory use does not depend on the size. The bytes are taken as they come (no
 * content encoding). What an earlier attempt has fetched of the same URL is kept if the server can say that the rest belongs
 * to it; else all is fetched anew. Faults: SourceRefused, DownloadFailed (named by HTTP status or network error; later; what
 * arrived stays), ImageRefused (too large), NoSpace. Source: RFC 9110.
 */
export const fetchTo = async (task: FetchTask, signal: AbortSignal): Promise<Fetched> => {
  const whole = AbortSignal.any([signal, AbortSignal.timeout(task.limits.totalMs)]);
  const source = parseSource(task.url);
  try {
    const sofar = await takeUp(task, whole);
    for (let cuts = 0; ; cuts += 1) {
      const before = sofar.received;
      try {
        if (sofar.received !== sofar.origin.totalBytes) await receive(await ask(task, sofar, whole), task, sofar, whole);
        return endOf(sofar);
      } catch (thrown) {
        const cut = thrown instanceof Fault && thrown.code === 'DownloadFailed' && sofar.received > before;
        if (whole.aborted || !cut || cuts >= task.limits.resumes || !restOf(sofar.origin, sofar.received)) throw thrown;
        sofar.resumed = true;
      }
    }
  } catch (thrown) {
    signal.throwIfAborted();
    if (whole.aborted) throw failed(source, `it took longer than ${task.limits.totalMs / 1000} s`, thrown);
    throw asFault(thrown, errnoOf(thrown) === 'ENOSPC' ? 'NoSpace' : 'DownloadFailed', `fetching ${shown(source)}`);
  }
};

const hashes = ({ sha512 }: FetchTask): Pick<Sofar, 'sha256' | 'sha512'> => ({ sha256: createHash('sha256'), sha512: sha512 ? createHash('sha512') : undefined });

const endOf = ({ received, sha256, sha512, resumed }: Sofar): Fetched =>
  ({ sizeBytes: received, sha256: sha256.copy().digest('hex'), ...(sha512 ? { sha512: sha512.copy().digest('hex') } : {}), resumed });

/** What is there already, hashed from the file: a hash that was half made is not kept anywhere. */
const takeUp = async (task: FetchTask, signal: AbortSignal): Promise<Sofar> => {
  const { partial: { found, file }, url } = task;
  const fresh: Sofar = { origin: { url }, received: 0, ...hashes(task), resumed: false };
  if (found?.origin.url !== url) return fresh;
  const { origin, receivedBytes } = found;
  const complete = receivedBytes === origin.totalBytes;
  if (!complete && (!restOf(origin, receivedBytes) || receivedBytes > (origin.totalBytes ?? Number.MAX_SAFE_INTEGER))) return fresh;
  const buffer = Buffer.alloc(readBytes);
  for (let at = 0; at < receivedBytes; ) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, Math.min(readBytes, receivedBytes - at), at);
    if (bytesRead === 0) return { ...fresh, ...hashes(task) };
    fresh.sha256.update(buffer.subarray(0, bytesRead));
    fresh.sha512?.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  return { ...fresh, origin, received: receivedBytes, resumed: true };
};

/** Asks for the rest, or for all when there is nothing yet or the server gives no rest that fits. */
const ask = async (task: FetchTask, sofar: Sofar, signal: AbortSignal): Promise<IncomingMessage> => {
  const { url, guard, limits } = task;
  const rest = restOf(sofar.origin, sofar.received);
  if (rest) {
    // 416: it is shorter now. 200: it is another one now, or the server knows no ranges.
    const response = await openUrl({ url, headers: rest, accept: [200, 206, 416] }, guard, limits, signal);
    const status = response.statusCode ?? 0;
    const total = wholeOfRest({ status, headers: response.headers }, sofar.origin, sofar.received);
    if (total !== undefined) {
      sofar.origin = { ...sofar.origin, totalBytes: total };
      return response;
    }
    if (status === 200) return anew(task, sofar, response);
    response.destroy();
  }
  return anew(task, sofar, await openUrl({ url, accept: [200] }, guard, limits, signal));
};

const anew = async (task: FetchTask, sofar: Sofar, response: IncomingMessage): Promise<IncomingMessage> => {
  const length = response.headers['content-length'];
  const validator = strongValidator(response.headers);
  const origin = { url: task.url, ...(validator === undefined ? {} : { validator }), ...(length === undefined ? {} : { totalBytes: Number(length) }) };
  await task.partial.begin(origin);
  Object.assign(sofar, { origin, received: 0, ...hashes(task), resumed: false });
  return response;
};

const receive = async (response: IncomingMessage, task: FetchTask, sofar: Sofar, signal: AbortSignal): Promise<void> => {
  const { limits, partial } = task;
  const url = parseSource(task.url);
  try {
    const total = sofar.origin.totalBytes;
    if (total !== undefined && total > limits.maxBytes) return tooLarge(limits.maxBytes);
    await checkSpace(task, (total ?? sofar.received) - sofar.received);
    const parts: AsyncIterator<Buffer> = response.iterator({ destroyOnReturn: true });
    let checked = sofar.received;
    for (;;) {
      const part = await nextPart(parts, response, failed(url, `no byte arrived for ${limits.idleMs / 1000} s`), limits.idleMs);
      signal.throwIfAborted();
      if (part.done === true) break;
      const next = sofar.received + part.value.byteLength;
      if (next > limits.maxBytes) return tooLarge(limits.maxBytes);
      if (next > (total ?? next)) throw failed(url, `more arrives than the ${total} bytes that were promised`);
      await writeAll(partial.file, part.value, sofar.received);
      sofar.sha256.update(part.value);
      sofar.sha512?.update(part.value);
      sofar.received = next;
      task.progress(next, total);
      if (next - checked >= spaceCheckBytes) {
        checked = next;
        await checkSpace(task, 0);
      }
    }
    if (total !== undefined && sofar.received !== total) throw failed(url, `it ended after ${sofar.received} of ${total} bytes`);
    // From here on a later attempt needs no server.
    if (total === undefined) await partial.note({ ...sofar.origin, totalBytes: sofar.received });
  } catch (thrown) {
    signal.throwIfAborted();
    throw asFault(thrown, errnoOf(thrown) === 'ENOSPC' ? 'NoSpace' : 'DownloadFailed', `fetching ${shown(url)}`);
  } finally {
    response.destroy();
  }
};

const tooLarge = (most: number): never => refused(`the file is larger than ${most} bytes, the most that this node fetches`);

/** Ends the response when nothing arrives; time that we ourselves spend on writing does not count. */
const nextPart = async (parts: AsyncIterator<Buffer>, response: IncomingMessage, silent: Fault, idleMs: number): Promise<IteratorResult<Buffer>> => {
  const timer = setTimeout(() => response.destroy(silent), idleMs);
  try {
    return await parts.next();
  } finally {
    clearTimeout(timer);
  }
};

const writeAll = async (file: FileHandle, bytes: Buffer, position: number): Promise<void> => {
  for (let at = 0; at < bytes.byteLength; ) at += (await file.write(bytes, at, bytes.byteLength - at, position + at)).bytesWritten;
};

const checkSpace = async ({ freeBytes, limits }: FetchTask, coming: number): Promise<void> => {
  const free = await freeBytes();
  if (free - coming >= limits.keepFreeBytes) return;
  throw new Fault('NoSpace', `the image cache has ${free} bytes free; ${coming} more are needed, and ${limits.keepFreeBytes} are kept free`);
};
