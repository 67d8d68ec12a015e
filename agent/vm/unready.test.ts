import { describe, expect, test } from '@jest/globals';
import { doom, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';

const uid = uidOf(1);
const unready = { reason: 'QemuUnusable', message: 'QEMU runs no guest' };

describe('a node that can start nothing (yet)', () => {
  const bench = async () => {
    const world = nodeWorld();
    await withImage(world);
    world.machine.unready = unready;
    return { world, bench: await openBench(world) };
  };

  test('makes disks, says why it waits, and starts the VM when it can', async () => {
    const it = await bench();
    expect(await want(it.bench, someVm())).toMatchObject({ state: 'preparing', trouble: { ...unready, final: false }, disks: [{ state: 'Ready' }, { state: 'Ready' }] });
    expect(it.bench.hands.ledger.vm(uid)?.run).toBeNull();
    delete it.world.machine.unready;
    expect(await it.bench.rest(uid)).toMatchObject({ state: 'running' });
    expect(it.world.machine.starts).toHaveLength(1);
  });

  test.each([
    ['Stopped', async (it: Awaited<ReturnType<typeof bench>>) => want(it.bench, someVm({ generation: 2, powerState: 'Stopped' })), { state: 'stopped' }],
    ['deleted', async (it: Awaited<ReturnType<typeof bench>>) => {
      await doom(it.bench, uid);
      return { absents: it.bench.absents, disks: it.world.disks.size };
    }, { absents: [uid], disks: 0 }],
  ])('keeps no VM from being %s', async (_, act, told) => {
    const it = await bench();
    await want(it.bench, someVm());
    expect(await act(it)).toMatchObject(told);
  });

  test('adopts and ends what runs', async () => {
    const it = await bench();
    delete it.world.machine.unready;
    await want(it.bench, someVm());
    const next = await openBench(it.world);
    it.world.machine.unready = unready;
    expect(await next.rest(uid)).toMatchObject({ state: 'running' });
    await doom(next, uid);
    expect(next.absents).toEqual([uid]);
  });
});
