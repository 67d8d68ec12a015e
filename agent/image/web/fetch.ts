import type { IncomingMessage } from 'node:http';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { errnoOf } from '../../storage/durable.ts';
import { refused } from '../inspect/refused.ts';
import type { Origin, Partial } from '../partial.ts';
import { type Guard, parseSource, shown } from './guard.ts';
import { type Hasher, makeHasher } from './hasher.ts';
import { failed, openUrl, type OpenLimits } from './open.ts';
import { restOf, strongValidator, wholeOfRest } from './range.ts';
import { makeSink } from './sink.ts';

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

/** How far a download is. `received` is in the file. */
type Sofar = { origin: Origin; received: number; resumed: boolean };

const spaceCheckBytes = 64 * 1024 * 1024;

/**
 * Streams a URL into a file, and hashes that meanwhile; memory use does not depend on the size. The bytes are taken as they come (no
 * content encoding). What an earlier attempt has fetched of the same URL is kept if the server can say that the rest belongs
 * to it; else all is fetched anew. Faults: SourceRefused, DownloadFailed (named by HTTP status or network error; later; what
 * arrived stays), ImageRefused (too large), NoSpace. Source: RFC 9110.
 */
export const fetchTo = async (task: FetchTask, signal: AbortSignal): Promise<Fetched> => {
  const whole = AbortSignal.any([signal, AbortSignal.timeout(task.limits.totalMs)]);
  const source = parseSource(task.url);
  try {
    await using hasher = makeHasher({ path: task.partial.path, sha512: task.sha512 });
    const sofar = takeUp(task);
    hasher.reached(sofar.received);
    for (let cuts = 0; ; cuts += 1) {
      const before = sofar.received;
      try {
        if (sofar.received !== sofar.origin.totalBytes) await receive(await ask(task, sofar, hasher, whole), task, sofar, hasher, whole);
        return { sizeBytes: sofar.received, ...(await hasher.end(sofar.received, whole)), resumed: sofar.resumed };
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

/** What is there already; of its bytes nothing but the file is kept anywhere, so they are hashed from that. */
const takeUp = ({ partial: { found }, url }: FetchTask): Sofar => {
  const fresh: Sofar = { origin: { url }, received: 0, resumed: false };
  if (found?.origin.url !== url) return fresh;
  const { origin, receivedBytes } = found;
  const complete = receivedBytes === origin.totalBytes;
  if (!complete && (!restOf(origin, receivedBytes) || receivedBytes > (origin.totalBytes ?? Number.MAX_SAFE_INTEGER))) return fresh;
  return { origin, received: receivedBytes, resumed: true };
};

/** Asks for the rest, or for all when there is nothing yet or the server gives no rest that fits. */
const ask = async (task: FetchTask, sofar: Sofar, hasher: Hasher, signal: AbortSignal): Promise<IncomingMessage> => {
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
    if (status === 200) return anew(task, sofar, hasher, response);
    response.destroy();
  }
  return anew(task, sofar, hasher, await openUrl({ url, accept: [200] }, guard, limits, signal));
};

const anew = async (task: FetchTask, sofar: Sofar, hasher: Hasher, response: IncomingMessage): Promise<IncomingMessage> => {
  const length = response.headers['content-length'];
  const validator = strongValidator(response.headers);
  const origin = { url: task.url, ...(validator === undefined ? {} : { validator }), ...(length === undefined ? {} : { totalBytes: Number(length) }) };
  await hasher.restart();
  await task.partial.begin(origin);
  Object.assign(sofar, { origin, received: 0, resumed: false });
  return response;
};

const receive = async (response: IncomingMessage, task: FetchTask, sofar: Sofar, hasher: Hasher, signal: AbortSignal): Promise<void> => {
  const { limits, partial } = task;
  const url = parseSource(task.url);
  const total = sofar.origin.totalBytes;
  const sink = makeSink(partial.file, sofar.received, (upTo) => {
    sofar.received = upTo;
    hasher.reached(upTo);
    task.progress(upTo, total);
  });
  try {
    if (total !== undefined && total > limits.maxBytes) return tooLarge(limits.maxBytes);
    await checkSpace(task, (total ?? sofar.received) - sofar.received);
    const parts: AsyncIterator<Buffer> = response.iterator({ destroyOnReturn: true });
    let [taken, checked] = [sofar.received, sofar.received];
    for (;;) {
      const part = await nextPart(parts, response, () => failed(url, `no byte arrived for ${limits.idleMs / 1000} s`), limits.idleMs);
      signal.throwIfAborted();
      if (part.done === true) break;
      taken += part.value.byteLength;
      if (taken > limits.maxBytes) return tooLarge(limits.maxBytes);
      if (taken > (total ?? taken)) throw failed(url, `more arrives than the ${total} bytes that were promised`);
      await sink.take(part.value);
      if (taken - checked >= spaceCheckBytes) {
        checked = taken;
        await checkSpace(task, 0);
      }
    }
    await sink.flush();
    if (total !== undefined && taken !== total) throw failed(url, `it ended after ${taken} of ${total} bytes`);
    // From here on a later attempt needs no server.
    if (total === undefined) await partial.note({ ...sofar.origin, totalBytes: taken });
  } catch (thrown) {
    // What arrived stays, and nothing is written any more once this is over.
    await sink.flush().catch(() => {});
    signal.throwIfAborted();
    throw asFault(thrown, errnoOf(thrown) === 'ENOSPC' ? 'NoSpace' : 'DownloadFailed', `fetching ${shown(url)}`);
  } finally {
    response.destroy();
  }
};

const tooLarge = (most: number): never => refused(`the file is larger than ${most} bytes, the most that this node fetches`);

/** Ends the response when nothing arrives; time that we ourselves spend on writing does not count. */
const nextPart = async (parts: AsyncIterator<Buffer>, response: IncomingMessage, silent: () => Fault, idleMs: number): Promise<IteratorResult<Buffer>> => {
  const timer = setTimeout(() => response.destroy(silent()), idleMs);
  try {
    return await parts.next();
  } finally {
    clearTimeout(timer);
  }
};

const checkSpace = async ({ freeBytes, limits }: FetchTask, coming: number): Promise<void> => {
  const free = await freeBytes();
  if (free - coming >= limits.keepFreeBytes) return;
  throw new Fault('NoSpace', `the image cache has ${free} bytes free; ${coming} more are needed, and ${limits.keepFreeBytes} are kept free`);
};
