import { constants } from 'node:os';
import { z } from 'zod';
import type { RunEnd } from '../driver.ts';

const line = z.object({ event: z.string(), data: z.object({ reason: z.string().optional() }).optional() });

/** One thing that QEMU told of a run. `reason` is that of a SHUTDOWN or RESET (QAPI ShutdownCause). */
export type QemuEvent = { event: string; reason?: string };

/** The events in a run's record. Pure. Answers, the greeting and a last line that was cut off are passed over. */
export const parseEvents = (text: string): QemuEvent[] =>
  text.split('\n').flatMap((each): QemuEvent[] => {
    if (!each.includes('"event"')) return [];
    try {
      const { event, data } = line.parse(JSON.parse(each));
      return [{ event, ...(data?.reason === undefined ? {} : { reason: data.reason }) }];
    } catch {
      // QEMU writes whole lines; a torn one is the last that a dying node wrote.
      return [];
    }
  });

/** Whether the guest's kernel has panicked and has not reset the machine since. Pure. */
export const isPanicked = (events: readonly QemuEvent[]): boolean =>
  events.findLast(({ event }) => event === 'GUEST_PANICKED' || event === 'RESET')?.event === 'GUEST_PANICKED';

/**
 * What is on disk of a run that is over. `exit` is the supervisor's record; it is missing when that was killed too. `oom`: the
 * node's kernel has killed a process of its group for memory since it started.
 */
export type RunTraces = { startId: string; rebooted: boolean; events: readonly QemuEvent[]; exit: string | undefined; oom: boolean; stderr: string };

/**
 * How a run ended. Pure. The exit code alone tells nothing: it is 0 for a guest that powered off, for SIGTERM and for `quit`
 * alike; the reason of the last SHUTDOWN tells.
 */
export const endOf = ({ startId, rebooted, events, exit, oom, stderr }: RunTraces): RunEnd => {
  const ran = events.some(({ event }) => event === 'RESUME');
  const status = exit !== undefined && /^\d{1,3}\n?$/.test(exit) ? Number(exit) : undefined;
  const how = status === undefined ? {} : status > 128 ? { code: status, ...signalOf(status - 128) } : { code: status };
  if (rebooted && status === undefined) return { startId, cause: 'rebooted', ran, stderr };
  const shutdown = events.findLast(({ event }) => event === 'SHUTDOWN');
  return { startId, cause: causeOf(shutdown, oom && (status === undefined || status === 137)), ...how, ran, stderr };
};

const causeOf = (shutdown: QemuEvent | undefined, killedForMemory: boolean): RunEnd['cause'] => {
  if (!shutdown) return killedForMemory ? 'oom' : 'crashed';
  if (shutdown.reason === 'guest-shutdown') return 'guest';
  if (shutdown.reason === 'guest-reset') return 'reset';
  return shutdown.reason?.startsWith('host-') ? 'stopped' : 'crashed';
};

const signalOf = (number: number): { signal?: string } => {
  const name = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return name === undefined ? {} : { signal: name };
};
