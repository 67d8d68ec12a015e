import { setTimeout as delay } from 'node:timers/promises';
import type { RealNode } from './realnode.ts';

/** Looks at the QEMUs of one VM until it is disposed: the most at one time, and all of them. */
export const watchQemus = (node: Pick<RealNode, 'qemus'>, uid: string) => {
  const over = new AbortController();
  const seen = { most: 0, pids: new Set<number>() };
  const watching = (async () => {
    while (!over.signal.aborted) {
      const now = (await node.qemus()).filter((each) => each.uid === uid).map(({ pid }) => pid);
      seen.most = Math.max(seen.most, now.length);
      for (const pid of now) seen.pids.add(pid);
      await delay(10, undefined, { signal: over.signal }).catch(() => {});
    }
  })();
  return { seen, [Symbol.asyncDispose]: async () => { over.abort(); await watching; } };
};
