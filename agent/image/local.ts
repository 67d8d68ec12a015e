import type { Logger } from 'pino';
import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault, type Fault } from '#crds/kit/fault.ts';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { Paths } from '../host/paths.ts';
import { slots } from '#crds/kit/slots.ts';
import { orAborted } from '#crds/kit/aborted.ts';
import { openCache } from './cache.ts';
import { type Content, downloadKey, fits, sameSource } from './content.ts';
import { type Entry, observedOf } from './entry.ts';
import { type CacheRules, chooseEvictions } from './evict.ts';
import { makeFlights } from './flights.ts';
import { type ImportKit, type ImportLimits, importOnce } from './import.ts';
import { limitsFor, usualCache } from './limits.ts';
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
  cacheRules?: CacheRules;
  /** How often it is looked whether the cache holds too much. */
  sweepMs?: number;
  backoff?: Backoff;
  conversionsAtOnce?: number;
};

/** A store that stops its imports when it is disposed; what is wanted, and what was fetched so far, is taken up by the next one. */
export type LocalImageStore = ImageStore & AsyncDisposable;

/**
 * Opens the images of this node. What was wanted before a restart is known at once, what was imported is ready without a
 * download, and unfinished downloads go on. Must run as root (conversions change to `unixId`).
 */
export const makeImageStore = async (options: ImageStoreOptions): Promise<LocalImageStore> => {
  const { bootId, clock, chance, guard, log, unixId, limits = limitsFor(mebibyte), cacheRules = usualCache, backoff = { baseMs: 1_000, maxMs: 300_000 } } = options;
  const { cache, claims } = await openCache(options.paths.images, () => clock.now().getTime(), log);
  const kit: ImportKit = { bootId, cache, guard, limits, unixId, turn: slots(options.conversionsAtOnce ?? 2) };
  const entries = new Map<string, Entry>();
  const share = makeFlights();
  const watchers = new Set<(uid: string) => void>();
  const closing = new AbortController();
  let inUse: (() => ReadonlySet<string>) | undefined;

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

  const obtain = async (entry: Entry, known?: string): Promise<void> => {
    const hear = (percent: number): void => progressed(entry, percent);
    for (;;) {
      entry.abort.signal.throwIfAborted();
      const found = cache.find(entry.desire, known);
      if (found) {
        cache.touch(found.sha256);
        return becomeReady(entry, found);
      }
      const content = await share(downloadKey(entry.desire), hear, entry.abort.signal, (tell) =>
        importOnce(kit, { desire: () => entry.desire, progress: tell }, entry.abort.signal));
      // Meanwhile the desire may have got another digest, or the content may be evicted again: then the next round decides.
      if (content && fits(entry.desire, content) !== false && cache.get(content.sha256)) return becomeReady(entry, content);
    }
  };
  const save = async (entry: Entry): Promise<void> => {
    // Nothing is recorded of an entry that was replaced or removed meanwhile, or when the store was disposed.
    if (entries.get(entry.desire.uid) !== entry) return;
    const { desire, content, evicted } = entry;
    await cache.claim({ desire, ...(content ? { sha256: content.sha256 } : {}), ...(content && evicted ? { evicted: content } : {}) });
  };

  /** Removes what nobody uses until the cache holds no more than it may, and at least `atLeast` contents. Tells whether any went. */
  const sweep = async (atLeast = 0): Promise<boolean> => {
    if (!inUse) return false;
    const cached = await cache.survey();
    // From here to the last `forget` nothing is awaited: nobody can begin to use what was found idle.
    const wanted = inUse();
    const used = new Set([...entries].flatMap(([uid, { content }]) => (content && wanted.has(uid) ? [content.sha256] : [])));
    for (const sha256 of used) cache.touch(sha256);
    const there = cached.filter(({ sha256 }) => cache.get(sha256));
    // Its image does not know of a content that was imported just now, so it would count as unused.
    for (const { sha256 } of there) if (entries.get(cache.get(sha256)?.importedFor ?? '')?.state === 'importing') used.add(sha256);
    const chosen = chooseEvictions(there, used, cacheRules, clock.now().getTime(), atLeast);
    const gone = [...entries.values()].filter(({ content, evicted }) => content && !evicted && chosen.includes(content.sha256));
    for (const entry of gone) entry.evicted = true;
    for (const sha256 of chosen) cache.forget(sha256);
    for (const entry of gone) {
      changed(entry);
      // On a full disk the eviction can not be recorded; then the next start fetches the image although nobody needs it.
      await save(entry).catch(() => {});
    }
    for (const sha256 of chosen) {
      log.info({ sha256, images: gone.filter(({ content }) => content?.sha256 === sha256).map(({ desire }) => `${desire.namespace}/${desire.name}`) }, 'an image that no VM uses is evicted');
      await cache.evict(sha256);
    }
    return chosen.length > 0;
  };

  const tidy = (): Promise<unknown> => sweep().catch((thrown: unknown) => log.warn({ err: thrown }, 'the image cache could not be looked through'));

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
        changed(entry);
        return void (await tidy());
      } catch (thrown) {
        if (signal.aborted) return;
        const fault = asFault(thrown, 'ImportFailed', 'importing the image');
        if (fault.code === 'NoSpace' && (await sweep(1).catch(() => false))) continue;
        becomeTroubled(entry, fault);
        if (entry.state === 'failed') return;
        // A download that got further than the last time begins again with the shortest delay.
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
  const doing = (entry: Entry, after: Promise<void>, act: () => Promise<void>): void => {
    entry.done = after.then(act).catch((thrown: unknown) => {
      log.warn({ uid: entry.desire.uid, err: thrown }, 'what is known of an image could not be written down');
    });
  };
  const begin = (desire: DesiredImage, after: Promise<void>, known?: string, evicted?: Content): void => {
    const entry: Entry = { desire, state: 'importing', progress: 0, evicted: false, abort: new AbortController(), done: after };
    entries.set(desire.uid, entry);
    const found = known === undefined ? undefined : cache.find(desire, known);
    const content = found ?? (evicted && fits(desire, evicted) === true ? evicted : undefined);
    if (content) becomeReady(entry, content);
    entry.evicted = content !== undefined && !found;
    doing(entry, after, () => (entry.state === 'ready' ? save(entry) : work(entry, known)));
    changed(entry);
  };
  for (const { desire, sha256, evicted } of claims) begin(desire, Promise.resolve(), sha256, evicted);
  const sweeping = (async () => {
    while (!closing.signal.aborted) {
      await clock.sleep(options.sweepMs ?? 60_000, closing.signal).catch(() => {});
      if (!closing.signal.aborted) await tidy();
    }
  })();

  return {
    want: (desire) => {
      const old = entries.get(desire.uid);
      if (old && desireDigest(old.desire) === desireDigest(desire)) return;
      if (old && old.state !== 'failed' && sameSource(old.desire, desire) && (!old.content || fits(desire, old.content) === true)) {
        old.desire = desire;
        doing(old, old.done, () => save(old));
        changed(old);
        return;
      }
      old?.abort.abort();
      begin(desire, old?.done.then(() => dropPartial(old.desire)) ?? Promise.resolve(), old?.desire.url === desire.url ? old.content?.sha256 : undefined);
    },
    need: (uid) => {
      const entry = entries.get(uid);
      if (!entry?.evicted) return;
      const known = entry.content?.sha256;
      Object.assign(entry, { state: 'importing', progress: 0, evicted: false });
      delete entry.content;
      doing(entry, entry.done, () => work(entry, known));
      changed(entry);
    },
    ready: (uid) => {
      const entry = entries.get(uid);
      if (entry?.state !== 'ready' || !entry.content || entry.evicted) return undefined;
      const { sha256, virtualSizeBytes } = entry.content;
      return { file: cache.file(sha256), digest: `sha256:${sha256}`, virtualSizeMiB: Math.ceil(virtualSizeBytes / mebibyte) };
    },
    observe: (uid) => {
      const entry = entries.get(uid);
      return entry && observedOf(entry);
    },
    list: () => [...entries.values()].map(observedOf),
    protect: (tell) => {
      inUse = tell;
    },
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
      if (sha256 === undefined || [...entries.values()].some((each) => each.content?.sha256 === sha256)) return;
      cache.forget(sha256);
      await cache.evict(sha256);
    },
    watch: (listener) => {
      watchers.add(listener);
      return { [Symbol.dispose]: () => void watchers.delete(listener) };
    },
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error('the store is closed'));
      const all = [...entries.values()];
      for (const { abort } of all) abort.abort();
      await Promise.all([sweeping, ...all.map(({ done }) => done)]);
    },
  };
};
