import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { adoptOrphanAnnotation, discardOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import type { ObjectMeta } from '#crds/v1alpha1/meta.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import type { Fleet, Member } from '../fleet/fleet.ts';
import { unrecordedOn } from '../disk/unrecorded.ts';
import { orphansOf } from '../fleet/orphans.ts';
import { takenOn } from '../vm/candidates.ts';
import { isProved } from '../vm/holders.ts';
import { belongs, type Machine, machinesOf } from '../vm/machines.ts';
import type { NodeFacts } from './decide.ts';

/** Where the facts about nodes come from. */
export type NodeSources = {
  clusterId: string;
  nodes: Cache<HypervisorNode>;
  vms: Cache<VirtualMachine>;
  disks: Cache<VirtualDisk>;
  namespaces: Cache<{ metadata: ObjectMeta }>;
  /** Whether every image object is in `images`: only then one that is not is gone. */
  images: Cache<VirtualMachineImage> & { hasSynced: () => boolean };
  fleet: Fleet;
  monotonicMs: () => number;
};

/** How long a rival is told of after its last attempt; it makes one each 30 s. */
const rivalMs = 300_000;

/** The name of an orphan of which its node can not prove that it was given a machine of that name: else a node could claim any name, and keep a new VM from it. */
const nobody = { namespace: '', name: '' };

/** Reads everything that a decision about a node needs. */
export const observe = (node: HypervisorNode, sources: NodeSources): NodeFacts => {
  const { fleet, vms, images, monotonicMs } = sources;
  const { name } = node.metadata;
  const member = fleet.members().find((each) => each.node === name);
  const { cpus, memoryMiB, count } = takenOn(name, vms.list(), member);
  const machines = machinesOf(vms);
  const orphans = member && orphansOf(member, (uid) => belongs(uid, name, machines, sources))?.filter(({ ending }) => !ending)
    .map((each) => ({ ...each, ...(isProved(each.uuid, each, sources.clusterId) ? {} : nobody), state: member.vms.get(each.uid)?.state ?? 'unknown' as const }));
  const rival = member?.rival && member.rival.agentId !== member.agentId && monotonicMs() - member.rival.atMs < rivalMs ? member.rival : undefined;
  return {
    node,
    link: fleet.link(name),
    ...(member?.agentId === undefined ? {} : { agentId: member.agentId }),
    ...(member?.protocol === undefined ? {} : { protocol: member.protocol }),
    ...(member?.facts ? { agent: member.facts } : {}),
    allocated: { cpus, memoryMiB },
    vmCount: count,
    ...(orphans ? { orphans } : {}),
    ...(member?.facts ? { orphanDisks: orphanDisks(name, machines, sources) } : {}),
    ...(rival ? { rival } : {}),
    lostCopies: member && images.hasSynced() ? lostCopies(member, new Set(images.all().map(({ meta }) => meta.uid))) : [],
    discard: uidsIn(node.metadata.annotations, discardOrphanAnnotation),
    adopt: uidsIn(node.metadata.annotations, adoptOrphanAnnotation),
  };
};

/** Disks that a node keeps and that nobody stands for: those of a VM that is bound there get a VirtualDisk by that. */
const orphanDisks = (node: string, machines: ReadonlyMap<string, Machine>, { fleet, disks, namespaces }: NodeSources): NonNullable<NodeFacts['orphanDisks']> =>
  unrecordedOn(node, { disks, fleet }).filter(({ owner }) => machines.get(owner.vmUid)?.node !== node).map((disk) => {
    const there = namespaces.get(disk.owner.namespace)?.metadata;
    return { disk, adoptable: there?.uid === disk.owner.namespaceUid && there.deletionTimestamp === undefined };
  });

/** Images that a node holds, or is to hold, and whose object is gone. */
const lostCopies = ({ view, wanted }: Member, known: ReadonlySet<string>): string[] => {
  const held = view.is === 'joined' ? [...view.told.values()].filter(({ ending }) => !ending) : [];
  const copies = [...held, ...[...wanted.values()].map((each) => each.held)].filter(({ kind, uid }) => kind === 'image' && !known.has(uid));
  return [...new Set(copies.map(({ uid }) => uid))];
};
