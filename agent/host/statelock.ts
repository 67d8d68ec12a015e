import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import type { Paths } from './paths.ts';
import { type Platform, platform } from './platform.ts';
import { started } from './started.ts';

/** A lock that is held. `lost` resolves with the reason when it is not held any more without having been given back. */
export type StateLock = AsyncDisposable & { lost: Promise<string> };

const takeMs = 15_000;
const busy = 75;

// Descriptors in a shell are inherited; the lock belongs to the open file, flock(2), and goes when its last holder ends.
// INT and TERM go to whole groups (a terminal, a service manager), and only the agent's end may free the lock.
// A lock needs no right to write: where the file system is read-only an agent must still be able to adopt what runs.
// Two seconds: when an agent was just killed, its lock holder needs a moment to see the end of its stdin.
/** Pure. */
export const holderText = ({ lockDescriptor }: Pick<Platform, 'lockDescriptor'>): string => `
trap '' INT TERM HUP; umask 077
if (exec 8>>"$1") 2>/dev/null; then exec 8>>"$1"; else exec 8<"$1"; fi
${lockDescriptor(8, 2)} || exit $?
if (exec 9>>"$2") 2>/dev/null; then exec 9>>"$2"; else exec 9<"$2"; fi
${lockDescriptor(9, 2)} || { code=$?; echo images; exit $code; }
echo held
while read -r _; do :; done`;

/**
 * Takes the state folder and the image cache for this process, until it ends by whatever means or gives them back.
 *
 * Node has no flock(2), so a tiny shell holds it and lives as long as its stdin, a pipe of which only this process has the
 * other end: the kernel closes that even on SIGKILL. Who holds the lock must end when `lost` resolves. The folders must be
 * there. Faults: StateLocked (another agent has it), StateLockFailed.
 */
export const takeStateLock = async (paths: Pick<Paths, 'agentLock' | 'imagesLock'>, signal: AbortSignal): Promise<StateLock> => {
  const until = AbortSignal.any([signal, AbortSignal.timeout(takeMs)]);
  const child = await started(() => spawn('/bin/sh', ['-c', holderText(platform), 'strato-agent-lock', paths.agentLock, paths.imagesLock], {
    // An own session: Ctrl-C in a terminal is for the agent, which then gives the lock back last.
    stdio: 'pipe', env: { PATH: process.env.PATH, LC_ALL: 'C' }, cwd: '/', detached: true,
  })).catch((cause: unknown) => {
    throw new Fault('StateLockFailed', `/bin/sh could not be run: ${messageOf(cause)}`, { cause });
  });
  let said = '';
  let complained = '';
  let givenBack = false;
  const ended = Promise.withResolvers<string>();
  const held = Promise.withResolvers<void>();
  child.stdin.on('error', () => {});
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    if (said === 'held\n') held.resolve();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complained = (complained + text).slice(-1024);
  });
  child.on('exit', (code, killedBy) => ended.resolve(`the process that holds ${paths.agentLock} ended (${killedBy ?? `code ${code}`})`));
  child.on('close', (code) => {
    if (code === busy) {
      const file = said === 'images\n' ? paths.imagesLock : paths.agentLock;
      held.reject(new Fault('StateLocked', `another agent runs on this folder: it holds ${file}; end that one first, or give this one a state_dir and an image_cache_dir of its own`, { retry: 'later' }));
    } else held.reject(new Fault('StateLockFailed', `${paths.agentLock} can not be locked: ${complained.trim() || `the tool ended with code ${code}`}; flock of util-linux must be installed (macOS: perl)`));
  });
  const giveBack = async (): Promise<void> => {
    givenBack = true;
    child.stdin.destroy();
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit', { signal: AbortSignal.timeout(takeMs) });
  };
  const abort = () => held.reject(new Fault('StateLockFailed', `${paths.agentLock} could not be locked in time`, { cause: until.reason }));
  until.addEventListener('abort', abort, { once: true });
  try {
    until.throwIfAborted();
    await held.promise;
  } catch (thrown) {
    child.stdin.destroy();
    child.unref();
    throw thrown;
  } finally {
    until.removeEventListener('abort', abort);
  }
  const lost = ended.promise.then((why) => (givenBack ? new Promise<never>(() => {}) : why));
  return { lost, [Symbol.asyncDispose]: giveBack };
};
