import { describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import { doom, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';
import { blankVm } from './entry.ts';
import { imagesInUse, makeImageKeeper } from './images.ts';

describe('an image that has left the cache', () => {
  test('is fetched again for a VM that has yet to be made, once, and the VM then runs', async () => {
    const world = nodeWorld();
    await withImage(world);
    world.images.evict(uidOf(900));
    const bench = await openBench(world);
    await want(bench, someVm());
    await new Promise((resolve) => setImmediate(resolve));
    expect(world.images.downloads('http://images/debian.qcow2')).toBe(2);
    expect(await bench.rest(uidOf(1))).toMatchObject({ state: 'running' });
    expect(bench.reports.map(({ state }) => state)).toContain('preparing');
  });

  test('is fetched again for a disk that a running VM shall get', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    expect(await want(bench, someVm())).toMatchObject({ state: 'running' });
    world.images.evict(uidOf(900));
    const [root, data] = someVm().disks;
    await want(bench, someVm({ generation: 2, disks: [...(root && data ? [root, data] : []), { name: 'more', imageUid: uidOf(900) }] }));
    await new Promise((resolve) => setImmediate(resolve));
    expect(world.images.downloads('http://images/debian.qcow2')).toBe(2);
    expect((await bench.rest(uidOf(1)))?.disks.map(({ name, state }) => `${name} ${state}`)).toEqual(['root Ready', 'data Ready', 'more Ready']);
  });

  test('is not missed by a VM that has its disk, over all its starts', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    expect(await want(bench, someVm())).toMatchObject({ state: 'running' });
    world.images.evict(uidOf(900));
    await want(bench, someVm({ generation: 2, powerState: 'Stopped', stop: { mode: 'Force', gracePeriodSeconds: 0 } }));
    expect(await want(bench, someVm({ generation: 3 }))).toMatchObject({ state: 'running' });
    expect(world.images.downloads('http://images/debian.qcow2')).toBe(1);
    expect(world.images.observe(uidOf(900))).toMatchObject({ cached: false });
  });
});

describe('the images that VMs use', () => {
  test('are those of every VM in the ledger, whether it runs or not; the keeper says so to the store', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    const { ledger } = bench.hands;
    using keeper = makeImageKeeper({ ledger, images: world.images, clock: systemClock, log: pino({ level: 'silent' }), chance: () => 0, changed: () => {}, absent: () => {} }, new AbortController().signal);
    expect(keeper).toBeDefined();
    await want(bench, someVm({ powerState: 'Stopped' }));
    world.images.evict(uidOf(900));
    expect(world.images.ready(uidOf(900))).toBeDefined();
    await doom(bench, uidOf(1));
    world.images.evict(uidOf(900));
    expect(world.images.ready(uidOf(900))).toBeUndefined();
  });

  test('are none of a VM that is only known to end', () => {
    expect([...imagesInUse([blankVm(uidOf(1)), { ...blankVm(uidOf(2)), desired: someVm({ uid: uidOf(2) }) }])]).toEqual([uidOf(900)]);
  });
});
