import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Paths } from '#agent/host/paths.ts';
import { launchArgs } from '#agent/hypervisor/qemu/launcher.ts';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';

/** A machine without Strato: a directory that was prepared for it, and the command of the QEMU that shall run there. */
export type Bare = { paths: Paths; uid: string; unixId: number; command: readonly string[] };

/** What an agent makes before it calls the launcher. */
export const prepareBare = async ({ paths, uid, unixId }: Bare): Promise<void> => {
  await mkdir(paths.run(uid, 'bare'), { recursive: true, mode: 0o700 });
  await mkdir(paths.sockets(uid), { recursive: true });
  await chown(paths.sockets(uid), 0, unixId);
  await chmod(paths.sockets(uid), 0o770);
  const serial = await open(paths.serialLog(uid), 'a', 0o600);
  await serial.chown(0, unixId);
  await serial.chmod(0o660);
  await serial.close();
};

/** Runs the launcher and says `cont` as soon as QEMU listens. Resolves when the guest runs. */
export const launchBare = async ({ paths, uid, unixId, command }: Bare, signal: AbortSignal): Promise<void> => {
  const args = launchArgs({ directory: paths.vm(uid), run: join('runs', 'bare'), startId: 'bare', unixId, procs: [], command });
  const child = spawn('/bin/sh', args, { detached: true, cwd: '/', stdio: 'ignore' });
  await once(child, 'spawn');
  child.unref();
  for (;;) {
    try {
      using qmp = await openQmp(join(paths.sockets(uid), 'qmp.sock'), signal);
      await qmp.execute('cont', z.unknown(), signal);
      return;
    } catch {
      signal.throwIfAborted();
      await delay(1, undefined, { signal });
    }
  }
};
