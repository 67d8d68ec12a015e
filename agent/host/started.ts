import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

/**
 * A child once its process is there; `start` is a call of `spawn`. Rejects with the system's error (`code` ENOENT, EMFILE) when
 * there is none. Only now may its pipes be touched: without a free descriptor Node leaves `stdout` and its siblings out, whatever
 * their types say. Source: Node.js, lib/internal/child_process.js.
 */
export const started = async <T extends ChildProcess>(start: () => T): Promise<T> => {
  const child = start();
  // Of one that was started only a signal that failed would be told so; its end tells better.
  child.on('error', () => {});
  await once(child, 'spawn');
  return child;
};
