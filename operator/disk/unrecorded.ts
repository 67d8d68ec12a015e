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

/** Most VirtualDisks that are made for VMs of one name without somebody's word: no agent can fill the cluster with disks that it only claims to keep. */
export const maxRecorded = 64;

/** Disks of the machine of a VM that its node keeps and that get a VirtualDisk each. What is too many stays on the node, and is told there once the VM is gone. */
export const unrecordedOf = (node: string, { namespace, name, uid }: { namespace: string; name: string; uid: string }, sources: RecordedSources): KeptDisk[] => {
  const found = unrecordedOn(node, sources).filter(({ owner }) => owner.vmUid === uid);
  if (found.length === 0) return found;
  const recorded = sources.disks.all().filter((held) => held.meta.namespace === namespace && standsFor(held).vmName === name).length;
  return found.slice(0, Math.max(0, maxRecorded - recorded));
};
