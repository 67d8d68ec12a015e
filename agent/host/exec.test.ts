import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { runTool } from './exec.ts';

const soon = () => AbortSignal.timeout(20_000);

/** Whether a process is there and is no zombie. */
const alive = async (pid: number): Promise<boolean> =>
  readFile(`/proc/${pid}/stat`, 'utf8').then((stat) => !/\) Z /.test(stat), () => false);

const inFolder = async (act: (file: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-exec-'));
  try {
    await act(join(folder, 'pids'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

describe('a tool of the node', () => {
  test('gets its input and little of our environment, and tells how it ended', async () => {
    const end = await runTool('sh', ['-c', 'cat; echo "$A ${HOME-none}"; echo oops >&2; exit 3'], { input: 'in\n', env: { A: 'a' }, signal: soon() });
    expect(end).toEqual({ code: 3, signal: null, stdout: 'in\na none\n', stderr: 'oops\n' });
    expect(await runTool('sh', ['-c', 'kill -TERM $$'], { signal: soon() })).toMatchObject({ code: null, signal: 'SIGTERM' });
  });

  test('gets its arguments as they are: there is no shell', async () => {
    expect((await runTool('printf', ['%s', '$(id); `id` *'], { signal: soon() })).stdout).toBe('$(id); `id` *');
  });

  test('that reads nothing of a long input ends well', async () => {
    expect(await runTool('true', [], { input: 'x'.repeat(2 ** 20), signal: soon() })).toMatchObject({ code: 0 });
  });

  test('that does not end is killed with what it started', async () => {
    await inFolder(async (file) => {
      const controller = new AbortController();
      const ended = runTool('sh', ['-c', 'trap "" TERM; sleep 1001 & echo $$ $! > "$1.new"; mv "$1.new" "$1"; wait', 'sh', file], { signal: controller.signal });
      const pids = (await until('both processes', () => readFile(file, 'utf8'), 10_000)).trim().split(' ').map(Number);
      controller.abort(new Error('enough'));
      await expect(ended).rejects.toMatchObject({ code: 'ToolCut', message: 'sh did not end in time and was killed' });
      await until('the end of both', async () => (await Promise.all(pids.map(alive))).every((each) => !each), 5_000);
    });
  });

  test('is not waited for when a daemon that left its group keeps its pipes', async () => {
    await inFolder(async (file) => {
      const controller = new AbortController();
      const ended = runTool('sh', ['-c', 'setsid sleep 1002 & echo $! > "$1.new"; mv "$1.new" "$1"', 'sh', file], { signal: controller.signal });
      const daemon = Number(await until('the daemon', () => readFile(file, 'utf8'), 10_000));
      controller.abort();
      await expect(ended).rejects.toMatchObject({ code: 'ToolCut' });
      process.kill(daemon, 'SIGKILL');
    });
  });

  test('that says too much is killed; of stderr the end is kept', async () => {
    await expect(runTool('yes', [], { signal: soon(), maxBytes: 10_000 })).rejects.toMatchObject({ code: 'ToolTooLoud' });
    const { stderr } = await runTool('sh', ['-c', 'seq 1 9999 >&2'], { signal: soon() });
    expect([stderr.length, stderr.endsWith('9998\n9999\n')]).toEqual([4096, true]);
  });

  test('that the system refuses to start is a fault, not an exception', async () => {
    const running = runTool('true', ['x'.repeat(2 ** 22)], { signal: soon() });
    await expect(running).rejects.toMatchObject({ code: 'ToolFailed', message: expect.stringContaining('true could not be run') });
  });

  test('that is not there is named, and an aborted signal starts nothing', async () => {
    await expect(runTool('strato-no-such-tool', [], { signal: soon() })).rejects.toMatchObject({ code: 'ToolMissing', message: expect.stringContaining('strato-no-such-tool') });
    await expect(runTool('true', [], { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ToolCut' });
  });
});
