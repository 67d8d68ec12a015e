import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { digestOf } from '#crds/kit/digest.ts';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { endProcess } from './end.ts';
import { observeProcess, readBootId } from './identity.ts';
import type { Layout, ProcessName } from './layout.ts';
import { launcher, readLive, readRecord, removeRecord } from './record.ts';

/**
 * A process of the stack. Whatever its life depends on is in `argv`, `env` and `sources` (the digest of its code): when one
 * of them differs from those of the running process, that is started anew.
 */
export type Service = {
  name: ProcessName;
  argv: readonly [string, ...string[]];
  env: Readonly<Record<string, string>>;
  sources: string;
  /** Resolves when the process does its work; rejects while it does not yet. */
  ready: (signal: AbortSignal) => Promise<unknown>;
  readyMs: number;
};

/** What was done about a service. */
export type Started = 'running' | 'started' | 'restarted';

const pollMs = 100;
const keptLogBytes = 16 * 1024 * 1024;
const graceMs = 10_000;

/**
 * Makes sure that a service runs as defined and is ready: leaves a healthy one alone, starts what is missing, starts anew what is
 * not as defined or does not become ready. Faults: ServiceFailed with the last lines of its log; the signal's reason.
 */
export const ensureService = async (at: Layout, service: Service, signal: AbortSignal): Promise<Started> => {
  const definition = digestOf([service.argv, service.env, service.sources]);
  const live = await readLive(at.run, service.name);
  if (live?.definition === definition) {
    const healthy = await awaitReady(at, service, signal).catch(() => {
      signal.throwIfAborted();
      return false as const;
    });
    if (healthy !== false) return 'running';
  }
  if (live !== undefined) await endProcess(live, graceMs);
  signal.throwIfAborted();
  await launch(at, service, definition);
  await awaitReady(at, service, signal);
  return live === undefined ? 'started' : 'restarted';
};

const launch = async (at: Layout, { name, argv, env }: Service, definition: string): Promise<void> => {
  await mkdir(at.run, { recursive: true, mode: 0o700 });
  await mkdir(at.logs, { recursive: true, mode: 0o700 });
  const file = at.log(name);
  if (((await stat(file).catch(() => undefined))?.size ?? 0) > keptLogBytes) await rename(file, `${file}.1`);
  await using log = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600);
  // An old record would be taken for this start's until the launcher has written its own.
  await removeRecord(at.run, name);
  const child = spawn('sh', ['-c', launcher, 'sh', at.run, name, await readBootId(), definition, ...argv], {
    cwd: at.root,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, LANG: 'C.UTF-8', ...env },
    // A session of its own: Ctrl-C in the terminal is not for it.
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  await once(child, 'spawn');
  child.unref();
};

/** Polls `ready`; a process that has ended is told at once. */
const awaitReady = async (at: Layout, { name, ready, readyMs }: Service, signal: AbortSignal): Promise<true> => {
  const end = performance.now() + readyMs;
  for (;;) {
    signal.throwIfAborted();
    const attempt = AbortSignal.any([signal, AbortSignal.timeout(5_000)]);
    const failure = await ready(attempt).then(() => undefined, (thrown: unknown) => messageOf(thrown));
    if (failure === undefined) return true;
    signal.throwIfAborted();
    const record = await readRecord(at.run, name);
    if (record !== undefined && (await observeProcess(record.pid)) === undefined) throw await failed(at, name, 'it ended');
    if (performance.now() > end) throw await failed(at, name, `not ready after ${Math.round(readyMs / 1000)} s: ${failure}`);
    await delay(pollMs);
  }
};

const failed = async (at: Layout, name: ProcessName, why: string): Promise<Fault> => {
  const text = await readFile(at.log(name), 'utf8').catch(() => '');
  const tail = text.trimEnd().split('\n').slice(-12).map((line) => `    ${line.slice(0, 400)}`).join('\n');
  return new Fault('ServiceFailed', `${name}: ${why}; the end of ${at.log(name)}:\n${tail}`);
};
