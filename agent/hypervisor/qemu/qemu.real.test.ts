import { hypervisorContract } from '../contract.ts';
import { openQemuBed } from './bed.ts';

hypervisorContract('qemu', async () => {
  const bed = await openQemuBed();
  return {
    ...bed,
    hang: async (uid) => {
      const sight = await bed.hypervisor.observe(uid, AbortSignal.timeout(10_000));
      if (sight.is !== 'present') throw new Error(`machine ${uid} is ${sight.is}`);
      process.kill(sight.pid, 'SIGSTOP');
    },
    spoiled: (spec) => ({ ...spec, disks: spec.disks.map((disk) => ({ ...disk, file: 'disks/spoiled.raw' })) }),
    mended: (spec) => spec,
  };
});
