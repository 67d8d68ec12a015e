import { readdir, rm } from 'node:fs/promises';
import type { Paths } from '../host/paths.ts';
import { parseQcow2 } from '../image/inspect/qcow2.ts';
import { ensureVmDirectory } from './directory.ts';
import type { DiskSight, DriveMedium, DriveSight, ReadyDisk } from './driver.ts';
import { errnoOf, syncDirectory } from './durable.ts';
import { linkImage, type LinkLog } from './link.ts';
import { readHeader } from './header.ts';

const mebibyte = 1024 * 1024;

/** The media of CD drives, each a hard link to its image beside the VM's disks. Nothing is written to them, so one that is gone is linked anew. */
export const makeMedia = (paths: Paths, log: LinkLog) => {
  const observe = async (uid: string, name: string, imageUid: string): Promise<DiskSight> => {
    const file = paths.mediumFile(name, imageUid);
    const found = await readHeader(`${paths.vm(uid)}/${file}`);
    if (!found) return { is: 'absent' };
    return { is: 'ready', file, format: 'qcow2', sizeMiB: Math.ceil(parseQcow2(found.head, found.fileBytes).virtualSizeBytes / mebibyte) };
  };
  /** Names of the files of a drive. A disk's name has no dot, so no other's begins so. */
  const filesOf = async (uid: string, name: string): Promise<string[]> =>
    (await readdir(paths.disks(uid)).catch((thrown: unknown) => {
      if (errnoOf(thrown) !== 'ENOENT') throw thrown;
      return [];
    })).filter((file) => file.startsWith(`${name}.`) && /\.medium(\.[0-9a-f.-]*new)?$/.test(file));
  const others = async (uid: string, name: string, imageUid: string | undefined): Promise<string[]> => {
    const keep = imageUid === undefined ? undefined : paths.mediumFile(name, imageUid);
    return (await filesOf(uid, name)).filter((file) => `disks/${file}` !== keep);
  };
  return {
    drive: async (uid: string, name: string, imageUid: string | undefined): Promise<DriveSight> => ({
      medium: imageUid === undefined ? { is: 'absent' } : await observe(uid, name, imageUid),
      stale: (await others(uid, name, imageUid)).length > 0,
    }),
    insert: async ({ uid, name, imageUid, image, unixId }: DriveMedium): Promise<ReadyDisk> => {
      await ensureVmDirectory(paths, uid, unixId);
      await linkImage(image.file, `${paths.vm(uid)}/${paths.mediumFile(name, imageUid)}`, async () => false, log);
      await syncDirectory(paths.disks(uid));
      return { is: 'ready', file: paths.mediumFile(name, imageUid), format: 'qcow2', sizeMiB: image.virtualSizeMiB };
    },
    tidy: async (uid: string, name: string, imageUid: string | undefined): Promise<void> => {
      for (const file of await others(uid, name, imageUid)) await rm(`${paths.disks(uid)}/${file}`, { force: true });
    },
  };
};
