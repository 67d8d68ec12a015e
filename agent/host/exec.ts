import { spawn } from 'node:child_process';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { errnoOf } from '../storage/durable.ts';
import { slots } from '#crds/kit/slots.ts';
import { started } from './started.ts';

/** How a tool ended: with an exit code, or by a signal. Texts are UTF-8; of stderr the last part when it was long. */
export type ToolResult = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string };

/** `env` is added to PATH and LC_ALL=C, the only variables that a tool gets. `maxBytes` bounds stdout. */
export type ToolOptions = { input?: string; env?: Readonly<Record<string, string>>; signal: AbortSignal; maxBytes?: number };

const defaultBytes = 1024 * 1024;
const stderrKept = 4096;

// Descriptors and processes are one store for the whole agent: a burst of VMs must not use it up. Each tool takes six while it starts.
const turn = slots(64);

/**
 * Runs a tool of the node, without a shell, until it ends. When `signal` aborts or it says more than `maxBytes`, it and
 * what it started (its process group) get SIGKILL, and nobody waits for it any longer: not for a process that the kernel
 * holds, and not for a child that kept its pipes. Faults: ToolMissing, ToolCut (deadline), ToolTooLoud, ToolFailed (it could
 * not be started: no descriptor, memory or process is left). An exit code other than 0 is no fault here.
 */
export const runTool = async (command: string, args: readonly string[], options: ToolOptions): Promise<ToolResult> => {
  const { signal } = options;
  try {
    return await turn(() => runNow(command, args, options), signal);
  } catch (thrown) {
    if (signal.aborted && thrown === signal.reason) throw new Fault('ToolCut', `${command} did not get its turn in time`, { cause: thrown });
    throw thrown;
  }
};

const runNow = async (command: string, args: readonly string[], { input, env, signal, maxBytes = defaultBytes }: ToolOptions): Promise<ToolResult> => {
  const { promise, resolve, reject } = Promise.withResolvers<ToolResult>();
  const cut = () => new Fault('ToolCut', `${command} did not end in time and was killed`, { cause: signal.reason });
  const child = await started(() => spawn(command, [...args], { stdio: 'pipe', env: { PATH: process.env.PATH, LC_ALL: 'C', ...env }, detached: true })).catch((cause: unknown) => {
    if (errnoOf(cause) === 'ENOENT') throw new Fault('ToolMissing', `${command} is not there: install it, or look at PATH`, { cause, retry: 'later' });
    throw new Fault('ToolFailed', `${command} could not be run: ${messageOf(cause)}`, { cause });
  });
  const out: Buffer[] = [];
  let bytes = 0;
  let err = Buffer.alloc(0);

  const giveUp = (why: Fault): void => {
    // Until its exit is known, the id can be nobody else's.
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) killGroup(child.pid);
    for (const pipe of child.stdio) pipe?.destroy();
    child.unref();
    reject(why);
  };
  const abort = () => giveUp(cut());
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();

  child.stdout.on('data', (part: Buffer) => {
    bytes += part.byteLength;
    if (bytes > maxBytes) giveUp(new Fault('ToolTooLoud', `${command} said more than ${maxBytes} bytes and was killed`));
    else out.push(part);
  });
  child.stderr.on('data', (part: Buffer) => {
    err = Buffer.concat([err, part]).subarray(-stderrKept);
  });
  child.on('close', (code, killedBy) => resolve({ code, signal: killedBy, stdout: Buffer.concat(out).toString('utf8'), stderr: err.toString('utf8') }));
  // A tool may end before it has read all of its input (EPIPE): its exit code tells whether that was right.
  child.stdin.on('error', () => {}).end(input ?? '');
  return promise.finally(() => signal.removeEventListener('abort', abort));
};

const killGroup = (pid: number): void => {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended in the meantime.
  }
};
