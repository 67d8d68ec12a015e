import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { started } from '../host/started.ts';
import { confined, type Confinement } from './sandbox.ts';

/** How a tool ended, and the last that it said on stderr. */
export type ToolEnd = { code?: number; signal?: string; said: string };

const saidKept = 2048;

/**
 * Runs a tool confined, in `directory`, until it ends or `signal` has it killed with all that it started. `hear` gets
 * its stdout in parts. Throws only when the tool can not be started.
 */
export const runConfined = async (
  argv: readonly string[],
  to: Confinement,
  directory: string,
  hear: (text: string) => void,
  signal: AbortSignal,
): Promise<ToolEnd> => {
  signal.throwIfAborted();
  const { file, args, ...user } = confined(argv, to, process.platform);
  // The directory is entered before the user changes: parents of it may be closed to that user.
  const child = await started(() => spawn(file, args, { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, LC_ALL: 'C' }, detached: true, ...user }));
  let said = '';
  child.stdout.setEncoding('utf8').on('data', hear);
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-saidKept);
  });
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended in the meantime.
    }
  };
  signal.addEventListener('abort', kill, { once: true });
  if (signal.aborted) kill();
  try {
    const [code, killedBy]: unknown[] = await once(child, 'close');
    return { ...(typeof code === 'number' ? { code } : {}), ...(typeof killedBy === 'string' ? { signal: killedBy } : {}), said: said.trim() };
  } finally {
    signal.removeEventListener('abort', kill);
  }
};
