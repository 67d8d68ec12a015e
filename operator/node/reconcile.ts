import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import type { HypervisorNode, NodeStatus } from '#crds/v1alpha1/hypervisornode.ts';
import { adoptOrphanAnnotation, discardOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import type { Fleet, Member } from '../fleet/fleet.ts';
import { orphansOf } from '../fleet/orphans.ts';
import { takenOn } from '../vm/candidates.ts';
import { machineUids } from '../vm/machines.ts';
import { decide, type NodeFacts } from './decide.ts';

/** What a node's reconciler may do. */
export type NodeHands = {
  nodes: Cache<HypervisorNode>;
  vms: Cache<VirtualMachine>;
  /** Whether every image object is in `images`: only then one that is not is gone. */
  images: Cache<VirtualMachineImage> & { hasSynced: () => boolean };
  fleet: Fleet;
  writeStatus: (node: HypervisorNode, status: NodeStatus) => Promise<void>;
  now: () => Date;
  monotonicMs: () => number;
};

/** A node's status is written at most this often, unless a condition changes. */
const coalesceMs = 10_000;

/** How long a rival is told of after its last attempt; it makes one each 30 s. */
const rivalMs = 300_000;

/** Reads everything that a decision about a node needs. */
export const observe = (node: HypervisorNode, { fleet, vms, images, monotonicMs }: NodeHands): NodeFacts => {
  const { name } = node.metadata;
  const member = fleet.members().find((each) => each.node === name);
  const { cpus, memoryMiB, count } = takenOn(name, vms.list(), member);
  const orphans = member && orphansOf(member, machineUids(vms))?.filter(({ ending }) => !ending).map((each) => ({ ...each, state: member.vms.get(each.uid)?.state ?? 'unknown' as const }));
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
    ...(rival ? { rival } : {}),
    lostCopies: member && images.hasSynced() ? lostCopies(member, new Set(images.all().map(({ meta }) => meta.uid))) : [],
    discard: uidsIn(node.metadata.annotations, discardOrphanAnnotation),
    adopt: uidsIn(node.metadata.annotations, adoptOrphanAnnotation),
  };
};

/** Images that a node holds, or is to hold, and whose object is gone. */
const lostCopies = ({ view, wanted }: Member, known: ReadonlySet<string>): string[] => {
  const held = view.is === 'joined' ? [...view.told.values()].filter(({ ending }) => !ending) : [];
  const copies = [...held, ...[...wanted.values()].map((each) => each.held)].filter(({ kind, uid }) => kind === 'image' && !known.has(uid));
  return [...new Set(copies.map(({ uid }) => uid))];
};

/** Makes the function that keeps one HypervisorNode's status true. */
export const makeNodeReconciler = (hands: NodeHands) => {
  const writtenMs = new Map<string, number>();
  return async (key: string): Promise<Outcome> => {
    const node = hands.nodes.get(key);
    if (!node) return settled;
    const { status, end, drop } = decide(observe(node, hands), hands.now());
    for (const uid of end) hands.fleet.doom(key, uid, 'vm');
    for (const uid of drop) hands.fleet.doom(key, uid, 'image');
    if (!status || canonical(status) === canonical(node.status)) return settled;
    const urgent = status.agentId !== node.status.agentId || canonical(status.conditions) !== canonical(node.status.conditions ?? []) || canonical(status.orphans) !== canonical(node.status.orphans ?? []);
    const sinceMs = hands.monotonicMs() - (writtenMs.get(key) ?? -Infinity);
    if (!urgent && sinceMs < coalesceMs) return waiting('changes to gather', coalesceMs - sinceMs);
    await hands.writeStatus(node, status);
    writtenMs.set(key, hands.monotonicMs());
    return settled;
  };
};
