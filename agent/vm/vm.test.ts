import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { endRun } from '../hypervisor/fake.ts';
import { doom, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';

const uid = uidOf(1);
const ready = async () => {
  const world = nodeWorld();
  await withImage(world);
  return { world, bench: await openBench(world) };
};
const running = async () => {
  const it = await ready();
  await want(it.bench, someVm());
  return it;
};
const stopped = someVm({ generation: 2, powerState: 'Stopped' });

describe('a VM that shall run', () => {
  test('is made ready, started once and let go', async () => {
    const { world, bench } = await ready();
    expect(await want(bench, someVm())).toMatchObject({
      state: 'running', generation: 1, machine: { type: 'pc-q35-7.2' },
      disks: [{ name: 'root', sizeMiB: 1024, state: 'Ready' }, { name: 'data', sizeMiB: 10, state: 'Ready' }],
      forwards: [{ interface: 'eth0', name: 'ssh', address: '127.0.0.1', hostPort: 2222, port: 22, protocol: 'TCP' }],
    });
    expect(world.machine.starts).toHaveLength(1);
    expect(world.disks.get(uid)).toMatchObject({ seed: { instanceId: uid, hostname: 'web' }, unixId: 200_000 });
    expect(bench.hands.ledger.vm(uid)).toMatchObject({ run: { ran: true }, disks: ['root', 'data'], seeded: true, slots: { 'disk/root': 0, 'disk/data': 1, seed: 2, 'nic/eth0': 3 } });
    expect(bench.reports.map(({ state }) => state)).toEqual(['starting', 'running']);
  });

  test('waits for its image without doing anything', async () => {
    const world = nodeWorld();
    const bench = await openBench(world);
    expect(await want(bench, someVm())).toMatchObject({ state: 'preparing', disks: [] });
    expect(world.disks.size).toBe(0);
    await withImage(world);
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
  });

  test('says why its image failed', async () => {
    const world = nodeWorld();
    world.images.breakImport(uidOf(900), new Fault('ChecksumMismatch', 'got other bytes', { retry: 'never' }));
    await withImage(world);
    const bench = await openBench(world);
    expect(await want(bench, someVm())).toMatchObject({ state: 'preparing', trouble: { reason: 'ChecksumMismatch', message: 'disk root: got other bytes', final: true } });
  });

  test('is tried again, later each time, while its start fails before the guest ran', async () => {
    const { world, bench } = await ready();
    world.machine.failStart = 'qemu: no such machine';
    expect(await want(bench, someVm())).toMatchObject({ state: 'starting', trouble: { reason: 'StartFailed', message: expect.stringContaining('no such machine'), final: false } });
    const waits: number[] = [];
    for (let round = 0; round < 4; round += 1) {
      const end = await bench.pass(uid);
      if (end.is !== 'still') throw new Error('it does not wait');
      waits.push(end.lookAfterMs);
      world.ms.now += end.lookAfterMs;
      await bench.rest(uid);
    }
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
    expect(new Set(waits).size).toBe(4);
    delete world.machine.failStart;
    world.ms.now += 60_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
    expect(bench.reports.at(-1)).not.toHaveProperty('trouble');
  });

  test('names the VM that has its port, and starts when that is gone', async () => {
    const { world, bench } = await running();
    const other = someVm({ uid: uidOf(2), name: 'other' });
    expect(await want(bench, other)).toMatchObject({ trouble: { reason: 'ForwardConflict', message: expect.stringContaining('used by VM default/web') } });
    await doom(bench, uid);
    world.ms.now += 60_000;
    expect(await bench.rest(uidOf(2))).toMatchObject({ state: 'running' });
  });

  test('is not started on a disk that was made and is gone', async () => {
    const { world, bench } = await running();
    await want(bench, stopped);
    endRun(world.machine, uid, 'guest');
    await bench.rest(uid);
    bench.storage.lose(uid, 'data');
    expect(await want(bench, someVm({ generation: 3 }))).toMatchObject({
      state: 'preparing', trouble: { reason: 'DiskMissing', final: true },
      disks: [{ name: 'root', state: 'Ready' }, { name: 'data', state: 'Missing' }],
    });
    expect(world.machine.starts).toHaveLength(1);
    expect(world.disks.get(uid)?.disks.has('data')).toBe(false);
  });
});

describe('a run that ends by itself', () => {
  test.each([
    ['guest', {}, { reason: 'GuestShutdown', code: 0 }],
    ['crashed', { code: 137, signal: 'SIGKILL' }, { reason: 'QemuCrashed', signal: 'SIGKILL' }],
    ['stopped', {}, { reason: 'QemuCrashed' }],
    ['rebooted', {}, { reason: 'NodeRebooted' }],
  ] as const)('(%s) is told and not started again before Stopped was seen', async (cause, over, lastExit) => {
    const { world, bench } = await running();
    endRun(world.machine, uid, cause, over);
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended', lastExit });
    expect(await want(bench, someVm({ generation: 2 }))).toMatchObject({ state: 'ended' });
    expect(await want(bench, someVm({ generation: 3, powerState: 'Paused' }))).toMatchObject({ state: 'ended' });
    expect(bench.network.held().size).toBe(0);
    expect(await want(bench, { ...stopped, generation: 4 })).toMatchObject({ state: 'stopped', lastExit });
    expect(await want(bench, someVm({ generation: 5 }))).toMatchObject({ state: 'running' });
    expect(world.machine.starts).toHaveLength(2);
  });
});

describe('a stop', () => {
  test('presses the button, again after 10 s, and forces at the grace period', async () => {
    const { world, bench } = await running();
    expect(await want(bench, stopped)).toMatchObject({ state: 'stopping' });
    expect(world.machine.presses).toBe(1);
    await bench.rest(uid);
    expect(world.machine.presses).toBe(1);
    world.ms.now += 10_000;
    await bench.rest(uid);
    expect(world.machine.presses).toBe(2);
    world.ms.now += 79_999;
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopping' });
    world.ms.now += 1;
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
  });

  test('that the guest obeys is told as Stopped', async () => {
    const { world, bench } = await running();
    await want(bench, stopped);
    endRun(world.machine, uid, 'guest');
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Stopped' }, forwards: [] });
  });

  test('keeps its grace period over a restart of the agent', async () => {
    const { world, bench } = await running();
    await want(bench, stopped);
    world.ms.now += 60_000;
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'stopping' });
    world.ms.now += 30_000;
    expect(await next.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
  });

  test.each([[{ mode: 'Force' as const, gracePeriodSeconds: 90 }], [{ mode: 'Graceful' as const, gracePeriodSeconds: 0 }]])('%j pulls the plug', async (stop) => {
    const { world, bench } = await running();
    expect(await want(bench, { ...stopped, stop })).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
    expect(world.machine.presses).toBe(0);
  });

  test('that is taken back while the guest goes down ends in a new start', async () => {
    const { world, bench } = await running();
    await want(bench, stopped);
    expect(await want(bench, someVm({ generation: 3 }))).toMatchObject({ state: 'running' });
    endRun(world.machine, uid, 'guest');
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
    expect(world.machine.starts).toHaveLength(2);
  });

  test('that is asked for anew has its whole grace period', async () => {
    const { world, bench } = await running();
    await want(bench, stopped);
    world.ms.now += 80_000;
    await want(bench, someVm({ generation: 3 }));
    await want(bench, { ...stopped, generation: 4 });
    world.ms.now += 80_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopping' });
  });
});

describe('pause', () => {
  test('holds a guest and lets it go on', async () => {
    const { bench, world } = await running();
    expect(await want(bench, someVm({ generation: 2, powerState: 'Paused' }))).toMatchObject({ state: 'paused' });
    expect(await want(bench, someVm({ generation: 3 }))).toMatchObject({ state: 'running' });
    expect(world.machine.starts).toHaveLength(1);
  });

  test('of a VM that is not there starts it without a first instruction', async () => {
    const { world, bench } = await ready();
    expect(await want(bench, someVm({ powerState: 'Paused' }))).toMatchObject({ state: 'paused' });
    expect(world.machine.machines.get(uid)?.run).toMatchObject({ guest: 'prelaunch' });
    expect(await want(bench, someVm({ generation: 2 }))).toMatchObject({ state: 'running' });
  });

  test('an I/O error is told and nothing is un-paused', async () => {
    const { world, bench } = await running();
    Object.assign(world.machine.machines.get(uid)?.run ?? {}, { guest: 'io-error' });
    expect(await bench.rest(uid)).toMatchObject({ state: 'paused', trouble: { reason: 'IOError' } });
    expect(world.machine.machines.get(uid)?.run?.guest).toBe('io-error');
  });
});

describe('a tombstone', () => {
  test('ends everything, once and for ever', async () => {
    const { world, bench } = await running();
    await doom(bench, uid);
    expect(bench.absents).toEqual([uid]);
    expect({ machines: world.machine.machines.size, disks: world.disks.size, files: [...world.shelf.files.keys()], ports: bench.network.held().size })
      .toEqual({ machines: 0, disks: 0, files: ['leader.json'], ports: 0 });
    expect(world.shelf.ended).toEqual(new Set([uid]));
    await want(bench, someVm({ generation: 9 }));
    expect(bench.hands.ledger.vm(uid)).toBeUndefined();
  });

  test('touches nothing while the machine does not answer', async () => {
    const { world, bench } = await running();
    Object.assign(world.machine.machines.get(uid) ?? {}, { hangs: true });
    await doom(bench, uid);
    expect(bench.reports.at(-1)).toMatchObject({ state: 'deleting', trouble: { reason: 'GuestUnknown' } });
    expect(world.disks.has(uid)).toBe(true);
    const next = await openBench(world);
    Object.assign(world.machine.machines.get(uid) ?? {}, { hangs: false });
    await next.rest(uid);
    expect(next.absents).toEqual([uid]);
  });
});

describe('a machine that does not answer', () => {
  test('is unknown, and nothing is done to it', async () => {
    const { world, bench } = await running();
    Object.assign(world.machine.machines.get(uid) ?? {}, { hangs: true });
    expect(await bench.rest(uid)).toMatchObject({ state: 'unknown', trouble: { message: 'QEMU did not answer' } });
    expect(await want(bench, stopped)).toMatchObject({ state: 'unknown' });
    expect(world.machine.presses).toBe(0);
  });
});

describe('an agent that comes back', () => {
  test('adopts what runs, its ports too, and starts nothing', async () => {
    const { world } = await running();
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'running', forwards: [{ hostPort: 2222 }] });
    expect(next.network.held().get('TCP/2222')).toBe(uid);
    expect(world.machine).toMatchObject({ doubleStarts: 0, starts: { length: 1 } });
  });
});
