import { describe, expect, test } from '@jest/globals';
import { ioErrorOf } from '../hypervisor/qemu/look.ts';
import { nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';
import { afterRetry, roomMiB } from './halted.ts';

const uid = uidOf(1);

/** A VM that runs, and a disk of its node that halts it again whenever it is let go on, until it is mended. */
const halted = async (reason: 'NoSpace' | 'IOError') => {
  const world = nodeWorld();
  await withImage(world);
  let freeMiB = reason === 'NoSpace' ? 0 : 1_000;
  let ill = true;
  let tries = 0;
  const bench = await openBench(world);
  const { hypervisor, storage } = bench.hands;
  Object.assign(bench.hands, {
    hypervisor: {
      ...hypervisor,
      resume: async (of: string, signal: AbortSignal) => {
        tries += 1;
        await hypervisor.resume(of, signal);
        if (ill) halt();
      },
    },
    storage: { ...storage, space: async () => ({ sizeMiB: 1_000, freeMiB }) },
  });
  ill = false;
  await want(bench, someVm());
  ill = true;
  tries = 0;
  const halt = () => void Object.assign(world.machine.machines.get(uid)?.run ?? {}, { guest: 'io-error', ioError: { reason, slots: [0] } });
  halt();
  return { world, bench, tries: () => tries, free: (now: number) => { freeMiB = now; }, mend: () => { ill = false; }, guest: () => world.machine.machines.get(uid)?.run?.guest };
};

describe('a guest that is held since the disk is full', () => {
  test('is told which disk and why, and left alone until there is room', async () => {
    const { bench, world, tries, free, mend, guest } = await halted('NoSpace');
    const ioError = { reason: 'NoSpace', message: expect.stringContaining('disk root: the node has no space left') };
    expect(await bench.rest(uid)).toMatchObject({ state: 'paused', ioError, trouble: { ...ioError, final: false } });
    free(roomMiB - 1);
    for (let round = 0; round < 5; round += 1) {
      world.ms.now += 60_000;
      await bench.rest(uid);
    }
    expect([tries(), guest()]).toEqual([0, 'io-error']);
    free(roomMiB);
    mend();
    const after = await bench.rest(uid);
    expect([tries(), guest(), after?.state, after?.ioError, after?.trouble]).toEqual([1, 'running', 'running', undefined, undefined]);
  });

  test('is looked at again soon: room makes no noise', async () => {
    const { bench } = await halted('NoSpace');
    expect(await bench.pass(uid)).toEqual({ is: 'still', lookAfterMs: 5_000 });
  });

  test('goes on by itself with an agent that has just started, too', async () => {
    const { world } = await halted('NoSpace');
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'running' });
  });

  test('stays paused for its user, with room and without, until that says Running', async () => {
    const { bench, world, tries, free, mend } = await halted('NoSpace');
    const paused = await want(bench, someVm({ generation: 2, powerState: 'Paused' }));
    expect(paused).toMatchObject({ state: 'paused', ioError: { reason: 'NoSpace' } });
    expect(paused?.trouble).toBeUndefined();
    free(1_000);
    mend();
    world.ms.now += 600_000;
    await bench.rest(uid);
    expect(tries()).toBe(0);
    expect(await want(bench, someVm({ generation: 3 }))).toMatchObject({ state: 'running' });
    expect(tries()).toBe(1);
  });
});

describe('a guest that is held since the disk failed', () => {
  test('is tried again, later each time up to five minutes, and goes on when the disk does', async () => {
    const { bench, world, tries, mend } = await halted('IOError');
    await bench.rest(uid);
    expect(tries()).toBe(1);
    const waits: number[] = [];
    for (let round = 0; round < 9; round += 1) {
      const end = await bench.pass(uid);
      if (end.is !== 'still') throw new Error('it does not wait');
      waits.push(end.lookAfterMs);
      world.ms.now += end.lookAfterMs;
      await bench.rest(uid);
    }
    expect(waits).toEqual([5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]);
    mend();
    world.ms.now += 300_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
  });

  test('what comes after ten calm minutes is a new trouble', () => {
    expect([afterRetry(undefined, 5), afterRetry({ tries: 3, atMs: 5 }, 1_000), afterRetry({ tries: 3, atMs: 5 }, 700_000)]).toEqual([{ tries: 1, atMs: 5 }, { tries: 4, atMs: 1_000 }, { tries: 1, atMs: 700_000 }]);
  });
});

describe('what QEMU says of its disks', () => {
  const disk = (slot: number, status?: 'ok' | 'failed' | 'nospace') => ({ ...(status === undefined ? {} : { 'io-status': status }), inserted: { 'node-name': `throttle${slot}` } });
  test.each([
    [[disk(0, 'ok'), disk(3, 'nospace')], { reason: 'NoSpace', slots: [3] }],
    [[disk(1, 'nospace'), disk(3, 'nospace')], { reason: 'NoSpace', slots: [1, 3] }],
    [[disk(1, 'nospace'), disk(3, 'failed')], { reason: 'IOError', slots: [3] }],
    [[disk(0, 'ok'), disk(1)], { reason: 'IOError', slots: [] }],
    [[{ 'io-status': 'nospace' as const }], { reason: 'NoSpace', slots: [] }],
  ])('%j', (devices, expected) => {
    expect(ioErrorOf(devices)).toEqual(expected);
  });
});
