import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { patience } from './patience.ts';

/** This process stands still. */
const stall = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

test('patience ends', async () => {
  const late = patience(20);
  await once(late, 'abort');
  expect(late.reason).toMatchObject({ name: 'TimeoutError' });
});

test('who answered while we stood still is not late', async () => {
  const late = patience(2_000);
  const answering = spawn('sleep', ['0.4']);
  const first = await Promise.race([once(answering, 'exit').then(() => 'answer'), once(late, 'abort').then(() => 'late'), (async () => {
    await delay(200);
    // What comes next in the loop is its timers, before anything that was said.
    await new Promise((resolve) => setImmediate(resolve));
    stall(3_000);
    return new Promise<never>(() => {});
  })()]);
  expect(first).toBe('answer');
}, 30_000);
