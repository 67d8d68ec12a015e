import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { started } from '../host/started.ts';
import { confined, type Confinement } from './sandbox.ts';

/** How a tool ended, and the last that it said on stderr. */
export type ToolEnd = { code?: number; signal?: string; said: string };

const saidKept = 2048;

/** A confined tool that runs: what it says, and how it will have ended; that never rejects. */
export type ConfinedTool = { stdout: Readable; end: Promise<ToolEnd> };

/**
 * Starts a tool confined, in `directory`, with `stdin` as its input; when `signal` aborts, it is killed with all that it
 * started. Its stdout must be read, else it waits. Throws when it can not be started.
 */
export const startConfined = async (argv: readonly string[], to: Confinement, directory: string, stdin: 'ignore' | number, signal: AbortSignal): Promise<ConfinedTool> => {
  signal.throwIfAborted();
  const { file, args, ...user } = confined(argv, to, process.platform);
  // The directory is entered before the user changes: parents of it may be closed to that user.
  const child = await started(() => spawn(file, args, { cwd: directory, stdio: [stdin, 'pipe', 'pipe'], env: { PATH: process.env.PATH, LC_ALL: 'C' }, detached: true, ...user }));
  const { stdout, stderr } = child;
  if (!stdout || !stderr) throw new Error(`${file}: no pipes`);
  let said = '';
  stderr.setEncoding('utf8').on('data', (text: string) => {
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
  const closed = once(child, 'close');
  const end = closed.then(([code, killedBy]: unknown[]): ToolEnd =>
    ({ ...(typeof code === 'number' ? { code } : {}), ...(typeof killedBy === 'string' ? { signal: killedBy } : {}), said: said.trim() }));
  void end.finally(() => signal.removeEventListener('abort', kill)).catch(() => {});
  return { stdout, end };
};

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
  const { stdout, end } = await startConfined(argv, to, directory, 'ignore', signal);
  stdout.setEncoding('utf8').on('data', hear);
  return end;
};
