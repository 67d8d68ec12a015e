import { fromMiB } from '#crds/kit/quantity.ts';
import { dated, type Verdict } from '#crds/v1alpha1/condition.ts';
import { isReason, type Reason } from '#crds/v1alpha1/reasons.ts';
import type { VmPhase, VmSpec, VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { ObservedVm, VmState } from '#crds/wire/observed.ts';
import { disksOf } from './disks.ts';
import type { VmFacts } from './facts.ts';
import { addressesOf, guestStatus, timingsOf } from './guest.ts';
import { interfaceMac, machineUuid } from './identity.ts';
import { type Architecture, architectureTold, boardOf } from './needs.ts';
import { resolveImages } from './images.ts';
import { reservedOf } from './room.ts';

/** One verdict on the whole VM, from which phase and the conditions Ready, Reconciling and Stalled all follow. */
export type Standing = { phase: VmPhase; ready: Verdict['status']; reason: Reason; message: string; progress?: 'reconciling' | 'stalled' };

const phases: Record<VmState, VmPhase> = {
  preparing: 'Preparing', starting: 'Starting', running: 'Running', paused: 'Paused', stopping: 'Stopping', stopped: 'Stopped',
  ended: 'Stopped', unknown: 'Unknown', deleting: 'Terminating',
};

const goals: Record<VmSpec['powerState'], VmState> = { Running: 'running', Stopped: 'stopped', Paused: 'paused' };

const progressReasons: Partial<Record<VmState, Reason>> = { preparing: 'Preparing', starting: 'Starting', stopping: 'Stopping', deleting: 'Terminating' };

/**
 * How a VM stands, from what its connected node reports about the desire that it was given, of which `digest` is. `refuses`: why the node keeps no
 * new one now.
 */
export const standingOf = ({ powerState }: Pick<VmSpec, 'powerState'>, digest: string | undefined, report: ObservedVm | undefined, refuses?: VmFacts['refuses']): Standing => {
  if (!report) return { phase: 'Preparing', ready: 'False', reason: 'Applying', message: 'the node has not reported yet', progress: 'reconciling', ...refuses };
  const phase = phases[report.state];
  if (report.state === 'unknown') {
    return { phase, ready: 'Unknown', reason: 'GuestUnknown', message: report.trouble?.message ?? 'QEMU does not answer' };
  }
  if (report.trouble) {
    const reason = isReason(report.trouble.reason) ? report.trouble.reason : 'NodeTrouble';
    return { phase: report.trouble.final ? 'Failed' : phase, ready: 'False', reason, message: report.trouble.message, progress: report.trouble.final ? 'stalled' : 'reconciling' };
  }
  if (report.digest !== digest) {
    return { phase, ready: 'False', reason: 'Applying', message: 'the node has not applied the latest edit yet', progress: 'reconciling', ...refuses };
  }
  if (report.state === 'ended') return endedStanding(report);
  if (report.state === goals[powerState]) return { phase, ready: 'True', reason: powerState, message: `the machine is ${report.state}` };
  return { phase, ready: 'False', reason: progressReasons[report.state] ?? 'Applying', message: `the machine is ${report.state}`, progress: 'reconciling' };
};

const endedStanding = ({ lastExit, restarts }: ObservedVm): Standing => {
  const reason = lastExit?.reason === undefined || lastExit.reason === 'Stopped' || lastExit.reason === 'Forced' ? 'GuestShutdown' : lastExit.reason;
  const how: Record<typeof reason, string> = {
    GuestShutdown: 'the guest powered itself off',
    GuestReset: 'the guest rebooted',
    GuestPanicked: "the guest's kernel panicked",
    QemuCrashed: `QEMU ended with ${lastExit?.signal ?? `code ${lastExit?.code ?? 'unknown'}`}`,
    OutOfMemory: 'QEMU was killed for lack of memory on the node',
    NodeRebooted: 'the node went down with the guest',
  };
  if (restarts?.at !== undefined) return { phase: 'Stopped', ready: 'False', reason, message: `${how[reason]}; it is started again at ${restarts.at.slice(0, 19)}Z`, progress: 'reconciling' };
  const again = 'set powerState to Stopped and then to Running, or another restartToken, to start it again';
  return { phase: reason === 'GuestShutdown' ? 'Stopped' : 'Failed', ready: 'False', reason, message: `${how[reason]}; ${again}`, progress: 'stalled' };
};

/** Whether the running machine has the whole spec. */
export const restartVerdict = ({ applied, tpmLost }: ObservedVm): Verdict[] => {
  if (!applied) return [];
  if (tpmLost) return [{ type: 'RestartRequired', status: 'True', reason: 'TpmLost', message: 'the emulator of its TPM has ended; the guest has its TPM again after a restart' }];
  const paths = (changes: typeof applied.pending): string => changes.map(({ path, why }) => (why === undefined ? path : `${path} (${why})`)).join(', ');
  const staged = applied.pending.filter(({ restart }) => restart);
  if (staged.length > 0) return [{ type: 'RestartRequired', status: 'True', reason: 'ChangesPending', message: `a restart is needed for ${paths(staged)}` }];
  if (applied.pending.length > 0) return [{ type: 'RestartRequired', status: 'True', reason: 'ChangesRefused', message: `not changed while the guest runs: ${paths(applied.pending)}` }];
  return [{ type: 'RestartRequired', status: 'False', reason: 'UpToDate', message: 'the running machine has the whole spec' }];
};

/** Which node holds a VM, since which placement, and under which uid when that is not its own. */
type Binding = { nodeName: string; epoch: number; machineUid?: string };

/** The whole status that follows from a standing. Nothing in it counts or ticks. */
export const statusOf = (facts: VmFacts, standing: Standing, verdicts: readonly Verdict[], now: Date, binding?: Binding): VmStatus => {
  const { vm, report, clusterId } = facts;
  const { metadata: { namespace, name, generation }, spec, status: old } = vm;
  const bound: Binding | undefined = binding ?? (old.nodeName === undefined ? undefined : { nodeName: old.nodeName, epoch: old.epoch ?? 1, ...(old.machineUid === undefined ? {} : { machineUid: old.machineUid }) });
  const images = [...resolveImages(facts).values()];
  const machine = report?.machine;
  const disks = disksOf(facts);
  const all: Verdict[] = [
    { type: 'Ready', status: standing.ready, reason: standing.reason, message: standing.message },
    ...verdicts,
    ...(standing.progress === 'reconciling' ? [{ type: 'Reconciling' as const, status: 'True' as const, reason: standing.reason, message: standing.message }] : []),
    ...(standing.progress === 'stalled' ? [{ type: 'Stalled' as const, status: 'True' as const, reason: standing.reason, message: standing.message }] : []),
  ];
  const lastExit = report ? report.lastExit : old.lastExit;
  return {
    observedGeneration: generation,
    ...(report?.applied ? { appliedGeneration: report.applied.generation } : report === undefined && old.appliedGeneration !== undefined ? { appliedGeneration: old.appliedGeneration } : {}),
    phase: standing.phase,
    ...bound,
    resolved: {
      uuid: machineUuid(clusterId, namespace, name),
      ...(machine
        ? {
            machine: machine.type, cpuModel: machine.cpuModel, accelerator: machine.accelerator, ...(machine.why === undefined ? {} : { acceleratorReason: machine.why }), cpus: machine.cpus, memory: fromMiB(machine.memoryMiB),
          }
        : report === undefined && old.resolved
          ? { ...old.resolved }
          : {}),
      ...(bound ? { ...architectureOf(facts), reserved: keptFor(facts, binding !== undefined) } : {}),
      ...(images.length > 0 ? { images } : {}),
    },
    interfaces: (spec.interfaces ?? []).map(({ name: nic }) => ({
      name: nic,
      mac: interfaceMac(clusterId, namespace, name, nic),
      ...addressesIn(interfaceMac(clusterId, namespace, name, nic), report, old),
      forwards: report
        ? report.forwards.filter((each) => each.interface === nic).slice(0, 32).map(({ name: forward, address, hostPort, port, protocol }) => ({ name: forward, address, hostPort, port, protocol }))
        : (old.interfaces?.find((each) => each.name === nic)?.forwards ?? []),
    })),
    ...(disks ? { disks } : {}),
    ...(lastExit ? { lastExit } : {}),
    ...progressOf(report, old),
    ...guestStatus(report, old),
    ...timingsOf(vm, report, binding ? now : undefined),
    conditions: dated(all, old.conditions ?? [], generation, now),
  };
};

/** Recorded from its binding on: an image that is replaced later, or is gone, changes no VM. */
const architectureOf = (facts: VmFacts): { architecture?: Architecture } => {
  const known = architectureTold(facts);
  return known.is === 'known' ? { architecture: boardOf(facts.vm.spec, known.of).architecture } : {};
};

const keptFor = (facts: VmFacts, binds: boolean): { cpus: number; memory: string } => {
  const { cpus, memoryMiB } = reservedOf(facts, binds);
  return { cpus, memory: fromMiB(memoryMiB) };
};

const addressesIn = (mac: string, report: ObservedVm | undefined, old: VmStatus): { addresses?: string[] } => {
  const addresses = addressesOf(mac, report, old.interfaces?.find((each) => each.mac === mac)?.addresses);
  return addresses ? { addresses } : {};
};

/** What a silent node said last stays. */
const progressOf = (report: ObservedVm | undefined, old: VmStatus): Pick<VmStatus, 'pendingChanges' | 'restartCount' | 'restartTokenObserved'> => {
  const { pendingChanges, restartCount, restartTokenObserved } = old;
  if (!report) return { ...(pendingChanges ? { pendingChanges } : {}), ...(restartCount ? { restartCount } : {}), ...(restartTokenObserved === undefined ? {} : { restartTokenObserved }) };
  const pending = (report.applied?.pending ?? []).map(({ path, current, desired }) => ({ path, current, desired }));
  return {
    ...(pending.length > 0 ? { pendingChanges: pending } : {}),
    ...(report.restarts && report.restarts.count > 0 ? { restartCount: report.restarts.count } : {}),
    ...(report.restartToken === undefined ? {} : { restartTokenObserved: report.restartToken }),
  };
};
