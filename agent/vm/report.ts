import type { Fault } from '#crds/kit/fault.ts';
import { messageOf } from '#crds/kit/fault.ts';
import { desireDigest } from '#crds/wire/desired.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { appliedOf, type Change, changeKey } from './change.ts';
import { disksInQuestion, unclaimedDisks } from './diskplan.ts';
import type { Plan, Trouble, VmFacts } from './facts.ts';
import type { Failure } from './hands.ts';
import { restartWaitMs } from './restart.ts';

/** A fault as it is told. */
export const troubleOf = ({ code, message, retry }: Fault): Trouble => ({ reason: code.slice(0, 64), message: message.slice(0, 4096), final: retry === 'never' });

/**
 * What the operator is told of one VM. Pure. `address` is where forwards are bound; `failure` is the step that failed last, `refused` the live
 * changes that were.
 */
export const reportVm = (facts: VmFacts, plan: Plan, address: string, failure?: Failure, refused: ReadonlyMap<string, Fault> = new Map()): ObservedVm => {
  const { entry, sight } = facts;
  const { desired } = entry;
  // A live change that failed takes nothing from the guest: it is reported as pending, not as trouble.
  const trouble = plan.trouble ?? (failure && failure.step !== 'change' ? troubleOf(failure.fault) : undefined);
  const applied = sight.is === 'present' ? appliedOf(entry) : undefined;
  const machine = sight.is === 'present' ? sight.facts : entry.machine;
  const open = sight.is === 'present' || facts.attached.size > 0;
  return {
    kind: 'vm',
    uid: entry.uid,
    generation: desired?.generation ?? 0,
    epoch: desired?.epoch ?? 0,
    digest: desired ? desireDigest(desired) : '',
    state: plan.state,
    ...(trouble ? { trouble: { ...trouble, message: trouble.message.slice(0, 4096) } } : {}),
    ...(plan.ioError ? { ioError: plan.ioError } : {}),
    ...(entry.lastExit ? { lastExit: entry.lastExit } : {}),
    ...(machine ? { machine: applied ? { ...machine, cpus: applied.cpus, memoryMiB: applied.memoryMiB } : machine } : {}),
    ...(applied && desired ? { applied: { generation: plan.pending?.length === 0 ? desired.generation : applied.generation, pending: pendingOf(plan.pending ?? [], refused) } } : {}),
    ...(sight.is === 'present' && sight.tpmLost ? { tpmLost: true } : {}),
    ...(entry.seeded ? { seeded: true } : {}),
    ...(sight.is === 'present' ? guestOf(facts, plan) : {}),
    ...restartsOf(facts),
    ...(entry.restartToken === null ? {} : { restartToken: entry.restartToken }),
    disks: disksOf(facts),
    forwards: open
      ? (desired?.interfaces ?? []).flatMap((nic) => nic.user.forwards.map(({ name, hostPort, port, protocol }) => ({ interface: nic.name, name, address, hostPort, port, protocol })))
      : [],
  };
};

/** Disks that are wanted, and those that are still there. */
const disksOf = ({ entry, disks, staleDrives }: VmFacts): ObservedVm['disks'] => {
  const unclaimed = unclaimedDisks(entry);
  return disksInQuestion(entry).flatMap((name): ObservedVm['disks'] => {
    const seen = disks.get(name);
    const wanted = entry.desired?.disks.find((each) => each.name === name);
    // A drive that an edit took away is reported until its medium is removed.
    if (seen?.is === 'empty' || (seen?.is === 'absent' && !wanted && staleDrives.has(name))) return [{ name, sizeMiB: 0, format: 'none', state: 'Empty' }];
    if (seen?.is === 'ready') return [{ name, sizeMiB: seen.sizeMiB, format: seen.format, state: unclaimed.includes(name) ? 'Unclaimed' : 'Ready' }];
    const sizeMiB = wanted?.sizeMiB ?? 0;
    return entry.disks.includes(name) && seen?.is === 'absent' && !wanted?.cdrom ? [{ name, sizeMiB, format: 'qcow2', state: 'Missing' }] : [];
  }).slice(0, 24);
};

const pendingOf = (changes: readonly Change[], refused: ReadonlyMap<string, Fault>): NonNullable<ObservedVm['applied']>['pending'] =>
  changes.flatMap(({ path, current, desired, live, held }) => {
    const fault = live && refused.get(changeKey(live));
    const why = held ?? (fault && messageOf(fault));
    if (live && why === undefined) return [];
    const change = { path, current: current.slice(0, 256), desired: desired.slice(0, 256), restart: live === undefined && held === undefined };
    return [why === undefined ? change : { ...change, why: why.slice(0, 4096) }];
  }).slice(0, 64);

/** What is told of the guest. A probe that stays true for the whole run may have passed under an earlier agent: the ledger knows. */
const guestOf = ({ entry: { desired, times }, guest }: VmFacts, { steps }: Plan): Pick<ObservedVm, 'guest' | 'ready' | 'times'> => {
  const passed = times?.guestReady && (desired?.probe?.is === 'serialPattern' || desired?.probe?.is === 'cloudInitDone');
  // What this plan is about to write into the ledger is reported now, which saves a second report.
  const running = times?.running ?? steps.flatMap((step) => (step.do === 'remember' && step.ran ? [step.time] : []))[0];
  const guestReady = times?.guestReady ?? steps.flatMap((step) => (step.do === 'noteReady' ? [step.time] : []))[0];
  const ready = desired?.probe ? (passed ? { is: true, message: 'the guest has passed its probe' } : guest?.ready) : undefined;
  return {
    ...(guest?.info ? { guest: guest.info } : {}),
    ...(ready ? { ready: { is: ready.is, message: ready.message.slice(0, 4096) } } : {}),
    ...(times ? { times: { prepared: times.prepared, ...(running === undefined ? {} : { running }), ...(guestReady === undefined ? {} : { guestReady }) } } : {}),
  };
};

const restartsOf = ({ entry, nowMs, sight }: VmFacts): Pick<ObservedVm, 'restarts'> => {
  const { count, dueTime } = entry.restarts;
  const waits = sight.is === 'gone' && entry.ended && dueTime !== null && (restartWaitMs(entry, entry.desired?.restartPolicy, nowMs) ?? 0) > 0;
  return count === 0 && !waits ? {} : { restarts: { count, ...(waits ? { at: dueTime } : {}) } };
};

/** What is told of a uid of which only remains are here. */
export const reportRemains = (uid: string, why: string): ObservedVm => ({
  kind: 'vm', uid, generation: 0, epoch: 0, digest: '', state: 'unknown', trouble: { reason: 'UnknownVm', message: why.slice(0, 4096), final: false }, disks: [], forwards: [],
});
