import { z } from 'zod';
import { desired, uid } from './desired.ts';
import { keepOrder, keptDisk } from './kept.ts';
import { nodeFacts, observedImage, observedVm } from './observed.ts';

/** The protocol versions that this build speaks. One version of skew each way is kept working. */
export const protocolRange = { min: 1, max: 1 } as const;

/** Most bytes of one frame that this build reads: more than any object needs that the API server takes. Sets are split. */
export const maxFrameBytes = 4 * 1024 * 1024;
/** Most bytes of one frame that a peer of the first version reads; it does not say so. */
export const firstMaxFrameBytes = 1024 * 1024;
/** Most bytes of one `holding` frame: a peer of the first version reads it. */
export const maxHeldBytes = firstMaxFrameBytes / 2;
/** Most entries of one `holding` frame. */
export const maxHeldPerFrame = 2000;
/** Most objects that one node may hold, over all `holding` frames of a list. */
export const maxHeld = 20_000;
/** Seconds between heartbeats. */
export const heartbeatSeconds = 10;
/** Seconds until a silent peer counts as gone. */
export const silenceSeconds = 30;
/** Seconds between digest comparisons. */
export const compareSeconds = 60;

/** One object that an agent holds: which desire, or that it ended (a tombstone was accepted, teardown may still run). */
export const held = z.object({
  kind: z.enum(['vm', 'image']),
  uid,
  namespace: z.string().max(63),
  name: z.string().max(253),
  generation: z.int(),
  epoch: z.int(),
  digest: z.string().max(64),
  ending: z.boolean(),
  /** Of a VM: the SMBIOS UUID that it was given. Only who was given a VM of a name knows the UUID of that name, so that nobody can claim a name. */
  uuid: uid.optional(),
});

/** Highest leaderEpoch that an agent may claim: far above what any cluster reaches, so that a leader can always go one above it. */
const maxLeaderEpochSeen = 2 ** 48;

/** Orders commands: a leader with a higher epoch wins, then the higher revision of its node. */
const order = { leaderEpoch: z.int().min(1), revision: z.int().min(1) };

/** What an operator says to an agent. */
export const toAgent = z.discriminatedUnion('type', [
  z.object({ type: z.literal('welcome'), protocol: z.int(), leaderEpoch: z.int().min(1), node: z.string().max(253) }),
  /** The session can't be; the socket closes after it. Try again later unless an administrator must act. */
  z.object({ type: z.literal('refused'), reason: z.enum(['ProtocolMismatch', 'IdentityConflict', 'TokenRefused', 'BadFrame', 'NotLeader']), message: z.string().max(4096) }),
  /** The whole desire for one object. `made`: names of disks that its node is known to have made; an agent that knows nothing of the VM makes none of them anew. */
  z.object({ type: z.literal('desire'), ...order, object: desired, made: z.array(z.string().max(20)).max(64).optional() }),
  /** Ends one uid for ever; of an image it ends the copy that the node has. Repeated until the agent says `absent`. `keep`: disks that outlive the VM. */
  z.object({ type: z.literal('tombstone'), ...order, kind: z.enum(['vm', 'image', 'disk']), uid, keep: keepOrder.optional() }),
  /** Digest over everything that the node shall hold; on a difference the agent answers `holding`. */
  z.object({ type: z.literal('compare'), leaderEpoch: z.int().min(1), digest: z.string().max(64) }),
  z.object({ type: z.literal('alive') }),
  z.object({ type: z.literal('renewed'), expiresAt: z.string().max(40) }),
]);

/** What an agent says to an operator. */
export const toOperator = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('hello'),
    protocol: z.object({ min: z.int(), max: z.int() }),
    capabilities: z.array(z.string().max(64)).max(64),
    agentId: z.string().min(1).max(64),
    /** The highest leaderEpoch that this agent has seen; it is commanded above it. */
    leaderEpochSeen: z.int().min(0).max(maxLeaderEpochSeen),
    /** Most bytes of one frame that it reads; `firstMaxFrameBytes` when unsaid. */
    maxFrameBytes: z.int().min(1).optional(),
    facts: nodeFacts,
  }),
  /** Everything that the agent holds, split; `last` closes the list and only then it counts. */
  z.object({ type: z.literal('holding'), held: z.array(held).max(maxHeldPerFrame), last: z.boolean() }),
  z.object({ type: z.literal('report'), observed: z.discriminatedUnion('kind', [observedVm, observedImage]) }),
  /** `kept`: the disks of the VM that the node keeps. */
  z.object({ type: z.literal('absent'), kind: z.enum(['vm', 'image', 'disk']), uid, kept: z.array(keptDisk).max(64).optional() }),
  z.object({ type: z.literal('facts'), facts: nodeFacts }),
  z.object({ type: z.literal('heartbeat') }),
  z.object({ type: z.literal('renew'), token: z.string().max(16384) }),
]);

/** What an operator says to an agent. */
export type ToAgent = z.output<typeof toAgent>;
/** What an agent says to an operator. */
export type ToOperator = z.output<typeof toOperator>;
/** One object that an agent holds. */
export type Held = z.output<typeof held>;
/** What a tombstone can end: also a kept disk, which is told in the facts of its node and is not part of what is compared. */
export type Doomed = Held['kind'] | 'disk';
