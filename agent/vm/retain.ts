import type { DesiredVm } from '#crds/wire/desired.ts';
import type { DiskOwner, KeepOrder, KeptDisk } from '#crds/wire/kept.ts';
import type { DiskEntry, VmEntry } from './entry.ts';
import type { Step, Trouble, VmFacts } from './facts.ts';

/** An entry with what a new desire says of disks that outlive the VM. One that it omits stays what it was: an omission is no word about it. Pure. */
export const withRetained = (entry: VmEntry, { disks, namespaceUid }: Pick<DesiredVm, 'disks' | 'namespaceUid'>): VmEntry => {
  const { retained, ...rest } = entry;
  // What a CD drive of that name shall be is no word about the disk either.
  const omitted = (retained?.disks ?? []).filter((name) => !disks.some((disk) => disk.name === name && !disk.cdrom));
  const names = [...new Set([...omitted, ...disks.flatMap(({ name, retain }) => (retain ? [name] : []))])];
  const uid = namespaceUid ?? retained?.namespaceUid;
  return names.length === 0 || uid === undefined ? rest : { ...rest, retained: { namespaceUid: uid, disks: names.slice(0, 64) } };
};

/** What two tombstones of one VM say together: what one of them keeps is kept. Pure. */
export const keptToo = (before: KeepOrder | undefined, order: KeepOrder): KeepOrder =>
  ({ ...order, disks: [...new Set([...order.disks, ...(before?.disks ?? [])])].slice(0, 64) });

/** Names of disks that outlive the VM. Pure. */
const retainedNames = ({ retained, keep }: Pick<VmEntry, 'retained' | 'keep'>): string[] => [...new Set([...(retained?.disks ?? []), ...(keep?.disks ?? [])])];

/** Whose a disk of this VM is once it is kept; undefined when nobody has said in which namespace the VM is. Pure. */
export const ownerOf = ({ uid, desired, retained, keep }: VmEntry, disk: string): DiskOwner | undefined => {
  const namespace = keep?.namespace ?? desired?.namespace;
  const vm = keep?.vm ?? desired?.name;
  const namespaceUid = keep?.namespaceUid ?? retained?.namespaceUid ?? desired?.namespaceUid;
  return namespace === undefined || vm === undefined || namespaceUid === undefined ? undefined : { namespace, namespaceUid, vm, vmUid: uid, disk };
};

/** The kept disk that is on its way between its place and this VM, under this name. Pure. */
export const movingOf = (kept: Iterable<DiskEntry>, uid: string, name: string): DiskEntry | undefined =>
  [...kept].find(({ moving, owner }) => moving?.vmUid === uid && owner.disk === name);

/** Kept disks as the operator is told them. One whose files are still on their way out of its VM is not kept yet. Pure. */
export const toldDisks = (disks: readonly DiskEntry[]): KeptDisk[] =>
  disks.filter(({ moving }) => moving?.is !== 'keeping').map(({ uid, owner, sizeMiB }) => ({ uid, owner, sizeMiB })).toSorted((a, b) => (a.uid < b.uid ? -1 : 1));

/**
 * How a wanted disk is got that was kept.
 *
 *   none     it is no kept disk, or the VM has it already
 *   take     it is to be taken back
 *   wait     it is still on its way to or from another VM, or out of one
 *   trouble  it is not here, or not for this VM: no other disk is made for it
 */
export type Return = { is: 'none' } | { is: 'take'; kept: string } | { is: 'wait' } | { is: 'trouble'; trouble: Trouble };

/** How a wanted disk is got that was kept. Pure. */
export const returnOf = ({ entry, disks, kept }: Pick<VmFacts, 'entry' | 'disks' | 'kept'>, name: string): Return => {
  const { uid, desired } = entry;
  const disk = desired?.disks.find((each) => each.name === name);
  if (!desired || !disk || disk.cdrom) return { is: 'none' };
  const mine = movingOf(kept, uid, name);
  if (mine) return { is: 'take', kept: mine.uid };
  if (entry.disks.includes(name) || disks.get(name)?.is !== 'absent') return { is: 'none' };
  // A cluster that was restored may have forgotten the disk; the node has not.
  const [found, another] = kept.filter((each) => (disk.kept === undefined ? !each.ending && (isFor(each.owner, desired, name) || isOf(each.owner, desired, name)) : each.uid === disk.kept));
  if (!found && disk.kept === undefined) return { is: 'none' };
  const trouble = (message: string): Return => ({ is: 'trouble', trouble: { reason: 'DiskMissing', message: `disk ${name}: ${message}`, final: true } });
  if (!found) return trouble(`it was kept here under ${disk.kept} and the node does not have it any more; it is never made anew. Restore it, or delete its VirtualDisk`);
  if (another) return trouble(`two disks are kept for it, ${found.uid} and ${another.uid}; discard one of them`);
  if (found.ending) return trouble('it was kept and is being deleted');
  if (!isFor(found.owner, desired, name) && !isOf(found.owner, desired, name)) return trouble(`the kept disk ${found.uid} is not for this VM`);
  return found.moving ? { is: 'wait' } : { is: 'take', kept: found.uid };
};

/** Whether a disk goes to a VM: only to one of the same namespace (not one that came later under its name) and name, under the same disk name. Pure. */
const isFor = (owner: DiskOwner, { namespace, namespaceUid, name }: DesiredVm, disk: string): boolean =>
  owner.namespace === namespace && owner.namespaceUid === namespaceUid && owner.vm === name && owner.disk === disk;

/** Whether it was taken from this very machine; a desire that retains nothing does not say in which namespace it is. Pure. */
const isOf = (owner: DiskOwner, { uid }: DesiredVm, disk: string): boolean => owner.vmUid === uid && owner.disk === disk;

/** What is done with a disk that is taken away: it is kept if it outlives the VM, else its files go, as does what a CD drive of that name has left. Pure. */
export const takenAway = ({ entry, disks }: Pick<VmFacts, 'entry' | 'disks'>, name: string): Step => {
  const mayBeThere = entry.disks.includes(name) || disks.get(name)?.is !== 'absent';
  return mayBeThere && retainedNames(entry).includes(name) ? { do: 'keepDisk', name } : { do: 'dropDisk', name };
};

/** Moves that were begun for a VM and that its desire does not want any more are made back, once no machine has the disk. Pure. */
export const settleMoves = ({ entry, kept }: Pick<VmFacts, 'entry' | 'kept'>, isUsed: (name: string) => boolean): Step[] =>
  kept.flatMap(({ moving, owner: { disk } }): Step[] => {
    const wanted = entry.desired?.disks.some(({ name, cdrom }) => name === disk && !cdrom);
    return moving?.vmUid === entry.uid && !wanted && !isUsed(disk) ? [{ do: 'keepDisk', name: disk }] : [];
  });

/** The disks that are kept before the files of a VM that ends are removed. Pure. */
export const keepSteps = ({ entry, kept }: Pick<VmFacts, 'entry' | 'kept'>): Step[] => {
  const moving = kept.flatMap(({ moving: move, owner }) => (move?.vmUid === entry.uid ? [owner.disk] : []));
  return [...new Set([...retainedNames(entry), ...moving])].map((name): Step => ({ do: 'keepDisk', name }));
};
