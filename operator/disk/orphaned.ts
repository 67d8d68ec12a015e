import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Claim, ForVm } from './claims.ts';
import { type RecordedSources, unrecordedOn } from './unrecorded.ts';

/** Where disks are looked for that no VirtualDisk stands for. */
export type OrphanedSources = RecordedSources & { nodes: Cache<HypervisorNode>; fleet: Pick<Fleet, 'keepsDisks'> };

/** A disk that a node keeps, and for whom; `namespaceUid` is not recorded with the node. */
type Orphaned = { uid: string; namespace: string; namespaceUid?: string; vm: string; disk: string };

/** What a node keeps by its own word; by what was last recorded of it while it has not spoken. */
const keptOn = (node: string, sources: OrphanedSources): Orphaned[] => {
  if (sources.fleet.keepsDisks(node) !== undefined) return unrecordedOn(node, sources).map(({ uid, owner: { namespace, namespaceUid, vm, disk } }) => ({ uid, namespace, namespaceUid, vm, disk }));
  return sources.nodes.get(node)?.status.orphanDisks?.map(({ uid, namespace, vm, disk }) => ({ uid, namespace, vm, disk })) ?? [];
};

/**
 * Disks that nodes keep for a VM by their word alone: its VM was torn out of the API, or its VirtualDisk is forgotten. The VM waits for somebody to say what becomes of them: it
 * is drawn to no node by such a word, and gets no new disk in their place. A node that says so knows the uid of the namespace: it was given a VM with such disks in there.
 */
export const orphanedFor = ({ namespace, namespaceUid, name, disks }: ForVm, sources: OrphanedSources): Claim[] => sources.nodes.all().flatMap(({ meta: { name: node } }) =>
  keptOn(node, sources)
    .filter((kept) => kept.namespace === namespace && (kept.namespaceUid ?? namespaceUid) === namespaceUid && kept.vm === name && disks.some((disk) => disk.name === kept.disk && !disk.cdrom))
    .map(({ uid, disk }): Claim => ({ disk, object: '', kept: uid, node, deleting: false, at: 'orphaned' })));
