import { z } from 'zod';
import { uid } from './desired.ts';
import { keptDisk, maxKeptDisks } from './kept.ts';

const text = z.string().max(4096);
/** A size that has room in a status, whatever an agent says; 1 EiB. */
const sizeMiB = z.int().max(2 ** 40);

/**
 * The state of one VM as its agent sees it.
 *
 *   preparing -> starting -> running <-> paused
 *        running/paused -> stopping -> stopped -> starting
 *        running -> ended     the guest ended by itself; see lastExit
 *        any -> unknown       the process is there but does not answer
 *        any -> deleting      a tombstone was accepted; ends in `absent`
 */
const vmState = z.enum(['preparing', 'starting', 'running', 'paused', 'stopping', 'stopped', 'ended', 'unknown', 'deleting']);

/**
 * Why a run of a guest ended.
 *
 *   GuestShutdown   the guest powered itself off       GuestReset    it rebooted, and edits waited for that
 *   GuestPanicked   its kernel said so (pvpanic)       QemuCrashed   a signal or an error ended QEMU
 *   OutOfMemory     the node's kernel killed QEMU      NodeRebooted  the node went down with it
 *   Stopped         as asked for                       Forced        as asked for, by SIGKILL: after its grace period, or at once
 */
export const exitReason = z.enum(['GuestShutdown', 'GuestReset', 'GuestPanicked', 'QemuCrashed', 'OutOfMemory', 'NodeRebooted', 'Stopped', 'Forced']);

/** Why the last run of a guest ended, from the events and the exit record on disk. */
export const lastExit = z.object({
  reason: exitReason,
  code: z.int32().optional(),
  signal: z.string().max(16).optional(),
  /** RFC 3339. */
  time: z.string().max(40),
});

/** What a guest says of itself through its agent; nothing in it is to be trusted. */
const guestInfo = z.object({
  agentVersion: z.string().max(64),
  os: z.string().max(128).optional(),
  hostname: z.string().max(253).optional(),
  addresses: z.array(z.object({ mac: z.string().max(17), addresses: z.array(z.string().max(45)).max(16) })).max(32),
  cpusOnline: z.int().optional(),
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
  /** A disk of the node is full or failed: QEMU holds the guest where it was. */
  ioError: z.object({ reason: z.enum(['NoSpace', 'IOError']), message: text }).optional(),
  /** Set when a start was given up or a stop was forced, so that the operator can say so in an event. */
  lastExit: lastExit.optional(),
  machine: z.object({
    type: z.string().max(64),
    cpuModel: z.string().max(64),
    accelerator: z.enum(['kvm', 'hvf', 'tcg']),
    /** Why it is software emulation. */
    why: z.string().max(256).optional(),
    cpus: z.int32(),
    memoryMiB: sizeMiB,
  }).optional(),
  /** While a machine is there: the generation of the spec that it has, and the edits that it does not have. */
  applied: z.object({
    generation: z.int32(),
    /** `restart`: it waits for the next power cycle; else it is tried again while the guest runs. */
    pending: z.array(z.object({ path: z.string().max(128), current: z.string().max(256), desired: z.string().max(256), restart: z.boolean(), why: text.optional() })).max(64),
  }).optional(),
  /** The emulator of its TPM has ended; the guest has it again after the next power cycle. */
  tpmLost: z.boolean().optional(),
  /** The cloud-init seed was written: what came from Secrets is not needed any more. */
  seeded: z.boolean().optional(),
  /** While a machine is there: what its guest says of itself, and whether it passes its probe. */
  guest: guestInfo.optional(),
  ready: z.object({ is: z.boolean(), message: text }).optional(),
  /** Steps of the run that is there (RFC 3339). */
  times: z.object({ prepared: z.string().max(40), running: z.string().max(40).optional(), guestReady: z.string().max(40).optional() }).optional(),
  /** How often the restart policy has started it again, and when it will do so next (RFC 3339). */
  restarts: z.object({ count: z.int32(), at: z.string().max(40).optional() }).optional(),
  /** The restart token that was honoured last. */
  restartToken: z.string().max(63).optional(),
  /** Empty: a drive without a medium. Unclaimed: it is there, and the desire neither wants it nor says that it was taken away. */
  disks: z.array(z.object({ name: z.string().max(20), sizeMiB, format: z.string().max(16), state: z.enum(['Ready', 'Missing', 'Empty', 'Unclaimed']) })).max(24),
  forwards: z.array(z.object({
    interface: z.string().max(15),
    name: z.string().max(20),
    address: z.string().max(45),
    hostPort: z.int32(),
    port: z.int32(),
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
  /** False: the image is good, but has left the node's cache; it is fetched again when a VM needs it. */
  cached: z.boolean().optional(),
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
  /** What VMs may ask for: `arch:amd64`, `uefi:amd64`, `secureboot:amd64`, `tpm`, `vsock`. Absent: the node's architecture with a BIOS. */
  features: z.array(z.string().max(64)).max(64).optional(),
  /** CPU models that the node has all of, for each architecture of guests. */
  cpuModels: z.object({ amd64: z.array(z.string().max(64)).max(512).optional(), arm64: z.array(z.string().max(64)).max(512).optional() }).optional(),
  networkMode: z.enum(['user', 'ovn']),
  bootId: z.string().max(64),
  capacity: z.object({ cpus: z.int32(), memoryMiB: z.int(), storageMiB: z.int() }),
  forwards: z.object({ address: z.string().max(45), minPort: z.int(), maxPort: z.int() }),
  /** Faults of the node itself, each with a reason and a sentence: a quarantined ledger file, a full disk. */
  troubles: z.array(z.object({ reason: z.string().max(64), message: text })).max(64),
  /** Every disk that has outlived its VM and is kept here. Absent: this agent keeps none, it removes the disks of a VM with the VM. */
  keptDisks: z.array(keptDisk).max(maxKeptDisks).optional(),
});

/** What an agent says of one VM. */
export type ObservedVm = z.output<typeof observedVm>;
/** What an agent says of one image. */
export type ObservedImage = z.output<typeof observedImage>;
/** What a node is. */
export type NodeFacts = z.output<typeof nodeFacts>;
/** What a guest says of itself. */
export type GuestInfo = z.output<typeof guestInfo>;
/** Why the last run of a guest ended. */
export type LastExit = z.output<typeof lastExit>;
/** The state of one VM as its agent sees it. */
export type VmState = z.output<typeof vmState>;
