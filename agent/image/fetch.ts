import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { FileHandle } from 'node:fs/promises';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { refused } from './inspect/refused.ts';

/** Bounds of one download. `connectMs` covers everything up to the response's header, `idleMs` each wait for more bytes. */
export type FetchLimits = { connectMs: number; idleMs: number; totalMs: number; maxRedirects: number; maxBytes: number; keepFreeBytes: number };

/** What to fetch, and where to put it. `freeBytes` says how much the file system still takes. */
export type FetchTask = {
  url: string;
  file: FileHandle;
  sha512: boolean;
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
 * come (no content encoding). Faults: SourceRefused (not plain http or https), DownloadFailed (named by HTTP status or
 * network error; later), ImageRefused (too large), NoSpace. Source: RFC 9110.
 */
export const fetchTo = async (task: FetchTask, signal: AbortSignal): Promise<Fetched> => {
  const whole = AbortSignal.any([signal, AbortSignal.timeout(task.limits.totalMs)]);
  const source = parseSource(task.url);
  try {
    const response = await follow(source, task.limits, whole);
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

/** A URL that may be fetched. Fault: SourceRefused, for ever. */
export const parseSource = (text: string): URL => {
  const url = URL.parse(text);
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new Fault('SourceRefused', 'only http and https URLs are fetched', { retry: 'never' });
  }
  if (url.username !== '' || url.password !== '') throw new Fault('SourceRefused', 'a URL with a user name or password is not fetched', { retry: 'never' });
  return url;
};

// Queries of pre-signed URLs are secrets: they go into no message and no log.
const shown = (url: URL): string => `${url.origin}${url.pathname}`;

const failed = (url: URL, why: string): Fault => new Fault('DownloadFailed', `fetching ${shown(url)}: ${why}`);

const follow = async (start: URL, limits: FetchLimits, signal: AbortSignal): Promise<IncomingMessage> => {
  let url = start;
  for (let hops = 0; hops <= limits.maxRedirects; hops += 1) {
    const response = await get(url, limits.connectMs, signal);
    const status = response.statusCode ?? 0;
    if (status === 200) return response;
    response.destroy();
    const location = response.headers.location;
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined) throw failed(url, `HTTP ${status} ${response.statusMessage ?? ''}`.trim());
    url = redirected(url, location);
  }
  throw failed(start, `more than ${limits.maxRedirects} redirects`);
};

const redirected = (from: URL, location: string): URL => {
  const to = URL.parse(location, from.href);
  if (!to) throw failed(from, 'it redirects to something that is no URL');
  try {
    return parseSource(to.href);
  } catch (cause) {
    throw new Fault('DownloadFailed', `fetching ${shown(from)}: it redirects to a URL that is not fetched`, { cause });
  }
};

const get = async (url: URL, connectMs: number, signal: AbortSignal): Promise<IncomingMessage> => {
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  // No agent: a connection of its own that ends with the response. The signal ends the body, too.
  const request = send(url, { agent: false, signal, headers: { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': 'strato-agent' } });
  request.on('error', () => {});
  const answered = once(request, 'response', { signal: AbortSignal.any([signal, AbortSignal.timeout(connectMs)]) });
  request.end();
  try {
    const [response]: IncomingMessage[] = await answered;
    if (!response) throw failed(url, 'no response');
    response.on('error', () => {});
    return response;
  } catch (thrown) {
    request.destroy();
    if (signal.aborted || !isAbort(thrown)) throw thrown;
    throw failed(url, `no answer within ${connectMs / 1000} s`);
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

const isAbort = (thrown: unknown): boolean => Error.isError(thrown) && (thrown.name === 'AbortError' || thrown.name === 'TimeoutError');
