import { until } from '../bed/until.ts';
import { isSame, observeProcess, type ProcessIdentity } from './identity.ts';

/**
 * Ends one process and returns when it is gone: SIGTERM, and SIGKILL after `graceMs`. Looks before each signal whether
 * the id is still that process. Throws when it outlives SIGKILL for ten seconds.
 */
export const endProcess = async (process_: ProcessIdentity, graceMs: number): Promise<void> => {
  if (!(await signalIfSame(process_, 'SIGTERM'))) return;
  const gone = async () => !isSame(process_, await observeProcess(process_.pid));
  const ended = await until('the end', gone, graceMs).catch(() => false);
  if (ended || !(await signalIfSame(process_, 'SIGKILL'))) return;
  await until(`process ${process_.pid} to end by SIGKILL`, gone, 10_000);
};

/** Sends a signal if the id is still that process; false when the process is gone. */
export const signalIfSame = async (process_: ProcessIdentity, signal: NodeJS.Signals): Promise<boolean> => {
  if (!isSame(process_, await observeProcess(process_.pid))) return false;
  try {
    process.kill(process_.pid, signal);
    return true;
  } catch {
    // ESRCH: it ended between the look and the signal.
    return false;
  }
};
