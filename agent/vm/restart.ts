import { type Backoff, exponential } from '#crds/kit/backoff.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { LastExit } from '#crds/wire/observed.ts';
import type { VmEntry } from './entry.ts';

/** Delays before a guest that ended by itself is started again. */
const delays: Backoff = { baseMs: 10_000, maxMs: 300_000 };
/** A run of this length makes the next delay the shortest again. */
const longRunMs = 600_000;

/** Whether a restart policy starts a guest again that ended so. Pure. An end that was asked for is not for the policy. */
export const restartsAfter = (policy: DesiredVm['restartPolicy'], reason: LastExit['reason'] | undefined): boolean => {
  if (policy === undefined || policy === 'Never') return false;
  switch (reason) {
    case 'QemuCrashed':
    case 'GuestPanicked':
    case 'OutOfMemory':
    case 'NodeRebooted':
      return true;
    case 'GuestShutdown':
    case 'GuestReset':
    case 'Stopped':
    case 'Forced':
    case undefined:
      return policy === 'Always';
  }
};

/** Whether the user asks for a restart that this node has not made yet. Pure. */
export const restartIsAsked = ({ restartToken }: VmEntry, desired: DesiredVm): boolean =>
  desired.restartToken !== undefined && desired.restartToken !== restartToken;

/**
 * How long an ended guest waits before its policy starts it again, in milliseconds; undefined when the policy does not.
 * Pure. `nowMs` is the node's monotonic clock: what was due on that of an earlier boot is due now.
 */
export const restartWaitMs = ({ restarts, lastExit }: VmEntry, policy: DesiredVm['restartPolicy'], nowMs: number): number | undefined => {
  if (!restartsAfter(policy, lastExit?.reason)) return undefined;
  const { dueMs } = restarts;
  return dueMs === null || dueMs - nowMs > delays.maxMs ? 0 : Math.max(0, dueMs - nowMs);
};

/** What is remembered of restarts when a guest has ended by itself. Pure. A node that went down is not the guest's fault. */
export const afterEnd = (restarts: VmEntry['restarts'], reason: LastExit['reason'], nowMs: number, now: Date): VmEntry['restarts'] => {
  if (reason === 'NodeRebooted') return { ...restarts, ranSinceMs: null, dueMs: null, dueTime: null };
  const ranMs = restarts.ranSinceMs === null ? 0 : nowMs - restarts.ranSinceMs;
  const quickEnds = ranMs >= longRunMs ? 1 : restarts.quickEnds + 1;
  const waitMs = exponential(delays, quickEnds - 1);
  return { ...restarts, quickEnds, ranSinceMs: null, dueMs: Math.trunc(nowMs + waitMs), dueTime: new Date(now.getTime() + waitMs).toISOString() };
};
