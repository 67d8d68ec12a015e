import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { isFree } from '../bed/ports.ts';

/** How a script ended: exit code (null when a signal ended it), and what it said on stdout and stderr. */
export type ScriptResult = { code: number | null; said: string };

/** A script of hack/ that runs. `interrupt` is Ctrl-C: SIGINT to its process group. */
export type RunningScript = { ended: Promise<ScriptResult>; said: () => string; interrupt: () => void };

const root = join(import.meta.dirname, '..', '..');

/** Starts `./hack/NAME ARGS`, as from a terminal of its own; after `deadlineMs` its process group gets SIGKILL. For tests. */
export const startScript = (name: 'up' | 'down', args: readonly string[], env: Readonly<Record<string, string>>, deadlineMs: number): RunningScript => {
  const child = spawn(join(root, 'hack', name), [...args], {
    cwd: root,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
  const signalGroup = (signal: NodeJS.Signals) => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, signal);
  };
  const deadline = setTimeout(() => signalGroup('SIGKILL'), deadlineMs);
  const ended = once(child, 'close').then(() => ({ code: child.exitCode, said })).finally(() => clearTimeout(deadline));
  return { ended, said: () => said, interrupt: () => signalGroup('SIGINT') };
};

/** The first of `count` ports side by side that nobody listens on at this moment; below the range of outgoing connections. */
export const freePortBase = async (count: number): Promise<number> => {
  for (let base = 20_000; base + count < 32_000; base += count) {
    const free = await Promise.all(Array.from({ length: count }, (_, at) => isFree(base + at)));
    if (free.every(Boolean)) return base;
  }
  throw new Error(`no ${count} free ports side by side`);
};
