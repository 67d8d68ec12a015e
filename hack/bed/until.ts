import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';

/**
 * Waits until `probe` answers with something truthy and returns that. Looks again each 50 ms at first, four times a second when it
 * takes long; after `deadlineMs` it throws with `what` was awaited and the last error of the probe as cause. A probe that throws counts as "not yet".
 */
export const until = async <T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs: number,
): Promise<T> => {
  const begin = performance.now();
  let cause: unknown;
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
      cause = undefined;
    } catch (thrown) {
      cause = thrown;
    }
    const passedMs = performance.now() - begin;
    if (passedMs >= deadlineMs) {
      throw new Error(`waited ${deadlineMs} ms in vain for ${what}`, cause === undefined ? {} : { cause });
    }
    await delay(Math.min(250, Math.max(50, passedMs / 10)));
  }
};

/** As `until`, without a pause between two looks: for what is over in some milliseconds. */
export const catching = async (what: string, happened: () => boolean | Promise<boolean>, deadlineMs: number): Promise<void> => {
  const end = performance.now() + deadlineMs;
  while (!(await happened())) {
    if (performance.now() > end) throw new Error(`${what} was never seen`);
    await turn();
  }
};
