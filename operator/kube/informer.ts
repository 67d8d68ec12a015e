import type { Clock } from '#crds/kit/clock.ts';
import { asFault, messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { type Indexes, makeCache } from './cache.ts';
import { afterEnding, type Ending, type Next, relistBackoff } from './ending.ts';
import { type Held, hold } from './frame.ts';
import type { Kube, Query } from './kube.ts';
import { type Beginning, session, type Step } from './listwatch.ts';
import { compareVersions, pathOf, type Resource } from './resource.ts';
import { watchdog } from './watchdog.ts';

/** How a change came to light: as it happened, by comparing a list, by our own write, or since the cluster's history went back. */
export type SeenBy = 'watch' | 'relist' | 'own' | 'history';

/** That something about a key changed; the handler looks at the cache for what. `last` is what was held of a vanished object. */
export type Change<T> = { is: 'present'; key: string; seenBy: SeenBy } | { is: 'gone'; key: string; seenBy: SeenBy; last: Held<T> };

/** What an informer needs. */
export type InformerOptions<T> = {
  kube: Kube;
  resource: Resource;
  /** All namespaces when unset. */
  namespace?: string | undefined;
  /** `labelSelector`, `fieldSelector`. */
  selector?: Query | undefined;
  /** Parses one object, managedFields dropped; when it throws the object is kept as unparsable. */
  parse: (raw: unknown) => T;
  indexes?: Indexes<T>;
  /** The newest version that this process has ever seen of the resource: a list that is older is of a history that went back. */
  since?: string | undefined;
  /** Told of each change after the cache has it. It only enqueues; what it throws is logged. */
  onChange: (change: Change<T>) => void;
  /** The cluster was restored to an older state: told before the cache changes. Hold every tombstone, raise the epoch. */
  onHistoryWentBack?: (note: { held: string; found: string }) => void;
  log: Log;
  clock: Clock;
  chance: () => number;
  signal: AbortSignal;
};

/** A cache of one resource that follows the cluster until its signal aborts. */
export type Informer<T> = {
  /** What is held under a key, also when it can't be parsed. */
  held: (key: string) => Held<T> | undefined;
  /** Everything held. */
  all: () => readonly Held<T>[];
  /** The object of a key, if our schema understands it. */
  get: (key: string) => T | undefined;
  /** All that our schema understands; the same array until something changes. */
  list: () => readonly T[];
  /** Those that the named index finds under a word. */
  by: (index: string, word: string) => Held<T>[];
  /** Takes the API server's answer to our own write, unless something newer is held. So that we read what we wrote. */
  accept: (raw: unknown) => boolean;
  /** Lists anew, at once; resolves when a list is complete that began after this call. What is held may be as old as a watch that died unseen. */
  refresh: () => Promise<void>;
  /** Whether the cache is a complete list. */
  hasSynced: () => boolean;
  /** The newest version that anything told us of. */
  newest: () => string | undefined;
  /** Resolves at the first complete list; never rejects. */
  synced: Promise<void>;
  /** Resolves when the informer has stopped after an abort. */
  stopped: Promise<void>;
};

/**
 * Follows a resource: one list, then a watch, for ever. Every error leads to a new list after a jittered delay (see `afterEnding`); until it is
 * complete the old content is served. Nothing but an abort of `signal` ends it. Sources: design.md 4; KEP-3157; k8s.io/client-go/tools/cache.
 */
export const startInformer = <T>(options: InformerOptions<T>): Informer<T> => {
  const { clock, chance, log, signal } = options;
  const path = pathOf(options.resource, { namespace: options.namespace });
  const cache = makeCache(options.indexes);
  const firstSync = Promise.withResolvers<void>();
  let synced = false;
  /** Where a watch can go on. */
  let position: string | undefined;
  /** The newest version that anything told us of. */
  let newest = options.since;
  /** What a list must reach: the newest version when it was asked for. Our own writes may overtake it on its way. */
  let sought = newest;
  let trouble: string | undefined;
  let incoming = new Map<string, Held<T>>();
  /** Who waits for a new list, and who of them asked for it before the session of this moment began. */
  const asked = new Set<() => void>();
  let answered: readonly (() => void)[] = [];
  /** Ends the session of this moment, for a new list. */
  let cut = new AbortController();

  const seen = (version: string): void => {
    if (newest === undefined || compareVersions(version, newest) > 0) newest = version;
  };
  const guarded = (what: string, call: () => void): void => {
    try {
      call();
    } catch (thrown) {
      log.error({ path, what, err: thrown }, 'an informer handler threw');
    }
  };
  const tell = (change: Change<T>): void => guarded('onChange', () => options.onChange(change));
  const tellPresent = (held: Held<T>, old: Held<T> | undefined, seenBy: SeenBy): void => {
    // Deleted and made anew between two looks: the old uid has ended.
    if (old !== undefined && old.meta.uid !== held.meta.uid) tell({ is: 'gone', key: held.key, seenBy, last: old });
    tell({ is: 'present', key: held.key, seenBy });
  };
  const noteWentBack = (found: string): void => {
    const held = newest ?? '';
    log.warn({ path, held, found }, 'history went back: the cluster was restored to an older state');
    guarded('onHistoryWentBack', () => options.onHistoryWentBack?.({ held, found }));
  };

  const listed = (version: string): void => {
    const older = sought !== undefined && compareVersions(version, sought) < 0;
    const forked = position !== undefined && cache.isForked(incoming, version, position);
    const wentBack = older || forked;
    if (wentBack) noteWentBack(version);
    const seenBy = wentBack ? 'history' : 'relist';
    const before = new Map(cache.list().map((held) => [held.key, held]));
    if (wentBack) cache.drop();
    const { present, gone } = cache.replace(incoming, version);
    const vanished = wentBack ? [...before.values()].filter((held) => cache.get(held.key) === undefined) : gone;
    incoming = new Map();
    position = version;
    if (wentBack) newest = version;
    else seen(version);
    synced = true;
    if (trouble !== undefined) log.info({ path }, 'list and watch work again');
    trouble = undefined;
    firstSync.resolve();
    for (const resolve of answered) if (asked.delete(resolve)) resolve();
    for (const last of vanished) tell({ is: 'gone', key: last.key, seenBy, last });
    for (const held of present) tellPresent(held, before.get(held.key), seenBy);
  };

  const apply = (step: Step): void => {
    switch (step.is) {
      case 'item': {
        const held = hold(step.raw, options.parse);
        incoming.set(held.key, held);
        return;
      }
      case 'lost':
        incoming.delete(hold(step.raw, options.parse).key);
        return;
      case 'listed':
        return listed(step.resourceVersion);
      case 'bookmark':
        position = step.resourceVersion;
        return seen(position);
      case 'put': {
        const held = hold(step.raw, options.parse);
        const old = cache.get(held.key);
        position = held.meta.resourceVersion;
        seen(position);
        if (cache.put(held)) tellPresent(held, old, 'watch');
        return;
      }
      case 'gone': {
        const { key, meta } = hold(step.raw, options.parse);
        position = meta.resourceVersion;
        seen(position);
        const last = cache.remove(key, position);
        if (last !== undefined) tell({ is: 'gone', key, seenBy: 'watch', last });
        return;
      }
      default:
        step satisfies never;
    }
  };

  const once = async (beginning: Beginning): Promise<Ending> => {
    answered = [...asked];
    cut = new AbortController();
    using cycle = watchdog(clock, AbortSignal.any([signal, cut.signal]));
    let frames = 0;
    incoming = new Map();
    sought = newest;
    const onFrame = (): void => {
      frames += 1;
      cycle.alive();
    };
    try {
      const timeoutSeconds = 300 + Math.floor(chance() * 300);
      for await (const step of session({ kube: options.kube, path, selector: options.selector, beginning, timeoutSeconds, signal: cycle.signal, onFrame })) apply(step);
      return { is: 'closed', frames };
    } catch (by) {
      return cycle.silent() ? { is: 'silent' } : { is: 'failed', by };
    }
  };

  const follow = async (): Promise<void> => {
    let next: Next = { beginning: { by: 'stream' }, delayMs: 0 };
    let failures = 0;
    while (!signal.aborted) {
      const beganMs = clock.monotonicMs();
      const ending = await once(asked.size > 0 && next.beginning.by === 'resume' ? { by: 'stream' } : next.beginning);
      if (signal.aborted) return;
      if (cut.signal.aborted) {
        next = { beginning: next.beginning.by === 'resume' ? { by: 'stream' } : next.beginning, delayMs: 0 };
        continue;
      }
      // A session that lasted was a good one, however it ended.
      if (clock.monotonicMs() - beganMs >= relistBackoff.maxMs) failures = 0;
      next = afterEnding(ending, { beginning: next.beginning, resumeAt: position, failures, chance: chance() });
      if (next.delayMs > 0) failures += 1;
      report(ending, next);
      if (next.delayMs > 0) await clock.sleep(next.delayMs, signal).catch(() => {});
    }
  };

  const report = (ending: Ending, { beginning, delayMs }: Next): void => {
    if (ending.is === 'closed') return;
    const code = ending.is === 'silent' ? 'WatchSilent' : asFault(ending.by, 'ListWatchFailed', path).code;
    const fields = { path, code, next: beginning.by, delayMs, ...(ending.is === 'failed' ? { cause: messageOf(ending.by) } : {}) };
    if (trouble === code) log.debug(fields, 'list or watch ended');
    else log.warn(fields, 'list or watch ended');
    trouble = code;
  };

  const stopped = follow().catch((thrown: unknown) => log.error({ path, err: thrown }, 'the informer itself failed'));

  return {
    held: cache.get,
    all: cache.list,
    get: (key) => {
      const held = cache.get(key);
      return held?.is === 'object' ? held.object : undefined;
    },
    list: cache.objects,
    by: cache.by,
    accept: (raw) => {
      const held = hold(raw, options.parse);
      const old = cache.get(held.key);
      // Not held, and the watch is past it: it has been deleted since.
      if (old === undefined && position !== undefined && compareVersions(held.meta.resourceVersion, position) <= 0) return false;
      seen(held.meta.resourceVersion);
      if (!cache.put(held)) return false;
      tellPresent(held, old, 'own');
      return true;
    },
    refresh: () => new Promise<void>((resolve) => {
      asked.add(resolve);
      cut.abort(new Error('a new list is asked for'));
    }),
    hasSynced: () => synced,
    newest: () => newest,
    synced: firstSync.promise,
    stopped,
  };
};
