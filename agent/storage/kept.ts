import { constants } from 'node:fs';
import { link, mkdir, open, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { Fault } from '#crds/kit/fault.ts';
import { uid as uidForm } from '#crds/wire/desired.ts';
import type { Paths } from '../host/paths.ts';
import { ensureVmDirectory } from './directory.ts';
import type { KeptPlace } from './driver.ts';
import { errnoOf, isThere, syncDirectory, writeWhole } from './durable.ts';

const rootOnly = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

type Files = { folder: string; overlay: string; base: string };

/**
 * The files of disks that outlive their VMs. A move is a link of the base, then a rename of the overlay, each made durable: at any moment
 * the overlay is in exactly one place, with its base beside it, so a move that was cut short is finished, or made back, by doing it again.
 */
export const makeKeptFiles = (paths: Paths) => {
  const placeIn = (folder: string, name: string): Files => ({ folder, overlay: `${folder}/${name}.qcow2`, base: `${folder}/${name}.base` });
  const aside = (kept: string, name: string): Files => placeIn(folderOf(paths, kept), name);
  const inVm = (uid: string, name: string): Files => placeIn(paths.disks(uid), name);

  /** Whether the disk is at `to` in the end; not when it was in neither place. Nobody but root can get at it on its way. */
  const move = async (name: string, from: Files, to: Files): Promise<boolean> => {
    const [here, there] = [await isThere(from.overlay), await isThere(to.overlay)];
    if (here && there) {
      throw new Fault('DiskConflict', `disk ${name} is in two places: ${from.overlay} and ${to.overlay}; nothing is done to either. Move one of them away`, { retry: 'later' });
    }
    if (!here && !there) return false;
    if (here) {
      if (await isThere(from.base)) {
        // What lies there without an overlay is of a disk that was never finished.
        await rm(to.base, { force: true });
        await link(from.base, to.base);
        await syncDirectory(to.folder);
      }
      await rename(from.overlay, to.overlay);
      await syncDirectory(to.folder);
      await syncIfThere(from.folder);
    }
    await rm(from.base, { force: true });
    return true;
  };

  return {
    /** Whether it is kept now. */
    keep: async ({ uid, name, kept, record }: KeptPlace & { record: string }): Promise<boolean> => {
      const to = aside(kept, name);
      await mkdir(paths.kept, { recursive: true, mode: 0o700 });
      await mkdir(to.folder, { recursive: true, mode: 0o700 });
      await syncDirectory(paths.kept);
      await tell(paths.keptRecord(kept), record);
      const moved = await move(name, inVm(uid, name), to);
      if (!moved) await remove(paths, kept);
      // The Unix user of the VM is another's soon.
      else await give(to.overlay, rootOnly.uid, rootOnly.gid);
      return moved;
    },
    /** Whether the VM has it now. */
    takeBack: async ({ uid, name, kept, unixId }: KeptPlace & { unixId: number }): Promise<boolean> => {
      await ensureVmDirectory(paths, uid, unixId);
      const [from, to] = [aside(kept, name), inVm(uid, name)];
      if (!(await move(name, from, to))) return false;
      await give(to.overlay, unixId, unixId);
      await remove(paths, kept);
      return true;
    },
    remove: (kept: string): Promise<void> => remove(paths, kept),
  };
};

const folderOf = (paths: Paths, kept: string): string => {
  if (uidForm.safeParse(kept).success) return `${paths.kept}/${kept}`;
  throw new Fault('StorageFailed', `${JSON.stringify(kept)} is not a uid; no path is made from it`, { retry: 'never' });
};

/** The overlay goes first: what is there without one is what a half-made removal leaves. */
const remove = async (paths: Paths, kept: string): Promise<void> => {
  const folder = folderOf(paths, kept);
  const names = await readdir(folder).catch((thrown: unknown) => {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    return undefined;
  });
  if (names === undefined) return;
  for (const name of names.toSorted((a, b) => Number(b.endsWith('.qcow2')) - Number(a.endsWith('.qcow2')))) await rm(`${folder}/${name}`, { force: true });
  await rmdir(folder);
  await syncDirectory(paths.kept);
};

/** Whose the disk is, beside it. On a full disk it is kept without: the ledger has room of its own, and says so too. */
const tell = async (file: string, record: string): Promise<void> => {
  try {
    await writeWhole(file, rootOnly, (handle) => handle.writeFile(record));
  } catch (thrown) {
    if (errnoOf(thrown) !== 'ENOSPC' && errnoOf(thrown) !== 'EDQUOT') throw thrown;
    await rm(`${file}.new`, { force: true });
  }
};

const give = async (file: string, user: number, group: number): Promise<void> => {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await handle.chown(user, group);
    await handle.sync();
  } finally {
    await handle.close();
  }
};

const syncIfThere = (folder: string): Promise<void> =>
  syncDirectory(folder).catch((thrown: unknown) => {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown;
  });
