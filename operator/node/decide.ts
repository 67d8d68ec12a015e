import { fromMiB } from '#crds/kit/quantity.ts';
import { dated, type Verdict } from '#crds/v1alpha1/condition.ts';
import { isReason, partOf } from '#crds/v1alpha1/reasons.ts';
import type { HypervisorNode, NodeStatus } from '#crds/v1alpha1/hypervisornode.ts';
import { type KeptDisk, maxKeptDisks } from '#crds/wire/kept.ts';
import { saidOf, type Unrecordable } from '../disk/recordeach.ts';
import type { Held } from '#crds/wire/messages.ts';
import type { NodeFacts as AgentFacts, VmState } from '#crds/wire/observed.ts';

/** Everything that a decision about one node rests on. */
export type NodeFacts = {
  node: HypervisorNode;
  link: 'connected' | 'joining' | 'silent';
  agentId?: string;
  protocol?: number;
  agent?: AgentFacts;
  /** What the VMs that are bound here take. */
  allocated: { cpus: number; memoryMiB: number };
  vmCount: number;
  /** VMs that the node holds and a synced cache does not know; undefined while that can't be known. */
  orphans?: readonly (Held & { state: VmState })[];
  /** Disks that the node keeps and that no object stands for, and whether the namespace that each is for is still the same; undefined before it has spoken. */
  orphanDisks?: readonly { disk: KeptDisk; adoptable: boolean }[];
  /** Kept disks that shall have a VirtualDisk and could not be given one. */
  unrecordable?: readonly Unrecordable[];
  /** An agent that was refused under the name of this node, a moment ago. */
  rival?: { agentId: string; message: string };
  /** Images that the node holds a copy of, or is to hold, and whose object is gone by a complete cache. */
  lostCopies: readonly string[];
  /** Uids that an administrator wants ended. */
  discard: readonly string[];
  /** Uids that an administrator wants the VirtualMachine of their name to take over. */
  adopt: readonly string[];
};

/**
 * The node's status, the orphans to end, the image copies to drop, the kept disks to end and those that get a VirtualDisk. A uid is only ended when it is
 * an orphan now. A copy of an image is only a cache, so that it goes with its object; a VM never does, nor does a disk.
 */
export type NodeDecision = { status?: NodeStatus; end: readonly string[]; drop: readonly string[]; endDisks: readonly string[]; record: readonly KeptDisk[] };

/** Decides about one node. Nothing in its status ticks: liveness is in its Lease. */
export const decide = (facts: NodeFacts, now: Date): NodeDecision => {
  const { node, link, agent } = facts;
  const old = node.status;
  // The status stays as it is until the agent has spoken: an operator that has just started knows less than the last one wrote.
  if (link !== 'silent' && agent === undefined) return { end: [], drop: [], endDisks: [], record: [] };
  const orphans = facts.orphans?.map(({ uid, namespace, name, state }) => ({ uid, namespace, name, state })).toSorted((a, b) => (a.uid < b.uid ? -1 : 1)) ?? old.orphans ?? [];
  const orphanDisks = facts.orphanDisks?.map(({ disk: { uid, owner: { namespace, vm, disk }, sizeMiB } }) => ({ uid, namespace, vm, disk, size: fromMiB(sizeMiB) })) ?? old.orphanDisks ?? [];
  const status: NodeStatus = {
    observedGeneration: node.metadata.generation,
    ...(facts.agentId === undefined ? (old.agentId === undefined ? {} : { agentId: old.agentId }) : { agentId: facts.agentId }),
    ...(agent && facts.protocol !== undefined ? fromAgent(agent, facts.protocol) : known(old)),
    allocated: { cpu: facts.allocated.cpus, memory: fromMiB(facts.allocated.memoryMiB) },
    vmCount: facts.vmCount,
    orphans: orphans.slice(0, 512),
    ...(orphanDisks.length > 0 ? { orphanDisks: orphanDisks.slice(0, maxKeptDisks) } : {}),
    conditions: dated(verdicts(facts, orphans, orphanDisks), old.conditions ?? [], node.metadata.generation, now),
  };
  const present = new Set(facts.orphans?.map(({ uid }) => uid));
  // A uid in both annotations is a mistake: adopting wins, since it destroys nothing.
  const mayEnd = (uid: string): boolean => facts.discard.includes(uid) && !facts.adopt.includes(uid);
  return {
    status, end: [...present].filter(mayEnd), drop: facts.lostCopies,
    endDisks: (facts.orphanDisks ?? []).flatMap(({ disk: { uid } }) => (mayEnd(uid) ? [uid] : [])),
    record: (facts.orphanDisks ?? []).flatMap(({ disk, adoptable }) => (adoptable && facts.adopt.includes(disk.uid) ? [disk] : [])),
  };
};

const fromAgent = (agent: AgentFacts, protocol: number): Partial<NodeStatus> => ({
  versions: { agent: agent.agentVersion, protocol, qemu: agent.qemuVersion, kernel: agent.kernel },
  os: agent.os, architecture: agent.architecture, accelerators: agent.accelerators, ...(agent.features ? { features: agent.features } : {}), networkMode: agent.networkMode,
  capacity: { cpu: agent.capacity.cpus, memory: fromMiB(agent.capacity.memoryMiB), storage: fromMiB(agent.capacity.storageMiB) },
});

const known = ({ versions, os, architecture, accelerators, features, networkMode, capacity }: NodeStatus): Partial<NodeStatus> => ({
  ...(versions ? { versions } : {}), ...(os === undefined ? {} : { os }), ...(architecture ? { architecture } : {}),
  ...(accelerators ? { accelerators } : {}), ...(features ? { features } : {}), ...(networkMode ? { networkMode } : {}), ...(capacity ? { capacity } : {}),
});

const verdicts = ({ link, agent, adopt, rival, orphanDisks = [], unrecordable = [] }: NodeFacts, orphans: NonNullable<NodeStatus['orphans']>, lostDisks: NonNullable<NodeStatus['orphanDisks']>): Verdict[] => {
  const connected: Verdict = link === 'silent'
    ? { type: 'AgentConnected', status: 'False', reason: 'NodeUnreachable', message: 'the agent is silent' }
    : { type: 'AgentConnected', status: 'True', reason: 'Connected', message: 'the agent is connected' };
  const [trouble] = agent?.troubles ?? [];
  const ready: Verdict = link === 'silent'
    ? { type: 'Ready', status: 'Unknown', reason: 'NodeUnreachable', message: 'the agent is silent; guests may well run' }
    : trouble
      ? { type: 'Ready', status: 'False', reason: 'NodeTrouble', message: `${trouble.reason}: ${trouble.message}` }
      : { type: 'Ready', status: 'True', reason: 'Ready', message: 'VMs can run here' };
  const [best] = agent?.accelerators ?? [];
  const accelerator: Verdict[] = best === undefined ? [] : [best === 'tcg'
    ? { type: 'AcceleratorAvailable', status: 'False', reason: 'SoftwareEmulation', message: 'guests run under TCG, software emulation' }
    : { type: 'AcceleratorAvailable', status: 'True', reason: 'AcceleratorProved', message: `a probe guest ran under ${best}` }];
  const awaited = orphans.filter(({ uid }) => adopt.includes(uid)).map(({ uid, namespace, name }) => (name === '' ? `${uid} can not be adopted: its record on the node is damaged` : `${uid} waits for a VirtualMachine ${namespace}/${name} without a node`));
  const strange = orphanDisks.filter(({ disk: { uid }, adoptable }) => adopt.includes(uid) && !adoptable).map(({ disk: { uid, owner } }) => `disk ${uid} can not be adopted: namespace ${owner.namespace} is gone, or is another one now`);
  const said = [
    ...(orphans.length > 0 ? [`${orphans.length} VMs are here that the cluster does not know or has bound elsewhere; see status.orphans`] : []),
    ...(lostDisks.length > 0 ? [`${lostDisks.length} disks are kept here that no VirtualDisk stands for; see status.orphanDisks`] : []),
    ...awaited, ...strange, ...(unrecordable.length > 0 ? [saidOf(unrecordable)] : []),
  ];
  const lost: Verdict = said.length > 0
    ? { type: 'OrphansPresent', status: 'True', reason: 'OrphansPresent', message: said.join('; ') }
    : { type: 'OrphansPresent', status: 'False', reason: 'NoOrphans', message: 'every VM and every disk on the node is known' };
  const refused: Verdict[] = rival ? [{ type: 'AgentRefused', status: 'True', reason: 'IdentityConflict', message: `agent ${rival.agentId} is refused: ${rival.message}` }] : [];
  return [ready, connected, ...refused, ...accelerator, ...storageVerdict(link, agent), lost];
};

/** Whether the node keeps what it is told. Nothing is said of a node that never spoke. */
const storageVerdict = (link: NodeFacts['link'], agent: AgentFacts | undefined): Verdict[] => {
  if (!agent) return [];
  if (link === 'silent') return [{ type: 'StorageReady', status: 'Unknown', reason: 'NodeUnreachable', message: 'the agent is silent' }];
  for (const { reason, message } of agent.troubles) {
    if (isReason(reason) && partOf(reason) === 'StorageReady') return [{ type: 'StorageReady', status: 'False', reason, message }];
  }
  return [{ type: 'StorageReady', status: 'True', reason: 'StorageReady', message: 'the agent keeps what it is told' }];
};
