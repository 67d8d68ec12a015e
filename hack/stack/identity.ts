import { readFile } from 'node:fs/promises';
import { z } from 'zod';

/**
 * What tells one process from a later one with the same id: the boot it lives in and its start in clock ticks since then.
 * Source: proc(5), /proc/PID/stat field 22.
 */
export type ProcessIdentity = { pid: number; startTicks: string; bootId: string };

const stat = z.object({ state: z.string().regex(/^[A-Za-z]$/), threads: z.coerce.number().int(), startTicks: z.string().regex(/^\d+$/) });

/** State letter, number of threads and start time from the text of /proc/PID/stat. The command in it may hold spaces and brackets. */
export const parseStat = (text: string): z.output<typeof stat> | undefined => {
  const fields = text.slice(text.lastIndexOf(')') + 1).trim().split(/\s+/);
  // Field 3 is the first after the command.
  const parsed = stat.safeParse({ state: fields[0], threads: fields[20 - 3], startTicks: fields[22 - 3] });
  return parsed.success ? parsed.data : undefined;
};

/**
 * Whether a process has ended, as far as it is its own doing: a zombie whose other threads are gone too. While one of them is ending, ports and files of the
 * process are still taken. Pure.
 */
export const hasEnded = ({ state, threads }: Pick<z.output<typeof stat>, 'state' | 'threads'>): boolean => state === 'X' || (state === 'Z' && threads <= 1);

/** The identity of a living process; undefined when there is none, or it has ended and nobody has taken notice of that. */
export const observeProcess = async (pid: number): Promise<ProcessIdentity | undefined> => {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  const seen = text === undefined ? undefined : parseStat(text);
  if (seen === undefined || hasEnded(seen)) return undefined;
  return { pid, startTicks: seen.startTicks, bootId: await readBootId() };
};

/** The id of this boot of the machine. */
export const readBootId = async (): Promise<string> => (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();

/** Whether two identities are one process. */
export const isSame = (a: ProcessIdentity, b: ProcessIdentity | undefined): boolean =>
  b !== undefined && a.pid === b.pid && a.startTicks === b.startTicks && a.bootId === b.bootId;
