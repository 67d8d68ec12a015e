// Images that were made to do harm, and images that are not what they are said to be. Needs root.
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { until } from '#hack/bed/until.ts';
import { settledImage } from './contract.ts';
import { limits, type LocalBed, openLocalBed, uids, wanted } from './localbed.ts';

const run = promisify(execFile);
const [uid = ''] = uids;

/** qemu-img measures the machine before it encrypts, and gives up when others make that inaccurate. */
const create = (args: readonly string[]): Promise<unknown> => until('qemu-img create', async () => run('qemu-img', ['create', '-q', ...args]), 60_000);

describe('an image that is not as it should be', () => {
  let it: LocalBed;
  beforeEach(async () => {
    it = await openLocalBed();
  });
  afterEach(() => it.close());

  test.each(['sha256', 'sha512'])('a wrong %s leaves no file at all and is not tried again (N11)', async (kind) => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes });
    it.store.want(wanted({ url, checksum: `${kind}:${'0'.repeat(kind === 'sha256' ? 64 : 128)}` }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', progress: 0, trouble: { reason: 'ChecksumMismatch', final: true } });
    expect(await it.partial()).toEqual([]);
    expect(await it.contents()).toEqual([]);
    expect(it.web.requests('/a')).toBe(1);
  });

  test.each<[string, (path: (name: string) => string) => Promise<void>]>([
    ['a backing file', async (path) => {
      await writeFile(path('secret'), Buffer.alloc(1024 * 1024, 's'));
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', path('secret'), path('evil')]);
    }],
    ['an external data file', async (path) => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${path('secret')},data_file_raw=on`, path('evil'), '1M']);
    }],
    ['encryption', async (path) => {
      await create(['-f', 'qcow2', '--object', 'secret,id=s,data=x', '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10', path('evil'), '1M']);
    }],
    ['snapshots', async (path) => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', path('evil'), '1M']);
      await run('qemu-img', ['snapshot', '-c', 's', path('evil')]);
    }],
    ...['vmdk', 'vmdk:monolithicFlat', 'vmdk:streamOptimized', 'vdi', 'vpc', 'vpc:fixed', 'vhdx', 'qed', 'parallels', 'luks'].map((kind): [string, (path: (name: string) => string) => Promise<void>] => [`${kind} inside`, async (path) => {
      const [format = '', subformat] = kind.split(':');
      const options = subformat === undefined ? [] : ['-o', `subformat=${subformat}`];
      const secret = format === 'luks' ? ['--object', 'secret,id=s,data=x', '-o', 'key-secret=s,iter-time=10'] : [];
      await create(['-f', format, ...options, ...secret, path('evil'), '1M']);
    }]),
  ])('a file with %s is refused before any QEMU tool opens it, as a qcow2 and as a raw disk (A19)', async (_, make) => {
    const path = (name: string) => join(it.folder, name);
    await make(path);
    // With a qemu-img that fails the test by its very use: nothing of that name is on this path.
    const before = process.env.PATH;
    process.env.PATH = path('nothing-here');
    try {
      const url = it.web.serve('/evil', { is: 'bytes', bytes: await readFile(path('evil')) });
      for (const format of ['qcow2', 'raw'] as const) {
        it.store.want(wanted({ url, format }));
        expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', final: true } });
      }
    } finally {
      process.env.PATH = before;
    }
    expect(await it.partial()).toEqual([]);
    expect(await it.contents()).toEqual([]);
  });

  test('a broken table that only qemu-img can see is refused, too, with what it said', async () => {
    const bytes = await it.make(64);
    // The first L1 entry (cluster 3 of what qemu-img makes) points beyond the file: a read there gives zeros.
    bytes.writeBigUInt64BE(0x8000_0fff_ffff_0000n, 3 * 65_536);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', message: expect.stringContaining('qemu-img check') } });
    expect(await it.partial()).toEqual([]);
  });

  test('a qcow2 that is cut off in its data is refused, not read as zeros', async () => {
    const bytes = (await it.make(64, 8)).subarray(0, 4 * 1024 * 1024);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused' } });
  });

  test.each([
    ['memory', { addressSpaceBytes: 8 * 1024 * 1024 }],
    ['time', { deadlineMs: 1 }],
  ])('a conversion that gets too little %s is ended and tried again', async (_, less) => {
    await it.close();
    it = await openLocalBed({ limits: { ...limits, convert: { ...limits.convert, ...less } } });
    const bytes = await it.make(64);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'importing', trouble: { reason: 'ConvertFailed', final: false } });
  });

  test.each<[string, DesiredImage['format'], (path: (name: string) => string) => Promise<string>, RegExp]>([
    ['raw, but holds a qcow2', 'raw', async (path) => (await run('sh', ['-c', `qemu-img create -q -f qcow2 ${path('a')} 1M && gzip ${path('a')}`]), path('a.gz')), /said to be raw, but it is qcow2/],
    ['qcow2, but holds a raw disk', 'qcow2', async (path) => (await run('sh', ['-c', `truncate -s 1M ${path('a')} && xz ${path('a')}`]), path('a.xz')), /said to be qcow2/],
    ['raw, but is compressed twice', 'raw', async (path) => (await run('sh', ['-c', `truncate -s 1M ${path('a')} && gzip ${path('a')} && zstd -q ${path('a.gz')}`]), path('a.gz.zst')), /said to be raw, but it is gzip/],
    ['qcow2 with a backing file inside', 'qcow2', async (path) => (await run('sh', ['-c', `qemu-img create -q -u -f qcow2 -F raw -b /etc/passwd ${path('a')} 1M && zstd -q ${path('a')}`]), path('a.zst')), /backing file/],
    ['raw, but is a tar archive', 'raw', async (path) => (await run('sh', ['-c', `tar -C / -czf ${path('a.tgz')} etc/hostname`]), path('a.tgz')), /tar/],
    ['raw, but is damaged', 'raw', async (path) => (await run('sh', ['-c', `truncate -s 1M ${path('a')} && gzip ${path('a')} && truncate -s -9 ${path('a.gz')}`]), path('a.gz')), /can not be unpacked: gzip/],
  ])('a compressed file that is said to be %s is refused for ever', async (_, format, make, why) => {
    const bytes = await readFile(await make((name) => join(it.folder, name)));
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), format }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', final: true, message: expect.stringMatching(why) } });
    expect(await it.partial()).toEqual([]);
    expect(await it.contents()).toEqual([]);
  });

  test('a disk that is larger than the node takes is refused, whether it is said or only comes out', async () => {
    await it.close();
    it = await openLocalBed({ limits: { ...limits, maxVirtualBytes: 32 * 1024 * 1024 } });
    const { stdout: bomb } = await run('sh', ['-c', 'head -c 64M /dev/zero | gzip -c'], { encoding: 'buffer' });
    const images = [[await it.make(64), 'qcow2'], [bomb, 'raw'], [Buffer.alloc(40 * 1024 * 1024), 'raw']] as const;
    for (const [at, [bytes, format]] of images.entries()) {
      it.store.want(wanted({ uid: uids[at] ?? '', url: it.web.serve(`/${at}`, { is: 'bytes', bytes }), format }));
      expect(await settledImage(it.store, uids[at] ?? '')).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', message: expect.stringMatching(/33554432/) } });
    }
  });
});
