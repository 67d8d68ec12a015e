import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import { isTooLargeVersion, KubeFault, statusOf } from './kube.ts';
import type { Beginning } from './listwatch.ts';

/** How a session of list and watch ended. */
export type Ending =
  | { is: 'closed'; frames: number }
  | { is: 'silent' }
  | { is: 'failed'; by: unknown };

/** What the informer knows when a session ends: how it began, where a watch could go on, how many sessions failed in a row. */
export type Facts = { beginning: Beginning; resumeAt: string | undefined; failures: number; chance: number };

/** What to do next. */
export type Next = { beginning: Beginning; delayMs: number };

/** Delay before a new list after an error, jittered. */
export const relistBackoff: Backoff = { baseMs: 250, maxMs: 30_000 };

const retryAfterMaxMs = 120_000;

/**
 * Decides how the next session begins.
 *
 *   closed in good order    -> go on where it ended (with a delay when it brought nothing)
 *   silent                  -> list in pages: a watch at a version from the future answers 200 and is silent for ever, so never go on
 *   504 too large a version -> the server's cache lags behind its etcd for seconds: list in pages, which it then takes from etcd.
 *                              Whether history went back says the list, when it is there
 *   422, 400, 404 on stream -> the server can't stream lists: in pages, at once
 *   any other error         -> list anew after a jittered delay, not before Retry-After
 */
export const afterEnding = (ending: Ending, { beginning, resumeAt, failures, chance }: Facts): Next => {
  const delayMs = jittered(relistBackoff, failures, chance);
  const next = (by: Beginning, ms: number): Next => ({ beginning: by, delayMs: ms });
  switch (ending.is) {
    case 'closed':
      return resumeAt === undefined ? next({ by: 'stream' }, delayMs) : next({ by: 'resume', at: resumeAt }, ending.frames > 0 ? 0 : delayMs);
    case 'silent':
      return next({ by: 'pages' }, delayMs);
    case 'failed': {
      const { by } = ending;
      if (isTooLargeVersion(by)) return next({ by: 'pages' }, delayMs);
      const status = statusOf(by);
      if (beginning.by === 'stream' && (status === 422 || status === 400 || status === 404)) return next({ by: 'pages' }, 0);
      const after = by instanceof KubeFault ? Math.min(by.retryAfterMs ?? 0, retryAfterMaxMs) : 0;
      return next({ by: 'stream' }, Math.max(delayMs, after));
    }
    default:
      return ending satisfies never;
  }
};
