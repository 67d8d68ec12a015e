import { appliedOf, type Change } from './change.ts';
import type { VmEntry } from './entry.ts';
import type { DiskFact, Step, VmFacts } from './facts.ts';

/** Names of the disks that a VM shall have, has, or had before an edit took them away. Pure. */
export const disksInQuestion = ({ desired, disks }: VmEntry): string[] =>
  [...new Set([...(desired?.disks ?? []), ...(desired?.removedDisks ?? [])].map(({ name }) => name).concat(disks))];

/**
 * Disks whose files are there although nobody wants them and no edit took them away: a restored cluster knows less than the
 * node. They are told and kept. Pure.
 */
export const unclaimedDisks = ({ desired, disks }: VmEntry): string[] => {
  const known = new Set([...(desired?.disks ?? []), ...(desired?.removedDisks ?? [])].map(({ name }) => name));
  return disks.filter((name) => !known.has(name));
};

/** Removes the files of disks that an edit took away, once the machine does not have them any more. Pure. */
export const dropSteps = ({ entry, sight, disks }: VmFacts): Step[] => {
  if (sight.is === 'unknown' || entry.ending) return [];
  const used = new Set(appliedOf(entry)?.disks.map(({ name }) => name));
  return (entry.desired?.removedDisks ?? [])
    .filter(({ name }) => !used.has(name) && (entry.disks.includes(name) || disks.get(name)?.is === 'ready'))
    .map(({ name }) => ({ do: 'dropDisk', name }));
};

/** A change of a disk, with what keeps it from being made now. Pure. */
export const heldDisk = ({ entry, disks, images }: VmFacts, change: Change): Change => {
  const { live } = change;
  if (live?.is === 'unplugDisk' && unclaimedDisks(entry).includes(live.name)) {
    return { ...change, held: 'no edit took it away, so it is kept: this spec is older than the disk' };
  }
  if (live?.is !== 'plugDisk') return change;
  const broken = lossOf(live.name, entry, disks.get(live.name));
  if (broken) return { ...change, held: broken };
  const imageUid = entry.desired?.disks.find(({ name }) => name === live.name)?.imageUid;
  if (imageUid === undefined || disks.get(live.name)?.is === 'ready') return change;
  const image = images.get(imageUid);
  return image?.ready ? change : { ...change, held: image?.observed?.trouble?.message ?? 'its image is not on the node yet' };
};

/** Why a disk can not be used: it must be there and is not, or it can not be looked at. Pure. */
export const lossOf = (name: string, { disks }: VmEntry, seen: DiskFact | undefined): string | undefined => {
  if (seen?.is === 'fault') return seen.fault.message;
  return seen?.is !== 'ready' && disks.includes(name) ? `disk ${name}: its file is gone from the node; it is never made anew. Restore the file, or delete the VM` : undefined;
};

/** What is done so that the machine gets a disk while it runs. Pure. */
export const plugDiskSteps = ({ disks }: VmFacts, change: Extract<Change['live'], { is: 'plugDisk' }>): Step[] => [
  ...(disks.get(change.name)?.is === 'ready' ? [] : [{ do: 'createDisk' as const, name: change.name, toPlug: true as const }]),
  { do: 'change', change },
];
