import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { launcherText, startFile } from '../hypervisor/qemu/launcher.ts';
import { parseHolders, parseMemorySize } from './darwin.ts';
import { runTool } from './exec.ts';
import { type Platform, platforms } from './platform.ts';
import { holderText } from './statelock.ts';

const limit = () => ({ signal: AbortSignal.timeout(20_000) });
const both = Object.entries(platforms) as [keyof typeof platforms, Platform][];

// flock(2), perl and sh are the same on both, so what macOS is given is run here.
describe.each(both)('what a shell is given on %s', (name, platform) => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-platform-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test.each(both)('a lock that it has is one for %s, and free when its holder ends', async (_, other) => {
    const [lock, done] = [join(folder, 'lock'), join(folder, 'done')];
    const holder = spawn('/bin/sh', ['-c', `exec 8>>"$1"; ${platform.lockDescriptor(8, 0)} || exit $?; echo held; read -r _`, 'sh', lock], { stdio: ['pipe', 'pipe', 'inherit'] });
    const [said] = await once(holder.stdout, 'data', limit());
    expect(String(said)).toBe('held\n');
    const [tool, ...args] = other.underLock(lock, 0, ['touch', done]);
    expect([(await runTool(tool, args, limit())).code, existsSync(done)]).toEqual([75, false]);
    expect((await runTool('/bin/sh', ['-c', `exec 8<"$1"; ${other.lockDescriptor(8, 0)}`, 'sh', lock], limit())).code).toBe(75);
    holder.stdin.end();
    await once(holder, 'exit', limit());
    const [again, ...rest] = other.underLock(lock, 200, ['touch', done]);
    expect([(await runTool(again, rest, limit())).code, existsSync(done)]).toEqual([0, true]);
    const [failing, ...how] = other.underLock(lock, 0, ['false']);
    expect((await runTool(failing, how, limit())).code).toBe(1);
  });

  test('a shell can read all of it, and the state lock too', async () => {
    for (const script of [launcherText(platform), holderText(platform)]) expect(await runTool('/bin/sh', ['-n', '-c', script], limit())).toMatchObject({ code: 0, stderr: '' });
  });

  test('room that it reserves is there and the file as short as before', async () => {
    const file = join(folder, 'file');
    await runTool('/bin/sh', ['-c', `: > ${file}; ${platform.reserve(65_536, file)}`], limit());
    const { size, blocks } = await stat(file);
    expect([size, name === 'darwin' || blocks * 512 >= 65_536]).toEqual([0, true]);
  });

  if (process.getuid?.() === 0) {
    test('a machine becomes its user, of no other group, and nothing of root is left', async () => {
      const script = `id=234567 groups=--clear-groups\n${platform.asVm}\nas_vm cat /proc/self/status`;
      const { stdout } = await runTool('/bin/sh', ['-c', script], limit());
      const line = (key: string) => new RegExp(`^${key}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(stdout)?.[1];
      expect([line('Uid'), line('Gid'), line('CapEff')]).toEqual([Array(4).fill('234567').join('\t'), Array(4).fill('234567').join('\t'), '0'.repeat(16)]);
      expect(['', '234567']).toContain(line('Groups'));
    });

    test('the launcher starts a command under the lock, and writes how it ended', async () => {
      await runTool('mkdir', ['-p', join(folder, 'vm', 'runs', 'a1')], limit());
      await writeFile(join(folder, 'vm', 'runs', 'a1', startFile), '');
      await runTool('chmod', ['755', folder], limit());
      const child = spawn('/bin/sh', ['-c', launcherText(platform), 'sh', join(folder, 'vm'), 'runs/a1', 'a1', '234567', '--clear-groups', '', '--', '/bin/sh', '-c', 'id -u; exit 3'], { stdio: ['ignore', 'ignore', 'pipe'] });
      const [said] = await Promise.all([text(child.stderr), once(child, 'exit', limit())]);
      const run = join(folder, 'vm', 'runs', 'a1');
      expect([said, await readFile(join(run, 'exit'), 'utf8'), await readFile(join(run, 'events'), 'utf8'), await readFile(join(folder, 'vm', 'run'), 'utf8')]).toEqual(['', '3\n', '234567\n', 'a1\n']);
    });
  }
});

describe('who has a lock', () => {
  test('is read from what lsof says', () => {
    expect(parseHolders('p10\ncsh\nf3\nf9\np11\ncqemu-system-x86_\nf9\nf12\np12\nctail\nf4\n', 9)).toEqual([{ pid: 10, isSupervisor: true }, { pid: 11, isSupervisor: false }]);
    expect(parseHolders('', 9)).toEqual([]);
  });

  test.each(both)('is found on %s by the open file, and told from others', async (name, { lockHolders }) => {
    const folder = await mkdtemp(join(tmpdir(), 'strato-holders-'));
    const lock = join(folder, 'lock');
    const holder = spawn('/bin/sh', ['-c', 'exec 9>>"$1"; read -r _', 'sh', lock], { stdio: ['pipe', 'ignore', 'ignore'] });
    try {
      // lsof comes with macOS; where it is not installed here, nobody is found.
      const tool = name === 'linux' || (await runTool('lsof', ['-v'], limit()).then(() => true, () => false));
      if (tool) expect(await until('the holder', async () => { const found = await lockHolders(lock, 9, []); return found.length > 0 && found; }, 20_000)).toEqual([{ pid: holder.pid, isSupervisor: true }]);
    } finally {
      holder.stdin.end();
      await rm(folder, { recursive: true });
    }
  });
});

test('the memory of a Mac is whole MiB', () => {
  expect(parseMemorySize('17179869184')).toBe(16_384);
  for (const said of ['', 'much', '5']) expect(() => parseMemorySize(said)).toThrow('can not be read');
});
