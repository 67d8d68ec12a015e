import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { endRun, rebootGuest, thaw } from '../hypervisor/fake.ts';
import { doom, mortal, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';

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

  test('needs two looks: one before its start, and one at what was started', async () => {
    const { bench } = await ready();
    await bench.hands.ledger.accept({ type: 'desire', leaderEpoch: 1, revision: 1, object: someVm() });
    expect(await bench.pass(uid)).toEqual({ is: 'moved' });
    expect(await bench.pass(uid)).toMatchObject({ is: 'still' });
    expect(bench.hands.ledger.vm(uid)).toMatchObject({ run: { ran: true }, times: { running: expect.any(String) } });
    expect(bench.reports.at(-1)).toMatchObject({ state: 'running', times: { running: expect.any(String) } });
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

  test('whose start was given up and came about all the same has its firmware made', async () => {
    const { world, bench } = await ready();
    world.machine.stalls = true;
    await bench.hands.ledger.accept({ type: 'desire', leaderEpoch: 1, revision: 1, object: someVm({ firmware: { type: 'uefi', secureBoot: false, tpm: false } }) });
    await bench.pass(uid);
    thaw(world.machine, uid);
    world.ms.now += 60_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
    expect([world.machine.starts.length, bench.hands.ledger.vm(uid)?.firmwareMade]).toEqual([1, true]);
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

  test('is not started on a blank disk by a node that was installed anew', async () => {
    const { world, bench } = await ready();
    await bench.hands.ledger.accept({ type: 'desire', leaderEpoch: 1, revision: 1, object: someVm(), made: ['data'] });
    expect(await bench.rest(uid)).toMatchObject({ state: 'preparing', trouble: { reason: 'DiskMissing', final: true }, disks: [{ name: 'data', state: 'Missing' }] });
    expect([world.machine.starts, world.disks.get(uid)?.disks.size ?? 0]).toEqual([[], 0]);
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

describe('a restart policy', () => {
  test('starts a guest again that ended by itself, after its delay, and counts', async () => {
    const { world, bench } = await ready();
    await want(bench, someVm({ restartPolicy: 'Always' }));
    for (const [count, waitMs] of [[1, 10_000], [2, 20_000]] as const) {
      endRun(world.machine, uid, 'guest');
      expect(await bench.rest(uid)).toMatchObject({ state: 'ended', lastExit: { reason: 'GuestShutdown' }, restarts: { count: count - 1, at: new Date(Date.UTC(2026, 0, 1) + world.ms.now + waitMs).toISOString() } });
      world.ms.now += waitMs - 1;
      expect(await bench.rest(uid)).toMatchObject({ state: 'ended' });
      world.ms.now += 1;
      expect(await bench.rest(uid)).toMatchObject({ state: 'running', restarts: { count } });
      expect(bench.reports.at(-1)?.restarts).not.toHaveProperty('at');
    }
    expect(world.machine.starts).toHaveLength(3);
  });

  test('that becomes Always starts what had ended before', async () => {
    const { world, bench } = await ready();
    await want(bench, someVm({ restartPolicy: 'OnFailure' }));
    endRun(world.machine, uid, 'guest');
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended' });
    world.ms.now += 600_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended' });
    expect(await want(bench, someVm({ generation: 2, restartPolicy: 'Always' }))).toMatchObject({ state: 'running' });
  });

  test('brings back at once what a node that went down took along', async () => {
    const { world, bench } = await ready();
    await want(bench, someVm({ restartPolicy: 'OnFailure' }));
    endRun(world.machine, uid, 'rebooted');
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'running', lastExit: { reason: 'NodeRebooted' } });
  });

  test.each([['oom', 'OutOfMemory'], ['crashed', 'QemuCrashed']] as const)('counts %s as a failure', async (cause, reason) => {
    const { world, bench } = await ready();
    await want(bench, someVm({ restartPolicy: 'OnFailure' }));
    endRun(world.machine, uid, cause);
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended', lastExit: { reason }, restarts: { at: expect.any(String) } });
  });
});

describe('a restart token', () => {
  test('of a VM that starts is honoured by that start', async () => {
    const { world, bench } = await ready();
    expect(await want(bench, someVm({ restartToken: 'a' }))).toMatchObject({ state: 'running', restartToken: 'a' });
    expect(world.machine).toMatchObject({ presses: 0, starts: { length: 1 } });
  });

  test('that changes restarts once, also over a restart of the agent', async () => {
    const { world, bench } = await running();
    expect(await want(bench, someVm({ generation: 2, restartToken: 'b' }))).toMatchObject({ state: 'stopping' });
    expect(world.machine.presses).toBe(1);
    const next = await openBench(world);
    await next.rest(uid);
    endRun(world.machine, uid, 'guest');
    expect(await next.rest(uid)).toMatchObject({ state: 'running', restartToken: 'b', lastExit: { reason: 'Stopped' } });
    await (await openBench(world)).rest(uid);
    expect(world.machine.starts).toHaveLength(2);
  });

  test('restarts by force a guest that does not hear, and starts one that had ended', async () => {
    const { world, bench } = await running();
    await want(bench, someVm({ generation: 2, restartToken: 'b' }));
    world.ms.now += 90_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'running', lastExit: { reason: 'Forced' } });
    endRun(world.machine, uid, 'guest');
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended' });
    expect(await want(bench, someVm({ generation: 3, restartToken: 'c' }))).toMatchObject({ state: 'running', restartToken: 'c' });
  });
});

describe('a panic', () => {
  const panic = (world: Awaited<ReturnType<typeof ready>>['world']) => void Object.assign(world.machine.machines.get(uid)?.run ?? {}, { panicked: true });

  test('that the guest does not end by a reset ends its run as a failure', async () => {
    const { world, bench } = await ready();
    await want(bench, someVm({ restartPolicy: 'OnFailure' }));
    panic(world);
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
    world.ms.now += 10_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'ended', lastExit: { reason: 'GuestPanicked' }, restarts: { at: expect.any(String) } });
  });

  test('after which the guest resets itself changes nothing', async () => {
    const { world, bench } = await running();
    panic(world);
    await bench.rest(uid);
    world.ms.now += 5_000;
    rebootGuest(world.machine, uid);
    await bench.rest(uid);
    world.ms.now += 100_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
    expect(bench.hands.ledger.vm(uid)?.stopping).toBeNull();
    expect(world.machine.starts).toHaveLength(1);
  });
});

test('a panic that was seen before the agent stood still is no reason to end a guest which has reset itself since', async () => {
  const { world, bench } = await running();
  const run = world.machine.machines.get(uid)?.run;
  Object.assign(run ?? {}, { panicked: true });
  await bench.rest(uid);
  const look = bench.hands.hypervisor.observe;
  bench.hands.hypervisor.observe = async (...a) => {
    const seen = await look(...a);
    world.ms.now += 60_000;
    rebootGuest(world.machine, uid);
    return seen;
  };
  await bench.pass(uid);
  expect(world.machine.machines.get(uid)?.run).toBe(run);
  bench.hands.hypervisor.observe = look;
  expect(await bench.rest(uid)).toMatchObject({ state: 'running' });
});

test('a TPM whose emulator has ended is told and changes nothing else', async () => {
  const { world, bench } = await running();
  Object.assign(world.machine.machines.get(uid)?.run ?? {}, { tpmLost: true });
  expect(await bench.rest(uid)).toMatchObject({ state: 'running', tpmLost: true });
  expect(world.machine.starts).toHaveLength(1);
});

describe('an edit of a VM that runs', () => {
  const grown = (over: Parameters<typeof someVm>[0] = {}) => someVm({ maxCpus: 4, maxMemoryMiB: 256, ...over });
  const machine = (world: Awaited<ReturnType<typeof ready>>['world']) => world.machine.machines.get(uid)?.run;
  const second = { name: 'lan', mac: '52:54:00:00:00:02', user: { forwards: [{ name: 'web', hostPort: 8080, port: 80, protocol: 'TCP' as const }] } };

  test('that can be made live is made, and remembered', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    const [first] = grown().interfaces;
    const edited = grown({ generation: 2, cpus: 2, memoryMiB: 128, interfaces: first ? [first, second] : [] });
    expect(await want(bench, edited)).toMatchObject({ state: 'running', machine: { cpus: 2, memoryMiB: 128 }, applied: { generation: 2, pending: [] } });
    expect([machine(world), bench.guests.followed.get(uid)]).toMatchObject([{ cpus: 2, memoryMiB: 128 }, { cpus: 2 }]);
    expect([...(machine(world)?.nics.values() ?? [])].map(({ name }) => name)).toEqual(['eth0', 'lan']);
    expect(bench.network.held().get('TCP/8080')).toBe(uid);
    expect(await want(bench, { ...edited, generation: 3, interfaces: [second] })).toMatchObject({ applied: { generation: 3, pending: [] }, forwards: [{ interface: 'lan' }] });
    expect([[...(machine(world)?.nics.values() ?? [])].map(({ name }) => name), bench.network.held().has('TCP/2222')]).toEqual([['lan'], false]);
    expect(world.machine.starts).toHaveLength(1);
  });

  test('that can not waits for a restart, the guest\'s own too, and reverting it clears that', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    const pending = { generation: 1, pending: [{ path: 'cpu.cores', current: '1', desired: '8', restart: true }] };
    expect(await want(bench, grown({ generation: 2, cpus: 8 }))).toMatchObject({ state: 'running', applied: pending });
    expect(machine(world)?.onReboot).toBe('shutdown');
    expect(await want(bench, grown({ generation: 3 }))).toMatchObject({ applied: { generation: 3, pending: [] } });
    expect(machine(world)?.onReboot).toBe('reset');
    await want(bench, grown({ generation: 4, cpus: 8 }));
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject({ state: 'running', lastExit: { reason: 'GuestReset' }, machine: { cpus: 8 }, applied: { generation: 4, pending: [] } });
    expect(world.machine.starts).toHaveLength(2);
  });

  test('that comes between a start that was given up and the next one is told of the next one: the first never makes its machine', async () => {
    const { world, bench } = await ready();
    world.machine.stalls = true;
    await want(bench, grown());
    expect(world.machine.machines.get(uid)).toMatchObject({ stalled: [] });
    delete world.machine.stalls;
    thaw(world.machine, uid);
    expect(await want(bench, grown({ generation: 2, cpus: 2, interfaces: [] }))).toMatchObject({ state: 'running', machine: { cpus: 2 }, applied: { generation: 2, pending: [] } });
    expect(machine(world)).toMatchObject({ cpus: 2, nics: new Map() });
  });

  test.each(Array.from({ length: 14 }, (_, effects) => [effects]))('that comes when an agent was killed at effect %i of a start whose launcher stood still: what the machine has is told, whichever start made it', async (effects) => {
    for (const after of [false, true]) {
      const { world } = await ready();
      const life = mortal();
      life.dieAt(effects, after);
      world.machine.stalls = true;
      await want(await openBench(world, life.around), grown({ powerState: 'Paused' })).catch(() => {});
      delete world.machine.stalls;
      thaw(world.machine, uid);
      const seen = await want(await openBench(world), grown({ generation: 2, cpus: 8, powerState: 'Paused' }));
      expect({ state: seen?.state, upToDate: seen?.applied?.pending.length === 0 }).toEqual({ state: 'paused', upToDate: machine(world)?.cpus === 8 });
    }
  });

  test.each(Array.from({ length: 8 }, (_, effects) => [effects]))('that plugs a card, and is taken back after an agent was killed at effect %i of it, leaves no card', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench } = await ready();
      await want(bench, grown());
      const [first] = grown().interfaces;
      const life = mortal();
      life.dieAt(effects, after);
      await want(await openBench(world, life.around), grown({ generation: 2, interfaces: first ? [first, second] : [] })).catch(() => {});
      const last = await openBench(world);
      expect(await want(last, grown({ generation: 3 }))).toMatchObject({ state: 'running', applied: { generation: 3, pending: [] } });
      expect([[...(machine(world)?.nics.values() ?? [])].map(({ name }) => name), last.network.held().has('TCP/8080')]).toEqual([['eth0'], false]);
    }
  });

  test('that asks for a port which another VM has is told as pending, costs no readiness, and keeps nothing else waiting', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    await want(bench, someVm({ uid: uidOf(2), name: 'other', interfaces: [second] }));
    const [first] = grown().interfaces;
    const refused = await want(bench, grown({ generation: 2, interfaces: first ? [first, second] : [], disks: [...grown().disks, { name: 'more', sizeMiB: 5 }] }));
    expect(refused).toMatchObject({ state: 'running', applied: { pending: [{ path: 'interfaces[lan]', restart: false, why: expect.stringContaining('default/other') }] } });
    expect(refused).not.toHaveProperty('trouble');
    expect([...(machine(world)?.disks.values() ?? [])].map(({ name }) => name)).toContain('more');
  });

  test('of the forwards of a card that could not be plugged yet is what the card has in the end', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    const [first] = grown().interfaces;
    world.machine.refuseChange = 'not now';
    await want(bench, grown({ generation: 2, interfaces: first ? [first, second] : [] }));
    delete world.machine.refuseChange;
    const moved = { ...second, user: { forwards: second.user.forwards.map((each) => ({ ...each, hostPort: 9090 })) } };
    expect(await want(bench, grown({ generation: 3, interfaces: first ? [first, moved] : [] }))).toMatchObject({ applied: { generation: 3, pending: [] } });
    expect([...(machine(world)?.nics.values() ?? [])].map(({ name, backend }) => [name, backend.forwards.map(({ hostPort }) => hostPort)])).toEqual([['eth0', [2222]], ['lan', [9090]]]);
    expect([bench.network.held().has('TCP/8080'), bench.network.held().get('TCP/9090')]).toEqual([false, uid]);
  });

  test.each(Array.from({ length: 8 }, (_, effects) => [effects]))('that moves forwards, and is taken back after an agent was killed at effect %i of it, leaves those that there were', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench } = await ready();
      const wants = (generation: number, hostPort: number) => grown({ generation, interfaces: grown().interfaces.map((nic) => ({ ...nic, user: { forwards: nic.user.forwards.map((each) => ({ ...each, hostPort })) } })) });
      await want(bench, wants(1, 2222));
      const life = mortal();
      life.dieAt(effects, after);
      await want(await openBench(world, life.around), wants(2, 8080)).catch(() => {});
      const last = await openBench(world);
      expect(await want(last, wants(3, 2222))).toMatchObject({ applied: { generation: 3, pending: [] } });
      expect([...(machine(world)?.nics.values() ?? [])].map(({ backend }) => backend.forwards.map(({ hostPort }) => hostPort))).toEqual([[2222]]);
      expect([last.network.held().get('TCP/2222'), last.network.held().has('TCP/8080'), last.hands.ledger.vm(uid)?.plugging]).toEqual([uid, false, []]);
    }
  });

  test.each(Array.from({ length: 6 }, (_, effects) => [effects]))('that asks for more memory and CPUs, and is taken back after an agent was killed at effect %i of it, is undone or told', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench } = await ready();
      await want(bench, grown());
      const life = mortal();
      life.dieAt(effects, after);
      await want(await openBench(world, life.around), grown({ generation: 2, cpus: 2, memoryMiB: 128 })).catch(() => {});
      const last = await openBench(world);
      const seen = await want(last, grown({ generation: 3 }));
      expect(machine(world)?.memoryMiB).toBe(64);
      // A CPU is never taken away from a guest that runs.
      const told = seen?.applied?.pending.some(({ path, desired, restart }) => path === 'cpu.cores' && desired === '1' && restart) ?? false;
      if (machine(world)?.cpus === 2) expect(told).toBe(true);
      expect(seen?.applied?.pending.filter(({ path }) => path !== 'cpu.cores')).toEqual([]);
      rebootGuest(world.machine, uid);
      if (told) expect(await last.rest(uid)).toMatchObject({ state: 'running', machine: { cpus: 1 }, applied: { generation: 3, pending: [] } });
    }
  });

  test('that asks for memory which the guest has not taken yet, and is taken back, is taken back from the guest', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    world.machine.refuseChange = 'the guest has 96 MiB';
    await want(bench, grown({ generation: 2, memoryMiB: 128 }));
    const run = machine(world);
    if (run) run.memoryMiB = 96;
    delete world.machine.refuseChange;
    expect(await want(bench, grown({ generation: 3 }))).toMatchObject({ applied: { generation: 3, pending: [] } });
    expect([machine(world)?.memoryMiB, bench.hands.ledger.vm(uid)?.plugging]).toEqual([64, []]);
  });

  test('that the guest refuses is told as pending, costs no readiness, and is tried again', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    world.machine.refuseChange = 'the guest does not release it';
    const refused = await want(bench, grown({ generation: 2, interfaces: [] }));
    expect(refused).toMatchObject({ state: 'running', applied: { pending: [{ path: 'interfaces[eth0]', restart: false, why: 'the guest does not release it' }] } });
    expect(refused).not.toHaveProperty('trouble');
    delete world.machine.refuseChange;
    world.ms.now += 60_000;
    expect(await bench.rest(uid)).toMatchObject({ applied: { generation: 2, pending: [] } });
    expect(bench.hands.ledger.vm(uid)?.slots).not.toHaveProperty('nic/eth0');
  });

  test('after a restart of the agent the machine is told again what a reboot does', async () => {
    const { world, bench } = await ready();
    await want(bench, grown());
    await want(bench, grown({ generation: 2, cpus: 8 }));
    const run = machine(world);
    if (run) run.onReboot = 'reset';
    await (await openBench(world)).rest(uid);
    expect(machine(world)?.onReboot).toBe('shutdown');
  });
});

describe('a guest', () => {
  const info = { agentVersion: '7.2', addresses: [{ mac: '52:54:00:00:00:01', addresses: ['10.0.2.15'] }] };

  test('is looked into while its machine is there, and what it says is told', async () => {
    const { world, bench } = await ready();
    expect(await want(bench, someVm({ probe: { is: 'tcp', port: 22 } }))).not.toHaveProperty('ready');
    expect(bench.guests.followed.get(uid)).toMatchObject({ probe: { is: 'tcp', port: 22 }, tcp: { address: '127.0.0.1', port: 2222 } });
    bench.guests.show(uid, { info, ready: { is: false, message: 'no' } });
    expect(await bench.rest(uid)).toMatchObject({ guest: info, ready: { is: false }, times: { running: expect.any(String) } });
    bench.guests.show(uid, { info, ready: { is: true, message: 'yes' } });
    expect(await bench.rest(uid)).toMatchObject({ ready: { is: true }, times: { guestReady: expect.any(String) } });
    endRun(world.machine, uid, 'guest');
    const ended = await bench.rest(uid);
    expect([ended?.guest, ended?.ready, bench.guests.followed.has(uid)]).toEqual([undefined, undefined, false]);
  });

  test.each([['serialPattern', true], ['guestAgent', undefined]] as const)('that passed %s before the agent was restarted: %s', async (kind, is) => {
    const { world, bench } = await ready();
    await want(bench, someVm({ probe: kind === 'serialPattern' ? { is: kind, pattern: 'login:' } : { is: kind } }));
    bench.guests.show(uid, { ready: { is: true, message: 'yes' } });
    await bench.rest(uid);
    const next = await openBench(world);
    expect((await next.rest(uid))?.ready?.is).toBe(is);
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

  test.each([
    ['the disk of the ledger stood still', 'write'], ['QEMU stood still', 'powerdown'],
  ] as const)('has its whole grace period after the button was pressed, when %s before that', async (_, slow) => {
    const { world } = await running();
    const bench = await openBench(world);
    await bench.rest(uid);
    const { ledger, hypervisor } = bench.hands;
    const [change, press] = [ledger.change, hypervisor.powerdown];
    if (slow === 'write') ledger.change = async (...a) => { ledger.change = change; await change(...a); world.ms.now += 100_000; };
    else hypervisor.powerdown = async (...a) => { world.ms.now += 100_000; await press(...a); };
    await ledger.accept({ type: 'desire', leaderEpoch: 1, revision: 1_000_000, object: stopped });
    await bench.pass(uid);
    Object.assign(ledger, { change });
    Object.assign(hypervisor, { powerdown: press });
    expect([world.machine.presses, await bench.rest(uid)]).toMatchObject([1, { state: 'stopping' }]);
    world.ms.now += 89_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopping' });
    world.ms.now += 1_000;
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
  });

  test('of which nobody knows whether the button was ever pressed is no reason to pull the plug: an agent that comes too late presses it', async () => {
    const { world, bench } = await running();
    bench.hands.hypervisor.powerdown = () => Promise.reject(new Error('killed'));
    await want(bench, stopped);
    world.ms.now += 200_000;
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'stopping' });
    expect(world.machine.presses).toBe(1);
    world.ms.now += 90_000;
    expect(await next.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
  });

  test('of a machine whose button can not be pressed ends by force all the same', async () => {
    const { world, bench } = await running();
    bench.hands.hypervisor.powerdown = () => Promise.reject(new Error('no such button'));
    await want(bench, stopped);
    // Its grace period is given anew once, when it is tried again to press it.
    for (let seconds = 0; seconds < 240; seconds += 10) {
      await bench.rest(uid);
      world.ms.now += 10_000;
    }
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
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

  test('makes an edit wait that would be made at once, and says so; it is made when the guest goes on', async () => {
    const { world, bench } = await running();
    const cards = { interfaces: [{ name: 'net1', mac: '52:54:00:00:00:99', user: { forwards: [] } }] };
    await want(bench, someVm({ generation: 2, powerState: 'Paused' }));
    expect((await want(bench, someVm({ generation: 3, powerState: 'Paused', ...cards })))?.applied?.pending)
      .toEqual(expect.arrayContaining([expect.objectContaining({ path: 'interfaces[net1]', restart: false, why: 'the guest is paused; it is made when it goes on' })]));
    expect(await want(bench, someVm({ generation: 4, ...cards }))).toMatchObject({ state: 'running', applied: { generation: 4, pending: [] } });
    expect([...(world.machine.machines.get(uid)?.run?.nics.values() ?? [])].map(({ name }) => name)).toEqual(['net1']);
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

  test.each(['hangs', 'broken'] as const)('ends a machine that %s too: its files go when it is gone, not before', async (how) => {
    const { world, bench } = await running();
    Object.assign(world.machine.machines.get(uid) ?? {}, { [how]: true });
    await doom(bench, uid);
    expect(bench.reports.find(({ state }) => state === 'deleting')).toMatchObject({ trouble: { reason: 'GuestUnknown' } });
    expect([bench.absents, world.disks.size, world.machine.machines.size]).toEqual([[uid], 0, 0]);
  });

  test('touches no file while a machine that does not answer can not be killed either', async () => {
    const { world, bench } = await running();
    Object.assign(world.machine.machines.get(uid) ?? {}, { hangs: true });
    world.machine.undying = true;
    await doom(bench, uid);
    expect(bench.reports.at(-1)).toMatchObject({ state: 'deleting', trouble: { reason: 'GuestUnknown' } });
    expect([bench.absents, world.disks.has(uid)]).toEqual([[], true]);
    world.machine.undying = false;
    world.ms.now += 60_000;
    await bench.rest(uid);
    expect(bench.absents).toEqual([uid]);
  });
});

describe('a machine that does not answer', () => {
  const silent = async (how: 'hangs' | 'broken' = 'hangs') => {
    const it = await running();
    Object.assign(it.world.machine.machines.get(uid) ?? {}, { [how]: true });
    return it;
  };

  test.each(['hangs', 'broken'] as const)('is unknown, and nothing is done to it for as long as it shall run (%s)', async (how) => {
    const { world, bench } = await silent(how);
    expect(await bench.rest(uid)).toMatchObject({ state: 'unknown', trouble: { reason: 'GuestUnknown' } });
    world.ms.now += 3_600_000;
    expect(await want(bench, someVm({ generation: 2, memoryMiB: 128 }))).toMatchObject({ state: 'unknown' });
    expect(world.machine.machines.get(uid)?.run).toBeDefined();
  });

  test('that shall stop is ended after its grace period, also by another agent', async () => {
    const { world, bench } = await silent();
    expect(await want(bench, stopped)).toMatchObject({ state: 'unknown' });
    world.ms.now += 60_000;
    const next = await openBench(world);
    expect(await next.rest(uid)).toMatchObject({ state: 'unknown' });
    expect([world.machine.presses, world.machine.machines.get(uid)?.run === undefined]).toEqual([0, false]);
    world.ms.now += 30_000;
    expect(await next.rest(uid)).toMatchObject({ state: 'stopped', lastExit: { reason: 'Forced' } });
  });

  test('that shall stop and answers again within the grace period has its button pressed', async () => {
    const { world, bench } = await silent();
    await want(bench, stopped);
    Object.assign(world.machine.machines.get(uid) ?? {}, { hangs: false });
    expect(await bench.rest(uid)).toMatchObject({ state: 'stopping' });
    expect(world.machine.presses).toBe(1);
  });

  test.each([
    ['by force', 'hangs', { ...stopped, stop: { mode: 'Force' as const, gracePeriodSeconds: 90 } }, 'stopped'],
    ['while its guest can not go on anyway', 'broken', stopped, 'stopped'],
    ['to be restarted, when its guest can not go on', 'broken', someVm({ generation: 2, restartToken: 'again' }), 'running'],
  ] as const)('that shall stop %s is ended at once', async (_, how, desire, state) => {
    const { bench } = await silent(how);
    expect(await want(bench, desire)).toMatchObject({ state, lastExit: { reason: 'Forced' } });
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
