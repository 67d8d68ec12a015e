import { randomUUID } from 'node:crypto';
import { hypervisorContract } from './contract.ts';
import { plainHardware } from './driver.ts';
import { endRun, machineWorld, makeFakeHypervisor, thaw } from './fake.ts';

hypervisorContract('fake', async () => {
  const world = machineWorld();
  return {
    hypervisor: makeFakeHypervisor(world),
    spec: async (uid) => ({ ...plainHardware, uid, startId: randomUUID(), epoch: 1, uuid: uid, cpus: 2, maxCpus: 2, memoryMiB: 32, maxMemoryMiB: 32, disks: [], nics: [], unixId: 200_000 }),
    reopen: async () => makeFakeHypervisor(world),
    powerOff: async (uid) => endRun(world, uid, 'guest'),
    hang: async (uid) => void Object.assign(world.machines.get(uid) ?? {}, { hangs: true }),
    spoiled: (spec) => {
      world.failStart = 'spoiled';
      return spec;
    },
    mended: (spec) => {
      delete world.failStart;
      return spec;
    },
    stall: async (spec) => {
      world.stalls = true;
      await makeFakeHypervisor(world).start(spec, AbortSignal.timeout(10_000)).catch(() => {});
      delete world.stalls;
      return { thaw: async () => thaw(world, spec.uid) };
    },
    close: async () => {},
  };
});
