import { asFault, type Fault } from '#crds/kit/fault.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';

/** A kept disk that could not be given its VirtualDisk, and why. */
export type Unrecordable = { disk: KeptDisk; fault: Fault };

/** Records disks one after the other. One that can not be recorded is told, and keeps no other from it. */
export const recordEach = async (disks: readonly KeptDisk[], record: (disk: KeptDisk) => Promise<void>): Promise<Unrecordable[]> => {
  const failed: Unrecordable[] = [];
  for (const disk of disks) {
    try {
      await record(disk);
    } catch (thrown) {
      failed.push({ disk, fault: asFault(thrown, 'RecordFailed', `recording the kept disk ${disk.uid}`) });
    }
  }
  return failed;
};

/** What is said of disks that could not be recorded. Pure. */
export const saidOf = (failed: readonly Unrecordable[]): string => failed.map(({ disk: { uid, owner }, fault }) => `disk ${owner.disk} is kept under ${uid} and gets no VirtualDisk now: ${fault.message}`).join('; ');
