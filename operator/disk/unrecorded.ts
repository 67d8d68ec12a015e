import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';

/** What tells which kept disks have a VirtualDisk. */
export type RecordedSources = { disks: Pick<Cache<VirtualDisk>, 'list'>; fleet: Pick<Fleet, 'keptDisks' | 'isEnding'> };

/** Disks that a node keeps and that no VirtualDisk stands for, but for those that are being ended. */
export const unrecordedOn = (node: string, { disks, fleet }: RecordedSources): KeptDisk[] => {
  const recorded = new Set(disks.list().map(({ status }) => status.uid));
  return fleet.keptDisks(node).filter(({ uid }) => !recorded.has(uid) && !fleet.isEnding(node, uid));
};
