// Whom a kill finds, on real processes and locks; no QEMU is needed for that.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { paths as pathsOf } from '../../host/paths.ts';
import { killMachine } from './end.ts';
import { lockFd } from './launcher.ts';
import { lockIsFree } from './lock.ts';

const uid = '11111111-1111-4111-8111-111111111111';
const signal = () => AbortSignal.timeout(60_000);

describe('a kill', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-kill-'));
    await mkdir(join(folder, 'real', 'vms', uid), { recursive: true });
    await symlink('real', join(folder, 'link'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test.each([
    ['that its agent names in the same way', 'real', 'real'],
    ['when the state folder is named by a symbolic link now', 'real', 'link'],
    ['when it was named by a symbolic link then', 'link', 'real'],
    ['when it lies behind a symbolic link', 'link', 'link'],
  ])('ends who has the lock, %s', async (_how, then, now) => {
    const at = (name: string) => pathsOf({ stateDir: join(folder, name), imageCacheDir: '/none', socketDir: '/none' });
    const holder = spawn('/bin/sh', ['-c', `exec ${lockFd}>>"$1"; flock ${lockFd}; echo held; exec sleep 60`, 'sh', at(then).lock(uid)], { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(holder.stdout, 'data', { signal: signal() });
    const ended = once(holder, 'exit', { signal: signal() });
    // Whether its cgroup tells of it or the whole node is looked at.
    await killMachine({ paths: at(now), cgroups: { pids: async () => (now === 'link' ? [holder.pid ?? 0] : []) } }, uid, signal());
    expect(await ended).toEqual([null, 'SIGKILL']);
    expect(await lockIsFree(at(now).lock(uid), 0, signal())).toBe(true);
  });
});
