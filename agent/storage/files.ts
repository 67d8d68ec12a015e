import { lstat, readdir, rm } from 'node:fs/promises';
import type { Logger } from 'pino';
import { asFault, Fault } from '#crds/kit/fault.ts';
import type { Paths } from '../host/paths.ts';
import { parseQcow2 } from '../image/inspect/qcow2.ts';
import { ensureVmDirectory, removeVmDirectory, spaceOf } from './directory.ts';
import type { DiskPlace, DiskSight, DiskSpec, KeptPlace, ReadyDisk, Storage } from './driver.ts';
import { errnoOf, isThere, makeWhole, syncDirectory, writeWhole } from './durable.ts';
import { growDisk } from './grow.ts';
import { readHeader } from './header.ts';
import { makeKeptFiles } from './kept.ts';
import { linkImage } from './link.ts';
import { makeMedia } from './media.ts';
import { emptyQcow2 } from './qcow2.ts';
import { seedImage } from './seed.ts';
import { sizeOf } from './size.ts';

const mebibyte = 1024 * 1024;

/** What the file storage needs. */
export type FileStorageOptions = { paths: Paths; log: Pick<Logger, 'info' | 'warn'> };

/**
 * Disks as files in the directory of each VM: a hard link to the image (so that eviction of the image is an unlink) and
 * a qcow2 overlay on it, or an empty qcow2. Must run as root. Faults: DiskTooSmall, NoSpace, DiskMissing (an overlay
 * whose base is gone), DiskDamaged (a header that we did not write), StorageFailed.
 */
export const makeFileStorage = ({ paths, log }: FileStorageOptions): Storage => {
  const overlay = (uid: string, name: string) => `${paths.vm(uid)}/${paths.diskFile(name)}`;
  const media = makeMedia(paths, log);
  const aside = makeKeptFiles(paths);
  const base = (uid: string, name: string) => `${paths.disks(uid)}/${baseName(name)}`;

  const placeOf = (name: string, onBase: boolean): DiskPlace => ({
    file: paths.diskFile(name), format: 'qcow2', ...(onBase ? { base: paths.baseFile(name) } : {}),
  });

  const observe = async (uid: string, name: string): Promise<DiskSight> => {
    const found = await readHeader(overlay(uid, name));
    if (!found) return { is: 'absent' };
    const header = parseQcow2(found.head, found.fileBytes);
    if (header.backing !== undefined && header.backing !== baseName(name)) {
      throw new Fault('DiskDamaged', `disk ${name}: its header names the backing file ${JSON.stringify(header.backing)}, which we did not write`, { retry: 'never' });
    }
    if (header.backing !== undefined && !(await isFile(base(uid, name)))) {
      throw new Fault('DiskMissing', `disk ${name}: the copy of its image, ${baseName(name)}, is gone; restore it or delete the VM`, { retry: 'never' });
    }
    return { is: 'ready', ...placeOf(name, header.backing !== undefined), sizeMiB: Math.floor(header.virtualSizeBytes / mebibyte) };
  };

  const create = async (disk: DiskSpec, signal: AbortSignal): Promise<DiskSight> => {
    const { uid, name, image, unixId } = disk;
    const seen = await observe(uid, name);
    if (seen.is === 'ready') return seen;
    const sizeMiB = sizeOf(disk);
    await ensureVmDirectory(paths, uid, unixId);
    signal.throwIfAborted();
    if (image) await linkImage(image.file, base(uid, name), () => isThere(overlay(uid, name)), log);
    const content = emptyQcow2(sizeMiB * mebibyte, image && baseName(name));
    const made = await makeWhole(overlay(uid, name), { mode: 0o600, uid: unixId, gid: unixId }, async (handle) => {
      await handle.truncate(content.fileBytes);
      for (const { at, bytes } of content.pieces) await handle.write(bytes, 0, bytes.byteLength, at);
    });
    if (made) {
      await tidy(uid, name);
      return { is: 'ready', ...placeOf(name, image !== undefined), sizeMiB };
    }
    const other = await observe(uid, name);
    if (other.is === 'absent') throw new Fault('StorageFailed', `disk ${name}: another process works on the files of this VM; it is tried again`);
    return other;
  };

  /** Removes what half-made attempts at a disk left. Only once the disk has its name: before, it may be another's attempt. */
  const tidy = async (uid: string, name: string): Promise<void> => {
    for (const file of await readdir(paths.disks(uid)).catch(none)) {
      if (attempts.test(file) && file.startsWith(`${name}.`)) await rm(`${paths.disks(uid)}/${file}`, { force: true });
    }
  };

  const grow = async (uid: string, name: string, sizeMiB: number, signal: AbortSignal): Promise<ReadyDisk> => {
    const seen = await observe(uid, name);
    if (seen.is === 'absent') throw new Fault('DiskMissing', `disk ${name}: its file is gone from the node; restore it or delete the VM`, { retry: 'never' });
    if (seen.sizeMiB >= sizeMiB) return seen;
    await growDisk(paths.vm(uid), name, seen, sizeMiB, (await lstat(overlay(uid, name))).uid, signal);
    return { ...seen, sizeMiB };
  };

  /** The overlay goes first: a base without one is what a half-made disk leaves too. */
  const drop = async (uid: string, name: string, medium: string | undefined): Promise<void> => {
    for (const file of [overlay(uid, name), base(uid, name)]) await rm(file, { force: true });
    await tidy(uid, name);
    await media.tidy(uid, name, medium);
    await syncDirectory(paths.disks(uid)).catch((thrown: unknown) => {
      if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    });
  };

  const keep = async (place: KeptPlace & { record: string }): ReturnType<Storage['keep']> => {
    if (!(await aside.keep(place))) return { is: 'absent' };
    const found = await readHeader(`${paths.kept}/${place.kept}/${place.name}.qcow2`);
    let sizeMiB: number | undefined;
    try {
      if (found) sizeMiB = Math.floor(parseQcow2(found.head, found.fileBytes).virtualSizeBytes / mebibyte);
    } catch {
      // One that is damaged is kept as it is; who takes it back is told.
    }
    return { is: 'kept', sizeMiB };
  };

  const takeBack = async (place: KeptPlace & { unixId: number }): Promise<ReadyDisk> => {
    const { uid, name, kept } = place;
    const seen = (await aside.takeBack(place)) ? await observe(uid, name) : undefined;
    if (seen?.is === 'ready') return seen;
    throw new Fault('DiskMissing', `disk ${name}: the files that were kept under ${kept} are gone from the node; restore them, or delete the VirtualDisk and the VM`, { retry: 'never' });
  };

  return {
    keep: (place, signal) => guarded(signal, `keeping disk ${place.name}`, () => keep(place)),
    takeBack: (place, signal) => guarded(signal, `taking back disk ${place.name}`, () => takeBack(place)),
    removeKept: (kept, signal) => guarded(signal, `removing kept disk ${kept}`, () => aside.remove(kept)),
    grow: (uid, name, sizeMiB, signal) => guarded(signal, `growing disk ${name}`, () => grow(uid, name, sizeMiB, signal)),
    drive: (uid, name, imageUid, signal) => guarded(signal, `looking at CD drive ${name}`, () => media.drive(uid, name, imageUid)),
    insert: (medium, signal) => guarded(signal, `the medium of CD drive ${medium.name}`, () => media.insert(medium)),
    tidy: (uid, name, imageUid, signal) => guarded(signal, `removing old media of CD drive ${name}`, () => media.tidy(uid, name, imageUid)),
    drop: (uid, name, medium, signal) => guarded(signal, `removing disk ${name}`, () => drop(uid, name, medium)),
    observe: (uid, name, signal) => guarded(signal, `looking at disk ${name}`, () => observe(uid, name)),
    create: (disk, signal) => guarded(signal, `making disk ${disk.name}`, () => create(disk, signal)),
    seed: (uid, seed, unixId, signal) => guarded(signal, 'writing the cloud-init seed', async () => {
      await ensureVmDirectory(paths, uid, unixId);
      await writeWhole(`${paths.vm(uid)}/${paths.seedFile}`, { mode: 0o440, uid: rootId(), gid: unixId }, async (handle) => {
        await handle.writeFile(seedImage(seed));
      });
    }),
    remove: (uid, signal) => guarded(signal, 'removing the files of the VM', () => removeVmDirectory(paths, uid)),
    space: () => spaceOf(paths),
  };
};

/** Names of what a crash leaves of an attempt; a disk's own name has no dot. */
const attempts = /^[^.]+\.(qcow2|base)\.([0-9a-f-]+\.)?new$/;

const none = (thrown: unknown): string[] => {
  if (errnoOf(thrown) !== 'ENOENT') throw thrown;
  return [];
};

const baseName = (disk: string): string => `${disk}.base`;

const rootId = (): number => process.getuid?.() ?? 0;

const guarded = async <T>(signal: AbortSignal, doing: string, act: () => Promise<T>): Promise<T> => {
  signal.throwIfAborted();
  try {
    return await act();
  } catch (thrown) {
    if (signal.aborted) throw signal.reason;
    const full = errnoOf(thrown) === 'ENOSPC' || errnoOf(thrown) === 'EDQUOT';
    if (thrown instanceof Fault && thrown.code === 'ImageRefused') {
      throw new Fault('DiskDamaged', `${doing}: the header of the file is not one that we wrote (${thrown.message})`, { cause: thrown, retry: 'never' });
    }
    throw asFault(thrown, full ? 'NoSpace' : 'StorageFailed', doing);
  }
};

const isFile = async (file: string): Promise<boolean> =>
  lstat(file).then((seen) => seen.isFile(), (thrown: unknown) => {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    return false;
  });
