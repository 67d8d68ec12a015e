import { readFile } from 'node:fs/promises';
import { describe, expect, test } from '@jest/globals';
import type { Desired } from '#crds/wire/desired.ts';
import type { Desire, Tombstone } from '#crds/wire/judge.ts';
import { someVm, uidOf } from './bed.ts';
import { hardwareOf } from './change.ts';
import { blankVm, type Entry, ledgerVersion, readEntry, writeEntry } from './entry.ts';
import { makeFakeShelf, type ShelfWorld, shelfWorld } from './fakeshelf.ts';
import { makeKeeping } from './keeping.ts';
import { readLeader } from './leader.ts';
import { openLedger } from './ledger.ts';
import { freeId, withSlots } from './places.ts';

const uid = uidOf(1);
const never = new AbortController().signal;
const open = (world: ShelfWorld) => openLedger(makeFakeShelf(world), { min: 200_000, max: 200_002 });
const desire = (object: Desired, revision: number, leaderEpoch = 3): Desire => ({ type: 'desire', leaderEpoch, revision, object });
const tombstone = (of: string, revision: number, leaderEpoch = 3): Tombstone => ({ type: 'tombstone', leaderEpoch, revision, kind: 'vm', uid: of });
const image: Desired = { kind: 'image', uid: uidOf(900), namespace: 'default', name: 'debian', generation: 1, url: 'https://images/debian.qcow2', format: 'qcow2' };

const golden: Record<string, Entry> = {
  'vm-v1.json': {
    ...blankVm(uid), desired: someVm(), order: { leaderEpoch: 3, revision: 7 }, unixId: 200_000, slots: { 'disk/root': 0, 'disk/data': 1, seed: 2, 'nic/eth0': 3 },
    disks: ['root', 'data'], seeded: true, run: { startId: 'a1', ran: true }, stopping: { sinceMs: 1234, forced: false, why: 'stop' },
    lastExit: { reason: 'QemuCrashed', code: 137, signal: 'SIGKILL', time: '2026-01-01T00:00:00.000Z' },
    machine: { type: 'pc-q35-7.2', cpuModel: 'max', accelerator: 'tcg', cpus: 1, memoryMiB: 64 },
  },
  'vm-v2.json': {
    ...blankVm(uid), desired: someVm({ restartPolicy: 'Always', restartToken: 'b', cpus: 2, maxCpus: 4, maxMemoryMiB: 128 }), order: { leaderEpoch: 3, revision: 7 },
    run: { startId: 'a1', ran: true }, applied: hardwareOf(someVm({ maxCpus: 4, maxMemoryMiB: 128 })),
    restarts: { count: 3, quickEnds: 2, ranSinceMs: 5000, dueMs: 25_000, dueTime: '2026-01-01T00:00:25.000Z' }, restartToken: 'a',
  },
  'disk-v2.json': {
    kind: 'disk', uid: uidOf(800), owner: { namespace: 'default', namespaceUid: uidOf(700), vm: 'web', vmUid: uid, disk: 'data' }, order: { leaderEpoch: 3, revision: 8 }, ending: false,
    sizeMiB: 10, moving: { is: 'keeping', vmUid: uid },
  },
  'image-v1.json': { kind: 'image', uid: uidOf(900), desired: image, order: { leaderEpoch: 3, revision: 6 }, ending: false },
};

describe('the file of an entry', () => {
  const goldenText = (file: string) => readFile(new URL(`./golden/${file}`, import.meta.url), 'utf8');
  test.each(Object.entries(golden))('%s, as a build of that version wrote it, is read', async (file, entry) => {
    expect(readEntry(await goldenText(file))).toEqual({ is: 'entry', entry });
  });

  test.each([['{"version":1,"leaderEpoch":3}\n'], ['{"version":2,"leaderEpoch":3}\n'], ['{"version":9,"leaderEpoch":3,"more":true}\n']])('the highest epoch, as any version wrote it, is read: %j', (text) => {
    expect(readLeader(text)).toEqual({ is: 'leader', leaderEpoch: 3 });
  });

  test('an entry is written as the golden file of this version', async () => {
    expect(writeEntry(golden[`vm-v${ledgerVersion}.json`] ?? blankVm(uid))).toBe(await goldenText(`vm-v${ledgerVersion}.json`));
  });

  test('that is damaged tells nothing of what is in it: of a Secret neither', () => {
    const secret = writeEntry({ ...blankVm(uid), desired: someVm({ cloudInit: { hostname: 'web', sshAuthorizedKeys: [], userData: 'hunter2' } }) });
    const read = readEntry(secret.replace('"hunter2', ' hunter2'));
    expect([read.is, JSON.stringify(read)]).toEqual(['bad', expect.not.stringContaining('hunter')]);
  });

  const text = writeEntry(blankVm(uid));
  const laterText = text.replace(`"version":${ledgerVersion}`, `"version":${ledgerVersion + 1}`);
  test.each([
    ['cut off', text.slice(0, 40), 'bad'],
    ['empty', '', 'bad'],
    ['nested without end', `{"version":${ledgerVersion},"checksum":"x","entry":${'['.repeat(200_000)}${']'.repeat(200_000)}}`, 'bad'],
    ['with one digit changed', text.replace('"ending":false', '"ending":true'), 'bad'],
    ['of another form under a right checksum', writeEntry({ ...blankVm(uid), unixId: -5 }), 'foreign'],
    ['of a later version', laterText, 'foreign'],
  ])('%s', (_, damaged, is) => {
    expect(readEntry(damaged).is).toBe(is);
  });
});

describe('the ledger', () => {
  test('knows after a restart all that it acknowledged', async () => {
    const world = shelfWorld();
    const first = await open(world);
    expect(await first.accept(desire(someVm(), 1))).toEqual({ is: 'accept' });
    expect(await first.accept(desire(image, 2))).toEqual({ is: 'accept' });
    await first.change(uid, (entry) => ({ ...entry, run: { startId: 'a', ran: true } }));
    await first.doom(tombstone(uid, 3, 4));
    const second = await open(world);
    expect(second.entries()).toEqual(first.entries());
    expect(second.vm(uid)).toMatchObject({ ending: true, run: { startId: 'a' }, unixId: 200_000 });
    expect(second.memory().leaderEpochSeen).toBe(4);
    expect(await second.accept(desire(someVm({ generation: 2 }), 9, 3))).toMatchObject({ is: 'refuse', why: expect.stringContaining('leader epoch 3') });
  });

  test('of a node that knows nothing of a VM has what was made of it as made; one that knows it goes by what it knows', async () => {
    const ledger = await open(shelfWorld());
    await ledger.accept({ ...desire(someVm(), 1), made: ['root', 'gone'] });
    expect(ledger.vm(uid)).toMatchObject({ disks: ['root', 'gone'], firmwareMade: true });
    await ledger.accept({ ...desire(someVm({ generation: 2 }), 2), made: ['data'] });
    expect(ledger.vm(uid)).toMatchObject({ disks: ['root', 'gone'] });
    await ledger.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 3));
    expect(ledger.vm(uidOf(2))).toMatchObject({ disks: [], firmwareMade: false });
  });

  test('keeps the highest leaderEpoch even when that leader never said anything', async () => {
    const world = shelfWorld();
    await (await open(world)).noteLeader(7);
    expect((await open(world)).memory().leaderEpochSeen).toBe(7);
    world.files.set('leader.json', 'garbage');
    await expect(open(world)).resolves.toBeDefined();
  });

  test('has seen an epoch from the moment that it is told it, also while the disk hangs; a command waits until it is kept', async () => {
    const world = shelfWorld();
    const ledger = await open(world);
    await ledger.noteLeader(3);
    const { promise, resolve } = Promise.withResolvers<void>();
    world.hangs = promise;
    const noted = ledger.noteLeader(6);
    const accepted = ledger.accept(desire(someVm(), 1, 6));
    expect([ledger.memory().leaderEpochSeen, world.files.get('leader.json')]).toEqual([6, expect.stringContaining('"leaderEpoch":3')]);
    resolve();
    await noted;
    expect(world.files.get('leader.json')).toContain('"leaderEpoch":6');
    expect(await accepted).toEqual({ is: 'accept' });
    // Not kept is not seen after a restart, and not taken for kept before it.
    world.failing = 'LedgerFailed';
    await expect(ledger.accept(desire(someVm({ generation: 2 }), 2, 9))).rejects.toMatchObject({ code: 'LedgerFailed' });
    await expect(ledger.accept(desire(someVm({ generation: 2 }), 3, 9))).rejects.toMatchObject({ code: 'LedgerFailed' });
    expect(ledger.vm(uid)?.desired?.generation).toBe(1);
  });

  test('a uid that has ended never returns, nor one that was never here and was ended', async () => {
    const world = shelfWorld();
    const ledger = await open(world);
    expect(await ledger.doom(tombstone(uid, 1))).toEqual({ is: 'absent' });
    expect(await (await open(world)).accept(desire(someVm(), 2))).toEqual({ is: 'absent' });
  });

  test('an image that was removed can be wanted again, also where an earlier build recorded its end', async () => {
    const world = shelfWorld();
    const ledger = await open(world);
    const gone: Tombstone = { type: 'tombstone', leaderEpoch: 3, revision: 2, kind: 'image', uid: image.uid };
    expect(await ledger.doom(gone)).toEqual({ is: 'absent' });
    expect(await ledger.accept(desire(image, 3))).toEqual({ is: 'accept' });
    expect(await ledger.doom({ ...gone, revision: 4 })).toEqual({ is: 'accept' });
    await ledger.end(image.uid);
    expect([world.ended.size, world.files.has(`${image.uid}.json`)]).toEqual([0, false]);
    world.ended.add(image.uid);
    expect(await (await open(world)).accept(desire(image, 5))).toEqual({ is: 'accept' });
    expect((await open(world)).entries().get(image.uid)).toMatchObject({ kind: 'image', ending: false });
  });

  test('a damaged file is put aside, costs the others nothing, and its VM is touched by nobody', async () => {
    const world = shelfWorld(() => [{ uid, unixId: 200_000 }]);
    const first = await open(world);
    await first.accept(desire(someVm(), 1));
    await first.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 2));
    world.files.set(`${uid}.json`, world.files.get(`${uid}.json`)?.slice(0, 99) ?? '');
    const second = await open(world);
    expect([...second.entries().keys()]).toEqual([uidOf(2)]);
    expect(world.quarantined).toEqual(new Set([`${uid}.json`]));
    expect(second.troubles().map(({ reason }) => reason)).toEqual(['LedgerQuarantined', 'UnknownVm']);
    expect(await second.accept(desire(someVm(), 5))).toMatchObject({ is: 'refuse' });
    expect(second.held()).toContainEqual({ kind: 'vm', uid, namespace: '', name: '', generation: 0, epoch: 0, digest: '', ending: false });
    // The Unix id of what lies there is given to nobody.
    await second.accept(desire(someVm({ uid: uidOf(3), name: 'third' }), 6));
    expect(second.vm(uidOf(3))?.unixId).toBe(200_002);
    const third = await open(world);
    expect([...third.remains().keys()]).toEqual([uid]);
    expect(await third.doom(tombstone(uid, 7))).toEqual({ is: 'accept' });
    expect(third.vm(uid)).toMatchObject({ ending: true, desired: null });
  });

  test('a kept disk whose file is damaged is told, ended by nobody, and known again with its file', async () => {
    const world = shelfWorld();
    const text = await readFile(new URL('golden/disk-v2.json', import.meta.url), 'utf8');
    const read = readEntry(text);
    const disk = read.is === 'entry' ? read.entry.uid : '';
    const folders = [{ uid: disk, files: ['data.qcow2'] }, { uid: uidOf(7), files: ['data.qcow2'] }];
    world.kept = () => folders;
    world.files.set(`${disk}.json`, text.replace('"size', '"sise'));
    const ledger = await open(world);
    expect(ledger.troubles().map(({ reason }) => reason)).toEqual(['LedgerQuarantined', 'UnknownDisk', 'UnknownDisk']);
    expect(await ledger.doom({ ...tombstone(disk, 5), kind: 'disk' })).toEqual({ is: 'refuse', why: `disk ${disk}: its ledger file is in quarantine/` });
    expect([ledger.held(), ledger.disks()]).toEqual([[], []]);
    world.files.set(`${disk}.json`, text);
    folders.pop();
    expect([(await open(world)).troubles(), (await open(world)).disks().map(({ uid: kept }) => kept)]).toEqual([[], [disk]]);
  });

  test('a kept disk whose file can not be put aside, is of a newer build, or can not be written anew is not known by what lies beside it', async () => {
    const record = await readFile(new URL('golden/disk-v2.json', import.meta.url), 'utf8');
    const read = readEntry(record);
    if (read.is !== 'entry' || read.entry.kind !== 'disk') throw new Error('the golden file is no disk');
    const { uid: disk, owner } = read.entry;
    const spoilt: [(world: ShelfWorld) => void, string][] = [
      [(world) => { world.files.set(`${disk}.json`, 'damaged'); world.failing = 'LedgerFailed'; }, 'LedgerQuarantined'],
      [(world) => { world.files.set(`${disk}.json`, record.replace('"version":2', '"version":3')); }, 'LedgerUnreadable'],
      [(world) => { world.full = true; }, 'LedgerFull'],
    ];
    for (const [spoil, reason] of spoilt) {
      const world = shelfWorld(() => [], () => [{ uid: disk, files: [`${owner.disk}.qcow2`], record }]);
      expect((await open(world)).disks()).toEqual([read.entry]);
      world.files.clear();
      spoil(world);
      const ledger = await open(world);
      expect([ledger.disks(), ledger.troubles().map((trouble) => trouble.reason)]).toEqual([[], expect.arrayContaining([reason, 'UnknownDisk'])]);
    }
  });

  test('a file of a newer build or an unreadable one stays where it is', async () => {
    const world = shelfWorld();
    world.files.set(`${uid}.json`, writeEntry(blankVm(uid)).replace(`"version":${ledgerVersion}`, `"version":${ledgerVersion + 1}`));
    world.unreadable.set(`${uidOf(2)}.json`, 'EIO');
    const ledger = await open(world);
    expect([...ledger.remains().keys()]).toEqual([uid, uidOf(2)]);
    expect(world.quarantined.size).toBe(0);
    expect(await ledger.accept(desire(someVm(), 1))).toMatchObject({ is: 'refuse' });
  });

  test('does not open when it can not be listed: unknown is not empty', async () => {
    const world = shelfWorld();
    world.broken = 'EACCES';
    await expect(open(world)).rejects.toMatchObject({ code: 'LedgerUnreadable' });
  });

  test('a crash after the end was recorded leaves no entry', async () => {
    const world = shelfWorld();
    const first = await open(world);
    await first.accept(desire(someVm(), 1));
    world.ended.add(uid);
    const second = await open(world);
    expect([second.entries().size, world.files.has(`${uid}.json`)]).toEqual([0, false]);
  });

  test('on a full disk it keeps what must be kept and refuses new desires aloud', async () => {
    const world = shelfWorld();
    const ledger = await open(world);
    await ledger.accept(desire(someVm(), 1));
    world.full = true;
    await expect(ledger.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 2))).rejects.toMatchObject({ code: 'LedgerFull' });
    expect(ledger.troubles()).toMatchObject([{ reason: 'LedgerFull' }]);
    expect(ledger.held()).toHaveLength(1);
    expect(await ledger.doom(tombstone(uid, 3))).toEqual({ is: 'accept' });
    expect(world.ballast).toBe(false);
    world.full = true;
    await expect(ledger.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 4))).rejects.toMatchObject({ code: 'LedgerFull' });
    world.full = false;
    await ledger.tend(never);
    expect(ledger.troubles()).toEqual([]);
    expect(await ledger.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 5))).toEqual({ is: 'accept' });
  });

  test.each(['LedgerReadOnly', 'LedgerFailed'] as const)('on a disk that can not be written (%s) it keeps what it knows, refuses the rest aloud, and goes on when it can', async (code) => {
    const world = shelfWorld();
    const ledger = await open(world);
    await ledger.accept(desire(someVm(), 1));
    world.failing = code;
    await expect(ledger.accept(desire(someVm({ generation: 2 }), 2))).rejects.toMatchObject({ code });
    await expect(ledger.doom(tombstone(uid, 3))).rejects.toMatchObject({ code });
    expect(ledger.vm(uid)).toMatchObject({ ending: false, desired: { generation: 1 } });
    expect(ledger.troubles()).toMatchObject([{ reason: code, message: expect.stringContaining('guests go on') }]);
    await ledger.tend(never);
    expect(ledger.troubles()).toHaveLength(1);
    delete world.failing;
    await ledger.tend(never);
    expect(ledger.troubles()).toEqual([]);
    expect(await ledger.accept(desire(someVm({ generation: 2 }), 2))).toEqual({ is: 'accept' });
  });

  test('opens where nothing can be written, and says so: damaged files and ended entries stay where they are', async () => {
    const world = shelfWorld();
    const first = await open(world);
    await first.accept(desire(someVm(), 1));
    await first.accept(desire(someVm({ uid: uidOf(2), name: 'other' }), 2));
    world.files.set(`${uidOf(3)}.json`, 'garbage');
    world.ended.add(uidOf(2));
    world.failing = 'LedgerReadOnly';
    const second = await open(world);
    expect([...second.entries().keys()]).toEqual([uid]);
    expect(second.troubles().map(({ reason }) => reason)).toEqual(['LedgerReadOnly', 'LedgerQuarantined']);
    expect(second.troubles()[1]?.message).toContain('could not be put aside');
    expect(world.files.size).toBe(4);
  });

  test('a disk that does not answer is told, asked once, and is well again when it has answered', async () => {
    const world = shelfWorld();
    const shelf = makeFakeShelf(world);
    let probes = 0;
    const keeping = makeKeeping({ ...shelf, probe: () => { probes += 1; return shelf.probe(); } }, 10);
    const disk = Promise.withResolvers<void>();
    world.hangs = disk.promise;
    await keeping.tend(never);
    await keeping.tend(never);
    expect([keeping.trouble()?.reason, probes]).toEqual(['StorageHung', 1]);
    delete world.hangs;
    disk.resolve();
    await keeping.tend(never);
    expect(keeping.trouble()).toBeUndefined();
  });

  test('of a damaged file is spoken no more once its VM is held again', async () => {
    const world = shelfWorld();
    world.files.set(`${uid}.json`, 'garbage');
    const ledger = await open(world);
    expect(ledger.troubles()).toMatchObject([{ reason: 'LedgerQuarantined' }]);
    await ledger.accept(desire(someVm(), 1));
    expect(ledger.troubles()).toEqual([]);
  });

  test('two VMs that come at once get ids of their own; the fourth of three has to wait for one', async () => {
    const ledger = await open(shelfWorld());
    await Promise.all([1, 2, 3, 4].map((n) => ledger.accept(desire(someVm({ uid: uidOf(n), name: `vm${n}` }), n))));
    expect([1, 2, 3, 4].map((n) => ledger.vm(uidOf(n))?.unixId)).toEqual([200_000, 200_001, 200_002, null]);
    await expect(ledger.allot(uidOf(4))).rejects.toMatchObject({ code: 'NoUnixId' });
    await ledger.end(uidOf(2));
    await ledger.allot(uidOf(4));
    expect(ledger.vm(uidOf(4))?.unixId).toBe(200_001);
  });
});

describe('places', () => {
  test('a device keeps its slot, a new one gets the lowest that is free', () => {
    const vm = someVm();
    const before = withSlots({}, vm);
    const after = withSlots(before, { ...vm, disks: [{ name: 'more', sizeMiB: 1 }, ...vm.disks.slice(1)] });
    expect(after).toEqual({ 'disk/more': 0, 'disk/data': before['disk/data'], seed: before['seed'], 'nic/eth0': before['nic/eth0'] });
  });

  test('the lowest free id', () => {
    expect([freeId({ min: 5, max: 6 }, new Set([5])), freeId({ min: 5, max: 6 }, new Set([5, 6]))]).toEqual([6, undefined]);
  });
});
