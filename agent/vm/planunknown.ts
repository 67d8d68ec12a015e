import type { DesiredVm } from '#crds/wire/desired.ts';
import type { Sight } from '../hypervisor/driver.ts';
import type { Plan, Step, Trouble, VmFacts } from './facts.ts';
import { restartIsAsked } from './restart.ts';

/** How soon a machine that does not answer is looked at again. */
export const unknownAgainMs = 2_000;

type Unknown = Extract<Sight, { is: 'unknown' }>;

/** What is told of a machine of which nothing is seen. */
export const unanswered = (why: string): Trouble => ({ reason: 'GuestUnknown', message: why, final: false });

/**
 * What is to be done about a VM whose machine does not answer. Pure. Nothing, as long as it shall run: it may well do so. Who
 * wants it stopped or restarted has said that it may end: it has its grace period to come back and be asked, then it is ended
 * by force; at once where the guest can not go on anyway. `kill` ends nobody but the holder of the VM's lock.
 */
export const planUnknown = ({ entry, nowMs }: VmFacts, desired: DesiredVm, sight: Unknown): Plan => {
  const trouble = unanswered(sight.why);
  const why = desired.powerState === 'Stopped' ? 'stop' : restartIsAsked(entry, desired) ? 'restart' : undefined;
  if (why === undefined) return { state: 'unknown', steps: [], trouble, lookAfterMs: unknownAgainMs };
  const stopping = entry.stopping?.why === why ? entry.stopping : null;
  if (stopping?.forced) return { state: 'stopping', steps: [{ do: 'kill' }], trouble, lookAfterMs: unknownAgainMs };
  const sinceMs = stopping && stopping.sinceMs <= nowMs ? stopping.sinceMs : nowMs;
  const leftMs = desired.stop.mode === 'Force' || sight.broken ? 0 : desired.stop.gracePeriodSeconds * 1000 - (nowMs - sinceMs);
  if (leftMs <= 0) return { state: 'stopping', steps: [{ do: 'beginStop', sinceMs, forced: true, why }, { do: 'kill' }], trouble, lookAfterMs: unknownAgainMs };
  const begin: Step[] = stopping?.sinceMs === sinceMs ? [] : [{ do: 'beginStop', sinceMs, forced: false, why }];
  return { state: 'unknown', steps: begin, trouble, lookAfterMs: Math.min(leftMs, unknownAgainMs) };
};
