import type { Fault } from '#crds/kit/fault.ts';
import type { ObservedImage, ObservedVm, VmState } from '#crds/wire/observed.ts';
import type { GuestSight } from '../guest/driver.ts';
import type { MachineFacts, Sight, Unready } from '../hypervisor/driver.ts';
import type { DiskSight } from '../storage/driver.ts';
import type { Change, LiveChange } from './change.ts';
import type { DiskEntry, VmEntry } from './entry.ts';
import type { Retried } from './halted.ts';

/** What is seen of one disk, or of the medium of a CD drive (`empty` when it shall have none); a fault when it could not be looked at. */
export type DiskFact = DiskSight | { is: 'fault'; fault: Fault } | { is: 'empty' };

/** Everything that a decision about one VM rests on; read once, before it. */
export type VmFacts = {
  entry: VmEntry;
  sight: Sight;
  /** Wanted disks, and those that the VM still has, by name. */
  disks: ReadonlyMap<string, DiskFact>;
  /** CD drives beside whose medium others lie; also such as nobody wants any more. */
  staleDrives: ReadonlySet<string>;
  /** Disks of the node that have outlived their VMs. */
  kept: readonly DiskEntry[];
  /** Images that wanted disks start from, by uid. */
  images: ReadonlyMap<string, { ready: boolean; observed?: ObservedImage }>;
  /** Interfaces that the network has made ready for a start. */
  attached: ReadonlySet<string>;
  /** Whether the network may hold anything of this VM. */
  holdsPorts: boolean;
  /** Why the node can start nothing now. */
  unready?: Unready;
  /** What is seen in the guest of the run that is there. */
  guest?: GuestSight;
  now: Date;
  /** Milliseconds of the node's monotonic clock when this look began: it goes on over restarts of the agent. */
  nowMs: number;
  /** When the power button was last pressed for this stop, on that clock; unknown after a restart of the agent. */
  pressedMs: number | undefined;
  /** Whether the grace period of the stop that is under way was given anew already. */
  stopRenewed: boolean;
  /** What the machine was told to do at the guest's own reboot; unknown after a restart of the agent. */
  onReboot: 'reset' | 'shutdown' | undefined;
  /** While a disk halts the guest: how much the node's storage has free, when that could be told. */
  freeMiB?: number;
  /** When a guest that a disk had halted was last let go on; unknown after a restart of the agent. */
  retried: Retried | undefined;
  /** A random id for the start that may come of this. */
  freshId: string;
};

/** What keeps a VM from its desired state. */
export type Trouble = NonNullable<ObservedVm['trouble']>;

/** One thing to be done; `apply` has one function for each. `settle` and those before it in this list change only the ledger. */
export type Step =
  | { do: 'allot' }
  | { do: 'intend'; startId: string }
  | { do: 'remember'; startId: string; ran: boolean; machine: MachineFacts; time: string }
  | { do: 'beginStop'; sinceMs: number; forced: boolean; why: NonNullable<VmEntry['stopping']>['why']; anew?: boolean }
  | { do: 'clearStop' }
  | { do: 'noteReady'; time: string }
  | { do: 'settle'; exit: VmEntry['lastExit']; ended: boolean; failed?: string }
  | { do: 'needImage'; uid: string }
  | { do: 'createDisk'; name: string; forChange?: 'plugDisk' | 'medium' }
  | { do: 'growDisk'; name: string; sizeMiB: number }
  | { do: 'dropDisk'; name: string }
  | { do: 'keepDisk'; name: string }
  | { do: 'takeDisk'; name: string; kept: string; forChange?: 'plugDisk' }
  | { do: 'tidyDrive'; name: string }
  | { do: 'seed' }
  | { do: 'attach'; name: string; forChange?: 'plugNic' }
  | { do: 'start'; startId: string }
  | { do: 'revoke'; startId: string }
  | { do: 'resume' }
  | { do: 'retryIo' }
  | { do: 'pause' }
  | { do: 'powerdown' }
  | { do: 'onReboot'; action: 'reset' | 'shutdown' }
  | { do: 'change'; change: LiveChange }
  | { do: 'kill' }
  | { do: 'detach' }
  | { do: 'forget' }
  | { do: 'removeFiles' }
  | { do: 'end' };

/**
 * What follows from the facts: how the VM is said to stand, what to do now (in this order, each on the success of the one
 * before), what to do after that (`beside`: while it fails it keeps nothing else waiting), what keeps it from its desired state,
 * in what the run differs from the hardware that is wanted, and when to look again although nothing has happened.
 */
export type Plan = { state: VmState; steps: readonly Step[]; beside?: readonly Step[]; trouble?: Trouble; ioError?: NonNullable<ObservedVm['ioError']>; pending?: readonly Change[]; lookAfterMs?: number };
