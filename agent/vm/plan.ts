import type { DesiredVm } from '#crds/wire/desired.ts';
import type { LastExit } from '#crds/wire/observed.ts';
import type { RunEnd, Sight } from '../hypervisor/driver.ts';
import type { VmEntry } from './entry.ts';
import type { Plan, Step, Trouble, VmFacts } from './facts.ts';
import { planStart } from './planstart.ts';

/** How often the power button of a guest that shall stop is pressed again: a guest that was still booting missed it. */
export const pressAgainMs = 10_000;
/** How soon a machine that does not answer is looked at again. */
export const unknownAgainMs = 2_000;

type Present = Extract<Sight, { is: 'present' }>;
type Gone = Extract<Sight, { is: 'gone' }>;

/**
 * What is to be done about one VM. Pure. Repeating observe, plan and apply ends in a plan without steps.
 * Nothing is planned on a sight that is `unknown`, and files go only after `gone`.
 */
export const planVm = (facts: VmFacts): Plan => {
  const { entry, sight } = facts;
  if (entry.ending) return planEnd(sight);
  if (sight.is === 'unknown') return { state: 'unknown', steps: [], trouble: unanswered(sight.why), lookAfterMs: unknownAgainMs };
  const { desired } = entry;
  if (!desired) return { state: 'unknown', steps: [], trouble: unanswered('the ledger holds no desire for it') };
  if (sight.is === 'present') return planPresent(facts, desired, sight);
  if (entry.run) return planSettle(facts, desired, sight, entry.run);
  const detach: Step[] = facts.holdsPorts ? [{ do: 'detach' }] : [];
  if (desired.powerState === 'Stopped') return { state: 'stopped', steps: detach };
  if (entry.ended) return { state: 'ended', steps: detach };
  return planStart(facts, desired);
};

const unanswered = (why: string): Trouble => ({ reason: 'GuestUnknown', message: why, final: false });

/** Its disks go with it, so the plug is pulled; there is nobody to shut down for. */
const planEnd = (sight: Sight): Plan => {
  switch (sight.is) {
    case 'unknown':
      return { state: 'deleting', steps: [], trouble: unanswered(sight.why), lookAfterMs: unknownAgainMs };
    case 'present':
      return { state: 'deleting', steps: [{ do: 'kill' }] };
    case 'gone':
      return { state: 'deleting', steps: [{ do: 'detach' }, { do: 'forget' }, { do: 'removeFiles' }, { do: 'end' }] };
  }
};

/** A run that was ordered is over, or never began: what is to be remembered of it. */
const planSettle = (facts: VmFacts, desired: DesiredVm, sight: Gone, run: NonNullable<VmEntry['run']>): Plan => {
  const { entry } = facts;
  const last = sight.last?.startId === run.startId ? sight.last : undefined;
  const ran = run.ran || last?.ran === true;
  const stops = desired.powerState === 'Stopped';
  if (!ran) {
    const failed = last === undefined ? undefined : `QEMU ended before the guest ran (${endedWith(last)}): ${last.stderr.trim() || 'it said nothing'}`;
    return {
      state: stops ? 'stopping' : 'starting',
      steps: [{ do: 'settle', exit: entry.lastExit, ended: entry.ended, ...(failed === undefined || stops ? {} : { failed }) }, { do: 'detach' }],
    };
  }
  const exit = exitOf(last, entry, facts.now);
  const ended = !stops && entry.stopping === null;
  return { state: ended ? 'ended' : stops ? 'stopping' : 'starting', steps: [{ do: 'settle', exit, ended }, { do: 'detach' }] };
};

const endedWith = ({ code, signal }: RunEnd): string => (signal === undefined ? `code ${code ?? 'unknown'}` : `signal ${signal}`);

const exitOf = (last: RunEnd | undefined, { stopping }: VmEntry, now: Date): LastExit => {
  const seen = { ...(last?.code === undefined ? {} : { code: last.code }), ...(last?.signal === undefined ? {} : { signal: last.signal.slice(0, 16) }), time: now.toISOString() };
  if (stopping?.forced) return { reason: 'Forced', ...seen };
  switch (last?.cause) {
    case 'rebooted':
      return { reason: 'NodeRebooted', ...seen };
    case 'guest':
      return { reason: stopping ? 'Stopped' : 'GuestShutdown', ...seen };
    case 'stopped':
      // Somebody other than us told QEMU to end: for the user that is a crash, not a wish of the guest.
      return { reason: stopping ? 'Stopped' : 'QemuCrashed', ...seen };
    case 'crashed':
    case undefined:
      return { reason: 'QemuCrashed', ...seen };
  }
};

const planPresent = (facts: VmFacts, desired: DesiredVm, sight: Present): Plan => {
  const { entry: { run, machine, stopping } } = facts;
  const ran = sight.guest !== 'prelaunch';
  const same = run?.startId === sight.startId;
  const remember: Step[] = same && (run.ran || !ran) && machine !== null && sameMachine(machine, sight.facts)
    ? []
    : [{ do: 'remember', startId: sight.startId, ran: ran || (same && run.ran), machine: sight.facts }];
  if (desired.powerState === 'Stopped') return planStop(facts, desired, sight, remember);
  // A guest whose button was pressed may still go down by our wish. After its grace period it has ignored it.
  const leftMs = stopping ? graceMs(desired) - (facts.nowMs - stopping.sinceMs) : 0;
  const clear: Step[] = stopping && leftMs <= 0 ? [{ do: 'clearStop' }] : [];
  const look = leftMs > 0 ? { lookAfterMs: leftMs } : {};
  const keep = [...remember, ...clear];
  const wantsPause = desired.powerState === 'Paused';
  switch (sight.guest) {
    case 'prelaunch':
      return wantsPause ? { state: 'paused', steps: keep, ...look } : { state: 'starting', steps: [{ do: 'resume' }, ...keep] };
    case 'running':
      return wantsPause ? { state: 'running', steps: [...keep, { do: 'pause' }] } : { state: 'running', steps: keep, ...look };
    case 'paused':
      return wantsPause ? { state: 'paused', steps: keep, ...look } : { state: 'paused', steps: [...keep, { do: 'resume' }] };
    case 'io-error':
      return { state: 'paused', steps: keep, trouble: { reason: 'IOError', message: 'a disk of the node failed or is full; the guest is held where it was', final: false }, ...look };
    case 'shutdown':
      return { state: 'running', steps: keep, lookAfterMs: 500 };
  }
};

const planStop = ({ entry, nowMs, pressedMs }: VmFacts, desired: DesiredVm, sight: Present, remember: readonly Step[]): Plan => {
  const state = 'stopping';
  if (sight.guest === 'prelaunch' && entry.run?.ran !== true) return { state, steps: [{ do: 'kill' }] };
  const { stopping } = entry;
  if (stopping?.forced) return { state, steps: [...remember, { do: 'kill' }] };
  const sinceMs = stopping && stopping.sinceMs <= nowMs ? stopping.sinceMs : nowMs;
  const leftMs = desired.stop.mode === 'Force' ? 0 : graceMs(desired) - (nowMs - sinceMs);
  if (leftMs <= 0) return { state, steps: [...remember, { do: 'beginStop', sinceMs, forced: true }, { do: 'kill' }] };
  const begin: Step[] = stopping?.sinceMs === sinceMs ? [] : [{ do: 'beginStop', sinceMs, forced: false }];
  const pressInMs = begin.length > 0 || pressedMs === undefined ? 0 : pressAgainMs - (nowMs - pressedMs);
  if (pressInMs > 0) return { state, steps: remember, lookAfterMs: Math.min(leftMs, pressInMs) };
  // A paused guest can not answer its button.
  const wake: Step[] = sight.guest === 'paused' ? [{ do: 'resume' }] : [];
  return { state, steps: [...remember, ...begin, ...wake, { do: 'powerdown' }], lookAfterMs: Math.min(leftMs, pressAgainMs) };
};

const graceMs = ({ stop }: DesiredVm): number => stop.gracePeriodSeconds * 1000;

const sameMachine = (a: NonNullable<VmEntry['machine']>, b: Present['facts']): boolean =>
  a.type === b.type && a.cpuModel === b.cpuModel && a.accelerator === b.accelerator && a.cpus === b.cpus && a.memoryMiB === b.memoryMiB;
