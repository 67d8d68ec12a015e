import type { Verdict } from '#crds/v1alpha1/condition.ts';
import type { VirtualMachine, VmSpec, VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';

/** The probe of a spec as its node is told it. Pure. */
export const probeOf = ({ probes }: Pick<VmSpec, 'probes'>): DesiredVm['probe'] => {
  const ready = probes?.ready;
  if (ready?.serialPattern !== undefined) return { is: 'serialPattern', pattern: ready.serialPattern };
  if (ready?.tcp) return { is: 'tcp', port: ready.tcp.port };
  if (ready?.guestAgent) return { is: 'guestAgent' };
  return ready?.cloudInitDone ? { is: 'cloudInitDone' } : undefined;
};

/** What the guest's probe says, and whether it uses all CPUs that it was given. Pure. Without a probe nobody asks whether it is ready. */
export const guestVerdicts = (spec: Pick<VmSpec, 'probes'>, report: ObservedVm): Verdict[] => {
  const { guest, machine, ready, state } = report;
  const runs = state === 'running' || state === 'paused';
  const verdicts: Verdict[] = [];
  if (probeOf(spec)) {
    verdicts.push(!runs
      ? { type: 'GuestReady', status: 'False', reason: 'NotRunning', message: 'the guest does not run' }
      : ready
        ? { type: 'GuestReady', status: ready.is ? 'True' : 'False', reason: ready.is ? 'ProbeSucceeded' : 'ProbeFailing', message: ready.message }
        : { type: 'GuestReady', status: 'Unknown', reason: 'ProbePending', message: 'the guest was not probed yet' });
  }
  const idle = runs && machine && guest?.cpusOnline !== undefined ? machine.cpus - guest.cpusOnline : 0;
  if (idle > 0) verdicts.push({ type: 'CpusOffline', status: 'True', reason: 'CpusOffline', message: `the guest uses ${guest?.cpusOnline} of its ${machine?.cpus} CPUs; take the others on line in it` });
  return verdicts;
};

/** What a guest says of itself, as far as it is known; what was known stays until the guest says something else or its run ends. Pure. */
export const guestStatus = (report: ObservedVm | undefined, old: VmStatus): Pick<VmStatus, 'guest'> => {
  const { agentVersion, os, hostname } = report?.guest ?? {};
  if (agentVersion !== undefined) return { guest: { agentVersion, ...(os === undefined ? {} : { os }), ...(hostname === undefined ? {} : { hostname }) } };
  return isThere(report) && old.guest ? { guest: old.guest } : {};
};

/** Addresses of one card. Pure. */
export const addressesOf = (mac: string, report: ObservedVm | undefined, old: readonly string[] | undefined): string[] | undefined => {
  if (report?.guest) return report.guest.addresses.find((each) => each.mac === mac)?.addresses;
  return isThere(report) ? old?.slice() : undefined;
};

const isThere = (report: ObservedVm | undefined): boolean => report === undefined || report.state === 'running' || report.state === 'paused' || report.state === 'unknown';

/** When a VM came how far. Pure. The steps of a run are those of the last one. */
export const timingsOf = ({ metadata, status }: VirtualMachine, report: ObservedVm | undefined, bindsAt: Date | undefined): Pick<VmStatus, 'timings'> => {
  const before = status.timings;
  const accepted = before?.accepted ?? metadata.creationTimestamp;
  const scheduled = before?.scheduled ?? bindsAt?.toISOString();
  if (accepted === undefined || scheduled === undefined) return {};
  const steps: Partial<NonNullable<VmStatus['timings']>> = report?.times ?? before ?? {};
  return {
    timings: {
      accepted, scheduled,
      ...(steps.prepared === undefined ? {} : { prepared: steps.prepared }),
      ...(steps.running === undefined ? {} : { running: steps.running }),
      ...(steps.guestReady === undefined ? {} : { guestReady: steps.guestReady }),
    },
  };
};

/** One step on the way of a VM, and how long it took since the one before, in seconds. */
export type TimedStep = { step: 'scheduled' | 'prepared' | 'running' | 'guestReady'; seconds: number };

/** The steps that a status has and the one before had not; only those of a first start, which a user waits for. Pure. */
export const timedSteps = (before: VmStatus, after: VmStatus): TimedStep[] => {
  const order = ['accepted', 'scheduled', 'prepared', 'running', 'guestReady'] as const;
  return order.flatMap((step, at) => {
    const from = order[at - 1];
    const [since, until] = [from && after.timings?.[from], after.timings?.[step]];
    if (step === 'accepted' || since === undefined || until === undefined || before.timings?.[step] !== undefined) return [];
    const seconds = (Date.parse(until) - Date.parse(since)) / 1000;
    // An agent may say anything of its times.
    return Number.isNaN(seconds) ? [] : [{ step, seconds: Math.max(0, seconds) }];
  });
};
