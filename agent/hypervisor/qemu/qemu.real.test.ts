import { readdir, rm } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { hypervisorContract } from '../contract.ts';
import { openQemuBed } from './bed.ts';

hypervisorContract('qemu', async () => {
  const bed = await openQemuBed();
  return {
    ...bed,
    hang: async (uid) => {
      const sight = await bed.hypervisor.observe(uid, AbortSignal.timeout(60_000));
      if (sight.is !== 'present') throw new Error(`machine ${uid} is ${sight.is}`);
      process.kill(sight.pid, 'SIGSTOP');
    },
    spoiled: (spec) => ({ ...spec, disks: spec.disks.map((disk) => ({ ...disk, file: 'disks/spoiled.raw' })) }),
    mended: (spec) => spec,
  };
});

test('a machine whose files somebody removed is not gone, and ends by a kill', async () => {
  const bed = await openQemuBed();
  const soon = () => AbortSignal.timeout(60_000);
  try {
    const spec = await bed.spec('22222222-2222-4222-8222-222222222222');
    await bed.hypervisor.start(spec, soon());
    await rm(bed.paths.vm(spec.uid), { recursive: true });
    expect(await bed.hypervisor.observe(spec.uid, soon())).toMatchObject({ is: 'unknown', why: expect.stringContaining('is not there') });
    await bed.hypervisor.kill(spec.uid, soon());
    expect(await bed.hypervisor.observe(spec.uid, soon())).toEqual({ is: 'gone' });
  } finally {
    await bed.close();
  }
});

test('starts that fail, however many, leave one run behind', async () => {
  const bed = await openQemuBed();
  const soon = () => AbortSignal.timeout(60_000);
  try {
    const spec = await bed.spec('33333333-3333-4333-8333-333333333333');
    for (let at = 1; at <= 4; at += 1) {
      await expect(bed.hypervisor.start({ ...spec, startId: `s${at}`, cpuModel: 'NoSuchModel' }, soon())).rejects.toMatchObject({ code: 'StartFailed' });
      expect(await bed.hypervisor.observe(spec.uid, soon())).toMatchObject({ is: 'gone', last: { startId: `s${at}`, ran: false, stderr: expect.stringContaining('NoSuchModel') } });
    }
    expect(await readdir(bed.paths.runs(spec.uid))).toEqual(['s4']);
  } finally {
    await bed.close();
  }
});
