import type { Fault } from './fault.ts';

/**
 * How one pass of a reconciler ended.
 *
 *   settled   nothing to do until something changes
 *   waiting   on somebody else; looked at again after `afterMs` even if no event comes
 *   blocked   by a fault; retried with backoff unless the fault says `never`
 */
export type Outcome =
  | { is: 'settled' }
  | { is: 'waiting'; on: string; afterMs: number }
  | { is: 'blocked'; by: Fault };

/** The outcome of a pass that has nothing left to do. */
export const settled: Outcome = { is: 'settled' };

/** The outcome of a pass that waits on somebody else. */
export const waiting = (on: string, afterMs: number): Outcome => ({ is: 'waiting', on, afterMs });

/** The outcome of a pass that a fault stopped. */
export const blocked = (by: Fault): Outcome => ({ is: 'blocked', by });
