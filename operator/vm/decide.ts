import { imageOf } from '#crds/v1alpha1/disks.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { conditionOf, type Verdict } from '#crds/v1alpha1/condition.ts';
import { adoptOrphanAnnotation, discardOrphanAnnotation, vmFinalizer } from '#crds/v1alpha1/names.ts';
import { isReason } from '#crds/v1alpha1/reasons.ts';
import type { VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import { type DesiredVm, desireDigest } from '#crds/wire/desired.ts';
import type { KeepOrder, KeptDisk } from '#crds/wire/kept.ts';
import { maxFrameBytes } from '#crds/wire/messages.ts';
import { claimTrouble } from '../disk/claims.ts';
import { saidOf } from '../disk/recordeach.ts';
import { desireOf, unknownArchitecture } from './desire.ts';
import { retainedDisks } from './disks.ts';
import type { VmFacts } from './facts.ts';
import { guestVerdicts } from './guest.ts';
import type { Holder } from './holders.ts';
import { machineUidOf } from './identity.ts';
import { disksToMake } from './images.ts';
import { architectureTold, boardOf } from './needs.ts';
import { extraMiB, reservedFor } from './overhead.ts';
import { place } from './place.ts';
import { waitsForRoom } from './room.ts';
import { ioErrorVerdict, linkVerdicts, partVerdicts, protectedVerdict } from './verdicts.ts';
import { restartVerdict, type Standing, standingOf, statusOf } from './status.ts';

/**
 * What is to be done about one VM. At most one of its parts needs a write before the next look.
 *
 * Order of a binding: status (nodeName, epoch), then the finalizer, then the first frame; so that a VM which may exist on a
 * node is always bound in the API.
 */
export type Decision = {
  /** The status that is true now; undefined leaves it alone. */
  status?: VmStatus;
  /** The status records a new binding: write it at once, and look again. */
  binds: boolean;
  finalizer?: 'add' | 'remove';
  /** What the bound node shall be told. `keep`: say nothing new and end nothing. `withhold`: nor repeat what was said. */
  tell: { is: 'desire'; vm: DesiredVm } | { is: 'end'; keep?: KeepOrder } | { is: 'keep' } | { is: 'withhold' };
  /** Disks of the machine that its node keeps and that get a VirtualDisk each, before anything else is done. */
  record: readonly KeptDisk[];
  /** A progress status may wait a moment for a better one. */
  passing: boolean;
  outcome: Outcome;
};

/** Decides about one VM. A namespace that is being deleted takes no new VirtualDisk: its node goes on keeping the disk. */
export const decide = (facts: VmFacts, now: Date): Decision =>
  ({ ...decideVm(facts, now), record: facts.namespace && !facts.namespace.terminating ? facts.unrecorded : [] });

const decideVm = (facts: VmFacts, now: Date): Decision => {
  const { metadata, spec, status } = facts.vm;
  const deleting = metadata.deletionTimestamp !== undefined;
  const finalized = metadata.finalizers.includes(vmFinalizer);
  if (status.nodeName === undefined && finalized) return bindingLost(facts, now);
  if (deleting && spec.deletionProtection !== true) return status.nodeName === undefined ? nothing : end(facts, now);
  if (status.nodeName === undefined) return deleting ? nothing : unbound(facts, now);
  // A stripped finalizer is put back; the API server refuses that only while the object is being deleted.
  if (!finalized && !deleting) return { ...nothing, finalizer: 'add' };
  return bound(facts, now);
};

const nothing: Decision = { record: [], binds: false, tell: { is: 'keep' }, passing: false, outcome: settled };

const notScheduled = (reason: Verdict['reason'], message: string): Verdict[] => [
  { type: 'Scheduled', status: 'False', reason, message },
  { type: 'AgentConnected', status: 'Unknown', reason: 'NotBound', message: 'the VM has no node yet' },
];

const unbound = (facts: VmFacts, now: Date): Decision => {
  const { spec, status } = facts.vm;
  const pause = (standing: Standing, verdicts: Verdict[], outcome: Outcome): Decision =>
    ({ ...nothing, status: statusOf(facts, standing, verdicts, now), outcome });
  const pending = (reason: Verdict['reason'], message: string) =>
    pause({ phase: 'Pending', ready: 'False', reason, message, progress: 'reconciling' }, notScheduled(reason, message), waiting(message, 30_000));
  const [holder] = facts.holders;
  if (holder) return held(facts, holder, now) ?? pending('WaitingForNodes', waitMessage(holder));
  if (facts.elder?.adopt) return adopt(facts, facts.elder, now);
  if (facts.elder) return pending('NameHeldByOrphan', heldMessage(facts.elder));
  if (spec.powerState === 'Stopped') {
    const message = 'a stopped VM that never ran needs no node';
    return pause({ phase: 'Stopped', ready: 'True', reason: 'Stopped', message: 'the machine is stopped' }, notScheduled('NotNeeded', message), settled);
  }
  if (facts.unheard) {
    const { node, forLong } = facts.unheard;
    const outcome = waiting('nodes to say what they hold', 2_000);
    // This operator has just started: the last status, if there is one, stays until the node has had time to speak.
    if (!forLong && status.observedGeneration === facts.vm.metadata.generation) return { ...nothing, outcome };
    return { ...pending('WaitingForNodes', `node ${node} has not said yet what it holds, and this VM may be there${forLong ? `; ${forget(node)}` : ''}`), passing: true, outcome };
  }
  const trouble = claimTrouble(facts.claims, facts.vm.metadata.namespace, undefined);
  if (trouble !== undefined) return pending('WaitingForDisk', trouble);
  const architecture = architectureTold(facts);
  if (architecture.is === 'missing') return pending('ImageNotFound', unknownArchitecture(architecture.name));
  const placement = place({
    ...reservedFor(spec), extraMiB: extraMiB(spec), board: boardOf(spec, architecture.of),
    ports: (spec.interfaces ?? []).flatMap(({ user }) => (user.forwards ?? []).map(({ hostPort, protocol }) => ({ hostPort, protocol: protocol ?? 'TCP' }))),
  }, onNodeOf(facts));
  if (placement.is === 'node') return bind(facts, placement.name, (status.epoch ?? 0) + 1, now);
  const [claim] = facts.claims;
  return pending(placement.reason, claim ? `its kept disk ${claim.disk} is on node ${claim.node}: ${placement.message}` : placement.message);
};

/** Where a VM can be placed: its kept disks are on one node, and so is the VM then. */
const onNodeOf = ({ candidates, claims: [claim] }: VmFacts): VmFacts['candidates'] => (claim ? candidates.filter(({ name }) => name === claim.node) : candidates);

type Elder = NonNullable<VmFacts['elder']>;

const heldMessage = ({ node, uid, ending }: Elder): string => (ending
  ? `node ${node} is still ending the VM that had this name, uid ${uid}; ${forget(node)}`
  : `node ${node} holds a VM of this name, uid ${uid}, that the cluster does not know; to take it over as it is: kubectl annotate hvn ${node} --overwrite ${adoptOrphanAnnotation}=${uid}; to end it for good, with all disks but those with deletionPolicy Retain: ${discardOrphanAnnotation}=${uid}`);

const forget = (node: string): string => `if that node is gone for good: kubectl delete hvn ${node}`;

const waitMessage = ({ node, ending }: Holder): string =>
  `node ${node} ${ending ? 'is still ending this VM' : 'held this VM when it was last heard, and is not connected'}; ${forget(node)}`;

/** A VM without a node that is held somewhere: it belongs where it is. Undefined when that can't be told now. */
const held = (facts: VmFacts, holder: Holder, now: Date): Decision | undefined => {
  if (facts.holders.length > 1) return heldTwice(facts, now);
  return holder.said && !holder.ending ? bind(facts, holder.node, Math.max(holder.epoch, facts.vm.status.epoch ?? 1), now) : undefined;
};

/**
 * More than one node holds it, or another than the one that it is bound to; it may run on each, with a disk of its own. Which is the right one
 * nobody can tell but a person: nothing more is said to any of them, so that at least no further one starts.
 */
const heldTwice = (facts: VmFacts, now: Date): Decision => {
  const { nodeName } = facts.vm.status;
  const names = facts.holders.map(({ node, ending }) => (ending ? `${node} (which is ending it)` : node)).join(', ');
  const copy = facts.holders.find(({ ending }) => !ending);
  const remedy = copy ? `; to end a copy for good, with all disks but those with deletionPolicy Retain: kubectl annotate hvn ${copy.node} --overwrite ${discardOrphanAnnotation}=${machineUidOf(facts.vm)}` : '';
  const message = `${nodeName === undefined ? `held by ${names}` : `bound to ${nodeName} and held by ${names} too`}: it may run there, and nothing more is told to any of them${remedy}`;
  const standing: Standing = { phase: 'Unknown', ready: 'Unknown', reason: 'HeldElsewhere', message, progress: 'stalled' };
  const verdicts = nodeName === undefined ? notScheduled('HeldElsewhere', message) : linkVerdicts(facts);
  return { ...nothing, tell: { is: 'withhold' }, status: statusOf(facts, standing, verdicts, now), outcome: waiting(message, 30_000) };
};

/** The machine stays what and where it is, under the uid that it has; only whose it is changes. */
const adopt = (facts: VmFacts, { node, uid, epoch }: Elder, now: Date): Decision => bind(facts, node, epoch, now, uid);

const bind = (facts: VmFacts, nodeName: string, epoch: number, now: Date, machineUid?: string): Decision => {
  const message = machineUid === undefined ? `placed on ${nodeName}` : `adopted the machine ${machineUid} on ${nodeName}`;
  const standing: Standing = { phase: 'Pending', ready: 'False', reason: 'Scheduled', message, progress: 'reconciling' };
  const verdicts: Verdict[] = [{ type: 'Scheduled', status: 'True', reason: 'Scheduled', message }];
  return { ...nothing, binds: true, status: statusOf(facts, standing, verdicts, now, { nodeName, epoch, ...(machineUid === undefined ? {} : { machineUid }) }) };
};

const lostMessage = ({ everyNodeReported, unreported: node }: VmFacts): string => {
  if (everyNodeReported) return 'no node holds this VM any more; delete it to start anew';
  return node === undefined ? 'waiting for a node to join and report what it holds' : `node ${node} has not reported what it holds, and this VM may be there; ${forget(node)}`;
};

/** A finalizer without a node: where it runs was recorded and is lost. It is never placed anew. */
const bindingLost = (facts: VmFacts, now: Date): Decision => {
  const deleting = facts.vm.metadata.deletionTimestamp !== undefined;
  const [holder] = facts.holders;
  const bound = holder && held(facts, holder, now);
  if (bound) return bound;
  if (facts.elder?.adopt && !deleting) return adopt(facts, facts.elder, now);
  if (facts.everyNodeReported && deleting && !holder) return { ...nothing, finalizer: 'remove' };
  const message = holder ? waitMessage(holder) : facts.elder ? heldMessage(facts.elder) : lostMessage(facts);
  const standing: Standing = { phase: 'Unknown', ready: 'Unknown', reason: 'BindingLost', message, ...(facts.everyNodeReported && !holder ? { progress: 'stalled' as const } : {}) };
  return { ...nothing, status: statusOf(facts, standing, notScheduled('BindingLost', message), now), outcome: waiting(message, 30_000) };
};

const end = (facts: VmFacts, now: Date): Decision => {
  const { spec, metadata, status: { nodeName } } = facts.vm;
  const names = retainedDisks(spec);
  const wait = (reason: Verdict['reason'], message: string): Decision => {
    const standing: Standing = { phase: 'Terminating', ready: 'False', reason, message, progress: 'reconciling' };
    return { ...nothing, status: statusOf(facts, standing, linkVerdicts(facts), now), outcome: waiting(message, 30_000) };
  };
  if (facts.absent && facts.unrecorded.length > 0 && !facts.namespace) return wait('Terminating', `namespace ${metadata.namespace} is not known yet, and ${facts.unrecorded.length} disks are kept for it`);
  if (facts.absent && facts.unrecordable) return wait('Terminating', saidOf(facts.unrecordable));
  if (facts.absent) return { ...nothing, tell: { is: 'end' }, finalizer: 'remove' };
  if (names.length > 0 && facts.keepsDisks === false) return wait('AgentTooOld', `the agent of node ${nodeName} can not keep disk ${names.join(', ')} after its VM; update it, or set deletionPolicy to Delete to have them deleted`);
  if (names.length > 0 && !facts.namespace) return wait('Terminating', `namespace ${metadata.namespace} is not known yet, and disk ${names.join(', ')} is kept for it`);
  const tell: Decision['tell'] = { is: 'end', ...(names.length > 0 && facts.namespace ? { keep: { namespace: metadata.namespace, namespaceUid: facts.namespace.uid, vm: metadata.name, disks: names } } : {}) };
  const silent = facts.link === 'silent';
  if (facts.nodeGone) return { ...nothing, finalizer: 'remove' };
  const begun = facts.report?.state === 'deleting';
  const trouble = silent ? undefined : begun ? facts.report?.trouble : facts.refuses;
  const doing = begun || !trouble ? 'is ending' : 'has not begun to end';
  const message = silent ? `node ${nodeName} is silent; the VM is ended when it is back; ${forget(`${nodeName}`)}` : `node ${nodeName} ${doing} the VM${trouble ? `: ${trouble.message}` : ''}`;
  const reason = silent ? 'NodeUnreachable' : trouble && isReason(trouble.reason) ? trouble.reason : 'Terminating';
  const standing: Standing = { phase: 'Terminating', ready: silent ? 'Unknown' : 'False', reason, message, progress: 'reconciling' };
  return { ...nothing, tell, passing: true, status: statusOf(facts, standing, linkVerdicts(facts), now), outcome: waiting(message, 30_000) };
};

const bound = (facts: VmFacts, now: Date): Decision => {
  if (facts.holders.length > 0) return heldTwice(facts, now);
  const desire = desireOf(facts);
  const tooBig = waitsForRoom(facts);
  // Whether the guest has been given its Secrets already is not known before a node that may hold it has spoken of it.
  const perhapsSeeded = facts.secrets !== undefined && (facts.awaited || (!facts.report && (facts.link !== 'connected' || facts.held)));
  const tell: Decision['tell'] = 'missing' in desire || tooBig !== undefined || perhapsSeeded ? { is: 'keep' } : { is: 'desire', vm: desire };
  const write = (standing: Standing, verdicts: Verdict[], outcome: Outcome): Decision => ({
    ...nothing, tell, outcome, status: statusOf(facts, standing, [...linkVerdicts(facts), ...verdicts, ...ioErrorVerdict(facts), ...protectedVerdict(facts)], now),
    passing: standing.progress === 'reconciling' && (standing.phase === 'Preparing' || standing.phase === 'Starting' || standing.reason === 'Applying'),
  });
  if (facts.link === 'silent') {
    const message = facts.nodeGone
      ? `node ${facts.vm.status.nodeName} was deleted, and its agent is silent; to have the VM on another node, without what is on that one: delete it, and apply it anew`
      : `the agent of ${facts.vm.status.nodeName} is silent; the guest may well run`;
    return write({ phase: 'Unknown', ready: 'Unknown', reason: 'NodeUnreachable', message }, [], waiting(message, 30_000));
  }
  if (facts.endedForEver) {
    const message = `node ${facts.vm.status.nodeName} ended this VM for ever, by a delete that the cluster has forgotten; delete it to create it anew`;
    return write({ phase: 'Failed', ready: 'False', reason: 'EndedForEver', message, progress: 'stalled' }, [{ type: 'DisksReady', status: 'False', reason: 'EndedForEver', message }], settled);
  }
  // Just connected, or an operator that has just started: the last status stands until the node has spoken.
  if (facts.awaited || (facts.link === 'joining' && !facts.report)) return { ...nothing, tell, outcome: waiting('the node to report', 5_000) };
  if (tooBig !== undefined) {
    const phase = facts.report ? standingOf(facts.vm.spec, facts.report.digest, facts.report).phase : 'Pending';
    return write({ phase, ready: 'False', reason: 'NoNodeFits', message: tooBig, progress: 'reconciling' }, [], waiting(tooBig, 5_000));
  }
  if ('missing' in desire && !saidAlready(facts)) {
    const message = `${desire.message}${facts.report ? '; the latest edit waits for it' : ''}`;
    const phase = facts.report ? standingOf(facts.vm.spec, facts.report.digest, facts.report).phase : 'Pending';
    const standing: Standing = { phase, ready: 'False', reason: desire.missing, message, progress: 'reconciling' };
    const afterMs = desire.missing === 'ImageNotFound' ? 60_000 : againMs(facts.vm, now);
    return write(standing, [{ type: 'DisksReady', status: 'False', reason: desire.missing, message }], waiting(message, afterMs));
  }
  const standing = tooLarge(facts) ?? failedImage(facts) ?? standingOf(facts.vm.spec, 'missing' in desire ? facts.report?.digest : desireDigest(desire), facts.report, facts.refuses);
  const ofGuest = facts.report ? [...restartVerdict(facts.report), ...guestVerdicts(facts.vm.spec, facts.report)] : [];
  const outcome = standing.progress === 'reconciling' ? waiting(standing.message, 30_000) : settled;
  return write(standing, [...partVerdicts(standing, facts), ...ofGuest], facts.vm.metadata.deletionTimestamp ? waiting('deletionProtection to be cleared', 60_000) : outcome);
};

/** How soon is looked again at what raises no event here, as a Secret: the longer it is waited for, the more seldom, up to 30 s. */
const againMs = ({ status }: VmFacts['vm'], now: Date): number => {
  const waits = conditionOf(status.conditions, 'DisksReady');
  const waitedMs = waits?.status === 'False' ? now.getTime() - Date.parse(waits.lastTransitionTime) : 0;
  return Math.min(30_000, Math.max(5_000, Math.round(waitedMs / 4)));
};

/** The node holds the desire of this very spec, told while its images were known; what it was is not recorded with the VM. */
const saidAlready = ({ vm, report }: VmFacts): boolean => report !== undefined && report.generation === vm.metadata.generation;

/** It can't be sent; what runs, runs on as it was. */
const tooLarge = ({ vm, report, oversize }: VmFacts): Standing | undefined => oversize && {
  phase: report ? standingOf(vm.spec, report.digest, report).phase : 'Pending', ready: 'False', reason: 'SpecTooLarge', progress: 'stalled',
  message: `the VM takes ${oversize.frameBytes} bytes and the agent of ${vm.status.nodeName} reads ${oversize.maxFrameBytes} at once; shorten cloudInit${oversize.maxFrameBytes < maxFrameBytes ? ', or update the agent' : ''}`,
};

const failedImage = (facts: VmFacts): Standing | undefined => {
  const { images, report } = facts;
  if (report !== undefined && report.state !== 'preparing') return undefined;
  const failed = disksToMake(facts).flatMap((disk) => images.get(imageOf(disk) ?? '') ?? []).find((each) => each.failed !== undefined);
  return failed && { phase: 'Pending', ready: 'False', reason: 'ImageFailed', message: `image ${failed.name}: ${failed.failed}`, progress: 'stalled' };
};
