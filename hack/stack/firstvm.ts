import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';

/**
 * How far the first VM is.
 *
 *   up       Ready and running: its guest is to be heard
 *   off      Ready as declared, but declared not to run
 *   ended    its guest ended while nobody was there: Stopped and then Running starts it again
 *   leaving  it is being deleted
 *   waiting  on what `why` says
 */
export type FirstVm = { is: 'up' } | { is: 'off'; as: string } | { is: 'ended'; why: string } | { is: 'leaving' } | { is: 'waiting'; why: string };

const endings: readonly string[] = ['GuestShutdown', 'QemuCrashed', 'NodeRebooted'];

/** Judges what the API server says about the first VM. */
export const judge = ({ metadata, spec, status }: VirtualMachine): FirstVm => {
  if (metadata.deletionTimestamp !== undefined) return { is: 'leaving' };
  const ready = status.conditions?.find(({ type }) => type === 'Ready');
  if (ready === undefined || ready.observedGeneration !== metadata.generation) return { is: 'waiting', why: 'the operator has not seen it yet' };
  if (ready.status === 'True') return spec.powerState === 'Running' ? { is: 'up' } : { is: 'off', as: spec.powerState };
  if (ready.status === 'False' && spec.powerState === 'Running' && endings.includes(ready.reason)) return { is: 'ended', why: ready.message };
  return { is: 'waiting', why: `${status.phase ?? 'Pending'}: ${ready.message}` };
};

/** The line by which the guest says on its serial console that it is up; undefined while it has not. Source: hack/guest/root/lib/strato/ready. */
export const readyLine = (serial: string): string | undefined => /^STRATO ready\b[ -~]*/m.exec(serial.replaceAll('\r', '\n'))?.[0].trim();
