import { canonical } from '#crds/kit/digest.ts';
import { blocked, type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import type { HypervisorNode, NodeStatus } from '#crds/v1alpha1/hypervisornode.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { KeptFor } from '../disk/record.ts';
import { recordEach } from '../disk/recordeach.ts';
import { decide } from './decide.ts';
import { type NodeSources, observe } from './observe.ts';

/** What a node's reconciler may do. */
export type NodeHands = NodeSources & {
  writeStatus: (node: HypervisorNode, status: NodeStatus) => Promise<void>;
  /** Makes the VirtualDisk of a disk that outlives its VM. */
  recordDisk: (disk: KeptDisk, keptFor: KeptFor) => Promise<void>;
  now: () => Date;
};

/** A node's status is written at most this often, unless a condition changes. */
const coalesceMs = 10_000;

/** Makes the function that keeps one HypervisorNode's status true. */
export const makeNodeReconciler = (hands: NodeHands) => {
  const writtenMs = new Map<string, number>();
  return async (key: string): Promise<Outcome> => {
    const before = hands.nodes.get(key);
    if (!before) return settled;
    const { record } = decide(observe(before, hands), hands.now());
    const unrecordable = await recordEach(record, (disk) => hands.recordDisk(disk, { ...disk.owner, node: key }));
    // What has a VirtualDisk now is no orphan any more; and an administrator may have changed his mind meanwhile.
    const node = hands.nodes.get(key);
    if (!node) return settled;
    const { status, end, drop, endDisks } = decide({ ...observe(node, hands), unrecordable }, hands.now());
    const [failed] = unrecordable;
    const done = failed ? blocked(failed.fault) : settled;
    for (const uid of end) hands.fleet.doom(key, uid, 'vm');
    for (const uid of drop) hands.fleet.doom(key, uid, 'image');
    for (const uid of endDisks) hands.fleet.doom(key, uid, 'disk');
    if (!status || canonical(status) === canonical(node.status)) return done;
    const sinceMs = hands.monotonicMs() - (writtenMs.get(key) ?? -Infinity);
    if (!isUrgent(node.status, status) && sinceMs < coalesceMs) return waiting('changes to gather', coalesceMs - sinceMs);
    await hands.writeStatus(node, status);
    writtenMs.set(key, hands.monotonicMs());
    return done;
  };
};

/** Whether a new status is written at once: more than its figures (capacity, counts) have changed. Pure. */
const isUrgent = (old: NodeStatus, next: NodeStatus): boolean => {
  const weighty = ({ agentId, conditions = [], orphans = [], orphanDisks = [] }: NodeStatus) => canonical({ agentId, conditions, orphans, orphanDisks });
  return weighty(old) !== weighty(next);
};
