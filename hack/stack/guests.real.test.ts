import { expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { observeHolders } from './guests.ts';

const uid = '0b1c2d3e-0000-4000-8000-000000000001';

test.each(['real', 'link'])('who has the lock of a VM is found when the state folder is named %s', async (name) => {
  const dir = await mkdtemp(join(tmpdir(), 'strato-holders-'));
  await mkdir(join(dir, 'real', uid), { recursive: true });
  await symlink('real', join(dir, 'link'));
  const holder = spawn('sh', ['-c', 'exec 9>>"$1"; echo held; exec cat', 'sh', join(dir, 'real', uid, 'lock')], { stdio: ['pipe', 'pipe', 'ignore'] });
  try {
    await once(holder.stdout, 'data');
    expect([...(await observeHolders(join(dir, name)))].map(([of, holders]) => [of, holders.map(({ pid }) => pid)])).toEqual([[uid, [holder.pid]]]);
  } finally {
    holder.stdin.end();
    await once(holder, 'exit');
    await rm(dir, { recursive: true });
  }
});
