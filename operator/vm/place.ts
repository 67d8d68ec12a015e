import type { Reason } from '#crds/v1alpha1/reasons.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { type Board, lackOf, type Skills } from './needs.ts';
import { cpuOvercommit, memoryOnNodeMiB } from './overhead.ts';

/** A node as placement sees it. `taken` counts every VM that is bound there and every orphan. */
export type Candidate = {
  name: string;
  connected: boolean;
  schedulable: boolean;
  /** A fault that keeps new VMs away, for instance a ledger that can't be read. */
  trouble?: string;
  /** Why its copy of an image that the VM needs is not used. */
  refuses?: { reason: Reason; message: string };
  accelerator: 'kvm' | 'hvf' | 'tcg';
  skills: Skills;
  capacity: { cpus: number; memoryMiB: number };
  taken: { cpus: number; memoryMiB: number };
  /** Ports that may be forwarded, and who has which: `TCP/2222` -> `namespace/name`. */
  ports: { min: number; max: number; used: ReadonlyMap<string, string> };
};

/** What a VM needs. */
export type Need = { board: Board; cpus: number; memoryMiB: number; extraMiB: number; ports: readonly { protocol: 'TCP' | 'UDP'; hostPort: number }[] };

/** Where a VM goes, or why nowhere. */
export type Placement = { is: 'node'; name: string } | { is: 'nowhere'; reason: Reason; message: string };

/** Why a node is not taken. `by`: which share of what was asked for is missing there; 0 when there is room, and Infinity when room would not help. */
type Refusal = { node: string; rule: 'disconnected' | 'unschedulable' | 'trouble' | 'board' | 'room' | 'ports' | 'image'; by: number; text: string; reason?: Reason };

/** Chooses the node with the most memory left, the first by name among equals; when none fits, the message names the node that lacks the smallest share. */
export const place = (need: Need, candidates: readonly Candidate[]): Placement => {
  const judged = candidates.map((candidate) => ({ candidate, refusal: refuse(need, candidate) }));
  const fitting = judged.filter(({ refusal }) => refusal === undefined).map(({ candidate }) => candidate);
  const [best] = fitting.toSorted((a, b) => freeMemory(b) - freeMemory(a) || (a.name < b.name ? -1 : 1));
  if (best) return { is: 'node', name: best.name };
  const refusals = judged.flatMap(({ refusal }) => refusal ?? []);
  return explain(refusals);
};

const freeMemory = ({ capacity, taken }: Candidate): number => capacity.memoryMiB - taken.memoryMiB;

const refuse = (need: Need, node: Candidate): Refusal | undefined => {
  const no = (rule: Refusal['rule'], by: number, text: string): Refusal => ({ node: node.name, rule, by, text });
  if (!node.connected) return no('disconnected', Infinity, 'is not connected');
  if (!node.schedulable) return no('unschedulable', Infinity, 'is not schedulable');
  if (node.trouble !== undefined) return no('trouble', Infinity, node.trouble);
  const lack = lackOf(need.board, node.skills);
  if (lack !== undefined) return no('board', Infinity, lack);
  const free = { cpus: node.capacity.cpus * cpuOvercommit - node.taken.cpus, memoryMiB: freeMemory(node), accelerator: node.accelerator };
  const short = shortOf(need, free);
  if (short.length > 0) return no('room', Math.max(...short.map(({ by }) => by)), short.map(({ text }) => text).join('; '));
  const port = need.ports.map((each) => portTrouble(each, node)).find((text) => text !== undefined);
  if (port) return { ...no('ports', 0, port.message), reason: port.reason };
  return node.refuses && { ...no('image', 0, node.refuses.message), reason: node.refuses.reason };
};

/** What is free on a node, perhaps less than nothing. */
export type Free = { cpus: number; memoryMiB: number; accelerator: Candidate['accelerator'] };

/** What a need lacks on a node, and which share of it. Pure. */
export const shortOf = (need: Pick<Need, 'cpus' | 'memoryMiB' | 'extraMiB'>, free: Free): { of: 'memory' | 'cpus'; by: number; text: string }[] => {
  const wantMiB = memoryOnNodeMiB(need.memoryMiB, need.cpus, free.accelerator) + need.extraMiB;
  const freeMiB = Math.max(0, free.memoryMiB);
  const freeCpus = Math.max(0, free.cpus);
  return [
    ...(wantMiB > freeMiB ? [{ of: 'memory' as const, by: 1 - freeMiB / wantMiB, text: `needs ${fromMiB(wantMiB)} of memory with overhead and ${fromMiB(freeMiB)} is free` }] : []),
    ...(need.cpus > freeCpus ? [{ of: 'cpus' as const, by: 1 - freeCpus / need.cpus, text: `needs ${need.cpus} vCPUs and ${freeCpus} are free` }] : []),
  ];
};

/** Why a port can't be forwarded on a node; undefined when it can. */
const portTrouble = ({ protocol, hostPort }: Need['ports'][number], { ports }: Candidate): { reason: Reason; message: string } | undefined => {
  if (hostPort < ports.min || hostPort > ports.max) {
    return { reason: 'ForwardNotAllowed', message: `host port ${hostPort} is outside of ${ports.min}-${ports.max}` };
  }
  const owner = ports.used.get(`${protocol}/${hostPort}`);
  return owner === undefined ? undefined : { reason: 'ForwardConflict', message: `host port ${hostPort}/${protocol} is used by VM ${owner}` };
};

const explain = (refusals: readonly Refusal[]): Placement => {
  const ready = refusals.filter(({ rule }) => rule !== 'disconnected' && rule !== 'unschedulable');
  const [closest] = ready.toSorted((a, b) => a.by - b.by || (a.node < b.node ? -1 : 1));
  if (!closest) {
    const each = refusals.map(({ node, text }) => `${node} ${text}`).slice(0, 5).join('; ');
    return { is: 'nowhere', reason: 'NoNodeReady', message: refusals.length === 0 ? 'no node has joined yet' : each };
  }
  const reason = (ready.every(({ rule }) => rule === closest.rule) ? closest.reason : undefined) ?? 'NoNodeFits';
  const which = ready.length === 1 ? 'the only ready node' : `closest of ${ready.length} ready nodes`;
  return { is: 'nowhere', reason, message: `${which} is ${closest.node}: ${closest.text}` };
};
