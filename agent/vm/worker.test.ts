import { getEventListeners } from 'node:events';
import { expect, test } from '@jest/globals';
import { systemClock } from '#crds/kit/clock.ts';
import { nodeWorld, openBench, uidOf } from './bed.ts';
import { startWorker } from './worker.ts';

test('a worker whose VM has ended leaves nothing behind: thousands come and go while an agent lives', async () => {
  const { hands } = await openBench(nodeWorld());
  const stop = new AbortController();
  await Promise.all(Array.from({ length: 100 }, (_, at) => startWorker(hands, systemClock, uidOf(at + 1), false, stop.signal).done));
  expect(getEventListeners(stop.signal, 'abort')).toHaveLength(0);
});
