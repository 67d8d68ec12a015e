import type { Fault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import type { Guests } from '../guest/driver.ts';
import type { Hypervisor } from '../hypervisor/driver.ts';
import type { ImageStore } from '../image/store.ts';
import type { NicBackend, Network } from '../network/driver.ts';
import type { ReadyDisk, Storage } from '../storage/driver.ts';
import type { Step } from './facts.ts';
import type { Retried } from './halted.ts';
import type { Ledger } from './ledger.ts';

/** Everything that the work on a VM reaches for. */
export type Hands = {
  hypervisor: Hypervisor;
  network: Network;
  storage: Storage;
  images: ImageStore;
  guests: Guests;
  ledger: Ledger;
  log: Log;
  now: () => Date;
  /** Milliseconds of the node's monotonic clock, which goes on over restarts of the agent. */
  hostMs: () => number;
  /** A fresh random id. */
  newId: () => string;
  /** A number in [0, 1). */
  chance: () => number;
  /** A VM stands differently than before. */
  report: (observed: ObservedVm) => void;
  /** The node keeps other disks than before, or in other states. */
  keptChanged: () => void;
  /** A VM has ended and nothing of it is left, but for disks that outlive it. */
  absent: (uid: string) => void;
};

/** A step that failed, and until when it is not tried again. `key` tells which desire it was for. */
export type Failure = { fault: Fault; step: Step['do']; key: string; attempt: number; untilMs: number };

/** What the work on one VM keeps in memory; all of it may be lost at any time. */
export type Scratch = {
  backends: Map<string, NicBackend>;
  places: Map<string, ReadyDisk>;
  /** Whether the network may hold ports for it: it was attached, or adopted after a restart. */
  holdsPorts: boolean;
  pressedMs: number | undefined;
  /** The stop that is under way was begun here, and its guest was not told yet. */
  stopUntold: boolean;
  /** Its grace period was given anew. */
  stopRenewed: boolean;
  onReboot: 'reset' | 'shutdown' | undefined;
  retried: Retried | undefined;
  failure: Failure | undefined;
  /** Live changes that were refused when they were last tried, by `changeKey`. */
  refused: Map<string, Fault>;
  /** A driver that broke its deadline and is still at it: nothing else is done to this VM meanwhile. */
  hung: boolean;
  reported: string | undefined;
};

/** The memory of a worker that begins. */
export const freshScratch = (holdsPorts: boolean): Scratch => ({
  backends: new Map(), places: new Map(), holdsPorts, pressedMs: undefined, stopUntold: false, stopRenewed: false, retried: undefined, onReboot: undefined, failure: undefined, refused: new Map(), hung: false, reported: undefined,
});
