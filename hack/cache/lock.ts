import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Fault } from '#crds/kit/fault.ts';

/** How a lock is waited for: `onWait` is told once, when another run holds it; `signal` ends the wait. */
export type LockOptions = { signal?: AbortSignal; onWait?: () => void };

/** A lock that is held until it is disposed. */
export type Lock = AsyncDisposable;

const toldAfterMs = 300;

/**
 * Takes the lock of `file` (made if missing), waiting for as long as somebody else holds it.
 *
 * A child runs flock(1) and then reads its stdin until the end: the kernel drops the lock when we dispose it and also
 * when this process dies in whatever way, since either closes that pipe. So no lock outlives its holder, and the file
 * itself is never removed (removing a lock file lets two holders in).
 * Faults: CacheLock (flock(1) is missing or the file can't be opened); the signal's reason when aborted.
 */
export const takeLock = async (file: string, { signal, onWait }: LockOptions = {}): Promise<Lock> => {
  signal?.throwIfAborted();
  // Its own session, so that Ctrl-C in a terminal reaches us alone and we let go when we have cleaned up.
  const child = spawn('flock', ['--no-fork', file, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  });
  // Killed by somebody else, it leaves a broken pipe; that is found out at the next write and concerns nobody.
  child.stdin.on('error', () => undefined);
  const exited = once(child, 'close').catch(() => undefined);
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  const told = setTimeout(() => onWait?.(), toldAfterMs);
  const abort = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', abort, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      child.once('error', reject);
      child.once('close', (code) => reject(new Error(complaint.trim() || `flock ended with ${code}`)));
    });
  } catch (cause) {
    child.stdin.destroy();
    if (signal?.aborted) throw signal.reason;
    throw new Fault('CacheLock', `can't lock ${file}; flock of util-linux is needed`, { cause });
  } finally {
    clearTimeout(told);
    signal?.removeEventListener('abort', abort);
  }
  return {
    [Symbol.asyncDispose]: async () => {
      child.stdin.end();
      await exited;
    },
  };
};
