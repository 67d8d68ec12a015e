import { lstat, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault } from '#crds/kit/fault.ts';
import { platform } from '../../host/platform.ts';
import { errnoOf } from '../../storage/durable.ts';
import type { House } from './house.ts';
import { lockFd, startFile } from './launcher.ts';
import { lockIsFree, underLock } from './lock.ts';

// QEMU first: its supervisor then still writes how it ended. After this long the supervisor has to go too.
const supervisorMs = 3_000;

/** What a kill reaches for. */
type Kill = { paths: House['paths']; cgroups: Pick<House['cgroups'], 'pids'> };

/** Ends the process that has the VM's lock, by SIGKILL; where that file was removed, whoever is in the VM's group. Returns when the lock is free. Fault StillThere. */
export const killMachine = async (house: Kill, uid: string, signal: AbortSignal): Promise<void> => {
  const lock = house.paths.lock(uid);
  const since = performance.now();
  while (await lockExists(lock)) {
    if (await lockIsFree(lock, 0, signal)) return;
    const all = performance.now() - since > supervisorMs;
    // Those of its cgroup, else of the whole node. Their command line or a recorded pid would not do; a pid may be another's by now, a lock that is
    // open may not.
    const holders = await platform.lockHolders(lock, lockFd, await house.cgroups.pids(uid));
    for (const { pid, isSupervisor } of holders) if (all || !isSupervisor) kill(pid);
    if (await lockIsFree(lock, 500, signal)) return;
    if (signal.aborted) throw new Fault('StillThere', `VM ${uid}: its lock is still held after SIGKILL`);
    await delay(20, undefined, { signal });
  }
  await endLeftovers(house, uid, signal);
};

const lockExists = (lock: string): Promise<boolean> => lstat(lock).then(() => true, (thrown: unknown) => {
  if (errnoOf(thrown) === 'ENOENT') return false;
  throw thrown;
});

const kill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended in the meantime.
  }
};

/** Removes files in this order while nobody else can have the VM's lock; false when somebody has it. */
const removeUnderLock = async (paths: House['paths'], uid: string, files: readonly string[], signal: AbortSignal): Promise<boolean> => {
  const lock = paths.lock(uid);
  // As the launcher makes it, which may be on its way there. Without a directory of the VM it gets nowhere.
  const handle = await open(lock, 'a', 0o600).catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  });
  await handle?.close();
  return handle === undefined || underLock(lock, 1_000, ['rm', '-rf', '--', ...files], signal);
};

/**
 * Takes back a start of which no machine was seen. Its launcher looks, under the lock, for what was written down of it: so that is taken
 * away under the lock too, and before anything else of the run. Not to be made durable: no launcher outlives the node. Fault StillThere.
 */
export const revokeStart = async (paths: House['paths'], uid: string, startId: string, signal: AbortSignal): Promise<void> => {
  const run = paths.run(uid, startId);
  if (await removeUnderLock(paths, uid, [join(run, startFile), run], signal)) return;
  throw new Fault('StillThere', `VM ${uid}: its lock is held; the start ${startId} is not taken back`);
};

/** Ends what a killed supervisor left behind in the VM's cgroups. The lock is free, so none of it is QEMU. */
const endLeftovers = async ({ cgroups }: Pick<Kill, 'cgroups'>, uid: string, signal: AbortSignal): Promise<void> => {
  for (;;) {
    const pids = await cgroups.pids(uid);
    if (pids.length === 0) return;
    pids.forEach(kill);
    await delay(10, undefined, { signal });
  }
};

/** Frees what the node keeps for a machine that is gone. Fault StillThere when it is not. */
export const forgetMachine = async (house: House, uid: string, signal: AbortSignal): Promise<void> => {
  const { paths, watcher, cgroups } = house;
  // The runs first: a launcher that has no lock yet finds none of them, and ends.
  if (!(await removeUnderLock(paths, uid, [paths.runs(uid)], signal))) throw new Fault('StillThere', `VM ${uid}: its lock is held; nothing of it is removed`);
  watcher.remove(uid);
  await rm(paths.sockets(uid), { recursive: true, force: true });
  await rm(paths.runPointer(uid), { force: true });
  await endLeftovers(house, uid, signal);
  await cgroups.remove(uid);
};
