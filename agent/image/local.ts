import type { Logger } from 'pino';
import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { digestOf } from '#crds/kit/digest.ts';
import { asFault, type Fault } from '#crds/kit/fault.ts';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import type { Paths } from '../host/paths.ts';
import { orAborted } from './aborted.ts';
import { type Content, downloadKey, fits, openCache } from './cache.ts';
import { type ImportKit, type ImportLimits, importOnce } from './import.ts';
import { limitsFor } from './limits.ts';
import { slots } from '#crds/kit/slots.ts';
import type { ImageStore } from './store.ts';
import type { Guard } from './web/guard.ts';

const mebibyte = 1024 * 1024;

/** What the image store of a node needs. `chance` gives numbers in [0, 1) for the jitter of retries. */
export type ImageStoreOptions = {
  paths: Pick<Paths, 'images'>;
  /** The Unix user that conversions run as: one of the agent's range that no VM ever gets. */
  unixId: number;
  /** Stands in front of every request. */
  guard: Guard;
  /** Of this boot of the node: what was downloaded before it is not gone on with. */
  bootId: string;
  clock: Clock;
  chance: () => number;
  log: Pick<Logger, 'info' | 'warn'>;
  limits?: ImportLimits;
  backoff?: Backoff;
  conversionsAtOnce?: number;
};

/**
 *   importing -> ready      with `trouble`: it failed and is tried again
 *   importing -> failed     for ever, until the desire changes
 */
type Entry = {
  desire: DesiredImage;
  state: ObservedImage['state'];
  progress: number;
  content?: Content;
  trouble?: NonNullable<ObservedImage['trouble']>;
  abort: AbortController;
  done: Promise<void>;
};

type Flight = { end: Promise<Content | undefined>; progress: Set<(percent: number) => void> };

/** A store that stops its imports when it is disposed; what they fetched so far is lost, what is wanted is not. */
export type LocalImageStore = ImageStore & AsyncDisposable;

/**
 * Opens the images of this node. What was wanted before a restart is known at once, what was imported is ready without a
 * download, and unfinished imports begin anew. Must run as root (conversions change to `unixId`).
 */
export const makeImageStore = async (options: ImageStoreOptions): Promise<LocalImageStore> => {
  const { bootId, clock, chance, guard, log, unixId, limits = limitsFor(mebibyte), backoff = { baseMs: 1_000, maxMs: 300_000 } } = options;
  const { cache, claims } = await openCache(options.paths.images, log);
  const kit: ImportKit = { bootId, cache, guard, limits, unixId, turn: slots(options.conversionsAtOnce ?? 2) };
  const entries = new Map<string, Entry>();
  const flights = new Map<string, Flight>();
  const watchers = new Set<(uid: string) => void>();

  const changed = (entry: Entry): void => {
    const { uid } = entry.desire;
    if (entries.get(uid) === entry) for (const watcher of watchers) watcher(uid);
  };
  const progressed = (entry: Entry, percent: number): void => {
    const progress = Math.floor(percent / 10) * 10;
    if (entry.state !== 'importing' || progress === entry.progress) return;
    entry.progress = progress;
    changed(entry);
  };
  const becomeReady = (entry: Entry, content: Content): void => {
    entry.content = content;
    entry.state = 'ready';
    entry.progress = 100;
    delete entry.trouble;
  };
  const becomeTroubled = (entry: Entry, fault: Fault): void => {
    const { name, namespace, uid } = entry.desire;
    if (entry.trouble?.reason !== fault.code) log.warn({ uid, namespace, name, reason: fault.code, err: fault }, 'an image import failed');
    const final = fault.retry === 'never';
    entry.trouble = { reason: fault.code, message: fault.message.slice(0, 4096), final };
    entry.state = final ? 'failed' : 'importing';
    if (final) entry.progress = 0;
    changed(entry);
  };

  /** One flight, led by this entry. Followers of it hear its progress and, when it ends, look for themselves. */
  const lead = async (key: string, entry: Entry): Promise<Content> => {
    const progress: Flight['progress'] = new Set([(percent) => progressed(entry, percent)]);
    const landed = importOnce(kit, { desire: () => entry.desire, progress: (percent) => progress.forEach((hear) => hear(percent)) }, entry.abort.signal);
    flights.set(key, { end: landed.catch(() => undefined), progress });
    try {
      return await landed;
    } finally {
      flights.delete(key);
    }
  };
  const follow = async (flight: Flight, entry: Entry): Promise<void> => {
    const hear = (percent: number): void => progressed(entry, percent);
    flight.progress.add(hear);
    try {
      await orAborted(flight.end, entry.abort.signal);
    } finally {
      flight.progress.delete(hear);
    }
  };
  const obtain = async (entry: Entry, known?: string): Promise<void> => {
    for (;;) {
      entry.abort.signal.throwIfAborted();
      const found = cache.find(entry.desire, known);
      if (found) return becomeReady(entry, found);
      const key = downloadKey(entry.desire);
      const flight = flights.get(key);
      if (flight) await follow(flight, entry);
      else {
        const content = await lead(key, entry);
        // It may have been pinned to something else while the bytes were on their way: then the next round says so.
        if (fits(entry.desire, content) !== false) return becomeReady(entry, content);
      }
    }
  };
  const save = async (entry: Entry): Promise<void> => {
    // A store that was given up, or an entry that was replaced or removed, has no say any more.
    if (entries.get(entry.desire.uid) !== entry) return;
    await cache.claim({ desire: entry.desire, ...(entry.content ? { sha256: entry.content.sha256 } : {}) });
  };
  const work = async (entry: Entry, known?: string): Promise<void> => {
    const { signal } = entry.abort;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      const before = entry.progress;
      try {
        await save(entry);
        await obtain(entry, known);
        await save(entry);
        const { uid, namespace, name } = entry.desire;
        log.info({ uid, namespace, name, digest: entry.content?.sha256 }, 'an image is ready');
        return changed(entry);
      } catch (thrown) {
        if (signal.aborted) return;
        becomeTroubled(entry, asFault(thrown, 'ImportFailed', 'importing the image'));
        if (entry.state === 'failed') return;
        // A download that gets on in parts is no failure that repeats itself.
        if (entry.progress > before) attempt = 0;
        await clock.sleep(jittered(backoff, attempt, chance()), signal).catch(() => {});
      }
    }
  };
  /** What was downloaded for an image that is not imported any more goes, unless another one shares it. */
  const dropPartial = async (of: DesiredImage): Promise<void> => {
    const key = downloadKey(of);
    if (![...entries.values()].some(({ desire, state }) => state === 'importing' && downloadKey(desire) === key)) await cache.dropPartial(key);
  };
  const begin = (desire: DesiredImage, after: Promise<void>, known?: string): Entry => {
    const entry: Entry = { desire, state: 'importing', progress: 0, abort: new AbortController(), done: after };
    entries.set(desire.uid, entry);
    const found = known === undefined ? undefined : cache.find(desire, known);
    if (found) becomeReady(entry, found);
    entry.done = after.then(() => (entry.state === 'ready' ? save(entry) : work(entry, known))).catch((thrown: unknown) => {
      log.warn({ uid: desire.uid, err: thrown }, 'what is known of an image could not be written down');
    });
    changed(entry);
    return entry;
  };
  const observe = (uid: string): ObservedImage | undefined => {
    const entry = entries.get(uid);
    if (!entry) return undefined;
    const { desire, state, progress, content, trouble } = entry;
    return {
      kind: 'image', uid, generation: desire.generation, digest: desireDigest(desire), state, progress,
      ...(content ? { content: { digest: `sha256:${content.sha256}`, sizeBytes: content.sizeBytes, virtualSizeBytes: content.virtualSizeBytes } } : {}),
      ...(trouble ? { trouble } : {}),
    };
  };
  for (const { desire, sha256 } of claims) begin(desire, Promise.resolve(), sha256);

  return {
    want: (desire) => {
      const old = entries.get(desire.uid);
      if (old && desireDigest(old.desire) === desireDigest(desire)) return;
      if (old && old.state !== 'failed' && sameSource(old.desire, desire) && (!old.content || fits(desire, old.content) === true)) {
        old.desire = desire;
        old.done = old.done.then(() => save(old)).catch(() => {});
        changed(old);
        return;
      }
      old?.abort.abort();
      begin(desire, old?.done.then(() => dropPartial(old.desire)) ?? Promise.resolve(), old?.desire.url === desire.url ? old.content?.sha256 : undefined);
    },
    ready: (uid) => {
      const entry = entries.get(uid);
      if (entry?.state !== 'ready' || !entry.content) return undefined;
      const { sha256, virtualSizeBytes } = entry.content;
      return { file: cache.file(sha256), digest: `sha256:${sha256}`, virtualSizeMiB: Math.ceil(virtualSizeBytes / mebibyte) };
    },
    observe,
    list: () => [...entries.keys()].flatMap((uid) => observe(uid) ?? []),
    remove: async (uid, signal) => {
      signal.throwIfAborted();
      const entry = entries.get(uid);
      entries.delete(uid);
      if (entry) for (const watcher of watchers) watcher(uid);
      entry?.abort.abort();
      if (entry) await orAborted(entry.done, signal);
      if (entries.has(uid)) return;
      await cache.unclaim(uid);
      if (entry) await dropPartial(entry.desire);
      const sha256 = entry?.content?.sha256;
      if (sha256 !== undefined && ![...entries.values()].some((each) => each.content?.sha256 === sha256)) await cache.evict(sha256);
    },
    watch: (listener) => {
      watchers.add(listener);
      return { [Symbol.dispose]: () => void watchers.delete(listener) };
    },
    [Symbol.asyncDispose]: async () => {
      const all = [...entries.values()];
      for (const { abort } of all) abort.abort();
      await Promise.all(all.map(({ done }) => done));
    },
  };
};

const sameSource = (a: DesiredImage, b: DesiredImage): boolean => sourceOf(a) === sourceOf(b);

const sourceOf = ({ url, mirrors, format, checksum, checksumUrl }: DesiredImage): string => digestOf({ url, mirrors, format, checksum, checksumUrl });
