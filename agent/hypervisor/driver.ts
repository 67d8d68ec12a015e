import type { Log } from '#crds/kit/log.ts';
import type { Paths } from '../host/paths.ts';
import type { NicBackend } from '../network/driver.ts';

/** Architecture of a guest or a node. */
export type Architecture = 'amd64' | 'arm64';

/** What executes guest code. */
export type Accelerator = 'kvm' | 'hvf' | 'tcg';

/** What a guest may do with a disk in a second, reading and writing together. */
export type DiskLimits = { iops?: number | undefined; mibPerSecond?: number | undefined };

/**
 * One disk of a machine. `file` and `base`, the qcow2 that it is an overlay on, are relative to the VM's directory; the
 * guest sees `name` as the serial number. `slot` is the root port of a device of its own, kept for the life of the VM; on
 * bus sata, that of no root port, `port` is that of the controller. `cache`: none goes past the node's page cache, writethrough
 * is on the node's disk before the guest is told that it is written.
 */
export type MachineDisk = {
  name: string; file: string; format: 'qcow2' | 'raw'; base?: string; readOnly: boolean; slot: number; bus: DiskBus; port: number;
  cache: 'writeback' | 'none' | 'writethrough'; limits: DiskLimits; bootIndex?: number;
};

/** How a guest sees a disk. */
export type DiskBus = 'virtio' | 'scsi' | 'sata' | 'nvme';

/** A disk as every one was before there was a choice. */
export const plainDisk = { bus: 'virtio', port: 0, cache: 'writeback', limits: {}, readOnly: false } as const satisfies Partial<MachineDisk>;

/** One CD drive of a machine. `medium`, a qcow2 that is only read, is relative to the VM's directory; without it the drive is empty. */
export type MachineDrive = { name: string; slot: number; bus: 'scsi' | 'sata'; port: number; medium?: string; bootIndex?: number };

/** One network card of a machine. `slot` is its root port, kept for the life of the VM. */
export type MachineNic = { name: string; mac: string; slot: number; backend: NicBackend };

/** Everything that one start of a machine needs. All of it is data; the driver makes arguments from it. */
export type MachineSpec = {
  uid: string;
  /** Identity of this start: a fresh random id, recorded before the process exists. */
  startId: string;
  epoch: number;
  uuid: string;
  /** Machine type of earlier runs, as `pc-q35-7.2`: hardware does not change under a guest. The first run gets the newest. */
  type?: string;
  architecture: Architecture;
  firmware: { type: 'bios' | 'uefi'; secureBoot: boolean; tpm: boolean };
  /** What the firmware remembers was made before: from then on it must be there. */
  firmwareMade: boolean;
  /** QEMU CPU model; the best of the node when unset. */
  cpuModel?: string;
  devices: { watchdog: boolean; rng: boolean; panic: boolean; graphics: boolean; vsock: boolean; guestAgent: boolean };
  cpus: number;
  /** Most CPUs that can be plugged while it runs. */
  maxCpus: number;
  memoryMiB: number;
  /** Most memory that can be plugged while it runs. */
  maxMemoryMiB: number;
  disks: readonly MachineDisk[];
  drives: readonly MachineDrive[];
  nics: readonly MachineNic[];
  /** The Unix user and group that the process runs as. */
  unixId: number;
};

/** What a machine turned out to be; kept in the ledger, so that it stays the same over power cycles. */
export type MachineFacts = {
  type: string; cpuModel: string; accelerator: Accelerator; cpus: number; memoryMiB: number;
  /** Why it is software emulation. */
  why?: string | undefined;
};

/** A BIOS machine of amd64 as every VM had it before there was a choice. */
export const plainHardware = {
  architecture: 'amd64', firmware: { type: 'bios', secureBoot: false, tpm: false }, firmwareMade: false,
  devices: { watchdog: false, rng: true, panic: true, graphics: false, vsock: false, guestAgent: true },
  drives: [],
} as const satisfies Partial<MachineSpec>;

/** How a run ended, read from what is on disk. No `code` when the node went down with it. */
export type RunEnd = {
  startId: string;
  /**
   * guest: it powered itself off. reset: it rebooted, and was to end by that. stopped: we asked it to. crashed: neither said so.
   * oom: the node's kernel killed it for memory. rebooted: the node went down.
   */
  cause: 'guest' | 'reset' | 'stopped' | 'crashed' | 'oom' | 'rebooted';
  code?: number;
  signal?: string;
  /** Whether the guest had executed anything (its first `cont` was done). */
  ran: boolean;
  /** The last lines that QEMU wrote to stderr; for the message of a failed start. */
  stderr: string;
};

/** Why QEMU holds a guest: the disks in these slots have no room left, or failed. */
export type IoError = { reason: 'NoSpace' | 'IOError'; slots: readonly number[] };

/**
 * What is seen of one machine.
 *
 *   gone      its lock was taken and given back: no process has its disks. `last` tells how the last run ended.
 *   present   the lock is held, QMP answered, and it is the run `startId` of this VM. `panicked`: the guest's kernel said so,
 *             and has not reset itself since. `tpmLost`: the emulator of its TPM has ended, and comes back with the next start only.
 *   unknown   the lock is held but nothing answered in time: touch nothing that may still run. `broken`: it answers, and its
 *             guest can not go on before a restart.
 */
export type Sight =
  | { is: 'gone'; last?: RunEnd }
  | { is: 'present'; startId: string; guest: 'prelaunch' | 'running' | 'paused' | 'io-error' | 'shutdown'; facts: MachineFacts; pid: number; panicked?: true; tpmLost?: true; ioError?: IoError }
  | { is: 'unknown'; why: string; broken?: true };

/**
 * One change of a machine that runs; each may be made twice.
 *
 *   cpus      plugs virtual CPUs until there are that many; there are never fewer
 *   memory    plugs or asks back memory above what the machine started with. Giving back is up to the guest
 *   addNic    plugs a network card               removeNic   asks the guest to release it, and waits until it did
 *   addDisk   plugs a disk                       removeDisk  asks the guest to release it or a drive, and waits until it did; then QEMU has closed its files
 *   addDrive  plugs a CD drive with its medium   medium      changes what lies in it, or takes it out; waits until the guest lets go of it
 *   limits    sets what a guest may do with a disk
 *   growDisk  makes a disk larger, up to a size, and tells the guest. One that is at least as large stays
 *   forwards  opens and closes ways into the guest through a card
 *   onReboot  what the guest's own reboot does: reset the machine, as from its start, or end it (`RunEnd.cause` reset)
 */
export type MachineChange =
  | { do: 'cpus'; cpus: number }
  | { do: 'memory'; memoryMiB: number }
  | { do: 'addNic'; nic: MachineNic }
  | { do: 'removeNic'; slot: number }
  | { do: 'addDisk'; disk: MachineDisk }
  | { do: 'removeDisk'; slot: number }
  | { do: 'growDisk'; slot: number; sizeMiB: number }
  | { do: 'addDrive'; drive: MachineDrive }
  | { do: 'medium'; slot: number; medium?: string }
  | { do: 'limits'; slot: number; limits: DiskLimits }
  | { do: 'forwards'; slot: number; from: NicBackend['forwards']; to: NicBackend['forwards'] }
  | { do: 'onReboot'; action: 'reset' | 'shutdown' };

/** A TCP port of the node. */
export type NodePort = { address: string; port: number };

/** Why no machine can be started: `Preparing` while that is still being found out, else what was found. */
export type Unready = { reason: string; message: string };

/**
 * What a hypervisor can do. `accelerators` are those for guests of the node's own architecture. `features` and `cpuModels` are
 * what VMs may ask for; see `NodeFacts`.
 */
export type HypervisorCapabilities = {
  version: string;
  accelerators: readonly Accelerator[];
  features: readonly string[];
  cpuModels: Partial<Record<Architecture, readonly string[]>>;
  unready?: Unready;
};

/**
 * Runs machines. Every verb is safe to do twice and ends within its signal or a deadline of its own.
 * `gone` from `observe` is the only evidence on which files may be removed or another start be made.
 */
export type Hypervisor = {
  /** What this node can do; proved, not guessed. `unready` tells why nothing can be started (yet); all else goes on meanwhile. */
  capabilities: () => HypervisorCapabilities;
  observe: (uid: string, signal: AbortSignal) => Promise<Sight>;
  /**
   * Starts a machine that is held before its first instruction (guest `prelaunch`). When one is present already
   * the lock refuses and Fault AlreadyRunning is thrown. Other faults: StartFailed (with the last stderr lines), and that of
   * `unready` at once.
   */
  start: (spec: MachineSpec, signal: AbortSignal) => Promise<void>;
  /**
   * Takes back a start of which no machine was seen: it never makes one, though its launcher may still be on its way to the lock.
   * Without effect on one that has made its machine, which is gone. Faults: StillThere, when somebody has the lock.
   */
  revoke: (uid: string, startId: string, signal: AbortSignal) => Promise<void>;
  /** Lets the guest run (`cont`), the first time or after `pause`. */
  resume: (uid: string, signal: AbortSignal) => Promise<void>;
  pause: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Presses the ACPI power button. The guest may ignore it. */
  powerdown: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Changes a machine that runs. Faults: ChangeRefused (QEMU or the guest does not do it, with why), NotRunning. */
  change: (uid: string, change: MachineChange, signal: AbortSignal) => Promise<void>;
  /** Whether the guest itself has taken a TCP connection that was made to a forwarded port and stands. Faults: NotRunning. */
  established: (uid: string, at: NodePort, signal: AbortSignal) => Promise<boolean>;
  /** Ends the process (SIGKILL to the run that holds the lock). Returns when the lock is free, or throws StillThere. */
  kill: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Frees what the node keeps for a machine that is gone: cgroups, sockets, run directories. */
  forget: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Calls `changed` with a uid whenever something happened to its machine (an event, its end). A hint, not a promise. */
  watch: (changed: (uid: string) => void) => Disposable;
};

/** What every hypervisor is given. `accelerate`: whether the platform's accelerator may be
 * used, when it is proved. `onProved`: it is known now what the node can do. */
export type HypervisorOptions = { paths: Paths; bootId: string; accelerate: boolean; log: Log; onProved: () => void };

/** Makes a hypervisor, which looks after its machines until the signal aborts. */
export type MakeHypervisor = (options: HypervisorOptions, signal: AbortSignal) => Promise<Hypervisor>;
