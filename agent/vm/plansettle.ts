import type { DesiredVm } from '#crds/wire/desired.ts';
import type { LastExit } from '#crds/wire/observed.ts';
import type { RunEnd, Sight } from '../hypervisor/driver.ts';
import type { VmEntry } from './entry.ts';
import type { Plan, VmFacts } from './facts.ts';

/** A run that was ordered is over, or never began: what is to be remembered of it. Pure. */
export const planSettle = (facts: VmFacts, desired: DesiredVm, sight: Extract<Sight, { is: 'gone' }>, run: NonNullable<VmEntry['run']>): Plan => {
  const { entry } = facts;
  const last = sight.last?.startId === run.startId ? sight.last : undefined;
  const ran = run.ran || last?.ran === true;
  const stops = desired.powerState === 'Stopped';
  if (!ran) {
    const failed = last === undefined ? undefined : `QEMU ended before the guest ran (${endedWith(last)}): ${last.stderr.trim() || 'it said nothing'}`;
    return {
      state: stops ? 'stopping' : 'starting',
      // Nobody saw this run begin, but its launcher may still be waiting for the lock. Revoked, it can not start the VM after we recorded that the run is over.
      steps: [...(last ? [] : [{ do: 'revoke' as const, startId: run.startId }]), { do: 'settle', exit: entry.lastExit, ended: entry.ended, ...(failed === undefined || stops ? {} : { failed }) }, { do: 'detach' }],
    };
  }
  const exit = exitOf(last, entry, facts.now);
  const asked = stops || exit.reason === 'GuestReset' || entry.stopping?.why === 'stop' || entry.stopping?.why === 'restart';
  return { state: !asked ? 'ended' : stops ? 'stopping' : 'starting', steps: [{ do: 'settle', exit, ended: !asked }, { do: 'detach' }] };
};

const endedWith = ({ code, signal }: RunEnd): string => (signal === undefined ? `code ${code ?? 'unknown'}` : `signal ${signal}`);

const exitOf = (last: RunEnd | undefined, entry: VmEntry, now: Date): LastExit => ({
  reason: reasonOf(last?.cause, entry.stopping),
  ...(last?.code === undefined ? {} : { code: last.code }),
  ...(last?.signal === undefined ? {} : { signal: last.signal.slice(0, 16) }),
  time: now.toISOString(),
});

const reasonOf = (cause: RunEnd['cause'] | undefined, stopping: VmEntry['stopping']): LastExit['reason'] => {
  // We kill a guest after its panic; it may also have ended by itself just before that.
  if (stopping?.why === 'panic') return cause === 'rebooted' ? 'NodeRebooted' : cause === 'guest' ? 'GuestShutdown' : cause === 'reset' ? 'GuestReset' : 'GuestPanicked';
  if (stopping?.forced) return 'Forced';
  switch (cause) {
    case 'rebooted':
      return 'NodeRebooted';
    case 'guest':
      return stopping ? 'Stopped' : 'GuestShutdown';
    case 'reset':
      return stopping ? 'Stopped' : 'GuestReset';
    case 'oom':
      return 'OutOfMemory';
    case 'stopped':
      // Somebody other than us told QEMU to end: for the user that is a crash, not a wish of the guest.
      return stopping ? 'Stopped' : 'QemuCrashed';
    case 'crashed':
    case undefined:
      return 'QemuCrashed';
  }
};
