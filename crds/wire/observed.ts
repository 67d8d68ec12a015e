import { z } from 'zod';
import { uid } from './desired.ts';

const text = z.string().max(4096);

/**
 * The state of one VM as its agent sees it.
 *
 *   preparing -> starting -> running <-> paused
 *        running/paused -> stopping -> stopped -> starting
 *        running -> ended     the guest ended by itself; see lastExit
 *        any -> unknown       the process is there but does not answer
 *        any -> deleting      a tombstone was accepted; ends in `absent`
 */
export const vmState = z.enum(['preparing', 'starting', 'running', 'paused', 'stopping', 'stopped', 'ended', 'unknown', 'deleting']);

/** Why the last run of a guest ended, from the events and the exit record on disk. */
export const lastExit = z.object({
  reason: z.enum(['GuestShutdown', 'QemuCrashed', 'NodeRebooted', 'Stopped', 'Forced']),
  code: z.int().optional(),
  signal: z.string().max(16).optional(),
  /** RFC 3339. */
  time: z.string().max(40),
});

/** What an agent says of one VM; always whole. */
export const observedVm = z.object({
  kind: z.literal('vm'),
  uid,
  /** Generation and digest of the desire that this state reflects. */
  generation: z.int(),
  epoch: z.int(),
  digest: z.string().max(64),
  state: vmState,
  /** What keeps it from its desired state: a reason for a condition and a sentence. `final` when trying again can't help. */
  trouble: z.object({ reason: z.string().max(64), message: text, final: z.boolean() }).optional(),
  /** Set when a start was given up or a stop was forced, so that the operator can say so in an event. */
  lastExit: lastExit.optional(),
  machine: z.object({
    type: z.string().max(64),
    cpuModel: z.string().max(64),
    accelerator: z.enum(['kvm', 'hvf', 'tcg']),
    cpus: z.int(),
    memoryMiB: z.int(),
  }).optional(),
  disks: z.array(z.object({ name: z.string().max(20), sizeMiB: z.int(), format: z.string().max(16), state: z.enum(['Ready', 'Missing']) })).max(8),
  forwards: z.array(z.object({
    interface: z.string().max(15),
    name: z.string().max(20),
    address: z.string().max(45),
    hostPort: z.int(),
    port: z.int(),
    protocol: z.enum(['TCP', 'UDP']),
  })).max(256),
});

/** What an agent says of one image; always whole. Progress in percent, in steps of ten. */
export const observedImage = z.object({
  kind: z.literal('image'),
  uid,
  generation: z.int(),
  digest: z.string().max(64),
  state: z.enum(['importing', 'ready', 'failed']),
  progress: z.int().min(0).max(100),
  content: z.object({ digest: z.string().max(80), sizeBytes: z.int(), virtualSizeBytes: z.int() }).optional(),
  trouble: z.object({ reason: z.string().max(64), message: text, final: z.boolean() }).optional(),
});

/** What a node is; sent with hello and again on change. Sizes in MiB. */
export const nodeFacts = z.object({
  agentVersion: z.string().max(64),
  qemuVersion: z.string().max(64),
  kernel: z.string().max(128),
  os: z.string().max(128),
  architecture: z.enum(['amd64', 'arm64']),
  accelerators: z.array(z.enum(['kvm', 'hvf', 'tcg'])).max(4),
  networkMode: z.enum(['user', 'ovn']),
  bootId: z.string().max(64),
  capacity: z.object({ cpus: z.int(), memoryMiB: z.int(), storageMiB: z.int() }),
  forwards: z.object({ address: z.string().max(45), minPort: z.int(), maxPort: z.int() }),
  /** Faults of the node itself, each with a reason and a sentence: a quarantined ledger file, a full disk. */
  troubles: z.array(z.object({ reason: z.string().max(64), message: text })).max(64),
});

/** What an agent says of one VM. */
export type ObservedVm = z.output<typeof observedVm>;
/** What an agent says of one image. */
export type ObservedImage = z.output<typeof observedImage>;
/** What a node is. */
export type NodeFacts = z.output<typeof nodeFacts>;
/** Why the last run of a guest ended. */
export type LastExit = z.output<typeof lastExit>;
/** The state of one VM as its agent sees it. */
export type VmState = z.output<typeof vmState>;
