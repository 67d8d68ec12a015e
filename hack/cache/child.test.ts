import { describe, expect, test } from '@jest/globals';
import { until } from '../bed/until.ts';
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runChild } from './child.ts';
import type { Progress } from './progress.ts';
import { tellingMaking } from './progress.ts';

const options = { cwd: '/', env: process.env, timeoutMs: 20_000 };

describe('a child', () => {
  test('gives its stdout', async () => {
    expect(await runChild('sh', ['-c', 'echo out; echo err >&2'], options)).toBe('out\n');
  });

  test('that fails is reported with its last stderr lines', async () => {
    const failing = runChild('sh', ['-c', 'seq 100 >&2; exit 3'], options);
    await expect(failing).rejects.toMatchObject({ code: 'ChildFailed', message: expect.stringMatching(/ended with 3:\n  86\n[^]*  100$/) });
  });

  test('that is not installed is named', async () => {
    await expect(runChild('no-such-program', [], options)).rejects.toMatchObject({ code: 'ChildMissing' });
  });

  test('that takes too long is ended', async () => {
    await expect(runChild('sleep', ['60'], { ...options, timeoutMs: 100 })).rejects.toMatchObject({ code: 'ChildTimeout' });
  });

  test('is ended with all of its group by the signal, whose reason is thrown', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'strato-child-'));
    try {
      const stop = new AbortController();
      const running = runChild('sh', ['-c', `sleep 60 & echo $! > ${dir}/pid; wait`], { ...options, signal: stop.signal });
      const pid = await until('the grandchild', async () => Number((await readFile(join(dir, 'pid'), 'utf8')).trim()) || undefined, 10_000);
      stop.abort(new Error('Ctrl-C'));
      await expect(running).rejects.toThrow('Ctrl-C');
      await until('the grandchild to end', async () => isOver(pid), 10_000);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

test('making is told at its start, meanwhile and at its end; a failure is not told as made', async () => {
  const told: Progress['is'][] = [];
  const done = await tellingMaking('x', ({ is }) => told.push(is), async () => 7);
  expect(done).toBe(7);
  await expect(tellingMaking('x', ({ is }) => told.push(is), async () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(told).toEqual(['making', 'made', 'making']);
});

// A killed orphan stays a zombie until its new parent reaps it.
const isOver = async (pid: number) => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat === undefined || / Z /.test(stat);
};
