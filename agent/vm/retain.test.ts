import { describe, expect, test } from '@jest/globals';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { maxKeptDisks } from '#crds/wire/kept.ts';
import { endRun } from '../hypervisor/fake.ts';
import { doom, mortal, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';
import { toldDisks } from './retain.ts';

const [first, second] = [uidOf(1), uidOf(2)];
const namespaceUid = uidOf(700);
const root = { name: 'root', imageUid: uidOf(900) };
const data = { name: 'data', sizeMiB: 10, retain: true as const };
const machine = (uid: string, over: Partial<DesiredVm> = {}) => someVm({ uid, namespaceUid, disks: [root, data], ...over });
const owner = { namespace: 'default', namespaceUid, vm: 'web', vmUid: first, disk: 'data' };

/** A node on which a VM with a retained disk has run and was deleted. */
const kept = async () => {
  const world = nodeWorld();
  await withImage(world);
  const bench = await openBench(world);
  await want(bench, machine(first));
  const file = world.disks.get(first)?.disks.get('data');
  await doom(bench, first);
  const [disk] = bench.hands.ledger.disks();
  if (!file || !disk) throw new Error('nothing was kept');
  return { world, bench, file, disk };
};

describe('a disk that is retained', () => {
  test('outlives its VM under a uid of its own; the rest of the VM is gone', async () => {
    const { world, bench, file, disk } = await kept();
    expect([world.disks.has(first), world.shelf.ended.has(first), bench.absents]).toEqual([false, true, [first]]);
    expect([...world.kept]).toEqual([[disk.uid, { name: 'data', file, record: expect.any(String) }]]);
    expect(toldDisks(bench.hands.ledger.disks())).toEqual([{ uid: disk.uid, owner, sizeMiB: 10 }]);
    expect(bench.hands.ledger.held()).toEqual([]);
  });

  test('waits when the node keeps as many as it can tell, also when two come at once', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    const [a, b] = [machine(first), machine(second, { name: 'other', interfaces: [] })];
    for (const vm of [a, b]) await want(bench, vm);
    const others = Array.from({ length: maxKeptDisks - 1 }, (_, at) => uidOf(1_000 + at));
    for (const uid of others) await bench.hands.ledger.putDisk({ kind: 'disk', uid, owner, order: { leaderEpoch: 1, revision: 1 }, ending: false, sizeMiB: 1, moving: null });
    await Promise.all([first, second].map((uid) => doom(bench, uid)));
    expect([toldDisks(bench.hands.ledger.disks()).length, bench.absents.length]).toEqual([maxKeptDisks, 1]);
    const waiting = bench.absents[0] === first ? second : first;
    expect(bench.reports.findLast(({ uid }) => uid === waiting)).toMatchObject({ state: 'deleting', trouble: { reason: 'KeptDisksFull', final: false } });
  });

  test('and can not be kept now, holds its VM up in nothing else: it stops, starts, and comes up again after a crash at once', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    await want(bench, machine(first, { disks: [root, data, { name: 'more', sizeMiB: 10 }] }));
    for (let at = 0; at < maxKeptDisks; at += 1) await bench.hands.ledger.putDisk({ kind: 'disk', uid: uidOf(1_000 + at), owner, order: { leaderEpoch: 1, revision: 1 }, ending: false, sizeMiB: 1, moving: null });
    const without = (over: Partial<DesiredVm>) => machine(first, { restartPolicy: 'Always', stop: { mode: 'Force', gracePeriodSeconds: 0 }, disks: [root], removedDisks: [{ name: 'data' }, { name: 'more' }], ...over });
    expect(await want(bench, without({ generation: 2 }))).toMatchObject({ state: 'running', trouble: { reason: 'KeptDisksFull' } });
    expect(await want(bench, without({ generation: 3, powerState: 'Stopped' }))).toMatchObject({ state: 'stopped' });
    expect(await want(bench, without({ generation: 4 }))).toMatchObject({ state: 'running' });
    endRun(world.machine, first, 'crashed');
    expect(await bench.rest(first)).toMatchObject({ state: 'ended', lastExit: { reason: 'QemuCrashed' } });
    world.ms.now += 11_000;
    expect(await bench.rest(first)).toMatchObject({ state: 'running', trouble: { reason: 'KeptDisksFull' } });
    expect([...(world.disks.get(first)?.disks.keys() ?? [])]).toEqual(['root', 'data']);
  });

  test('is that of the VM which is made anew under its name, also after a restart of the agent; it grows to what is asked for', async () => {
    const { world, file, disk } = await kept();
    const bench = await openBench(world);
    const report = await want(bench, machine(second, { disks: [root, { ...data, sizeMiB: 30, kept: disk.uid }] }));
    expect(report).toMatchObject({ state: 'running', disks: [{ name: 'root' }, { name: 'data', sizeMiB: 30, state: 'Ready' }] });
    expect(world.disks.get(second)?.disks.get('data')).toBe(file);
    expect([world.kept.size, bench.hands.ledger.disks()]).toEqual([0, []]);
  });

  test.each(['damaged', undefined])('is that of its VM also when its record in the ledger is %s meanwhile', async (text) => {
    const { world, file, disk } = await kept();
    if (text === undefined) world.shelf.files.delete(`${disk.uid}.json`);
    else world.shelf.files.set(`${disk.uid}.json`, text);
    const bench = await openBench(world);
    expect([toldDisks(bench.hands.ledger.disks()), bench.hands.ledger.troubles()]).toEqual([[{ uid: disk.uid, owner, sizeMiB: 10 }], []]);
    expect(await want(bench, machine(second, { disks: [root, { ...data, kept: disk.uid }] }))).toMatchObject({ state: 'running' });
    expect([world.disks.get(second)?.disks.get('data') === file, (await openBench(world)).hands.ledger.disks()]).toEqual([true, []]);
  });

  test('is taken back without being named too: a restored cluster may have forgotten it', async () => {
    const { world, bench, file } = await kept();
    expect(await want(bench, machine(second))).toMatchObject({ state: 'running' });
    expect(world.disks.get(second)?.disks.get('data')).toBe(file);
  });

  test.each<[string, Partial<DesiredVm>]>([
    ['another name', { name: 'other' }],
    ['another namespace', { namespace: 'elsewhere' }],
    ['a namespace of the same name that came later', { namespaceUid: uidOf(701) }],
  ])('is not that of a VM of %s, and that gets no other disk in its place', async (_of, over) => {
    const { world, bench, disk } = await kept();
    const report = await want(bench, machine(second, { disks: [root, { ...data, kept: disk.uid }], ...over }));
    expect(report).toMatchObject({ trouble: { reason: 'DiskMissing', message: expect.stringContaining('is not for this VM'), final: true } });
    expect([world.machine.starts.length, world.disks.get(second)?.disks.has('data') ?? false, world.kept.size]).toEqual([1, false, 1]);
  });

  test('that a VM shall have and that the node does not have any more is never made anew', async () => {
    const bench = await openBench(nodeWorld());
    const report = await want(bench, machine(second, { disks: [{ ...data, kept: uidOf(800) }] }));
    expect(report).toMatchObject({ trouble: { reason: 'DiskMissing', message: expect.stringContaining('never made anew'), final: true } });
    expect(bench.storage.world.size).toBe(0);
  });

  test('is kept when it is taken out of the list, and is the same one when it comes back while the guest runs', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    await want(bench, machine(first));
    const file = world.disks.get(first)?.disks.get('data');
    await want(bench, machine(first, { generation: 2, disks: [root], removedDisks: [{ name: 'data' }] }));
    const [disk] = bench.hands.ledger.disks();
    expect([disk?.owner, disk?.moving, world.disks.get(first)?.disks.has('data')]).toEqual([owner, null, false]);
    expect(await want(bench, machine(first, { generation: 3, disks: [root, { ...data, ...(disk ? { kept: disk.uid } : {}) }] }))).toMatchObject({ state: 'running', applied: { generation: 3, pending: [] } });
    expect([world.disks.get(first)?.disks.get('data'), bench.hands.ledger.disks(), world.machine.starts.length]).toEqual([file, [], 1]);
  });

  test('is one for which that was said last: of the desire, also when a later one omits the disk, or of the tombstone', async () => {
    const said: [Partial<DesiredVm>, string[]][] = [
      [{ disks: [root] }, ['data']],
      [{ disks: [root, { name: 'data', sizeMiB: 10 }] }, []],
      [{ disks: [root, { name: 'data', sizeMiB: 10 }], name: 'web' }, ['tomb']],
    ];
    for (const [over, names] of said) {
      const bench = await openBench(await (async () => { const world = nodeWorld(); await withImage(world); return world; })());
      await want(bench, machine(first));
      await want(bench, machine(first, { generation: 2, ...over }));
      if (names.includes('tomb')) await doom(bench, first, { namespace: 'default', namespaceUid, vm: 'web', disks: ['data', 'never-made'] });
      else await doom(bench, first);
      expect(bench.hands.ledger.disks().map(({ owner: { disk } }) => disk)).toEqual(names.map(() => 'data'));
    }
  });

  test('is kept also when the record of its VM is damaged, if the tombstone names it', async () => {
    const world = nodeWorld();
    await withImage(world);
    await want(await openBench(world), machine(first));
    const run = world.machine.machines.get(first)?.run;
    expect(run).toBeDefined();
    world.shelf.files.set(`${first}.json`, 'damaged');
    const bench = await openBench(world);
    await doom(bench, first, { namespace: 'default', namespaceUid, vm: 'web', disks: ['data'] });
    expect(bench.hands.ledger.disks()).toMatchObject([{ owner, moving: null }]);
  });

  test('is kept too when only a later tombstone names it, while the VM is still ending', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    await want(bench, machine(first, { disks: [root, { name: 'data', sizeMiB: 10 }] }));
    const tombstone = { type: 'tombstone' as const, leaderEpoch: 1, kind: 'vm' as const, uid: first };
    await bench.hands.ledger.doom({ ...tombstone, revision: 100_001 });
    const keep = { namespace: 'default', namespaceUid, vm: 'web', disks: ['data'] };
    expect(await bench.hands.ledger.doom({ ...tombstone, revision: 100_002, keep })).toEqual({ is: 'known' });
    await bench.rest(first);
    expect(bench.hands.ledger.disks()).toMatchObject([{ owner, moving: null }]);
  });

  test('is kept also when a CD drive has come under its name before it was', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    await want(bench, machine(first));
    const file = world.disks.get(first)?.disks.get('data');
    await want(bench, machine(first, { disks: [root, { name: 'data', cdrom: true }] }));
    await doom(bench, first);
    expect([...world.kept.values()]).toEqual([{ name: 'data', file, record: expect.any(String) }]);
  });

  test('is kept when such a drive goes too, and its medium with it', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    const stopped = { powerState: 'Stopped' as const, stop: { mode: 'Force' as const, gracePeriodSeconds: 0 } };
    await want(bench, machine(first));
    const file = world.disks.get(first)?.disks.get('data');
    await want(bench, machine(first, stopped));
    await want(bench, machine(first, { ...stopped, generation: 2, disks: [root, { name: 'data', cdrom: true, imageUid: uidOf(900) }] }));
    await want(bench, machine(first, { generation: 3, disks: [root, { name: 'data', cdrom: true, imageUid: uidOf(900) }] }));
    await want(bench, machine(first, { ...stopped, generation: 4 , disks: [root, { name: 'data', cdrom: true, imageUid: uidOf(900) }] }));
    await want(bench, machine(first, { ...stopped, generation: 5, disks: [root], removedDisks: [{ name: 'data' }] }));
    expect([...world.kept.values()]).toEqual([{ name: 'data', file, record: expect.any(String) }]);
    expect((await bench.storage.drive(first, 'data', undefined, AbortSignal.timeout(1_000))).stale).toBe(false);
  });

  test('is taken back by the VM that it was taken from, also when the edit that brings it back does not retain it and nobody has recorded it yet', async () => {
    const world = nodeWorld();
    await withImage(world);
    const bench = await openBench(world);
    await want(bench, machine(first));
    const file = world.disks.get(first)?.disks.get('data');
    await want(bench, machine(first, { generation: 2, disks: [root], removedDisks: [{ name: 'data' }] }));
    const { namespaceUid: _omitted, ...again } = machine(first, { generation: 3, disks: [root, { name: 'data', sizeMiB: 10 }] });
    await want(bench, again);
    expect([world.disks.get(first)?.disks.get('data'), bench.hands.ledger.disks()]).toEqual([file, []]);
  });

  test('is ended by a tombstone of its own, not by one that means something else, and not on its way', async () => {
    const { bench, disk } = await kept();
    const tombstone = (kind: 'vm' | 'disk', uid: string, revision: number) => bench.hands.ledger.doom({ type: 'tombstone', leaderEpoch: 1, revision, kind, uid });
    expect(await tombstone('vm', disk.uid, 100_001)).toMatchObject({ is: 'refuse' });
    await bench.hands.ledger.changeDisk(disk.uid, (mine) => ({ ...mine, moving: { is: 'taking', vmUid: second } }));
    expect(await tombstone('disk', disk.uid, 100_002)).toMatchObject({ is: 'refuse' });
    await bench.hands.ledger.changeDisk(disk.uid, (mine) => ({ ...mine, moving: null }));
    expect(await tombstone('disk', disk.uid, 100_003)).toEqual({ is: 'accept' });
    expect(await tombstone('disk', disk.uid, 100_004)).toEqual({ is: 'known' });
    expect(await want(bench, machine(second, { disks: [root, { ...data, kept: disk.uid }] }))).toMatchObject({ trouble: { reason: 'DiskMissing', message: expect.stringContaining('is being deleted') } });
  });

  // Every effect of the end of one VM, of the start of the next one, and of an edit that takes the disk away.
  test.each(Array.from({ length: 12 }, (_, effects) => [effects]))('is in one place, whole, with an agent that is killed at effect %i of keeping it or of giving it back', async (effects) => {
    for (const after of [false, true]) {
      for (const phase of ['keep', 'take', 'edit'] as const) {
        const world = nodeWorld();
        await withImage(world);
        const before = await openBench(world);
        await want(before, machine(first));
        const file = world.disks.get(first)?.disks.get('data');
        if (phase === 'take') await doom(before, first);
        const named = before.hands.ledger.disks().map(({ uid }) => ({ kept: uid }))[0];
        const life = mortal();
        const dying = await openBench(world, life.around);
        const removal = machine(first, { generation: 2, disks: [root], removedDisks: [{ name: 'data' }] });
        const act = async (bench: typeof before): Promise<unknown> => {
          if (phase === 'keep') return doom(bench, first);
          return want(bench, phase === 'edit' ? removal : machine(second, { disks: [root, { ...data, ...named }] }));
        };
        life.dieAt(effects, after);
        await act(dying).catch(() => undefined);
        const places = () => [...world.disks.values()].flatMap(({ disks }) => [...disks.values()].filter((each) => each === file)).concat([...world.kept.values()].flatMap((each) => (each.file === file && file ? [file] : [])));
        expect(places()).toEqual([file]);
        const next = await openBench(world);
        await act(next).catch(() => undefined);
        await next.rest(phase === 'take' ? second : first);
        expect(places()).toEqual([file]);
        expect(next.hands.ledger.disks().map(({ moving }) => moving)).toEqual(phase === 'take' ? [] : [null]);
        if (phase === 'take') expect(world.disks.get(second)?.disks.get('data')).toBe(file);
      }
    }
  });
});
