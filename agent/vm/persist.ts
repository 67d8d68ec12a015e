import { jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { within } from './within.ts';

const again = { baseMs: 1_000, maxMs: 60_000 };

/** Does a job that is safe to do twice until it succeeds; each try has `ms`. False when `stop` has aborted before that. */
export const persist = async (
  { clock, log, chance }: { clock: Clock; log: Log; chance: () => number }, doing: string, ms: number, job: (signal: AbortSignal) => Promise<void>, stop: AbortSignal,
): Promise<boolean> => {
  for (let attempt = 0; !stop.aborted; attempt += 1) {
    try {
      await within(ms, stop, doing, job);
      return true;
    } catch (thrown) {
      if (stop.aborted) return false;
      const { code, message } = asFault(thrown, 'StepFailed', doing);
      log.warn({ doing, code, err: message }, 'what must be removed could not be removed');
      await clock.sleep(jittered(again, attempt, chance()), stop).catch(() => {});
    }
  }
  return false;
};
