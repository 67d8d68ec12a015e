import { Fault } from '#crds/kit/fault.ts';
import type { Hardware } from '#crds/wire/desired.ts';
import type { MachineChange } from '../hypervisor/driver.ts';
import type { ReadyDisk } from '../storage/driver.ts';
import { appliedOf, hardwareOf } from './change.ts';
import { asPlugged, type DiskChange } from './diskchange.ts';
import type { VmEntry } from './entry.ts';
import type { Hands, Scratch } from './hands.ts';
import { replacedBy } from './replaced.ts';
import { machineDisk, machineDrive } from './machine.ts';
import { slotCount, withSlots } from './places.ts';

/** Makes a disk that was never made, or gives a CD drive its medium. Faults: ImageNotReady, those of the storage. */
export const createDisk = async (hands: Hands, scratch: Scratch, { uid, unixId, desired }: VmEntry, name: string, signal: AbortSignal): Promise<void> => {
  const disk = desired?.disks.find((each) => each.name === name);
  if (!disk) return;
  if (unixId === null) throw new Fault('NoUnixId', `VM ${uid} has no Unix id yet`);
  const image = disk.imageUid === undefined ? undefined : hands.images.ready(disk.imageUid);
  if (disk.imageUid !== undefined && !image) throw new Fault('ImageNotReady', `disk ${name}: its image is not on the node any more`);
  if (disk.cdrom) {
    if (image && disk.imageUid !== undefined) scratch.places.set(name, await hands.storage.insert({ uid, name, imageUid: disk.imageUid, image, unixId }, signal));
    return;
  }
  const sight = await hands.storage.create({ uid, name, unixId, ...(image ? { image } : {}), ...(disk.sizeMiB === undefined ? {} : { sizeMiB: disk.sizeMiB }) }, signal);
  if (sight.is === 'ready') scratch.places.set(name, sight);
};

/** Makes a disk larger that no process has. */
export const growDisk = async (hands: Hands, scratch: Scratch, { uid }: VmEntry, name: string, sizeMiB: number, signal: AbortSignal): Promise<void> => {
  scratch.places.set(name, await hands.storage.grow(uid, name, sizeMiB, signal));
};

/** Removes the files of a disk that an edit took away, but for the medium of a drive that has come under its name. No machine has it. */
export const dropDisk = async (hands: Hands, scratch: Scratch, entry: VmEntry, name: string, signal: AbortSignal): Promise<void> => {
  const { uid, desired } = entry;
  const drive = replacedBy(entry, name);
  if (!drive && !desired?.removedDisks?.some((each) => each.name === name)) return;
  await hands.storage.drop(uid, name, drive?.imageUid, signal);
  if (!drive) scratch.places.delete(name);
  await hands.ledger.change(uid, (mine) => ({ ...mine, disks: mine.disks.filter((each) => each !== name) }));
};

/** Removes the media that lie beside that of a CD drive, which no machine has any more. */
export const tidyDrive = async (hands: Hands, { uid, desired }: VmEntry, name: string, signal: AbortSignal): Promise<void> => {
  const drive = desired?.disks.find((each) => each.name === name);
  if (drive?.cdrom) await hands.storage.tidy(uid, name, drive.imageUid, signal);
};

/** Names of disks whose files must be there from now on. CD drives do not count: a medium is linked to its image again. Pure. */
export const mustBeThere = (made: readonly string[], disks: Hardware['disks']): string[] =>
  [...new Set([...made, ...disks.flatMap(({ name, cdrom }) => (cdrom ? [] : [name]))])];

/** The disks of a run that starts now, with the sizes that they turned out to have. Pure. */
export const disksAsMade = (disks: Hardware['disks'], places: Scratch['places']): Hardware['disks'] =>
  disks.map((disk) => {
    if (disk.cdrom) return disk;
    const sizeMiB = places.get(disk.name)?.sizeMiB ?? disk.sizeMiB;
    return sizeMiB === undefined ? disk : { ...disk, sizeMiB };
  });

/** Changes a disk of a machine that runs. Its record follows in `applyChange`. Faults: those of the drivers. */
export const changeDisk = async (hands: Hands, scratch: Scratch, entry: VmEntry, change: DiskChange, signal: AbortSignal): Promise<void> => {
  const { uid } = entry;
  const slot = entry.slots[`disk/${change.name}`];
  if (slot === undefined || slot >= slotCount) {
    throw new Fault('ChangeRefused', `disk ${change.name} has no free slot in the machine; it gets one when another device is gone`);
  }
  const wanted = entry.desired?.disks.find(({ name }) => name === change.name);
  switch (change.is) {
    case 'growDisk':
      return hands.hypervisor.change(uid, { do: 'growDisk', slot, sizeMiB: change.sizeMiB }, signal);
    case 'unplugDisk':
      return hands.hypervisor.change(uid, { do: 'removeDisk', slot }, signal);
    case 'medium': {
      const drive = wanted && machineDrive(wanted, scratch.places.get(change.name), entry.slots);
      if (!drive) throw new Fault('ChangeRefused', `the medium of CD drive ${change.name} was not made ready`);
      return hands.hypervisor.change(uid, { do: 'medium', slot, ...(drive.medium === undefined ? {} : { medium: drive.medium }) }, signal);
    }
    case 'limits':
      return hands.hypervisor.change(uid, { do: 'limits', slot, limits: wanted?.limits ?? {} }, signal);
    case 'plugDisk': {
      const addition = wanted && additionOf(wanted, scratch.places.get(change.name), entry.slots);
      if (!addition) throw new Fault('ChangeRefused', `disk ${change.name} was not made ready`);
      await recordPlug(hands, uid, change.name, scratch);
      return hands.hypervisor.change(uid, addition, signal);
    }
  }
};

const additionOf = (disk: Hardware['disks'][number], place: ReadyDisk | undefined, slots: VmEntry['slots']): MachineChange | undefined => {
  if (disk.cdrom) {
    const drive = machineDrive(disk, place, slots);
    return drive && { do: 'addDrive', drive };
  }
  const made = place && machineDisk(disk, place, slots);
  return made && { do: 'addDisk', disk: made };
};

/**
 * Before QEMU may have a disk it is written down that it may: who takes over then unplugs it before its files go, and never makes
 * it anew.
 */
const recordPlug = (hands: Hands, uid: string, name: string, { places }: Scratch): Promise<void> =>
  hands.ledger.change(uid, (mine) => {
    const applied = appliedOf(mine);
    const disk = mine.desired?.disks.find((each) => each.name === name);
    if (!applied || !disk) return mine;
    const next = { ...applied, disks: [...applied.disks.filter((each) => each.name !== name), ...disksAsMade([asPlugged(disk)], places)] };
    return {
      ...mine, applied: next, plugging: [...new Set([...mine.plugging, name])], disks: mustBeThere(mine.disks, [disk]),
      slots: withSlots(mine.slots, mine.desired ? hardwareOf(mine.desired) : next, next),
    };
  });
