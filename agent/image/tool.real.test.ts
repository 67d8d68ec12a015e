import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { runConfined } from './tool.ts';

const unixId = 100_778;
const to = { unixId, addressSpaceBytes: 2 ** 31, fileBytes: 1024 * 1024, cpuSeconds: 60 };

/** The commands of the processes that the confined user has. */
const running = async (): Promise<string[]> => {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const mine = new RegExp(`^Uid:\\t${unixId}\\t`, 'm').test(status) && !/^State:\tZ/m.test(status);
    if (mine) found.push((await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ').trim());
  }
  return found;
};

describe('a confined tool', () => {
  test('has no rights, no network and no siblings', async () => {
    let said = '';
    const end = await runConfined(['sh', '-c', 'id -u; id -G; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; echo pid $$; grep -c : /proc/net/route; exit 3'], to, tmpdir(), (text) => {
      said += text;
    }, AbortSignal.timeout(60_000));
    expect(end).toEqual({ code: 3, said: '' });
    expect(said.split('\n')).toEqual([`${unixId}`, `${unixId}`, 'CapEff:\t0000000000000000', 'NoNewPrivs:\t1', 'pid 1', '0', '']);
  });

  test('that writes more than it may ends with an error', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'strato-confined-'));
    try {
      await chown(folder, unixId, unixId);
      const end = await runConfined(['dd', 'if=/dev/zero', 'of=out', 'bs=1M', 'count=2'], to, folder, () => {}, AbortSignal.timeout(60_000));
      expect(end).toMatchObject({ code: 1, said: expect.stringContaining('File too large') });
      expect((await stat(join(folder, 'out'))).size).toBe(to.fileBytes);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('is killed with all that it started when it is aborted, and what it left running ends with it', async () => {
    const controller = new AbortController();
    const end = runConfined(['sh', '-c', 'setsid sleep 1001 & sleep 1002'], to, tmpdir(), () => {}, controller.signal);
    await until('both', async () => (await running()).filter((command) => command.startsWith('sleep')).length === 2, 60_000);
    controller.abort();
    await end;
    await until('the end of both', async () => (await running()).length === 0, 60_000);
    await runConfined(['sh', '-c', 'setsid sleep 1003 > /dev/null 2>&1 &'], to, tmpdir(), () => {}, AbortSignal.timeout(60_000));
    await until('the end of the sibling', async () => (await running()).length === 0, 60_000);
  });

  test('dies with its agent', async () => {
    const script = `
      const { runConfined } = await import(process.argv[1] + '/agent/image/tool.ts');
      await runConfined(['sleep', '1004'], JSON.parse(process.argv[2]), '/', () => {}, new AbortController().signal);`;
    const agent = spawn(process.execPath, ['--input-type=module', '-e', script, process.cwd(), JSON.stringify(to)], { stdio: 'inherit' });
    await until('the tool', async () => (await running()).includes('sleep 1004'), 60_000);
    const ended = once(agent, 'exit');
    agent.kill('SIGKILL');
    await ended;
    await until('the end of the tool', async () => (await running()).length === 0, 60_000);
  });

  test('that does not exist is told', async () => {
    const before = process.env.PATH;
    process.env.PATH = '/nowhere';
    try {
      await expect(runConfined(['x'], to, tmpdir(), () => {}, AbortSignal.timeout(60_000))).rejects.toMatchObject({ code: 'ENOENT' });
    } finally {
      process.env.PATH = before;
    }
  });
});
