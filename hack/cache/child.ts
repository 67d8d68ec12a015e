import { spawn } from 'node:child_process';
import { Fault } from '#crds/kit/fault.ts';

/** How a child process is run; `env` is its whole environment, `timeoutMs` its deadline. */
export type ChildOptions = { cwd: string; env: NodeJS.ProcessEnv; signal?: AbortSignal; timeoutMs: number };

const keptBytes = 64 * 1024;
const shownLines = 15;

/**
 * Runs a program to its end and returns its stdout (the last 64 KiB of it).
 *
 * It has its own process group, killed as a whole by the deadline and by the signal, and it dies with this process
 * (PR_SET_PDEATHSIG by setpriv(1)), so a killed run leaves no compiler behind.
 * Faults: ChildMissing (no such program), ChildFailed (with the last stderr lines), ChildTimeout; the signal's reason.
 */
export const runChild = async (command: string, args: readonly string[], options: ChildOptions): Promise<string> => {
  const { cwd, env, signal, timeoutMs } = options;
  signal?.throwIfAborted();
  const deadline = AbortSignal.timeout(timeoutMs);
  const ends = signal ? AbortSignal.any([signal, deadline]) : deadline;
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    cwd,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const killGroup = () => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // ESRCH: it ended by itself at the same moment.
    }
  };
  ends.addEventListener('abort', killGroup, { once: true });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout = (stdout + text).slice(-keptBytes)));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-keptBytes)));
  const shown = `${command} ${args[0] ?? ''}`.trim();
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (signal?.aborted) throw signal.reason;
    if (deadline.aborted) throw new Fault('ChildTimeout', `${shown} took longer than ${timeoutMs / 1000} s and was ended`);
    // setpriv(1) ends with 127 when it finds no such program.
    if (code === 127 && /No such file/.test(stderr)) {
      throw new Fault('ChildMissing', `${command} is not installed or not in PATH`, { retry: 'never' });
    }
    if (code !== 0) throw new Fault('ChildFailed', `${shown} ended with ${code ?? child.signalCode}:\n${lastLines(stderr)}`);
    return stdout;
  } finally {
    ends.removeEventListener('abort', killGroup);
  }
};

const lastLines = (text: string): string =>
  text
    .trimEnd()
    .split('\n')
    .slice(-shownLines)
    .map((line) => `  ${line}`)
    .join('\n');
