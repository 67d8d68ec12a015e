import { expect, test } from '@jest/globals';
import { runTool } from '../host/exec.ts';
import { within } from './within.ts';

test('a tool that ended while the agent stood still has ended in time', async () => {
  const never = new AbortController().signal;
  const looked = within(2_000, never, 'looking', (signal) => runTool('sleep', ['0.3'], { signal }));
  await new Promise((resolve) => setTimeout(resolve, 200));
  // What comes next in the loop is its timers, before anything that was said.
  await new Promise((resolve) => setImmediate(resolve));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_000);
  await expect(looked).resolves.toMatchObject({ code: 0 });
}, 30_000);
