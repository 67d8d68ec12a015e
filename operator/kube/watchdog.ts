import type { Clock } from '#crds/kit/clock.ts';

/** No frame for this long means that a watch is dead, or waits for a version from the future; bookmarks come each minute. */
const silenceMs = 150_000;

/** Aborts its signal after 150 s without a sign of life, or with `parent`. */
export const watchdog = (clock: Clock, parent: AbortSignal): { signal: AbortSignal; alive: () => void; silent: () => boolean } & Disposable => {
  const over = new AbortController();
  const silence = new AbortController();
  let aliveMs = clock.monotonicMs();
  const guard = async (): Promise<void> => {
    for (let leftMs = silenceMs; leftMs > 0; leftMs = aliveMs + silenceMs - clock.monotonicMs()) await clock.sleep(leftMs, over.signal);
    silence.abort(new Error(`no frame for ${silenceMs / 1_000} s`));
  };
  guard().catch(() => {}); // ended by dispose
  return {
    signal: AbortSignal.any([parent, silence.signal]),
    alive: () => {
      aliveMs = clock.monotonicMs();
    },
    silent: () => silence.signal.aborted,
    [Symbol.dispose]: () => over.abort(),
  };
};
