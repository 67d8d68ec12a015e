import { type Backoff, exponential } from '#crds/kit/backoff.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import type { IoError } from '../hypervisor/driver.ts';
import type { VmEntry } from './entry.ts';
import type { Plan, Step, VmFacts } from './facts.ts';

/** How often a guest that a disk has halted was let go on, and when last, in milliseconds of the node's monotonic clock. */
export type Retried = { tries: number; atMs: number };

/** A full disk is left alone until this much is free: less would be written full again at once. */
export const roomMiB = 32;
/** How soon a full disk is looked at again. */
const roomAgainMs = 5_000;
/** After this long without a try the next trouble is a new one. */
const calmMs = 600_000;

const retry: Record<IoError['reason'], Backoff> = { NoSpace: { baseMs: 1_000, maxMs: 30_000 }, IOError: { baseMs: 5_000, maxMs: 300_000 } };

/**
 * What is to be done about a guest that QEMU holds since a disk of the node failed or is full (`werror=stop`): nothing is lost, its write waits
 * in QEMU. It goes on by itself when there is room, or is tried again with growing pauses; but never one that its user wants paused. Pure.
 */
export const planHalted = ({ entry, retried, freeMiB, nowMs }: VmFacts, desired: DesiredVm, error: IoError, keep: readonly Step[]): Plan => {
  const ioError = tellOf(entry, error);
  if (desired.powerState === 'Paused') return { state: 'paused', steps: keep, ioError };
  const held: Plan = { state: 'paused', steps: keep, ioError, trouble: { ...ioError, final: false } };
  const waitMs = waitOf(error, retried, nowMs);
  if (waitMs > 0) return { ...held, lookAfterMs: waitMs };
  if (error.reason === 'NoSpace' && freeMiB !== undefined && freeMiB < roomMiB) return { ...held, lookAfterMs: roomAgainMs };
  return { ...held, steps: [...keep, { do: 'retryIo' }] };
};

/** The record of one more try. Pure. */
export const afterRetry = (before: Retried | undefined, nowMs: number): Retried => ({ tries: isRecent(before, nowMs) ? before.tries + 1 : 1, atMs: nowMs });

const isRecent = (retried: Retried | undefined, nowMs: number): retried is Retried => retried !== undefined && nowMs - retried.atMs < calmMs;

const waitOf = ({ reason }: IoError, retried: Retried | undefined, nowMs: number): number =>
  isRecent(retried, nowMs) ? Math.max(0, exponential(retry[reason], retried.tries - 1) - (nowMs - retried.atMs)) : 0;

const tellOf = ({ slots }: VmEntry, { reason, slots: failed }: IoError): NonNullable<ObservedVm['ioError']> => {
  const names = Object.entries(slots).flatMap(([device, slot]) => (device.startsWith('disk/') && failed.includes(slot) ? [device.slice('disk/'.length)] : []));
  const where = names.length === 0 ? 'a disk' : `disk ${names.join(', ')}`;
  return reason === 'NoSpace'
    ? { reason, message: `${where}: the node has no space left; the guest is held where it was, and goes on by itself when ${roomMiB} MiB are free` }
    : { reason, message: `${where}: the disk of the node failed; the guest is held where it was, and its write is tried again` };
};
