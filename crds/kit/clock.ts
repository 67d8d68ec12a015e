import { setTimeout as delay } from 'node:timers/promises';

/** The time, handed in so that what decides can be tested. */
export type Clock = {
  /** Wall time; may jump. */
  now: () => Date;
  /** Milliseconds that never go back; for measuring silence and deadlines. */
  monotonicMs: () => number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
};

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    try {
      await delay(ms, undefined, signal ? { signal } : {});
    } catch (thrown) {
      // Node hides the reason in the cause of an AbortError.
      signal?.throwIfAborted();
      throw thrown;
    }
  },
};
