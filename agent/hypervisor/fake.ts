import { Fault } from '#crds/kit/fault.ts';
import type { Hypervisor, IoError, MachineChange, MachineDisk, MachineDrive, MachineFacts, MachineNic, RunEnd, Sight, Unready } from './driver.ts';

type Run = {
  startId: string; guest: Extract<Sight, { is: 'present' }>['guest']; ran: boolean; facts: MachineFacts; panicked?: boolean; tpmLost?: boolean; ioError?: IoError;
  cpus: number; maxCpus: number; memoryMiB: number; nics: Map<number, MachineNic>; disks: Map<number, MachineDisk>; drives: Map<number, MachineDrive>; sizes: Map<number, number>; onReboot: 'reset' | 'shutdown';
};
type Machine = { run?: Run; last?: RunEnd; hangs?: boolean; broken?: boolean; stalled?: Run[] };

/** The machines of a pretend node; they outlive every agent. */
export type MachineWorld = {
  machines: Map<string, Machine>;
  /** Every start that made a machine, in order. */
  starts: { uid: string; startId: string }[];
  /** Starts of what was present: each one is a bug of the agent. */
  doubleStarts: number;
  presses: number;
  /** While it is set nobody can be killed. */
  undying?: boolean;
  /** While it is set nothing can be started. */
  unready?: Unready;
  /** While it is set every change is refused with this. */
  refuseChange?: string;
  /** While it is set the guest releases no device in this slot. */
  refuseSlot?: number | undefined;
  /** While it is set every start fails with this on stderr. */
  failStart?: string;
  /** While it is set the launcher of every start stands still before it has the lock; see `thaw`. */
  stalls?: boolean;
  listeners: Set<(uid: string) => void>;
};

/** A pretend node without machines. */
export const machineWorld = (): MachineWorld => ({ machines: new Map(), starts: [], doubleStarts: 0, presses: 0, listeners: new Set() });

/** The run of a machine ends: by its guest, a crash or the node. */
export const endRun = (world: MachineWorld, uid: string, cause: RunEnd['cause'], over: Partial<RunEnd> = {}): void => {
  const machine = world.machines.get(uid);
  if (!machine?.run) return;
  machine.last = { startId: machine.run.startId, cause, ran: machine.run.ran, stderr: '', ...(cause === 'rebooted' ? {} : { code: 0 }), ...over };
  delete machine.run;
  delete machine.hangs;
  delete machine.broken;
  for (const changed of world.listeners) changed(uid);
};

/** The launchers of a VM that stood still go on: one that finds the lock free makes its machine. */
export const thaw = (world: MachineWorld, uid: string): void => {
  const machine = world.machines.get(uid);
  for (const run of machine?.stalled?.splice(0) ?? []) {
    if (!machine || machine.run || machine.hangs) continue;
    machine.run = run;
    world.starts.push({ uid, startId: run.startId });
    for (const changed of world.listeners) changed(uid);
  }
};

const applyTo = (run: Run, change: MachineChange): void => {
  switch (change.do) {
    case 'cpus':
      if (change.cpus > run.maxCpus) throw new Fault('ChangeRefused', `the machine takes ${run.maxCpus} CPUs at most; more need a restart`);
      run.cpus = Math.max(run.cpus, change.cpus);
      return;
    case 'memory':
      run.memoryMiB = change.memoryMiB;
      return;
    case 'addNic':
      if (!run.nics.has(change.nic.slot)) run.nics.set(change.nic.slot, change.nic);
      return;
    case 'removeNic':
      run.nics.delete(change.slot);
      return;
    case 'addDisk':
      // What is there stays as it was plugged.
      if (!run.disks.has(change.disk.slot)) run.disks.set(change.disk.slot, change.disk);
      return;
    case 'removeDisk':
      run.disks.delete(change.slot);
      run.drives.delete(change.slot);
      run.sizes.delete(change.slot);
      return;
    case 'growDisk':
      run.sizes.set(change.slot, Math.max(change.sizeMiB, run.sizes.get(change.slot) ?? 0));
      return;
    case 'addDrive':
      if (!run.drives.has(change.drive.slot)) run.drives.set(change.drive.slot, change.drive);
      return;
    case 'medium': {
      const there = run.drives.get(change.slot);
      if (!there) return;
      const { medium: _, ...drive } = there;
      run.drives.set(change.slot, change.medium === undefined ? drive : { ...drive, medium: change.medium });
      return;
    }
    case 'limits': {
      const disk = run.disks.get(change.slot);
      if (disk) run.disks.set(change.slot, { ...disk, limits: change.limits });
      return;
    }
    case 'forwards': {
      const nic = run.nics.get(change.slot);
      if (nic) run.nics.set(change.slot, { ...nic, backend: { ...nic.backend, forwards: change.to } });
      return;
    }
    case 'onReboot':
      run.onReboot = change.action;
      return;
  }
};

/** The guest reboots itself: the machine is reset, or ends when it was told so. */
export const rebootGuest = (world: MachineWorld, uid: string): void => {
  const run = world.machines.get(uid)?.run;
  if (run?.onReboot === 'shutdown') endRun(world, uid, 'reset');
  else if (run) run.panicked = false;
};

/** A hypervisor in memory. Give the same `world` to a second one to play a restart of the agent. */
export const makeFakeHypervisor = (world: MachineWorld = machineWorld()): Hypervisor => {
  const machine = (uid: string): Machine => {
    const found = world.machines.get(uid) ?? {};
    world.machines.set(uid, found);
    return found;
  };
  const running = (uid: string): Run => {
    const { run } = machine(uid);
    if (!run) throw new Fault('NotRunning', `VM ${uid} has no machine that answers`);
    return run;
  };
  return {
    capabilities: () => (world.unready
      ? { version: '', accelerators: [], features: [], cpuModels: {}, unready: world.unready }
      : { version: '7.2.0', accelerators: ['tcg'], features: ['arch:amd64', 'uefi:amd64', 'tpm'], cpuModels: { amd64: ['max'] } }),
    observe: async (uid, signal) => {
      signal.throwIfAborted();
      const it = world.machines.get(uid);
      if (it?.broken && it.run) return { is: 'unknown', broken: true, why: 'QEMU is in the state internal-error' };
      if (it?.hangs) return { is: 'unknown', why: 'QEMU did not answer' };
      if (it?.run) {
        const { startId, guest, facts, panicked, tpmLost, ioError } = it.run;
        return {
          is: 'present', startId, guest, facts, pid: 1,
          ...(panicked ? { panicked: true as const } : {}), ...(tpmLost ? { tpmLost: true as const } : {}), ...(guest === 'io-error' && ioError ? { ioError } : {}),
        };
      }
      return { is: 'gone', ...(it?.last ? { last: it.last } : {}) };
    },
    start: async ({ uid, startId, type = 'pc-q35-7.2', cpus, maxCpus, memoryMiB, nics, disks, drives }, signal) => {
      signal.throwIfAborted();
      if (world.unready) throw new Fault(world.unready.reason, world.unready.message, { retry: 'later' });
      const it = machine(uid);
      if (it.run) {
        world.doubleStarts += 1;
        throw new Fault('AlreadyRunning', `VM ${uid} is there already; it is not started a second time`);
      }
      if (world.failStart !== undefined) {
        it.last = { startId, cause: 'crashed', code: 1, ran: false, stderr: world.failStart };
        throw new Fault('StartFailed', `QEMU ended before the guest ran: ${world.failStart}`);
      }
      const made: Run = {
        startId, guest: 'prelaunch', ran: false, facts: { type, cpuModel: 'max', accelerator: 'tcg', cpus, memoryMiB },
        cpus, maxCpus, memoryMiB, nics: new Map(nics.map((nic) => [nic.slot, nic])), disks: new Map(disks.map((disk) => [disk.slot, disk])), drives: new Map(drives.map((drive) => [drive.slot, drive])), sizes: new Map(), onReboot: 'reset',
      };
      if (world.stalls) {
        it.stalled = [...(it.stalled ?? []), made];
        throw new Fault('StepFailed', `the launcher of VM ${uid} did not end in time`);
      }
      world.starts.push({ uid, startId });
      it.run = made;
    },
    revoke: async (uid, startId) => {
      const it = world.machines.get(uid);
      if (!it) return;
      if (it.run || it.hangs) throw new Fault('StillThere', `VM ${uid}: its lock is held; the start ${startId} is not taken back`);
      it.stalled = it.stalled?.filter((run) => run.startId !== startId) ?? [];
    },
    resume: async (uid) => void Object.assign(running(uid), { guest: 'running', ran: true }),
    pause: async (uid) => void Object.assign(running(uid), { guest: 'paused' }),
    change: async (uid, change) => {
      const run = running(uid);
      if (world.refuseChange !== undefined && change.do !== 'onReboot') throw new Fault('ChangeRefused', world.refuseChange);
      if ((change.do === 'removeNic' || change.do === 'removeDisk') && change.slot === world.refuseSlot) throw new Fault('ChangeRefused', 'the guest does not release it');
      applyTo(run, change);
    },
    powerdown: async (uid) => {
      running(uid);
      world.presses += 1;
    },
    // Its guests listen nowhere.
    established: async (uid) => {
      running(uid);
      return false;
    },
    kill: async (uid) => {
      if (world.undying) throw new Fault('StillThere', `VM ${uid}: its lock is still held after SIGKILL`);
      endRun(world, uid, 'crashed', { signal: 'SIGKILL', code: 137 });
      // What held its lock without being the run is gone too.
      delete world.machines.get(uid)?.hangs;
    },
    forget: async (uid) => {
      if (world.machines.get(uid)?.run) throw new Fault('StillThere', `VM ${uid}: its machine is there; nothing of it is removed`);
      world.machines.delete(uid);
    },
    watch: (changed) => {
      world.listeners.add(changed);
      return { [Symbol.dispose]: () => void world.listeners.delete(changed) };
    },
  };
};
