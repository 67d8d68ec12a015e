import { z } from 'zod';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { Cache } from '../cache.ts';
import type { Held } from '../kube/frame.ts';
import type { Fleet } from '../fleet/fleet.ts';

const loose = z.object({ status: z.object({ uid: z.string().optional(), vmName: z.string().optional() }).catch({}) }).catch({ status: {} });

/** Which kept disk the object of a VirtualDisk stands for, and of which VM it was, also when our schema refuses the object. Pure. */
export const standsFor = (held: Held<VirtualDisk>): { uid?: string | undefined; vmName?: string | undefined } => (held.is === 'object' ? held.object.status : loose.parse(held.raw).status);

/** What tells which kept disks have a VirtualDisk. */
export type RecordedSources = { disks: Pick<Cache<VirtualDisk>, 'all'>; fleet: Pick<Fleet, 'keptDisks' | 'isEnding'> };

/** Disks that a node keeps and that no VirtualDisk stands for, but for those that are being ended. */
export const unrecordedOn = (node: string, { disks, fleet }: RecordedSources): KeptDisk[] => {
  const kept = fleet.keptDisks(node);
  if (kept.length === 0) return [];
  const recorded = new Set(disks.all().map((held) => standsFor(held).uid));
  return kept.filter(({ uid }) => !recorded.has(uid) && !fleet.isEnding(node, uid));
};
