import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';

const endMs = 120_000;

/** Starts a Node process of ours whose output is appended to a log file. It does not outlive this process. */
export const startNode = async (argv: readonly string[], env: Readonly<Record<string, string>>, logFile: string): Promise<ChildProcess> => {
  const out = await open(logFile, 'a', 0o600);
  try {
    // The kernel ends it when we are gone, also by SIGKILL. Source: setpriv(1), PR_SET_PDEATHSIG; it outlives the exec.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', process.execPath, ...argv], {
      stdio: ['ignore', out.fd, out.fd], env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'], ...env },
    });
    await once(child, 'spawn');
    return child;
  } finally {
    await out.close();
  }
};

/** Whether a child still runs. */
export const runs = (child: ChildProcess): boolean => child.exitCode === null && child.signalCode === null;

/** Ends a child by a signal and waits until it is gone. SIGKILL ends also one that was frozen. */
export const endChild = async (child: ChildProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
  if (!runs(child)) return;
  const exit = once(child, 'exit', { signal: AbortSignal.timeout(endMs) });
  child.kill(signal);
  await exit;
};
