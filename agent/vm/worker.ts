import type { Clock } from '#crds/kit/clock.ts';
import { type Hands, freshScratch } from './hands.ts';
import { pass, resyncMs } from './pass.ts';

/** The serial queue of one VM: whatever happened, `poke` makes it look at the world again. */
export type Worker = {
  poke: () => void;
  /** Resolves when the VM has ended or the agent stops; never rejects. */
  done: Promise<void>;
};

// After so many passes in a row that changed something, passes are spaced out: a plan that never comes to rest must not use up a core.
const restless = 25;

/**
 * Works on one VM until it has ended or `stop` aborts. One pass at a time; pokes that come meanwhile are one more pass.
 * `holdsPorts`: the network adopted ports for it.
 */
export const startWorker = (hands: Hands, clock: Clock, uid: string, holdsPorts: boolean, stop: AbortSignal): Worker => {
  const scratch = freshScratch(holdsPorts);
  let poked = false;
  let wake = new AbortController();
  const end = () => wake.abort();
  stop.addEventListener('abort', end, { once: true });

  const work = async (): Promise<void> => {
    let moves = 0;
    while (!stop.aborted) {
      poked = false;
      const end = await pass(hands, uid, scratch, stop);
      if (end.is === 'over') return;
      moves = end.is === 'moved' ? moves + 1 : 0;
      if (moves === restless) hands.log.warn({ uid }, 'a VM does not come to rest');
      if (poked || (end.is === 'moved' && moves < restless)) continue;
      if (stop.aborted) return;
      wake = new AbortController();
      const waitMs = end.is === 'still' ? end.lookAfterMs : resyncMs / 10;
      await clock.sleep(waitMs, wake.signal).catch(() => {});
    }
  };

  return {
    poke: () => {
      poked = true;
      wake.abort();
    },
    done: work().catch((thrown: unknown) => hands.log.error({ uid, err: thrown }, 'a worker ended by a fault')).finally(() => stop.removeEventListener('abort', end)),
  };
};
