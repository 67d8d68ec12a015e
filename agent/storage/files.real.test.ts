import { execFile } from 'node:child_process';
import { copyFileSync, linkSync } from 'node:fs';
import { access, chmod, link, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { paths as pathsOf } from '../host/paths.ts';
import { storageContract } from './contract.ts';
import { makeFileStorage } from './files.ts';
import { emptyQcow2 } from './qcow2.ts';

const run = promisify(execFile);
const unixId = 100_123;
const uid = '00000000-0000-4000-8000-00000000000a';
const log = pino({ level: 'silent' });
// Of all tests together.
const signal = AbortSignal.timeout(600_000);

const bed = async () => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-storage-'));
  const paths = pathsOf({ stateDir: join(folder, 'state'), imageCacheDir: join(folder, 'images'), socketDir: join(folder, 'run') });
  await mkdir(paths.images, { recursive: true });
  const file = join(paths.images, 'image.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, '64M']);
  await chmod(file, 0o444);
  return {
    folder,
    paths,
    storage: makeFileStorage({ paths, log }),
    image: { file, digest: `sha256:${'0'.repeat(64)}`, virtualSizeMiB: 64 },
    reopen: () => makeFileStorage({ paths, log }),
    unixId,
    close: () => rm(folder, { recursive: true, force: true }),
  };
};

storageContract('files', bed);

describe('disks as files', () => {
  let it: Awaited<ReturnType<typeof bed>>;
  beforeEach(async () => {
    it = await bed();
  });
  afterEach(() => it.close());
  const spec = (more: object = {}) => ({ uid, name: 'root', unixId, ...more });
  const at = (name: string) => join(it.paths.vm(uid), name);

  test('qemu-img finds an overlay on the link, of the right size, without a fault in it', async () => {
    await it.storage.create(spec({ image: it.image, sizeMiB: 9 * 1024 * 1024 }), signal);
    await run('qemu-img', ['check', '-q', at('disks/root.qcow2')]);
    const { stdout } = await run('qemu-img', ['info', '--output=json', '--backing-chain', at('disks/root.qcow2')]);
    expect(JSON.parse(stdout)).toMatchObject([
      { 'virtual-size': 9 * 1024 ** 4, 'backing-filename': 'root.base', 'backing-filename-format': 'qcow2', format: 'qcow2' },
      { 'virtual-size': 64 * 1024 ** 2, format: 'qcow2' },
    ]);
    expect((await stat(at('disks/root.base'))).ino).toBe((await stat(it.image.file)).ino);
  });

  test('qemu-io writes to it and reads back; the base keeps its bytes', async () => {
    const before = await readFile(it.image.file);
    await it.storage.create(spec({ image: it.image, sizeMiB: 5000 }), signal);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 4000M 1M', '-c', 'read -P 7 4000M 1M', '-c', 'read -P 0 0 1M', at('disks/root.qcow2')]);
    await run('qemu-img', ['check', '-q', at('disks/root.qcow2')]);
    expect(await it.storage.observe(uid, 'root', signal)).toMatchObject({ is: 'ready', sizeMiB: 5000 });
    expect((await readFile(it.image.file)).equals(before)).toBe(true);
  });

  test('only the user of the VM and root can get at its files, and only root at their names', async () => {
    await it.storage.create(spec({ image: it.image }), signal);
    await it.storage.seed(uid, { instanceId: uid, hostname: 'a', sshAuthorizedKeys: [] }, unixId, signal);
    const facts = async (name: string) => {
      const { mode, uid: owner, gid } = await lstat(at(name));
      return [(mode & 0o777).toString(8), owner, gid];
    };
    expect(await facts('.')).toEqual(['750', 0, unixId]);
    expect(await facts('disks')).toEqual(['750', 0, unixId]);
    expect(await facts('lock')).toEqual(['600', 0, 0]);
    expect(await facts('disks/root.qcow2')).toEqual(['600', unixId, unixId]);
    expect(await facts('disks/root.base')).toEqual(['444', 0, 0]);
    expect(await facts('seed.img')).toEqual(['440', 0, unixId]);
  });

  test('half-made attempts are completed: an old base, temporary files, a directory of the wrong owner', async () => {
    await mkdir(at('disks'), { recursive: true, mode: 0o700 });
    await writeFile(at('disks/root.base'), 'of another image');
    await writeFile(at('disks/root.base.new'), 'half');
    await writeFile(at('disks/root.qcow2.new'), 'half');
    await writeFile(at('disks/root.base.9b7c.new'), 'half');
    await writeFile(at('disks/root.qcow2.9b7c.new'), 'half');
    await writeFile(at('disks/root-2.qcow2.9b7c.new'), 'of another disk');
    expect(await it.storage.create(spec({ image: it.image }), signal)).toMatchObject({ is: 'ready' });
    expect((await readdir(at('disks'))).toSorted()).toEqual(['root-2.qcow2.9b7c.new', 'root.base', 'root.qcow2']);
    expect((await stat(at('disks/root.base'))).ino).toBe((await stat(it.image.file)).ino);
    expect((await stat(at('.'))).gid).toBe(unixId);
  });

  test('of two agents that make one disk at the same time the first has it for ever: a disk is never replaced', async () => {
    for (let round = 0; round < 40; round += 1) {
      const disk = (sizeMiB: number) => ({ uid, name: `d${round}`, sizeMiB, unixId, ...(round % 2 === 0 ? {} : { image: it.image }) });
      const inode = async () => (await stat(at(`disks/d${round}.qcow2`))).ino;
      const seen = await Promise.all([it.storage, it.reopen()].map(async (storage, which) => {
        const made = await storage.create(disk(100 + which), signal);
        return { made, ino: await inode() };
      }));
      const [first] = seen;
      expect(seen).toEqual([first, first]);
      expect({ made: await it.storage.observe(uid, `d${round}`, signal), ino: await inode() }).toEqual(first);
    }
    expect((await readdir(at('disks'))).filter((name) => name.endsWith('.new'))).toEqual([]);
  });

  test('the base of a disk that another agent made meanwhile is not replaced: the disk would be another one', async () => {
    const theirs = { ...it.image, file: join(it.folder, 'another.qcow2') };
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', theirs.file, '64M']);
    const twin = '00000000-0000-4000-8000-00000000000b';
    await it.storage.create({ ...spec({ image: theirs }), uid: twin }, signal);
    const frozen = {
      ...it.image,
      // Asked for between the look at the disk and the link to its image: there another agent goes by.
      get file() {
        copyFileSync(join(it.paths.disks(twin), 'root.qcow2'), at('disks/root.qcow2'));
        linkSync(theirs.file, at('disks/root.base'));
        return it.image.file;
      },
    };
    expect(await it.storage.create(spec({ image: frozen }), signal)).toMatchObject({ is: 'ready' });
    expect((await stat(at('disks/root.base'))).ino).toBe((await stat(theirs.file)).ino);
  });

  test('a lock that exists keeps its inode', async () => {
    await it.storage.create(spec({ sizeMiB: 10 }), signal);
    const { ino } = await stat(at('lock'));
    await it.storage.create(spec({ name: 'data', sizeMiB: 10 }), signal);
    expect((await stat(at('lock'))).ino).toBe(ino);
  });

  test('evicting the image leaves the disk whole', async () => {
    await it.storage.create(spec({ image: it.image }), signal);
    await unlink(it.image.file);
    await run('qemu-img', ['check', '-q', at('disks/root.qcow2')]);
  });

  test('an overlay without its base is missing, not absent, and is not made anew', async () => {
    await it.storage.create(spec({ image: it.image }), signal);
    await unlink(at('disks/root.base'));
    await expect(it.storage.observe(uid, 'root', signal)).rejects.toMatchObject({ code: 'DiskMissing', retry: 'never' });
    await expect(it.storage.create(spec({ image: it.image }), signal)).rejects.toMatchObject({ code: 'DiskMissing' });
  });

  test.each([
    ['an empty file', async (file: string) => truncate(file, 0)],
    ['a text', async (file: string) => writeFile(file, 'not a disk')],
    ['another backing file', async (file: string) => void (await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/passwd', file]))],
    ['an external data file', async (file: string) => {
      await unlink(file);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${file}.data`, file, '64M']);
    }],
    ['a symbolic link', async (file: string) => {
      await unlink(file);
      await symlink('/etc/passwd', file);
    }],
  ])('what was not written by us is told and never replaced: %s', async (_, spoil) => {
    const file = at('disks/root.qcow2');
    await it.storage.create(spec({ image: it.image }), signal);
    await spoil(file);
    const before = await lstat(file);
    await expect(it.storage.create(spec({ image: it.image }), signal)).rejects.toMatchObject({ code: expect.stringMatching(/^(DiskDamaged|StorageFailed)$/) });
    expect((await lstat(file)).ino).toBe(before.ino);
  });

  test('removing follows no link out of the directory', async () => {
    const outside = join(it.folder, 'outside');
    await mkdir(outside);
    await writeFile(join(outside, 'precious'), 'x');
    await it.storage.create(spec({ sizeMiB: 10 }), signal);
    await symlink(outside, at('runs'));
    await symlink(join(outside, 'precious'), at('disks/link'));
    await link(join(outside, 'precious'), at('disks/hard'));
    await it.storage.remove(uid, signal);
    expect(await readFile(join(outside, 'precious'), 'utf8')).toBe('x');
    await symlink(outside, it.paths.vm(uid));
    await it.storage.remove(uid, signal);
    await access(join(outside, 'precious'));
    expect(await readdir(it.paths.vms)).toEqual([]);
  });

  test.each(['..', '../../etc', '', '00000000-0000-4000-8000-00000000000a/../x'])('%j is no uid and leads nowhere', async (bad) => {
    await expect(it.storage.remove(bad, signal)).rejects.toMatchObject({ code: 'StorageFailed', retry: 'never' });
    await expect(it.storage.create(spec({ uid: bad, sizeMiB: 10 }), signal)).rejects.toMatchObject({ code: 'StorageFailed' });
  });
});

describe('the seed disk under other tools', () => {
  const sizes = [0, 1, 512, 513, 40_000, 786_432, 3_000_000];
  test.each(sizes)('fsck.vfat has nothing to say and mtools reads user-data of %i bytes back', async (bytes) => {
    const it = await bed();
    try {
      const userData = 'é\n'.repeat(bytes / 3).padEnd(bytes === 1 ? 1 : 0, '#');
      await it.storage.seed(uid, { instanceId: uid, hostname: 'web-1', userData, sshAuthorizedKeys: ['ssh-ed25519 AAAA me'] }, unixId, signal);
      const image = join(it.paths.vm(uid), 'seed.img');
      await run('fsck.vfat', ['-n', image]);
      const { stdout: read } = await run('mtype', ['-i', image, '::user-data'], { maxBuffer: 16_000_000 });
      expect(read === userData).toBe(true);
      expect((await run('mtype', ['-i', image, '::meta-data'])).stdout).toContain('local-hostname: web-1');
      expect((await run('blkid', ['-p', '-o', 'value', '-s', 'LABEL', image])).stdout).toBe('CIDATA\n');
    } finally {
      await it.close();
    }
  });

  test('an empty qcow2 of any size passes qemu-img check', async () => {
    const it = await bed();
    try {
      for (const sizeMiB of [1, 511, 512, 513, 4_194_304]) {
        await it.storage.create({ uid, name: `d${sizeMiB}`, sizeMiB, unixId }, signal);
        const file = join(it.paths.vm(uid), `disks/d${sizeMiB}.qcow2`);
        await run('qemu-img', ['check', '-q', file]);
        expect((await stat(file)).size).toBe(emptyQcow2(sizeMiB * 1024 * 1024).fileBytes);
      }
    } finally {
      await it.close();
    }
  });
});
