import { silenceSeconds } from '#crds/wire/messages.ts';
import type { KeepOrder, KeptDisk } from '#crds/wire/kept.ts';
import type { Doomed, Held } from '#crds/wire/messages.ts';
import { type Desired, desireDigest } from '#crds/wire/desired.ts';
import type { NodeFacts, ObservedImage, ObservedVm } from '#crds/wire/observed.ts';
import { type AgentView, joining } from '#crds/wire/sync.ts';
import type { Spoken } from './epoch.ts';

/** What is wanted of a node: one object, how the agent will hold it, how many bytes a frame with it has, and which disks it has made. */
export type Wanted = { object: Desired; held: Held; frameBytes: number; made: readonly string[] };

/** That an object does not fit into any frame that the agent of its node reads. */
export type Oversize = { frameBytes: number; maxFrameBytes: number };

// What is around the object in a frame: type, epoch, revision.
const envelopeBytes = 256;

/** Whether a wanted object is too large for an agent; undefined when it fits, or nobody knows. Pure. */
export const oversize = ({ frameBytes }: Pick<Wanted, 'frameBytes'>, { maxFrameBytes }: Pick<Member, 'maxFrameBytes'>): Oversize | undefined =>
  maxFrameBytes !== undefined && frameBytes > maxFrameBytes ? { frameBytes, maxFrameBytes } : undefined;

/** What this operator knows of one node, over all its connections since the operator started. */
export type Member = {
  node: string;
  agentId?: string;
  facts?: NodeFacts;
  protocol?: number;
  /** Most bytes of one frame that its agent reads; undefined before it has said hello. */
  maxFrameBytes?: number;
  /** The last agent that was refused under the name of this node, and when. */
  rival?: { agentId: string; message: string; atMs: number };
  /** Its agent has said, since the operator started, all that it holds: `view.told` is its word. */
  listed?: boolean;
  /** Hellos of its agents, over all connections. */
  hellos: number;
  /** The session that speaks for this node now, by its `hello`; an older socket's end means nothing. */
  session?: { id: symbol; hello: number; wake: () => void; close: (why: string) => void };
  view: AgentView;
  /** Of the last command to this node; it only grows, over all sessions. */
  revision: number;
  /** What its agent is commanded under. */
  spoke?: Spoken;
  /** Monotonic milliseconds of the last frame; undefined before the first. */
  lastHeardMs?: number;
  wanted: Map<string, Wanted>;
  /** By uid of a VM: names of all disks that it was ever told to have. */
  toldDisks: Map<string, ReadonlySet<string>>;
  doomed: Map<string, Doomed>;
  /** By uid of a doomed VM: its disks that shall outlive it. */
  keep: Map<string, KeepOrder>;
  /** By uid of a VM that is absent: its disks that the node keeps, by the word that told its end. */
  keptOf: Map<string, readonly KeptDisk[]>;
  absent: Set<string>;
  /** Uids that the agent calls ended although nobody doomed them since this operator started: a restored cluster knows them still. */
  endedForEver: Set<string>;
  vms: Map<string, ObservedVm>;
  /** VMs that its agent held when it connected, and has not spoken of since: what is in `vms` of them is old. */
  awaited: Set<string>;
  images: Map<string, ObservedImage>;
};

/** That a node holds a machine, by its own word. `epoch` is the placement that it claims, within reason. */
export type Claim = { node: string; uid: string; epoch: number; ending: boolean; uuid?: string };

// The epoch that an agent claims comes into status and is counted on from there, so it has a bound. No VM is placed so often.
const maxPlacements = 1_000_000;

const claimOf = (node: string, { uid, epoch, ending, uuid }: Held): Claim =>
  ({ node, uid, ending, epoch: Math.min(Math.max(epoch, 1), maxPlacements), ...(uuid === undefined ? {} : { uuid }) });

// An agent dials again within 30 s of the start of an operator; then it says what it holds.
const settleMs = 45_000;

/** Who wants to hear of changes. Handlers only enqueue. */
export type FleetListener = { vm: (held: { uid: string; namespace: string; name: string } | { uid: string }) => void; image: (uid: string) => void; node: (node: string) => void };

/**
 * All nodes as this operator knows them: what they are wanted to hold, and what they said. Kept in memory only: the API
 * holds the truth, and an agent says everything again when it connects.
 */
export const makeFleet = (monotonicMs: () => number) => {
  let startedMs = monotonicMs();
  const members = new Map<string, Member>();
  const listeners: FleetListener[] = [];
  const member = (node: string): Member => {
    const known = members.get(node);
    if (known) return known;
    const fresh: Member = {
      node, view: joining, hellos: 0, revision: 0, wanted: new Map(), toldDisks: new Map(), doomed: new Map(), keep: new Map(), keptOf: new Map(), absent: new Set(), endedForEver: new Set(), vms: new Map(), awaited: new Set(), images: new Map(),
    };
    members.set(node, fresh);
    return fresh;
  };
  const hasSettled = (): boolean => monotonicMs() - startedMs > settleMs;
  /** Silence of an agent that was not heard yet begins when a living one would have come. */
  const silent = (lastHeardMs: number | undefined): boolean => (lastHeardMs === undefined ? hasSettled() : monotonicMs() - lastHeardMs > silenceSeconds * 1000);
  return {
    /** This operator leads now. No agent dials a follower, so silence before this moment means nothing. */
    begin: () => { startedMs = monotonicMs(); },
    member,
    members: (): readonly Member[] => [...members.values()],
    listen: (listener: FleetListener) => { listeners.push(listener); },
    tellListeners: (call: (listener: FleetListener) => void) => { for (const listener of listeners) call(listener); },

    /** Says what a node shall hold of one uid, and of a VM which disks were made there. Equal desires are not sent again. */
    want: (node: string, object: Desired, made: readonly string[] = []) => {
      const it = member(node);
      const digest = desireDigest(object);
      if (object.kind === 'image') it.absent.delete(object.uid);
      if (object.kind === 'vm') it.toldDisks.set(object.uid, new Set([...(it.toldDisks.get(object.uid) ?? []), ...object.disks.map(({ name }) => name)]));
      const known = it.wanted.get(object.uid);
      const isSame = known?.held.digest === digest;
      if (isSame && known.made.join() === made.join()) return;
      const frameBytes = Buffer.byteLength(JSON.stringify([object, made])) + envelopeBytes;
      if (isSame) return void it.wanted.set(object.uid, { ...known, frameBytes, made });
      const held: Held = {
        kind: object.kind, uid: object.uid, namespace: object.namespace, name: object.name, generation: object.generation,
        epoch: object.kind === 'vm' ? object.epoch : 1, digest, ending: false, ...(object.kind === 'vm' ? { uuid: object.uuid } : {}),
      };
      it.wanted.set(object.uid, { object, held, frameBytes, made });
      it.session?.wake();
    },
    /** Ends one uid on a node for ever; repeated until it says absent. `keep`: the disks that outlive a VM; the last word about them counts. */
    doom: (node: string, uid: string, kind: Doomed, keep?: KeepOrder) => {
      const it = member(node);
      it.wanted.delete(uid);
      if (it.absent.has(uid)) return;
      if (keep) it.keep.set(uid, keep);
      else it.keep.delete(uid);
      if (it.doomed.has(uid)) return;
      it.doomed.set(uid, kind);
      it.session?.wake();
    },
    /** Tells nothing new of a uid there, and ends nothing. */
    withhold: (node: string, uid: string) => { members.get(node)?.wanted.delete(uid); },
    /** No longer wants a uid there, and ends nothing. */
    release: (node: string, uid: string) => {
      const it = member(node);
      it.wanted.delete(uid);
      it.toldDisks.delete(uid);
      it.keep.delete(uid);
      it.keptOf.delete(uid);
      it.doomed.delete(uid);
      it.absent.delete(uid);
      it.endedForEver.delete(uid);
    },
    link: (node: string): 'connected' | 'joining' | 'silent' => {
      const it = members.get(node);
      if (silent(it?.lastHeardMs)) return 'silent';
      return it?.session && it.view.is === 'joined' ? 'connected' : 'joining';
    },
    /** What a node said is wrong with itself. */
    troubles: (node: string): NodeFacts['troubles'] => members.get(node)?.facts?.troubles ?? [],
    /** Whether a node is back and will say soon how it stands with a VM: what it reported of it before is old. */
    awaits: (node: string, uid: string): boolean => {
      const it = members.get(node);
      return it?.session !== undefined && (it.view.is === 'joining' || it.awaited.has(uid));
    },
    /** Whether a VM shall take a kept disk there. */
    takes: (node: string, uid: string, kept: string): boolean => {
      const object = members.get(node)?.wanted.get(uid)?.object;
      return object?.kind === 'vm' && object.disks.some((disk) => disk.kept === kept);
    },
    /** Names of all disks that a VM was ever told to have there. */
    toldDisks: (node: string, uid: string): ReadonlySet<string> => members.get(node)?.toldDisks.get(uid) ?? new Set(),
    report: (node: string, uid: string): ObservedVm | undefined => members.get(node)?.vms.get(uid),
    /** What a node said of its copy of an image. */
    imageReport: (node: string, uid: string): ObservedImage | undefined => members.get(node)?.images.get(uid),
    /** Set when the object of a uid is too large to be sent to its node. */
    oversize: (node: string, uid: string): Oversize | undefined => {
      const it = members.get(node);
      const wanted = it?.wanted.get(uid);
      return it && wanted && oversize(wanted, it);
    },
    /** Whether the agent of a node can keep a disk after its VM; undefined before it has spoken. */
    keepsDisks: (node: string): boolean | undefined => { const facts = members.get(node)?.facts; return facts && facts.keptDisks !== undefined; },
    /** The disks that a node keeps, by its own word. */
    keptDisks: (node: string): readonly KeptDisk[] => {
      const it = members.get(node);
      return [...new Map([...(it?.facts?.keptDisks ?? []), ...[...(it?.keptOf.values() ?? [])].flat()].map((disk) => [disk.uid, disk])).values()];
    },
    /** Whether a uid was doomed there, and not released since. */
    isEnding: (node: string, uid: string): boolean => { const it = members.get(node); return it !== undefined && (it.doomed.has(uid) || it.absent.has(uid)); },
    isAbsent: (node: string, uid: string): boolean => members.get(node)?.absent.has(uid) ?? false,
    /** The node says that this uid has ended for ever, and we did not ask for it. */
    isEndedForEver: (node: string, uid: string): boolean => members.get(node)?.endedForEver.has(uid) ?? false,
    /** Whether a node has said, since the operator started, all that it holds. */
    hasListed: (node: string): boolean => members.get(node)?.listed === true,
    /** Whether the time in which a living agent comes and says so is over. */
    hasSettled,
    /** The nodes that hold a VM of this uid. */
    claims: (uid: string): Claim[] => [...members.values()].flatMap(({ node, view }) => {
      const told = view.told.get(uid);
      return told?.kind === 'vm' ? [claimOf(node, told)] : [];
    }),
    /** What nodes hold under this name, with another uid. */
    eldersOf: ({ namespace, name, uid }: { namespace: string; name: string; uid: string }): Claim[] =>
      [...members.values()].flatMap(({ node, view }) => [...view.told.values()].flatMap((told) =>
        (told.kind === 'vm' && told.uid !== uid && told.namespace === namespace && told.name === name ? [claimOf(node, told)] : []))),
  };
};

/** All nodes as this operator knows them. */
export type Fleet = ReturnType<typeof makeFleet>;
