import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';

/**
 * Keys to look at, as client-go's workqueue has them: a key waits at most once; a key that is being worked on is never handed out
 * a second time, and one added meanwhile is handed out again after `done`. Source: k8s.io/client-go/util/workqueue.
 */
export type Queue = {
  /** Wants a pass for the key. No effect after `close`. */
  add: (key: string) => void;
  /** Wants a pass in `ms`. Of several such wishes for one key the earliest counts; an `add` before it takes nothing away. */
  addAfter: (key: string, ms: number) => void;
  /** Counts a failure of the key and wants a pass after its exponential delay, or `atLeastMs` if that is longer. Returns the delay. */
  retry: (key: string, atLeastMs?: number) => number;
  /** The key is well again: its next delay begins small. */
  forget: (key: string) => void;
  /** The next key, or undefined when the queue is closed. The caller must call `done(key)`. */
  take: () => Promise<string | undefined>;
  /** The pass of a taken key has ended. */
  done: (key: string) => void;
  /** No more keys: waiting `take`s answer undefined, timers end. */
  close: () => void;
  /** Keys ready to be taken. */
  length: () => number;
};

/** Delays of failing keys: 5 ms doubling to 30 s, jittered. */
const retryBackoff: Backoff = { baseMs: 5, maxMs: 30_000 };

/** An empty queue. `chance` gives numbers in [0, 1). */
export const makeQueue = ({ clock, chance, backoff = retryBackoff }: { clock: Clock; chance: () => number; backoff?: Backoff }): Queue => {
  const ready: string[] = [];
  const dirty = new Set<string>();
  const working = new Set<string>();
  const failures = new Map<string, number>();
  const later = new Map<string, { dueMs: number; cancel: AbortController }>();
  const takers: ((key: string | undefined) => void)[] = [];
  let closed = false;

  const offer = (key: string): void => {
    const taker = takers.shift();
    if (taker === undefined) ready.push(key);
    else taker(begin(key));
  };
  const begin = (key: string): string => {
    dirty.delete(key);
    working.add(key);
    return key;
  };
  const add = (key: string): void => {
    if (closed || dirty.has(key)) return;
    dirty.add(key);
    if (!working.has(key)) offer(key);
  };
  const addAfter = (key: string, ms: number): void => {
    if (closed) return;
    if (!(ms > 0)) {
      add(key);
      return;
    }
    const dueMs = clock.monotonicMs() + ms;
    const earlier = later.get(key);
    if (earlier !== undefined && earlier.dueMs <= dueMs) return;
    earlier?.cancel.abort();
    const cancel = new AbortController();
    later.set(key, { dueMs, cancel });
    clock.sleep(ms, cancel.signal).then(
      () => {
        later.delete(key);
        add(key);
      },
      () => {}, // cancelled by an earlier wish or by close
    );
  };

  return {
    add,
    addAfter,
    retry: (key, atLeastMs = 0) => {
      const attempt = failures.get(key) ?? 0;
      failures.set(key, attempt + 1);
      const ms = Math.max(atLeastMs, jittered(backoff, attempt, chance()));
      addAfter(key, ms);
      return ms;
    },
    forget: (key) => void failures.delete(key),
    take: () => {
      const key = ready.shift();
      if (key !== undefined && !closed) return Promise.resolve(begin(key));
      if (closed) return Promise.resolve(undefined);
      const { promise, resolve } = Promise.withResolvers<string | undefined>();
      takers.push(resolve);
      return promise;
    },
    done: (key) => {
      working.delete(key);
      if (dirty.has(key) && !closed) offer(key);
    },
    close: () => {
      closed = true;
      for (const { cancel } of later.values()) cancel.abort();
      later.clear();
      for (const taker of takers.splice(0)) taker(undefined);
    },
    length: () => ready.length,
  };
};
