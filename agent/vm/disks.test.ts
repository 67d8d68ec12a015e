import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { endRun, rebootGuest } from '../hypervisor/fake.ts';
import { type Bench, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';

const uid = uidOf(1);
const root = { name: 'root', imageUid: uidOf(900) };
const data = { name: 'data', sizeMiB: 10 };
const more = { name: 'more', sizeMiB: 20 };
const running = async () => {
  const world = nodeWorld();
  await withImage(world);
  const bench = await openBench(world);
  await want(bench, someVm());
  const machine = () => [...(world.machine.machines.get(uid)?.run?.disks.values() ?? [])].map(({ name }) => name).filter((name) => name !== 'seed_');
  const files = () => [...(world.disks.get(uid)?.disks.keys() ?? [])];
  return { world, bench, machine, files };
};
const edited = (generation: number, disks: DesiredVm['disks'], removed: readonly string[] = [], over: Partial<DesiredVm> = {}) =>
  someVm({ generation, disks, ...(removed.length === 0 ? {} : { removedDisks: removed.map((name) => ({ name })) }), ...over });
const upToDate = (generation: number) => ({ state: 'running', applied: { generation, pending: [] } });

describe('a disk that is added while the guest runs', () => {
  test('is made, then plugged, and must be there from then on', async () => {
    const { world, bench, machine, files } = await running();
    expect(await want(bench, edited(2, [root, data, more]))).toMatchObject({ ...upToDate(2), disks: [{ name: 'root' }, { name: 'data' }, { name: 'more', sizeMiB: 20, state: 'Ready' }] });
    expect([machine(), files(), world.machine.starts.length]).toEqual([['root', 'data', 'more'], ['root', 'data', 'more'], 1]);
    expect(bench.hands.ledger.vm(uid)).toMatchObject({ disks: ['root', 'data', 'more'], plugging: [], slots: { 'disk/more': 4 } });
    endRun(world.machine, uid, 'crashed');
    bench.storage.lose(uid, 'more');
    expect(await want(bench, edited(3, [root, data, more], [], { restartToken: 'a' }))).toMatchObject({ trouble: { reason: 'DiskMissing', final: true } });
    expect(files()).toEqual(['root', 'data']);
  });

  test('waits for its image, which costs the VM no readiness', async () => {
    const { world, bench, machine } = await running();
    const late = { name: 'late', imageUid: uidOf(901) };
    const waits = await want(bench, edited(2, [root, data, late]));
    expect(waits).toMatchObject({ state: 'running', applied: { generation: 1, pending: [{ path: 'disks[late]', current: 'absent', desired: 'present', restart: false, why: 'its image is not on the node yet' }] } });
    expect(waits).not.toHaveProperty('trouble');
    world.images.want({ kind: 'image', uid: uidOf(901), namespace: 'default', name: 'late', generation: 1, url: 'http://images/late.qcow2', format: 'qcow2' });
    await new Promise((resolve) => setImmediate(resolve));
    expect(await bench.rest(uid)).toMatchObject(upToDate(2));
    expect(machine()).toEqual(['root', 'data', 'late']);
  });

  test('that can not be made is told as pending, and the others go on', async () => {
    const { bench, machine } = await running();
    bench.storage.failNext('create', new Fault('NoSpace', 'no room'));
    const refused = await want(bench, edited(2, [root, data, more, { name: 'next', sizeMiB: 5 }]));
    expect(refused).toMatchObject({ state: 'running', applied: { pending: [{ path: 'disks[more]', restart: false, why: 'no room' }] } });
    expect(refused).not.toHaveProperty('trouble');
    expect(machine()).toEqual(['root', 'data', 'next']);
  });

  test('needs a slot: the seventeenth device waits until one is free', async () => {
    const { bench, machine } = await running();
    const nic = (n: number) => ({ name: `n${n}`, mac: `52:54:00:00:01:${String(n).padStart(2, '0')}`, user: { forwards: [] } });
    const disks = (from: number) => Array.from({ length: 6 }, (_, n) => ({ name: `d${from + n}`, sizeMiB: 1 }));
    const interfaces = Array.from({ length: 7 }, (_, n) => nic(n));
    await want(bench, edited(2, [root, data, ...disks(0)], [], { interfaces }));
    expect(machine().length).toBe(8);
    const names = disks(0).map(({ name }) => name);
    expect(await want(bench, edited(3, [root, data, ...disks(6)], names, { interfaces }))).toMatchObject(upToDate(3));
    expect(machine().toSorted()).toEqual(['d10', 'd11', 'd6', 'd7', 'd8', 'd9', 'data', 'root']);
    expect(Math.max(...Object.values(bench.hands.ledger.vm(uid)?.slots ?? {}))).toBeLessThan(16);
  });
});

describe('a disk that an edit takes away', () => {
  test('is released by the guest first; then its file goes, and its name is free', async () => {
    const { world, bench, machine, files } = await running();
    world.machine.refuseChange = 'the guest does not release it';
    expect(await want(bench, edited(2, [root], ['data']))).toMatchObject({
      state: 'running', applied: { pending: [{ path: 'disks[data]', current: 'present', desired: 'absent', restart: false, why: 'the guest does not release it' }] },
      disks: [{ name: 'root' }, { name: 'data', state: 'Ready' }],
    });
    expect([machine(), files()]).toEqual([['root', 'data'], ['root', 'data']]);
    delete world.machine.refuseChange;
    world.ms.now += 60_000;
    expect(await bench.rest(uid)).toMatchObject({ ...upToDate(2), disks: [{ name: 'root' }] });
    expect([machine(), files(), bench.hands.ledger.vm(uid)?.disks]).toEqual([['root'], ['root'], ['root']]);
    expect(await want(bench, edited(3, [root, data]))).toMatchObject(upToDate(3));
    expect(machine()).toEqual(['root', 'data']);
  });

  test('that is never released goes at the next power cycle, and keeps nothing else waiting', async () => {
    const { world, bench, machine, files } = await running();
    world.machine.refuseSlot = bench.hands.ledger.vm(uid)?.slots['disk/data'];
    expect(await want(bench, edited(2, [root, more], ['data']))).toMatchObject({ applied: { pending: [{ path: 'disks[data]' }] } });
    expect(machine()).toEqual(['root', 'data', 'more']);
    endRun(world.machine, uid, 'guest');
    await want(bench, edited(3, [root, more], ['data'], { restartToken: 'x' }));
    expect([machine(), files()]).toEqual([['root', 'more'], ['root', 'more']]);
  });

  test('of a VM that is stopped is removed at once', async () => {
    const { world, bench, files } = await running();
    await want(bench, edited(2, [root, data], [], { powerState: 'Stopped' }));
    endRun(world.machine, uid, 'guest');
    await bench.rest(uid);
    expect(await want(bench, edited(3, [root], ['data'], { powerState: 'Stopped' }))).toMatchObject({ state: 'stopped', disks: [{ name: 'root' }] });
    expect(files()).toEqual(['root']);
  });

  test('and from which the guest booted stays until the next power cycle, the guest\'s own too', async () => {
    const { world, bench, machine, files } = await running();
    expect(await want(bench, edited(2, [data], ['root']))).toMatchObject({
      applied: { pending: [{ path: 'disks[root]', restart: true }, { path: 'disks[].bootOrder', current: 'root', desired: 'data', restart: true }] },
    });
    expect([machine(), files()]).toEqual([['root', 'data'], ['root', 'data']]);
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(2));
    expect([machine(), files()]).toEqual([['data'], ['data']]);
  });
});

describe('a disk that was taken away, and under whose name a CD drive has come before the guest released it', () => {
  const drive = (imageUid?: string): DesiredVm['disks'][number] => ({ name: 'data', cdrom: true, ...(imageUid === undefined ? {} : { imageUid }) });

  test('goes once no machine has it, the medium of the drive stays; a disk of that name that comes later is a fresh one', async () => {
    const { world, bench, machine, files } = await running();
    const file = world.disks.get(uid)?.disks.get('data');
    world.machine.refuseSlot = bench.hands.ledger.vm(uid)?.slots['disk/data'];
    await want(bench, edited(2, [root], ['data']));
    expect(await want(bench, edited(3, [root, drive(uidOf(900))]))).toMatchObject({ applied: { pending: [{ path: 'disks[data]', current: 'disk', desired: 'cdrom', restart: true }] } });
    expect([machine(), files()]).toEqual([['root', 'data'], ['root', 'data']]);
    world.machine.refuseSlot = undefined;
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(3));
    expect([machine(), files(), [...(world.disks.get(uid)?.media.get('data')?.keys() ?? [])]]).toEqual([['root'], ['root'], [uidOf(900)]]);
    await want(bench, edited(4, [root, data]));
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(4));
    expect([machine(), world.disks.get(uid)?.disks.get('data') === file]).toEqual([['root', 'data'], false]);
  });

  test('stays when nobody has taken it away: a cluster restored to an older state says no word about it', async () => {
    const { world, bench, files } = await running();
    const file = world.disks.get(uid)?.disks.get('data');
    await want(bench, edited(2, [root, drive()]));
    rebootGuest(world.machine, uid);
    await bench.rest(uid);
    expect(files()).toEqual(['root', 'data']);
    await want(bench, edited(3, [root, data]));
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(3));
    expect(world.disks.get(uid)?.disks.get('data')).toBe(file);
  });
});

describe('a disk that the spec merely omits (a cluster restored to an older state)', () => {
  test('stays with the guest and on the node, is told, and is there when the spec has it again', async () => {
    const { world, bench, machine, files } = await running();
    await want(bench, edited(5, [root, data, more]));
    const forgotten = await want(bench, edited(2, [root, data]));
    expect(forgotten).toMatchObject({
      state: 'running', disks: [{ name: 'root' }, { name: 'data' }, { name: 'more', state: 'Unclaimed' }],
      applied: { pending: [{ path: 'disks[more]', restart: false, why: expect.stringContaining('no edit took it away') }] },
    });
    expect([machine(), files()]).toEqual([['root', 'data', 'more'], ['root', 'data', 'more']]);
    endRun(world.machine, uid, 'guest');
    expect(await want(bench, edited(6, [root, data], [], { restartToken: 'x' }))).toMatchObject({ state: 'running', disks: [{}, {}, { name: 'more', state: 'Unclaimed' }] });
    expect([machine(), files()]).toEqual([['root', 'data'], ['root', 'data', 'more']]);
    const file = world.disks.get(uid)?.disks.get('more');
    expect(await want(bench, edited(7, [root, data, more], [], { restartToken: 'x' }))).toMatchObject(upToDate(7));
    expect(world.disks.get(uid)?.disks.get('more')).toBe(file);
  });
});

describe('the size of a disk', () => {
  const sizes = (world: Awaited<ReturnType<typeof running>>['world']) => [...(world.machine.machines.get(uid)?.run?.sizes.values() ?? [])];

  test.each([
    ['a blank disk', [root, { ...data, sizeMiB: 30 }], 30],
    ['one from an image that had the size of that', [{ ...root, sizeMiB: 2048 }, data], 2048],
  ])('is raised while the guest runs: %s', async (_, disks, sizeMiB) => {
    const { world, bench } = await running();
    const now = await want(bench, edited(2, disks));
    expect(now).toMatchObject(upToDate(2));
    expect([sizes(world), now?.disks.map((each) => each.sizeMiB).includes(sizeMiB)]).toEqual([[sizeMiB], true]);
  });

  test('is never lowered, which is told; no restart would help', async () => {
    const { world, bench } = await running();
    const pending = [{ path: 'disks[root].size', current: '1Gi', desired: '512Mi', restart: false, why: expect.stringContaining('never shrinks') }];
    expect(await want(bench, edited(2, [{ ...root, sizeMiB: 512 }, data]))).toMatchObject({ state: 'running', applied: { pending } });
    expect([sizes(world), world.machine.machines.get(uid)?.run?.onReboot]).toEqual([[], 'reset']);
    endRun(world.machine, uid, 'guest');
    expect(await want(bench, edited(3, [{ ...root, sizeMiB: 512 }, data], [], { restartToken: 'x' }))).toMatchObject({ state: 'running', applied: { pending } });
  });

  test('is raised at the next start when the guest did not run', async () => {
    const { world, bench } = await running();
    await want(bench, edited(2, [root, data], [], { powerState: 'Stopped' }));
    endRun(world.machine, uid, 'guest');
    await bench.rest(uid);
    expect(await want(bench, edited(3, [root, { ...data, sizeMiB: 99 }]))).toMatchObject({ ...upToDate(3), disks: [{}, { name: 'data', sizeMiB: 99 }] });
  });
});

describe('what a disk is made with', () => {
  const there = (world: Awaited<ReturnType<typeof running>>['world'], name: string) => [...(world.machine.machines.get(uid)?.run?.disks.values() ?? [])].find((disk) => disk.name === name);

  test.each<[string, Partial<DesiredVm['disks'][number]>, object]>([
    ['bus', { bus: 'scsi' }, { path: 'disks[data].bus', current: 'virtio', desired: 'scsi', restart: true }],
    ['readOnly', { readOnly: true }, { path: 'disks[data].readOnly', current: 'false', desired: 'true', restart: true }],
    ['cache', { cache: 'none' }, { path: 'disks[data].cache', current: 'writeback', desired: 'none', restart: true }],
  ])('waits for a restart: %s', async (_, member, pending) => {
    const { world, bench } = await running();
    expect(await want(bench, edited(2, [root, { ...data, ...member }]))).toMatchObject({ state: 'running', applied: { pending: [pending] } });
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(2));
    expect(there(world, 'data')).toMatchObject(member);
  });

  test('its limits change at once, and are lifted', async () => {
    const { world, bench } = await running();
    expect(await want(bench, edited(2, [root, { ...data, limits: { iops: 100, mibPerSecond: 2 } }]))).toMatchObject(upToDate(2));
    expect(there(world, 'data')?.limits).toEqual({ iops: 100, mibPerSecond: 2 });
    expect(await want(bench, edited(3, [root, data]))).toMatchObject(upToDate(3));
    expect(there(world, 'data')?.limits).toEqual({});
  });

  test.each(Array.from({ length: 6 }, (_, effects) => [effects]))('its limits are those of before when an edit of them is taken back after an agent was killed at effect %i of it', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench } = await running();
      await want(bench, edited(2, [root, { ...data, limits: { iops: 7 } }]));
      const next = await dyingAt(world, effects, after, (dying) => want(dying, edited(3, [root, { ...data, limits: { iops: 100 } }])));
      expect(await want(next, edited(4, [root, { ...data, limits: { iops: 7 } }]))).toMatchObject(upToDate(4));
      expect([there(world, 'data')?.limits, next.hands.ledger.vm(uid)?.plugging]).toEqual([{ iops: 7 }, []]);
    }
  });

  test.each<[NonNullable<DesiredVm['disks'][number]['bus']>, boolean, boolean]>([['virtio', true, true], ['scsi', true, true], ['nvme', true, false], ['sata', false, false]])(
    'on bus %s it is plugged while the guest runs: %s, and grown: %s', async (bus, plugs, grows) => {
      const { world, bench, machine } = await running();
      const disk = { ...more, bus };
      expect((await want(bench, edited(2, [root, data, disk])))?.applied?.pending.map(({ restart }) => restart)).toEqual(plugs ? [] : [true]);
      if (!plugs) rebootGuest(world.machine, uid);
      await bench.rest(uid);
      expect([machine(), there(world, 'more')?.bus]).toEqual([['root', 'data', 'more'], bus]);
      expect((await want(bench, edited(3, [root, data, { ...disk, sizeMiB: 40 }])))?.applied?.pending).toEqual(grows ? [] : [{ path: 'disks[more].size', current: '20Mi', desired: '40Mi', restart: true }]);
      if (!grows) rebootGuest(world.machine, uid);
      expect(await bench.rest(uid)).toMatchObject({ ...upToDate(3), disks: [{}, {}, { name: 'more', sizeMiB: 40 }] });
      expect((await want(bench, edited(4, [root, data], ['more'])))?.applied?.pending.map(({ restart }) => restart)).toEqual(plugs ? [] : [true]);
    });

  test('SATA ports are kept apart from root ports: six of them, the lowest that is free', async () => {
    const { world, bench } = await running();
    const sata = (...names: string[]) => names.map((name) => ({ name, sizeMiB: 1, bus: 'sata' as const }));
    const again = async (generation: number, disks: DesiredVm['disks'], removed: string[] = []) => {
      await want(bench, edited(generation, disks, removed));
      rebootGuest(world.machine, uid);
      await bench.rest(uid);
      return [...(world.machine.machines.get(uid)?.run?.disks.values() ?? [])].filter(({ bus }) => bus === 'sata').map(({ name, port }) => `${name} ${port}`);
    };
    expect(await again(2, [root, ...sata('a', 'b', 'c', 'd', 'e', 'f')], ['data'])).toEqual(['a 0', 'b 1', 'c 2', 'd 3', 'e 4', 'f 5']);
    expect(await again(3, [root, ...sata('b', 'f', 'g')], ['a', 'c', 'd', 'e'])).toEqual(['b 1', 'f 5', 'g 0']);
  });
});

describe('what a machine boots from', () => {
  const order = (world: Awaited<ReturnType<typeof running>>['world']) =>
    [...(world.machine.machines.get(uid)?.run?.disks.values() ?? [])].filter(({ bootIndex }) => bootIndex !== undefined).toSorted((a, b) => (a.bootIndex ?? 0) - (b.bootIndex ?? 0)).map(({ name }) => name);

  test('is the first disk, or those with a bootOrder; a new order waits for a restart', async () => {
    const { world, bench } = await running();
    expect(order(world)).toEqual(['root']);
    const pending = [{ path: 'disks[].bootOrder', current: 'root', desired: 'data, root', restart: true }];
    expect(await want(bench, edited(2, [{ ...root, bootOrder: 7 }, { ...data, bootOrder: 3 }]))).toMatchObject({ applied: { pending } });
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(2));
    expect(order(world)).toEqual(['data', 'root']);
  });

  test('a disk that is plugged is not among them before the next start', async () => {
    const { world, bench, machine } = await running();
    const pending = [{ path: 'disks[].bootOrder', current: 'root', desired: 'more', restart: true }];
    expect(await want(bench, edited(2, [root, data, { ...more, bootOrder: 1 }]))).toMatchObject({ applied: { pending } });
    expect([machine(), order(world)]).toEqual([['root', 'data', 'more'], ['root']]);
    rebootGuest(world.machine, uid);
    expect(await bench.rest(uid)).toMatchObject(upToDate(2));
    expect(order(world)).toEqual(['more']);
  });
});

describe('a CD drive', () => {
  const cd = (imageUid?: string): DesiredVm['disks'][number] => ({ name: 'cd', cdrom: true, ...(imageUid === undefined ? {} : { imageUid }) });
  const [first, second] = [uidOf(900), uidOf(902)];
  const booted = async () => {
    const it = await running();
    const drives = () => [...(it.world.machine.machines.get(uid)?.run?.drives.values() ?? [])].map(({ name, medium }) => `${name} ${medium?.split('.')[1] ?? 'empty'}`);
    const media = () => [...(it.world.disks.get(uid)?.media.get('cd')?.keys() ?? [])];
    return { ...it, drives, media };
  };
  const another = async (world: Awaited<ReturnType<typeof running>>['world']) => {
    world.images.want({ kind: 'image', uid: second, namespace: 'default', name: 'iso', generation: 1, url: 'http://images/iso.raw', format: 'raw' });
    await new Promise((resolve) => setImmediate(resolve));
  };

  test('is plugged with its medium, which is changed, taken out and put in while the guest runs; one file is kept', async () => {
    const { world, bench, machine, drives, media } = await booted();
    expect(await want(bench, edited(2, [root, data, cd(first)]))).toMatchObject({ ...upToDate(2), disks: [{}, {}, { name: 'cd', state: 'Ready', sizeMiB: 1024 }] });
    expect([drives(), media(), machine()]).toEqual([[`cd ${first}`], [first], ['root', 'data']]);
    await another(world);
    expect(await want(bench, edited(3, [root, data, cd(second)]))).toMatchObject(upToDate(3));
    expect([drives(), media()]).toEqual([[`cd ${second}`], [second]]);
    expect(await want(bench, edited(4, [root, data, cd()]))).toMatchObject({ ...upToDate(4), disks: [{}, {}, { name: 'cd', state: 'Empty' }] });
    expect([drives(), media()]).toEqual([['cd empty'], []]);
    expect(await want(bench, edited(5, [root, data, cd(first)]))).toMatchObject(upToDate(5));
    expect(await want(bench, edited(6, [root, data], ['cd']))).toMatchObject({ ...upToDate(6), disks: [{ name: 'root' }, { name: 'data' }] });
    expect([drives(), media(), world.machine.starts.length]).toEqual([[], [], 1]);
  });

  test('keeps its medium while the guest holds it, or while the next one is not there yet, and says so', async () => {
    const { world, bench, drives, media } = await booted();
    await want(bench, edited(2, [root, data, cd(first)]));
    const waits = { path: 'disks[cd].cdrom.image', current: first, desired: second, restart: false };
    expect(await want(bench, edited(3, [root, data, cd(second)]))).toMatchObject({ applied: { pending: [{ ...waits, why: 'its image is not on the node yet' }] } });
    world.machine.refuseChange = 'the guest holds the medium locked';
    await another(world);
    expect(await bench.rest(uid)).toMatchObject({ state: 'running', applied: { pending: [{ ...waits, why: 'the guest holds the medium locked' }] } });
    expect([drives(), media()]).toEqual([[`cd ${first}`], [first, second]]);
    endRun(world.machine, uid, 'guest');
    delete world.machine.refuseChange;
    expect(await want(bench, edited(4, [root, data, cd(second)], [], { restartToken: 'x' }))).toMatchObject(upToDate(4));
    expect([drives(), media()]).toEqual([[`cd ${second}`], [second]]);
  });

  test('whose medium vanished from the node gets it anew: it is no disk that could be lost', async () => {
    const { world, bench, drives } = await booted();
    await want(bench, edited(2, [root, data, cd(first)]));
    endRun(world.machine, uid, 'guest');
    world.disks.get(uid)?.media.clear();
    expect(await want(bench, edited(3, [root, data, cd(first)], [], { restartToken: 'x' }))).toMatchObject(upToDate(3));
    expect(drives()).toEqual([`cd ${first}`]);
  });

  test('can be what the machine boots from', async () => {
    const { world, bench } = await booted();
    await want(bench, edited(2, [{ ...root, bootOrder: 2 }, data, { ...cd(first), bootOrder: 1 }]));
    rebootGuest(world.machine, uid);
    await bench.rest(uid);
    const run = world.machine.machines.get(uid)?.run;
    expect([[...(run?.drives.values() ?? [])][0]?.bootIndex, [...(run?.disks.values() ?? [])][0]?.bootIndex]).toEqual([0, 1]);
    expect((await want(bench, edited(3, [{ ...root, bootOrder: 2 }, data], ['cd'])))?.applied?.pending).toEqual([]);
  });

  test.each(Array.from({ length: 10 }, (_, effects) => [effects]))('an agent that dies at effect %i of a change of medium ends with one medium, the new one', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench, drives, media } = await booted();
      await want(bench, edited(2, [root, data, cd(first)]));
      await another(world);
      const next = await dyingAt(world, effects, after, (dying) => want(dying, edited(3, [root, data, cd(second)])));
      await want(next, edited(4, [root, data, cd(second)]));
      expect([drives(), media()]).toEqual([[`cd ${second}`], [second]]);
    }
  });

  test.each(Array.from({ length: 10 }, (_, effects) => [effects]))('has its medium when a change of that is taken back after an agent was killed at effect %i of it', async (effects) => {
    for (const after of [false, true]) {
      const { world, bench, drives, media } = await booted();
      await want(bench, edited(2, [root, data, cd(first)]));
      await another(world);
      const next = await dyingAt(world, effects, after, (dying) => want(dying, edited(3, [root, data, cd(second)])));
      expect(await want(next, edited(4, [root, data, cd(first)]))).toMatchObject(upToDate(4));
      expect([drives(), media(), next.hands.ledger.vm(uid)?.plugging]).toEqual([[`cd ${first}`], [first], []]);
    }
  });
});

/** An agent that dies at its n-th effect, before or after that has happened, and the next one on the same node. */
const dyingAt = async (world: Parameters<typeof openBench>[0], effects: number, after: boolean, doing: (bench: Bench) => Promise<unknown>): Promise<Bench> => {
  let left = effects;
  let dead = false;
  const bench = await openBench(world, async (effect) => {
    if (dead) throw new Error('this agent is dead');
    left -= 1;
    if (left >= 0) return effect();
    dead = true;
    if (after) await effect();
    throw new Error('killed');
  });
  await doing(bench).catch(() => undefined);
  return openBench(world);
};

test.each(Array.from({ length: 10 }, (_, effects) => [effects]))('a disk that is edited after an agent died at effect %i of its plug is as it is wanted then', async (effects) => {
  for (const after of [false, true]) {
    const { world, machine, files } = await running();
    const next = await dyingAt(world, effects, after, (bench) => want(bench, edited(2, [root, data, more])));
    expect(await want(next, edited(3, [root, data, { ...more, limits: { iops: 7 } }]))).toMatchObject(upToDate(3));
    expect([...(world.machine.machines.get(uid)?.run?.disks.values() ?? [])].find(({ name }) => name === 'more')?.limits).toEqual({ iops: 7 });
    expect([machine(), files(), next.hands.ledger.vm(uid)?.plugging]).toEqual([['root', 'data', 'more'], ['root', 'data', 'more'], []]);
  }
});

// Effects of a plug: the desire, the disk, the intent, QEMU, two records. Of an unplug: the desire, QEMU, a record, the file, a record.
test.each(Array.from({ length: 10 }, (_, effects) => [effects]))('an agent that dies at effect %i of a plug leaves a disk that can be taken away whole', async (effects) => {
  for (const after of [false, true]) {
    const { world, machine, files } = await running();
    const next = await dyingAt(world, effects, after, (bench) => want(bench, edited(2, [root, data, more])));
    await want(next, edited(3, [root, data], ['more']));
    expect({ machine: machine(), files: files() }).toEqual({ machine: ['root', 'data'], files: ['root', 'data'] });
  }
});

test.each(Array.from({ length: 10 }, (_, effects) => [effects]))('one that dies at effect %i of an unplug removes no file that a machine has, and ends it', async (effects) => {
  for (const after of [false, true]) {
    const { world, machine, files } = await running();
    const next = await dyingAt(world, effects, after, (bench) => want(bench, edited(2, [root], ['data'])));
    for (const name of machine()) expect(files()).toContain(name);
    await want(next, edited(3, [root], ['data']));
    expect({ machine: machine(), files: files() }).toEqual({ machine: ['root'], files: ['root'] });
  }
});
