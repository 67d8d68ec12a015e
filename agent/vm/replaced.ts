import type { DesiredVm } from '#crds/wire/desired.ts';
import type { VmEntry } from './entry.ts';

/**
 * An entry with the disks that an edit took away, and under whose names a new desire has CD drives: they go all the same. Without
 * such an edit they stay: a cluster that was restored to an older state knows less than the node. Pure.
 */
export const withReplaced = (entry: VmEntry, { disks }: Pick<DesiredVm, 'disks'>): VmEntry => {
  const { replaced = [], ...rest } = entry;
  const takenAway = new Set([...replaced, ...(entry.desired?.removedDisks ?? []).map(({ name }) => name)]);
  const names = disks.flatMap(({ name, cdrom }) => (cdrom && takenAway.has(name) && entry.disks.includes(name) ? [name] : []));
  return names.length === 0 ? rest : { ...rest, replaced: names };
};

/** The CD drive that has come under the name of a disk which an edit took away and whose files are still there. Pure. */
export const replacedBy = ({ replaced, desired, disks }: VmEntry, name: string): DesiredVm['disks'][number] | undefined =>
  (replaced?.includes(name) && disks.includes(name) ? desired?.disks.find((disk) => disk.name === name && disk.cdrom) : undefined);
