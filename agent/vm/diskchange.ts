import type { Hardware } from '#crds/wire/desired.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import type { Change } from './change.ts';

/** What can be changed about disks while the guest runs. */
export type DiskChange =
  | { is: 'plugDisk'; name: string }
  | { is: 'unplugDisk'; name: string }
  | { is: 'growDisk'; name: string; sizeMiB: number };

type Disks = Hardware['disks'];
type Disk = Disks[number];

/** In what the disks of a run differ from those that are wanted. Pure. `plugging`: those of the run that QEMU may not have. */
export const diskChanges = (applied: Disks, desired: Disks, plugging: readonly string[]): Change[] => {
  const wanted = new Map(desired.map((disk) => [disk.name, disk]));
  const there = new Map(applied.map((disk) => [disk.name, disk]));
  return [
    ...applied.filter(({ name }) => !wanted.has(name)).map((disk) => removal(disk, disk === applied[0])),
    ...desired.flatMap((disk) => {
      const now = there.get(disk.name);
      return now && !plugging.includes(disk.name) ? growth(now, disk) : [{ path: pathOf(disk), current: 'absent', desired: 'present', live: { is: 'plugDisk' as const, name: disk.name } }];
    }),
  ];
};

const pathOf = ({ name }: Disk): string => `disks[${name}]`;

/** What the guest runs from is not pulled from under it. */
const removal = (disk: Disk, boots: boolean): Change => ({
  path: pathOf(disk), current: 'present', desired: 'absent', ...(boots ? {} : { live: { is: 'unplugDisk', name: disk.name } }),
});

const growth = (now: Disk, { name, sizeMiB }: Disk): Change[] => {
  if (sizeMiB === undefined || sizeMiB === now.sizeMiB) return [];
  const change = { path: `disks[${name}].size`, current: now.sizeMiB === undefined ? 'unknown' : fromMiB(now.sizeMiB), desired: fromMiB(sizeMiB) };
  // One that is not known, of an older record, is looked up by who grows it.
  if (now.sizeMiB === undefined || now.sizeMiB < sizeMiB) return [{ ...change, live: { is: 'growDisk', name, sizeMiB } }];
  return [{ ...change, held: 'a disk never shrinks: give at least the size that it has, or none' }];
};

/** The disks of a run after one live change. Pure. */
export const disksAfter = (applied: Disks, desired: Disks, change: DiskChange): Disks => {
  switch (change.is) {
    case 'unplugDisk':
      return applied.filter(({ name }) => name !== change.name);
    case 'growDisk':
      return applied.map((disk) => (disk.name === change.name ? { ...disk, sizeMiB: change.sizeMiB } : disk));
    case 'plugDisk': {
      const disk = desired.find(({ name }) => name === change.name);
      return [...applied.filter(({ name }) => name !== change.name), ...(disk ? [disk] : [])];
    }
  }
};
