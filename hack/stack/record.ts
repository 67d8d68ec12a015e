import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { isSame, observeProcess, type ProcessIdentity } from './identity.ts';
import type { ProcessName } from './layout.ts';

/**
 * What is on disk of one started process: its identity, and the digest of how it was started (a different one means
 * that it is to be started anew).
 */
export type ProcessRecord = ProcessIdentity & { definition: string };

const start = z.tuple([z.string().regex(/^[0-9a-f-]{36}$/), z.string().regex(/^\d+$/), z.string().regex(/^[0-9a-f]{64}$/)]);

/** A record from the texts of NAME.pid and NAME.start (`BOOTID STARTTICKS DEFINITION`); undefined when either is no such thing. */
export const parseRecord = (pid: string, started: string): ProcessRecord | undefined => {
  const parsed = start.safeParse(started.trim().split(' '));
  if (!/^[1-9]\d{0,9}$/.test(pid.trim()) || !parsed.success) return undefined;
  const [bootId, startTicks, definition] = parsed.data;
  return { pid: Number(pid), bootId, startTicks, definition };
};

/**
 * The text of the little launcher: `sh -c LAUNCHER sh RUNDIR NAME BOOTID DEFINITION COMMAND ARGS...`. It records itself and
 * then becomes the command, so no moment exists in which the process runs and nobody knows it. The start time of a
 * process stays the same over exec. Fields of /proc/self/stat can be split at spaces here: the command is `(sh)`.
 */
export const launcher = [
  'set -e; umask 077',
  'run=$1 name=$2 boot=$3 definition=$4; shift 4',
  'read -r stat </proc/$$/stat; ticks=$(set -- $stat; shift 21; echo "$1")',
  'echo "$boot $ticks $definition" >"$run/.$name.start"; mv "$run/.$name.start" "$run/$name.start"',
  'echo $$ >"$run/.$name.pid"; mv "$run/.$name.pid" "$run/$name.pid"',
  'exec "$@"',
].join('\n');

/** The record of a process; undefined when there is none or it can't be read. */
export const readRecord = async (run: string, name: ProcessName): Promise<ProcessRecord | undefined> => {
  const text = (suffix: string) => readFile(join(run, `${name}.${suffix}`), 'utf8').catch(() => '');
  return parseRecord(await text('pid'), await text('start'));
};

/** The record of a process that is alive and the very one that was started; undefined otherwise. */
export const readLive = async (run: string, name: ProcessName): Promise<ProcessRecord | undefined> => {
  const record = await readRecord(run, name);
  return record !== undefined && isSame(record, await observeProcess(record.pid)) ? record : undefined;
};

/** Forgets a process that is gone. */
export const removeRecord = async (run: string, name: ProcessName): Promise<void> => {
  await rm(join(run, `${name}.pid`), { force: true });
  await rm(join(run, `${name}.start`), { force: true });
};
