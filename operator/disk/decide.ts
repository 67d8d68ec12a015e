import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { dated, type Verdict } from '#crds/v1alpha1/condition.ts';
import { diskFinalizer } from '#crds/v1alpha1/names.ts';
import type { DiskStatus, VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';

/** Everything that a decision about one VirtualDisk rests on. */
export type DiskFacts = {
  disk: VirtualDisk;
  /** Its node. `deleted`: its HypervisorNode is deleted and its agent is away: somebody has said that it is gone for good. */
  link: 'connected' | 'joining' | 'silent' | 'deleted';
  /** What its node says of it. */
  kept?: KeptDisk;
  /** Its node has it no more, and the VM that it is for has a disk of that name there, by the word of the node: the VM has it back. */
  taken: boolean;
  /** The VM that it is for is bound to its node and has not said yet how it stands: perhaps it has just been given the disk. */
  awaited: boolean;
  /** Its node has said that it is gone, after it was told to end it. */
  absent: boolean;
};

/** What is to be done about one VirtualDisk: at most one of `finalizer`, `remove` and `status`. `end`: its node shall remove the files. */
export type DiskDecision = { status?: DiskStatus; finalizer?: 'add' | 'remove'; remove?: true; end?: true; outcome: Outcome };

/** Milliseconds after which the recording of a disk, two requests, is surely over. */
const recordingMs = 60_000;

/**
 * Decides about one VirtualDisk. Pure. Its data is removed only since somebody deletes the object; the object goes by itself only when the VM has
 * the disk back.
 */
export const decide = (facts: DiskFacts, now: Date): DiskDecision => {
  const { disk: { metadata, status }, link, taken, absent } = facts;
  const finalized = metadata.finalizers.includes(diskFinalizer);
  const deleting = metadata.deletionTimestamp !== undefined;
  if (status.uid === undefined || status.nodeName === undefined) return unrecorded(facts, finalized, deleting, now);
  if (deleting) {
    if (!finalized) return { outcome: settled };
    if (taken || absent || link === 'deleted' || isForeign(facts)) return { finalizer: 'remove', outcome: settled };
    const message = link === 'connected' ? `node ${status.nodeName} removes the files` : `node ${status.nodeName} is silent; the files are removed when it is back. If it is gone for good: kubectl delete hvn ${status.nodeName}`;
    const reason = link === 'connected' ? 'Terminating' : 'NodeUnreachable';
    // Not before its node is there and has said whose the disk is.
    return { ...(link === 'connected' ? { end: true } : {}), status: statusOf(facts, 'Deleting', [ready('False', reason, message), { ...ready('True', reason, message), type: 'Reconciling' }], now), outcome: waiting(message, 30_000) };
  }
  // First the finalizer, then the delete: were the object deleted with its finalizer on, we would take our own delete for a user's, who wants the data gone.
  if (taken) return finalized ? { finalizer: 'remove', outcome: settled } : { remove: true, outcome: settled };
  if (!finalized) return { finalizer: 'add', outcome: settled };
  // Nothing is said of a disk before its agent has spoken.
  if (link === 'joining') return { outcome: waiting('its node to speak', 5_000) };
  if (link !== 'connected') {
    const message = link === 'silent' ? `node ${status.nodeName} is silent; the disk may well be there` : `node ${status.nodeName} was deleted, and its agent is away`;
    return { status: statusOf(facts, 'Unknown', [ready('Unknown', 'NodeUnreachable', message)], now), outcome: waiting(message, 30_000) };
  }
  if (isForeign(facts)) {
    const message = `the disk that node ${status.nodeName} keeps under this uid is not of this namespace: the status was not written by the operator; delete this object, the disk stays`;
    return { status: statusOf(facts, undefined, [ready('False', 'NotRecorded', message), { ...ready('True', 'NotRecorded', message), type: 'Stalled' }], now), outcome: settled };
  }
  if (facts.kept) return { status: statusOf(facts, 'Kept', [ready('True', 'Kept', `on node ${status.nodeName}, for VM ${status.vmName}`)], now), outcome: settled };
  if (facts.awaited) return { outcome: waiting('the VM to say whether it has the disk', 5_000) };
  const message = `node ${status.nodeName} does not have it any more; restore it there, or delete this object`;
  return { status: statusOf(facts, 'Missing', [ready('False', 'DiskMissing', message), { ...ready('True', 'DiskMissing', message), type: 'Stalled' }], now), outcome: waiting(message, 30_000) };
};

/** Whether its node keeps the disk for another namespace. Who may write a status by hand could else end the data of somebody else. Pure. */
const isForeign = ({ disk: { metadata: { namespace }, status: { namespaceUid } }, kept }: DiskFacts): boolean =>
  kept !== undefined && (kept.owner.namespace !== namespace || kept.owner.namespaceUid !== namespaceUid);

/** An object that stands for no disk. A young one with our finalizer is perhaps being recorded in this moment; an old one was restored without its status. */
const unrecorded = (facts: DiskFacts, finalized: boolean, deleting: boolean, now: Date): DiskDecision => {
  if (deleting) return finalized ? { finalizer: 'remove', outcome: settled } : { outcome: settled };
  const { creationTimestamp } = facts.disk.metadata;
  const waits = waiting('its node and uid to be recorded', 30_000);
  if (finalized && (creationTimestamp === undefined || now.getTime() - Date.parse(creationTimestamp) < recordingMs)) return { outcome: waits };
  if (finalized) {
    const message = 'no node is recorded for it: was it restored without its status? A node that keeps the disk is recorded when it is there; if none is, delete this object';
    return { status: statusOf(facts, undefined, [ready('False', 'NotRecorded', message)], now), outcome: waits };
  }
  const message = 'it was not made by the operator and stands for no disk; delete it';
  return { status: statusOf(facts, undefined, [ready('False', 'NotRecorded', message), { ...ready('True', 'NotRecorded', message), type: 'Stalled' }], now), outcome: settled };
};

const ready = (status: Verdict['status'], reason: Verdict['reason'], message: string): Verdict => ({ type: 'Ready', status, reason, message });

const statusOf = ({ disk: { metadata: { generation }, status: old }, kept }: DiskFacts, state: DiskStatus['state'], verdicts: readonly Verdict[], now: Date): DiskStatus => {
  const { state: _state, conditions: _conditions, ...known } = old;
  return {
    ...known, observedGeneration: generation, ...(kept ? { size: fromMiB(kept.sizeMiB) } : {}), ...(state === undefined ? {} : { state }),
    conditions: dated(verdicts, old.conditions ?? [], generation, now),
  };
};
