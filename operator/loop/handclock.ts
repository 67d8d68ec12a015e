import type { Clock } from '#crds/kit/clock.ts';

/** A clock for tests: time moves only by hand. */
export type HandClock = Clock & {
  /** Moves time on, ending every sleep that becomes due, in order, and lets what they wake up run. */
  advance: (ms: number) => Promise<void>;
  /** Lets all that can run without time passing run. */
  settle: () => Promise<void>;
  /** How many sleeps are under way. */
  sleepers: () => number;
};

type Sleeper = { dueMs: number; wake: () => void };

/** Begins at `startMs` of wall time and 0 of monotonic time. */
export const handClock = (startMs = Date.UTC(2026, 0, 1)): HandClock => {
  let nowMs = 0;
  const sleepers = new Set<Sleeper>();

  // Everything under test is in memory: a few turns of the event loop drain it.
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  };
  const next = (untilMs: number): Sleeper | undefined => [...sleepers].filter((each) => each.dueMs <= untilMs).sort((a, b) => a.dueMs - b.dueMs)[0];

  return {
    now: () => new Date(startMs + nowMs),
    monotonicMs: () => nowMs,
    sleepers: () => sleepers.size,
    settle,
    sleep: (ms, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      if (signal?.aborted === true) {
        reject(signal.reason);
        return promise;
      }
      const abort = (): void => {
        sleepers.delete(sleeper);
        reject(signal?.reason);
      };
      const sleeper: Sleeper = {
        dueMs: nowMs + Math.max(0, ms),
        wake: () => {
          sleepers.delete(sleeper);
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      sleepers.add(sleeper);
      signal?.addEventListener('abort', abort, { once: true });
      return promise;
    },
    advance: async (ms) => {
      const untilMs = nowMs + ms;
      await settle();
      for (let due = next(untilMs); due !== undefined; due = next(untilMs)) {
        nowMs = Math.max(nowMs, due.dueMs);
        due.wake();
        await settle();
      }
      nowMs = untilMs;
    },
  };
};
