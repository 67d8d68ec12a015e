import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import type { HypervisorNode, NodeStatus } from '#crds/v1alpha1/hypervisornode.ts';
import { adoptOrphanAnnotation, discardOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { takenOn } from '../vm/observe.ts';
import { decide, type NodeFacts } from './decide.ts';

/** What a node's reconciler may do. */
export type NodeHands = {
  nodes: Cache<HypervisorNode>;
  vms: Cache<VirtualMachine>;
  /** Uids of every VM object, those that can't be parsed too: none of them is an orphan. */
  knownUids: () => ReadonlySet<string>;
  /** Uids of every image object; undefined while the cache is not complete. */
  knownImages: () => ReadonlySet<string> | undefined;
  fleet: Fleet;
  writeStatus: (node: HypervisorNode, status: NodeStatus) => Promise<void>;
  now: () => Date;
  monotonicMs: () => number;
};

/** A node's status is written at most this often, unless a condition changes. */
const coalesceMs = 10_000;

/** Reads everything that a decision about a node needs. */
export const observe = (node: HypervisorNode, { fleet, vms, knownUids, knownImages }: NodeHands): NodeFacts => {
  const { name } = node.metadata;
  const member = fleet.members().find((each) => each.node === name);
  const { cpus, memoryMiB, count } = takenOn(name, vms.list(), member);
  const known = knownUids();
  const orphans = member?.view.is === 'joined'
    ? [...member.view.told.values()].filter(({ kind, uid, ending }) => kind === 'vm' && !ending && !known.has(uid))
    : undefined;
  const images = knownImages();
  const copies = images === undefined || member === undefined ? [] : [
    ...(member.view.is === 'joined' ? [...member.view.told.values()].filter(({ ending }) => !ending) : []),
    ...[...member.wanted.values()].map(({ held }) => held),
  ].filter(({ kind, uid }) => kind === 'image' && !images.has(uid)).map(({ uid }) => uid);
  return {
    node,
    link: fleet.link(name),
    ...(member?.agentId === undefined ? {} : { agentId: member.agentId }),
    ...(member?.protocol === undefined ? {} : { protocol: member.protocol }),
    ...(member?.facts ? { agent: member.facts } : {}),
    allocated: { cpus, memoryMiB },
    vmCount: count,
    ...(orphans ? { orphans } : {}),
    lostCopies: [...new Set(copies)],
    discard: uidsIn(node.metadata.annotations, discardOrphanAnnotation),
    adopt: uidsIn(node.metadata.annotations, adoptOrphanAnnotation),
  };
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
    const look = waiting('the next look at its silence', coalesceMs);
    if (!status || canonical(status) === canonical(node.status)) return look;
    const urgent = status.agentId !== node.status.agentId || canonical(status.conditions) !== canonical(node.status.conditions ?? []) || canonical(status.orphans) !== canonical(node.status.orphans ?? []);
    const sinceMs = hands.monotonicMs() - (writtenMs.get(key) ?? -Infinity);
    if (!urgent && sinceMs < coalesceMs) return waiting('changes to gather', coalesceMs - sinceMs);
    await hands.writeStatus(node, status);
    writtenMs.set(key, hands.monotonicMs());
    return look;
  };
};
