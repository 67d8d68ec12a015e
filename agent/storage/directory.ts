import { constants } from 'node:fs';
import { chmod, chown, lstat, mkdir, open, readdir, rm, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { uid as uidForm } from '#crds/wire/desired.ts';
import type { Paths } from '../host/paths.ts';
import { errnoOf, syncDirectory } from './durable.ts';

/**
 * Makes the directory of a VM with its `lock` and `disks/`, or completes a half-made one. Only root may change names in
 * it, so nothing that the VM's own user writes can lead a path elsewhere. The lock file is never replaced.
 */
export const ensureVmDirectory = async (paths: Paths, uid: string, unixId: number): Promise<void> => {
  const directory = vmDirectory(paths, uid);
  await mkdir(paths.vms, { recursive: true, mode: 0o711 });
  const fresh = await own(directory, unixId);
  const freshDisks = await own(paths.disks(uid), unixId);
  const freshLock = await touch(paths.lock(uid));
  if (freshDisks || freshLock) await syncDirectory(directory);
  if (fresh) await syncDirectory(paths.vms);
};

/** Removes the directory of a VM; its lock goes last, so that a half-done removal still excludes a start. */
export const removeVmDirectory = async (paths: Paths, uid: string): Promise<void> => {
  const directory = vmDirectory(paths, uid);
  const seen = await lstat(directory).catch(absent);
  if (seen === undefined) return;
  if (seen.isDirectory()) {
    for (const name of await readdir(directory)) {
      if (name !== 'lock') await rm(`${directory}/${name}`, { recursive: true, force: true });
    }
  }
  // `rm` unlinks a symbolic link and never goes through it.
  await rm(directory, { recursive: true, force: true });
  await syncDirectory(dirname(directory));
};

/** Size and free space (for root) of the file system that holds the VMs, in MiB. */
export const spaceOf = async (paths: Paths): Promise<{ sizeMiB: number; freeMiB: number }> => {
  const { bsize, blocks, bavail } = await statfs(paths.vms).catch(async (thrown: unknown) => {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    await mkdir(paths.vms, { recursive: true, mode: 0o711 });
    return statfs(paths.vms);
  });
  const toMiB = (count: number) => Math.floor((count * bsize) / (1024 * 1024));
  return { sizeMiB: toMiB(blocks), freeMiB: toMiB(bavail) };
};

const vmDirectory = (paths: Paths, uid: string): string => {
  if (uidForm.safeParse(uid).success) return paths.vm(uid);
  throw new Fault('StorageFailed', `${JSON.stringify(uid)} is not a uid; no path is made from it`, { retry: 'never' });
};

const absent = (thrown: unknown): undefined => {
  if (errnoOf(thrown) !== 'ENOENT') throw thrown;
};

/** Whether the directory was made now. Mode and owner are set in any case: a crash may have come between. */
const own = async (directory: string, unixId: number): Promise<boolean> => {
  const fresh = await mkdir(directory, { mode: 0o700 }).then(() => true, (thrown: unknown) => {
    if (errnoOf(thrown) !== 'EEXIST') throw thrown;
    return false;
  });
  const seen = await lstat(directory);
  if (!seen.isDirectory()) throw new Fault('StorageFailed', `${directory} is not a directory; remove what lies there`, { retry: 'later' });
  if (seen.gid !== unixId) await chown(directory, process.getuid?.() ?? 0, unixId);
  if ((seen.mode & 0o777) !== 0o750) await chmod(directory, 0o750);
  return fresh;
};

const touch = async (file: string): Promise<boolean> =>
  open(file, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW, 0o600).then(
    async (handle) => {
      await handle.close();
      return true;
    },
    (thrown: unknown) => {
      if (errnoOf(thrown) !== 'EEXIST') throw thrown;
      return false;
    },
  );
