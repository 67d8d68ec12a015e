import type { DesiredVm } from '#crds/wire/desired.ts';
import type { GuestInfo } from '#crds/wire/observed.ts';
import type { NodePort } from '../hypervisor/driver.ts';

/**
 * One run that is looked into. `cpus`: virtual CPUs that its machine has now. `tcp` is where a connection to the probed port of the guest is
 * made from the node.
 */
export type GuestRun = { uid: string; startId: string; cpus: number; probe?: DesiredVm['probe']; tcp?: NodePort };

/** What is seen of a guest in one run. `ready` is about its probe; `info` is there once its agent has answered. */
export type GuestSight = { startId: string; info?: GuestInfo; ready?: { is: boolean; message: string } };

/**
 * Looks into guests that run, each in a lane of its own: a guest that is slow to answer delays nobody. All that it tells
 * is a guest's word, parsed and bounded.
 */
export type Guests = {
  /** Looks into this run from now on, or goes on with it; another run, another probe or other CPUs begin anew. */
  follow: (run: GuestRun) => void;
  /** Looks no more. */
  leave: (uid: string) => void;
  /** What was seen last. */
  observe: (uid: string) => GuestSight | undefined;
};
