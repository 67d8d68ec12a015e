import { execFile } from 'node:child_process';
import { chmod, chown, link, lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeBedDisk } from '#hack/bed/disk.ts';
import { paths as pathsOf } from '../host/paths.ts';
import { writeEntry } from '../vm/entry.ts';
import { openLedger } from '../vm/ledger.ts';
import { makeFileShelf } from '../vm/shelf.ts';
import { makeFileStorage } from './files.ts';

const run = promisify(execFile);
// Of all tests together.
const signal = AbortSignal.timeout(600_000);
const [uid, other, kept] = ['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b', '00000000-0000-4000-8000-0000000000d1'] as const;
const [unixId, otherId] = [100_123, 100_124] as const;

describe('the files of a disk that outlives its VM', () => {
  let folder: string;
  let paths: ReturnType<typeof pathsOf>;
  let image: string;
  const storage = () => makeFileStorage({ paths, log: { info: () => {}, warn: () => {} } });
  const record = writeEntry({
    kind: 'disk', uid: kept, order: { leaderEpoch: 1, revision: 1 }, ending: false, sizeMiB: 100, moving: null,
    owner: { namespace: 'default', namespaceUid: other, vm: 'web', vmUid: uid, disk: 'data' },
  });
  const place = { uid, name: 'data', kept, record };
  const inVm = (name: string, of: string = uid) => join(paths.disks(of), name);
  const aside = (name: string) => join(paths.kept, kept, name);
  const holds = async (file: string, byte: number) => run('qemu-io', ['-f', 'qcow2', '-r', '-c', `read -P ${byte} 3M 1M`, file]);

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-kept-'));
    paths = pathsOf({ stateDir: join(folder, 'state'), imageCacheDir: join(folder, 'images'), socketDir: join(folder, 'run') });
    image = join(folder, 'image.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 8M 1M', image]);
    await chmod(image, 0o444);
    await storage().create({ uid, name: 'data', unixId, image: { file: image, digest: `sha256:${'0'.repeat(64)}`, virtualSizeMiB: 64 }, sizeMiB: 100 }, signal);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 3M 1M', inVm('data.qcow2')]);
    await rm(image);
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('are the same files all the way, with their base, out of the reach of whoever has the Unix id of the VM next', async () => {
    const [overlay, base] = [await stat(inVm('data.qcow2')), await stat(inVm('data.base'))];
    await storage().keep(place, signal);
    await storage().remove(uid, signal);
    expect((await readdir(join(paths.kept, kept))).toSorted()).toEqual(['data.base', 'data.qcow2', 'owner.json']);
    expect([(await stat(aside('data.qcow2'))).ino, (await stat(aside('data.base'))).ino]).toEqual([overlay.ino, base.ino]);
    expect([(await lstat(paths.kept)).mode & 0o777, (await lstat(aside('data.qcow2'))).uid]).toEqual([0o700, 0]);
    await holds(aside('data.qcow2'), 7);
    expect(await storage().takeBack({ ...place, uid: other, unixId: otherId }, signal)).toMatchObject({ is: 'ready', sizeMiB: 100, base: 'disks/data.base' });
    const { ino, uid: owner, gid, mode } = await lstat(inVm('data.qcow2', other));
    expect([ino, owner, gid, mode & 0o777]).toEqual([overlay.ino, otherId, otherId, 0o600]);
    await holds(inVm('data.qcow2', other), 7);
    await run('qemu-img', ['check', '-q', inVm('data.qcow2', other)]);
    expect(await readdir(paths.kept)).toEqual([]);
  });

  const cuts: [string, (from: (name: string) => string, to: (name: string) => string) => Promise<void>][] = [
    ['nothing was done', async () => {}],
    ['the base of a disk that was never finished lies there', async (_from, to) => writeFile(to('data.base'), 'of another image')],
    ['the base is linked', async (from, to) => link(from('data.base'), to('data.base'))],
    ['the overlay is moved', async (from, to) => {
      await link(from('data.base'), to('data.base'));
      await rename(from('data.qcow2'), to('data.qcow2'));
    }],
    ['the old base is gone', async (from, to) => {
      await link(from('data.base'), to('data.base'));
      await rename(from('data.qcow2'), to('data.qcow2'));
      await rm(from('data.base'));
    }],
  ];
  test.each(cuts)('are kept when an attempt was cut short after %s, and can be taken back as well', async (_when, cut) => {
    const half = async () => {
      await mkdir(join(paths.kept, kept), { recursive: true, mode: 0o700 });
      await cut(inVm, aside);
    };
    await half();
    expect(await storage().takeBack({ ...place, unixId }, signal)).toMatchObject({ is: 'ready' });
    await holds(inVm('data.qcow2'), 7);
    expect([(await readdir(paths.disks(uid))).toSorted(), await readdir(paths.kept)]).toEqual([['data.base', 'data.qcow2'], []]);
    await half();
    expect(await storage().keep(place, signal)).toEqual({ is: 'kept', sizeMiB: 100 });
    await holds(aside('data.qcow2'), 7);
    expect(await readdir(paths.disks(uid))).toEqual([]);
  });

  test.each(cuts)('are taken back when that was cut short after %s', async (_when, cut) => {
    await storage().keep(place, signal);
    await storage().seed(other, { instanceId: other, hostname: 'a', sshAuthorizedKeys: [] }, otherId, signal);
    await cut(aside, (name) => inVm(name, other));
    expect(await storage().takeBack({ ...place, uid: other, unixId: otherId }, signal)).toMatchObject({ is: 'ready' });
    await holds(inVm('data.qcow2', other), 7);
    expect([(await readdir(paths.disks(other))).toSorted(), await readdir(paths.kept)]).toEqual([['data.base', 'data.qcow2'], []]);
  });

  const recalled = async () => {
    const ledger = await openLedger(makeFileShelf(paths, true), { min: 200_000, max: 200_001 });
    return { disks: ledger.disks().map((disk) => disk.uid), troubles: ledger.troubles().map(({ reason }) => reason) };
  };
  const keptAlone = async () => {
    await storage().keep(place, signal);
    await storage().remove(uid, signal);
  };
  const known = { disks: [kept], troubles: [] };
  const unknown = { disks: [], troubles: ['UnknownDisk'] };

  test('are known again by what lies beside them, when the ledger has lost them', async () => {
    await keptAlone();
    expect([await readFile(paths.keptRecord(kept), 'utf8'), (await lstat(paths.keptRecord(kept))).mode & 0o777]).toEqual([record, 0o600]);
    for (const text of [undefined, 'damaged']) {
      if (text !== undefined) await writeFile(join(paths.ledger, `${kept}.json`), text);
      expect(await recalled()).toEqual(known);
    }
    await rm(paths.keptRecord(kept));
    expect(await recalled()).toEqual(known);
  });

  test('are kept on a full disk too, without a word beside them', async () => {
    await using disk = await makeBedDisk(32);
    paths = pathsOf({ stateDir: join(disk.directory, 'state'), imageCacheDir: join(folder, 'images'), socketDir: join(folder, 'run') });
    await storage().create({ uid, name: 'data', unixId, sizeMiB: 100 }, signal);
    await mkdir(join(paths.kept, kept), { recursive: true, mode: 0o700 });
    await disk.fill();
    // Some blocks of 1 KiB are left.
    expect(await storage().keep({ ...place, record: record.padEnd(16_384) }, signal)).toEqual({ is: 'kept', sizeMiB: 100 });
    expect(await readdir(join(paths.kept, kept))).toEqual(['data.qcow2']);
  });

  test.each<[string, () => Promise<void>]>([
    ['is another user\'s', async () => chown(paths.keptRecord(kept), otherId, otherId)],
    ['others can write', async () => chmod(paths.keptRecord(kept), 0o666)],
    ['is a link', async () => {
      await rename(paths.keptRecord(kept), join(folder, 'elsewhere'));
      await symlink(join(folder, 'elsewhere'), paths.keptRecord(kept));
    }],
    ['was changed', async () => writeFile(paths.keptRecord(kept), record.replace('"vm":"web"', '"vm":"mail"'))],
    ['speaks of another place', async () => writeFile(paths.keptRecord(kept), record.replaceAll(kept, other))],
    ['speaks of another disk', async () => rename(aside('data.qcow2'), aside('root.qcow2'))],
    ['is not there', async () => rm(paths.keptRecord(kept))],
  ])('are nobody\'s when that %s', async (_how, spoil) => {
    await keptAlone();
    await spoil();
    expect(await recalled()).toEqual(unknown);
  });

  test.each(['..', '../../etc', '', `${uid}/../x`])('%j is no uid and leads nowhere', async (bad) => {
    await expect(storage().keep({ ...place, kept: bad }, signal)).rejects.toMatchObject({ code: 'StorageFailed', retry: 'never' });
    await expect(storage().removeKept(bad, signal)).rejects.toMatchObject({ code: 'StorageFailed', retry: 'never' });
  });
});
