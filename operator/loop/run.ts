import { setImmediate as othersTurn } from 'node:timers/promises';
import { asFault, type Fault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { blocked, type Outcome } from '#crds/kit/outcome.ts';
import { isConflict, KubeFault } from '../kube/kube.ts';
import type { Queue } from './queue.ts';

/**
 * One pass over one key: looks at the world and brings it nearer to what is wanted. Safe to repeat; never runs twice at once for a key. Each of its
 * requests has a deadline, and ends with the run.
 */
export type Reconcile = (key: string) => Promise<Outcome>;

/** What `run` needs. `name` is in every log line and in the faults' texts (`vm`, `node`). */
export type RunOptions = {
  name: string;
  reconcile: Reconcile;
  queue: Queue;
  workers: number;
  log: Log;
  /** Ends the run: no new pass begins. */
  signal: AbortSignal;
};

/** A conflict means that our cache is a moment behind: it is no reason to wait long. */
const conflictMaxMs = 250;

/**
 * Hands keys of the queue to `reconcile`, each to one worker at a time, until `signal` aborts; resolves when the last pass has ended.
 * settled forgets the key's failures; waiting looks again after `afterMs`; blocked retries with backoff (not before a Retry-After)
 * unless the fault says `never`. Anything thrown is a fault ReconcileFailed. One log line per change of a key's outcome.
 */
export const run = async ({ name, reconcile, queue, workers, log, signal }: RunOptions): Promise<void> => {
  const said = new Map<string, string>();
  const stop = (): void => queue.close();
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });

  const speak = (key: string, outcome: Outcome): void => {
    const sentence = fingerprint(outcome);
    if ((said.get(key) ?? 'settled') === sentence) return;
    if (outcome.is === 'settled') said.delete(key);
    else said.set(key, sentence);
    switch (outcome.is) {
      case 'settled':
        return log.info({ loop: name, key }, 'settled');
      case 'waiting':
        return log.info({ loop: name, key, on: outcome.on, afterMs: outcome.afterMs }, 'waiting');
      case 'blocked':
        return log.warn({ loop: name, key, code: outcome.by.code, retry: outcome.by.retry, err: outcome.by }, 'blocked');
      default:
        return outcome satisfies never;
    }
  };

  const pass = async (key: string): Promise<void> => {
    let outcome: Outcome;
    try {
      outcome = await reconcile(key);
    } catch (thrown) {
      outcome = blocked(asFault(thrown, 'ReconcileFailed', `reconcile ${name} ${key}`));
    }
    requeue(queue, key, outcome);
    // What ended with the run is no news of its key.
    if (!signal.aborted) speak(key, outcome);
  };

  const worker = async (): Promise<void> => {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      try {
        await pass(key);
      } catch (thrown) {
        // Only the logger can throw here; it may not end the worker.
        log.error({ loop: name, key, err: thrown }, 'the loop itself failed');
      } finally {
        queue.done(key);
      }
      // A pass that needed no answer has let nobody else run: however many wait, frames of agents and the renewal of the lead come between them.
      if (queue.length() > 0) await othersTurn();
    }
  };

  await Promise.all(Array.from({ length: workers }, worker));
  signal.removeEventListener('abort', stop);
};

const requeue = (queue: Queue, key: string, outcome: Outcome): void => {
  switch (outcome.is) {
    case 'settled':
      return queue.forget(key);
    case 'waiting':
      queue.forget(key);
      return queue.addAfter(key, outcome.afterMs);
    case 'blocked':
      return requeueBlocked(queue, key, outcome.by);
    default:
      return outcome satisfies never;
  }
};

const requeueBlocked = (queue: Queue, key: string, by: Fault): void => {
  if (by.retry === 'never') return queue.forget(key);
  const delayMs = queue.retry(key, by instanceof KubeFault ? by.retryAfterMs : undefined);
  if (delayMs > conflictMaxMs && isConflict(by)) queue.addAfter(key, conflictMaxMs);
};

const fingerprint = (outcome: Outcome): string => {
  switch (outcome.is) {
    case 'settled':
      return 'settled';
    case 'waiting':
      return `waiting ${outcome.on}`;
    case 'blocked':
      return `blocked ${outcome.by.code} ${outcome.by.message}`;
    default:
      return outcome satisfies never;
  }
};
