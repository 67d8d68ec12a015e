import { appliedOf, type Change } from './change.ts';
import { mediumKey } from './doubt.ts';
import type { VmEntry } from './entry.ts';
import type { DiskFact, Step, VmFacts } from './facts.ts';
import { replacedBy } from './replaced.ts';
import { returnOf, settleMoves, takenAway } from './retain.ts';

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

/** Removes the files of disks and media that an edit took away, once the machine does not have them any more; what outlives the VM is kept. Pure. */
export const dropSteps = (facts: VmFacts): Step[] => {
  const { entry, sight, disks, staleDrives } = facts;
  if (sight.is === 'unknown' || entry.ending) return [];
  const used = new Map(appliedOf(entry)?.disks.map((disk) => [disk.name, disk]));
  const removed = (entry.desired?.removedDisks ?? [])
    .filter(({ name }) => !used.has(name) && (entry.disks.includes(name) || disks.get(name)?.is === 'ready' || staleDrives.has(name)));
  const replaced = (entry.desired?.disks ?? []).filter(({ name }) => replacedBy(entry, name) && (used.get(name)?.cdrom ?? !used.has(name)));
  const drops = [...removed, ...replaced];
  const tidied = (entry.desired?.disks ?? [])
    .filter(({ name, cdrom, imageUid }) => cdrom && staleDrives.has(name) && (!used.has(name) || (used.get(name)?.imageUid === imageUid && !entry.plugging.includes(mediumKey(name)))));
  const moves = settleMoves(facts, (name) => used.has(name) || drops.some((each) => each.name === name));
  return [...drops.map(({ name }) => takenAway(facts, name)), ...moves, ...tidied.map(({ name }) => ({ do: 'tidyDrive' as const, name }))];
};

/** A change of a disk, with what keeps it from being made now. Pure. */
export const heldDisk = (facts: VmFacts, change: Change): Change => {
  const { entry, disks, images } = facts;
  const { live } = change;
  if (live?.is === 'unplugDisk' && unclaimedDisks(entry).includes(live.name)) {
    return { ...change, held: 'no edit took it away, so it is kept: this spec is older than the disk' };
  }
  if (live?.is !== 'plugDisk' && live?.is !== 'medium') return change;
  const back = returnOf(facts, live.name);
  if (back.is === 'take') return change;
  if (back.is === 'wait') return { ...change, held: 'the disk that was kept for it is still on its way' };
  const broken = back.is === 'trouble' ? back.trouble.message : lossOf(live.name, entry, disks.get(live.name));
  if (broken) return { ...change, held: broken };
  const imageUid = entry.desired?.disks.find(({ name }) => name === live.name)?.imageUid;
  if (imageUid === undefined || disks.get(live.name)?.is !== 'absent') return change;
  const image = images.get(imageUid);
  return image?.ready ? change : { ...change, held: image?.observed?.trouble?.message ?? 'its image is not on the node yet' };
};

/** Why a disk can not be used: it must be there and is not, or it can not be looked at. A medium that is gone is no loss: it is linked to its image again. Pure. */
export const lossOf = (name: string, { disks, desired }: VmEntry, seen: DiskFact | undefined): string | undefined => {
  if (seen?.is === 'fault') return seen.fault.message;
  const isDrive = desired?.disks.some((disk) => disk.name === name && disk.cdrom);
  return seen?.is === 'absent' && !isDrive && disks.includes(name) ? `disk ${name}: its file is gone from the node; it is never made anew. Restore the file, or delete the VM` : undefined;
};

/** What is done so that the machine gets a disk, a drive or a medium while it runs. Pure. */
export const plugDiskSteps = (facts: VmFacts, change: Extract<Change['live'], { is: 'plugDisk' | 'medium' }>): Step[] => {
  const back = returnOf(facts, change.name);
  if (back.is === 'take') return [{ do: 'takeDisk', name: change.name, kept: back.kept, forChange: 'plugDisk' }, { do: 'change', change }];
  return [
    ...(facts.disks.get(change.name)?.is === 'absent' ? [{ do: 'createDisk' as const, name: change.name, forChange: change.is }] : []),
    { do: 'change', change },
  ];
};
