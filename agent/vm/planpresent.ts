import type { DesiredVm } from '#crds/wire/desired.ts';
import type { Sight } from '../hypervisor/driver.ts';
import { appliedOf, type Change, changesOf, hardwareOf } from './change.ts';
import { heldDisk, plugDiskSteps } from './diskplan.ts';
import type { VmEntry } from './entry.ts';
import type { Plan, Step, VmFacts } from './facts.ts';
import { planHalted } from './halted.ts';
import { restartIsAsked } from './restart.ts';

/** How often the power button of a guest that shall stop is pressed again: a guest that was still booting missed it. */
const pressAgainMs = 10_000;
/** How long a guest whose kernel panicked has to reset itself before it is ended. */
const panicGraceMs = 10_000;

type Present = Extract<Sight, { is: 'present' }>;
type Why = NonNullable<VmEntry['stopping']>['why'];

/** What is to be done about a VM whose machine is there. Pure. */
export const planPresent = (facts: VmFacts, desired: DesiredVm, sight: Present): Plan => {
  const { entry } = facts;
  const remember = memoriesOf(facts, sight);
  if (desired.powerState === 'Stopped') return planStop(facts, desired, sight, remember, 'stop');
  if (restartIsAsked(entry, desired)) return planStop(facts, desired, sight, remember, 'restart');
  if (sight.panicked) return planPanicked(facts, remember);
  return planRun(facts, desired, sight, remember);
};

/** What the ledger does not know yet of the run that is seen. */
const memoriesOf = ({ entry: { run, machine }, now }: VmFacts, sight: Present): Step[] => {
  const ran = sight.guest !== 'prelaunch';
  const same = run?.startId === sight.startId;
  if (same && (run.ran || !ran) && machine !== null && sameMachine(machine, sight.facts)) return [];
  return [{ do: 'remember', startId: sight.startId, ran: ran || (same && run.ran), machine: sight.facts, time: now.toISOString() }];
};

const planRun = (facts: VmFacts, desired: DesiredVm, sight: Present, remember: readonly Step[]): Plan => {
  const { stopping } = facts.entry;
  // The stop was taken back after the power button was pressed. Until the grace period is over the guest may still power off because of it.
  const leftMs = stopping && stopping.why !== 'panic' ? graceMs(desired) - (facts.nowMs - stopping.sinceMs) : 0;
  const clear: Step[] = stopping && leftMs <= 0 ? [{ do: 'clearStop' }] : [];
  const look = leftMs > 0 ? { lookAfterMs: leftMs } : {};
  const note: Step[] = facts.guest?.ready?.is === true && facts.entry.times?.guestReady === null ? [{ do: 'noteReady', time: facts.now.toISOString() }] : [];
  const keep = [...remember, ...clear, ...note];
  const wantsPause = desired.powerState === 'Paused';
  const pending = wantsPause ? changesFor(facts, desired, sight).map(whenItGoesOn) : changesFor(facts, desired, sight);
  const reboot = rebootSteps(facts, pending);
  switch (sight.guest) {
    case 'prelaunch':
      return wantsPause ? { state: 'paused', steps: keep, pending, ...look } : { state: 'starting', steps: [{ do: 'resume' }, ...keep], pending };
    case 'running':
      return wantsPause
        ? { state: 'running', steps: [...keep, { do: 'pause' }], pending }
        : { state: 'running', steps: [...keep, ...reboot, ...liveSteps(facts, pending)], pending, ...look };
    case 'paused':
      return wantsPause ? { state: 'paused', steps: [...keep, ...reboot], pending, ...look } : { state: 'paused', steps: [...keep, { do: 'resume' }], pending };
    case 'io-error':
      return { ...look, ...planHalted(facts, desired, sight.ioError ?? { reason: 'IOError', slots: [] }, keep), pending };
    case 'shutdown':
      return { state: 'running', steps: keep, pending, lookAfterMs: 500 };
  }
};

const changesFor = (facts: VmFacts, desired: DesiredVm, sight: Present): Change[] => {
  const applied = appliedOf(facts.entry);
  return applied ? changesOf(applied, hardwareOf(desired), sight.facts.memoryMiB, facts.entry.plugging).map((change) => heldDisk(facts, change)) : [];
};

/** A change of a guest that is to stay paused: what would be made at once waits, and says so. */
const whenItGoesOn = (change: Change): Change => (change.live && change.held === undefined ? { ...change, held: 'the guest is paused; it is made when it goes on' } : change);

/** While an edit waits for a power cycle QEMU ends at the guest's own reboot, so that it is started anew with the edit; else it resets the machine. */
const rebootSteps = ({ onReboot }: VmFacts, pending: readonly Change[]): Step[] => {
  const action = pending.some(({ live, held }) => live === undefined && held === undefined) ? 'shutdown' : 'reset';
  return onReboot === action ? [] : [{ do: 'onReboot', action }];
};

const liveSteps = (facts: VmFacts, pending: readonly Change[]): Step[] =>
  pending.flatMap(({ live, held }): Step[] => {
    if (!live || held !== undefined) return [];
    if (live.is === 'plugDisk' || live.is === 'medium') return plugDiskSteps(facts, live);
    // Attached anew each time: its forwards may have been edited since a first attempt.
    return live.is === 'plugNic' ? [{ do: 'attach', name: live.name, forChange: live.is }, { do: 'change', change: live }] : [{ do: 'change', change: live }];
  });

/** A kernel that panicked may still reset the machine by itself. */
const planPanicked = ({ entry: { stopping }, nowMs }: VmFacts, remember: readonly Step[]): Plan => {
  const mine = stopping?.why === 'panic' && stopping.sinceMs <= nowMs ? stopping : undefined;
  if (!mine) return { state: 'running', steps: [...remember, { do: 'beginStop', sinceMs: nowMs, forced: false, why: 'panic' }], lookAfterMs: panicGraceMs };
  const leftMs = panicGraceMs - (nowMs - mine.sinceMs);
  return leftMs > 0 ? { state: 'running', steps: remember, lookAfterMs: leftMs } : { state: 'running', steps: [...remember, { do: 'kill' }] };
};

const planStop = ({ entry, nowMs, pressedMs, stopRenewed }: VmFacts, desired: DesiredVm, sight: Present, remember: readonly Step[], why: Why): Plan => {
  const state = 'stopping';
  if (sight.guest === 'prelaunch' && entry.run?.ran !== true) return { state, steps: [{ do: 'kill' }] };
  const stopping = entry.stopping?.why === why ? entry.stopping : null;
  if (stopping?.forced) return { state, steps: [...remember, { do: 'kill' }] };
  const grace = desired.stop.mode === 'Force' ? 0 : graceMs(desired);
  const beganMs = stopping && stopping.sinceMs <= nowMs ? stopping.sinceMs : nowMs;
  // Who began it may have died, or stood still, before the guest was told: no plug is pulled before the button was pressed.
  const anew = grace > 0 && nowMs - beganMs >= grace && pressedMs === undefined && !stopRenewed;
  const sinceMs = anew ? nowMs : beganMs;
  const leftMs = grace - (nowMs - sinceMs);
  if (leftMs <= 0) return { state, steps: [...remember, { do: 'beginStop', sinceMs, forced: true, why }, { do: 'kill' }] };
  const begin: Step[] = stopping?.sinceMs === sinceMs ? [] : [{ do: 'beginStop', sinceMs, forced: false, why, anew }];
  const pressInMs = begin.length > 0 || pressedMs === undefined ? 0 : pressAgainMs - (nowMs - pressedMs);
  if (pressInMs > 0) return { state, steps: remember, lookAfterMs: Math.min(leftMs, pressInMs) };
  // A paused guest can not react to the power button.
  const wake: Step[] = sight.guest === 'paused' || sight.guest === 'io-error' ? [{ do: 'resume' }] : [];
  return { state, steps: [...remember, ...begin, ...wake, { do: 'powerdown' }], lookAfterMs: Math.min(leftMs, pressAgainMs) };
};

const graceMs = ({ stop }: DesiredVm): number => stop.gracePeriodSeconds * 1000;

const sameMachine = (a: NonNullable<VmEntry['machine']>, b: Present['facts']): boolean =>
  a.type === b.type && a.cpuModel === b.cpuModel && a.accelerator === b.accelerator && a.cpus === b.cpus && a.memoryMiB === b.memoryMiB;
