/** Bounds of an exponential delay, in milliseconds. */
export type Backoff = { baseMs: number; maxMs: number };

/** The delay before try number `attempt` (0 is the first retry): base doubling up to max. */
export const exponential = ({ baseMs, maxMs }: Backoff, attempt: number): number =>
  Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30));

/**
 * Full jitter between base and the exponential delay, so that a thousand clients cut at once do not return at once.
 * `chance` is a number in [0, 1), given by the caller.
 */
export const jittered = (backoff: Backoff, attempt: number, chance: number): number =>
  Math.round(backoff.baseMs + (exponential(backoff, attempt) - backoff.baseMs) * chance);
