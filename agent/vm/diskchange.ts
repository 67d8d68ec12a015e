import type { Hardware } from '#crds/wire/desired.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { bootNames } from './bootorder.ts';
import type { Change } from './change.ts';
import { limitsKey, mediumKey } from './doubt.ts';

/** What can be changed about disks while the guest runs. */
export type DiskChange =
  | { is: 'plugDisk'; name: string }
  | { is: 'unplugDisk'; name: string }
  | { is: 'growDisk'; name: string; sizeMiB: number }
  | { is: 'limits'; name: string }
  | { is: 'medium'; name: string };

type Disks = Hardware['disks'];
type Disk = Disks[number];

/** In what the disks of a run differ from those that are wanted. Pure. `plugging`: in what those of the run are in doubt. */
export const diskChanges = (applied: Disks, desired: Disks, plugging: readonly string[]): Change[] => {
  const wanted = new Set(desired.map(({ name }) => name));
  const there = new Map(applied.map((disk) => [disk.name, disk]));
  const boots = bootNames(applied);
  // One that QEMU may have otherwise than it is wanted goes, and comes anew.
  const comesAnew = (disk: Disk): boolean =>
    plugging.includes(disk.name) && desired.some((then) => then.name === disk.name && difference(disk, then, plugging).some(({ live, held }) => held === undefined && live?.is !== 'growDisk'));
  return [
    ...applied.filter((disk) => !wanted.has(disk.name) || comesAnew(disk)).map((disk) => removal(disk, !disk.cdrom && boots.includes(disk.name))),
    ...desired.flatMap((disk) => {
      const now = there.get(disk.name);
      if (now && comesAnew(now)) return [];
      return now && !plugging.includes(disk.name) ? difference(now, disk, plugging) : [addition(disk)];
    }),
    // A CD drive is removed at once, and leaves the boot order with it.
    ...order(boots.filter((name) => wanted.has(name) || !there.get(name)?.cdrom), bootNames(desired)),
  ];
};

const pathOf = ({ name }: Disk): string => `disks[${name}]`;
const busOf = ({ cdrom, bus = cdrom ? 'scsi' : 'virtio' }: Disk): NonNullable<Disk['bus']> => bus;

/** QEMU's SATA controller takes and gives no disks while it runs. */
const plugs = (disk: Disk): boolean => busOf(disk) !== 'sata';
/** A guest sees a new size on these; the others' devices forbid it. */
const grows = (disk: Disk): boolean => busOf(disk) === 'virtio' || busOf(disk) === 'scsi';

const difference = (now: Disk, disk: Disk, plugging: readonly string[]): Change[] => {
  if ((now.cdrom ?? false) !== (disk.cdrom ?? false)) return [{ path: pathOf(disk), current: kindOf(now), desired: kindOf(disk) }];
  return disk.cdrom ? [...medium(now, disk, plugging), ...staged(now, disk)] : [...growth(now, disk), ...limits(now, disk, plugging), ...staged(now, disk)];
};

const kindOf = ({ cdrom }: Disk): string => (cdrom ? 'cdrom' : 'disk');

const medium = (now: Disk, disk: Disk, plugging: readonly string[]): Change[] => {
  const differs = now.imageUid !== disk.imageUid;
  if (!differs && !plugging.includes(mediumKey(disk.name))) return [];
  return [{ path: `${pathOf(disk)}.cdrom.image`, current: differs ? (now.imageUid ?? 'none') : 'unknown', desired: disk.imageUid ?? 'none', live: { is: 'medium', name: disk.name } }];
};

const addition = (disk: Disk): Change => ({
  path: pathOf(disk), current: 'absent', desired: 'present', ...(plugs(disk) ? { live: { is: 'plugDisk', name: disk.name } } : {}),
});

/** A disk of the boot order is removed at the next power cycle only, since the guest may run from it; so is one whose bus can not unplug. */
const removal = (disk: Disk, boots: boolean): Change => ({
  path: pathOf(disk), current: 'present', desired: 'absent', ...(boots || !plugs(disk) ? {} : { live: { is: 'unplugDisk', name: disk.name } }),
});

const growth = (now: Disk, { name, sizeMiB }: Disk): Change[] => {
  if (sizeMiB === undefined || sizeMiB === now.sizeMiB) return [];
  const change = { path: `disks[${name}].size`, current: now.sizeMiB === undefined ? 'unknown' : fromMiB(now.sizeMiB), desired: fromMiB(sizeMiB) };
  if (now.sizeMiB !== undefined && now.sizeMiB > sizeMiB) return [{ ...change, held: 'a disk never shrinks: give at least the size that it has, or none' }];
  // An older record does not know the size; then the step that grows the disk looks it up.
  return [grows(now) ? { ...change, live: { is: 'growDisk', name, sizeMiB } } : change];
};

const limits = (now: Disk, disk: Disk, plugging: readonly string[]): Change[] => {
  const differs = limitsText(now) !== limitsText(disk);
  if (!differs && !plugging.includes(limitsKey(disk.name))) return [];
  return [{ path: `${pathOf(disk)}.limits`, current: differs ? limitsText(now) : 'unknown', desired: limitsText(disk), live: { is: 'limits', name: disk.name } }];
};

const limitsText = ({ limits: { iops, mibPerSecond } = {} }: Disk): string =>
  [...(iops === undefined ? [] : [`${iops} iops`]), ...(mibPerSecond === undefined ? [] : [`${fromMiB(mibPerSecond)}/s`])].join(', ') || 'none';

/** What a device is made with. */
const staged = (now: Disk, disk: Disk): Change[] => {
  const fields: [string, string, string][] = [
    ['bus', busOf(now), busOf(disk)],
    ['readOnly', String(now.readOnly ?? false), String(disk.readOnly ?? false)],
    ['cache', now.cache ?? 'writeback', disk.cache ?? 'writeback'],
  ];
  return fields.flatMap(([field, current, desired]) => (current === desired ? [] : [{ path: `${pathOf(disk)}.${field}`, current, desired }]));
};

const order = (now: readonly string[], wanted: readonly string[]): Change[] => {
  const text = (names: readonly string[]): string => names.join(', ') || 'none';
  return text(now) === text(wanted) ? [] : [{ path: 'disks[].bootOrder', current: text(now), desired: text(wanted) }];
};

/** A disk that was plugged while the guest ran: firmware does not try it before the next start. Pure. */
export const asPlugged = (disk: Disk): Disk => {
  const { bootOrder: _bootOrder, ...plugged } = disk;
  return plugged;
};

/** The disks of a run after one live change. Pure. */
export const disksAfter = (applied: Disks, desired: Disks, change: DiskChange): Disks => {
  const disk = desired.find(({ name }) => name === change.name);
  switch (change.is) {
    case 'unplugDisk':
      return applied.filter(({ name }) => name !== change.name);
    case 'growDisk':
      return applied.map((each) => (each.name === change.name ? { ...each, sizeMiB: change.sizeMiB } : each));
    case 'limits':
      return applied.map(({ limits: old, ...each }) => (each.name !== change.name ? { ...each, ...(old ? { limits: old } : {}) } : { ...each, ...(disk?.limits ? { limits: disk.limits } : {}) }));
    case 'medium':
      return applied.map(({ imageUid: old, ...each }) => (each.name !== change.name ? { ...each, ...(old === undefined ? {} : { imageUid: old }) } : { ...each, ...(disk?.imageUid === undefined ? {} : { imageUid: disk.imageUid }) }));
    case 'plugDisk':
      // `recordPlug` has added it before QEMU got it, with its actual size.
      return applied.some(({ name }) => name === change.name) || !disk ? applied : [...applied, asPlugged(disk)];
  }
};
