import { afterAll, beforeAll } from '@jest/globals';

// With an empty cache nothing is built in it: `makeArtifacts` has done so before. Processes start slowly where every core is busy.
const openMs = 300_000;
const closeMs = 120_000;

/**
 * What a suite opens once, before its first test, and disposes after its last. Call it in the body of the suite: what it gives is
 * that thing as soon as hooks and tests run. Hooks that come later in the body find it open; an `afterAll` that needs it stands before.
 */
export const opened = <T extends AsyncDisposable>(open: () => Promise<T>): T => {
  let it: T | undefined;
  beforeAll(async () => { it = await open(); }, openMs);
  afterAll(async () => { await it?.[Symbol.asyncDispose](); }, closeMs);
  const stand: T = Object.create(null);
  return new Proxy(stand, {
    get: (_, key) => {
      if (it === undefined) throw new Error(`${String(key)} is asked for before it is there`);
      return Reflect.get(it, key);
    },
  });
};
