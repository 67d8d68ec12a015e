// Compressed images, honest and hostile, by the real tools in their confinement. Needs root.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chown, mkdir, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { type Packing, packingOf, unpack, type UnpackTask } from './unpack.ts';

const run = promisify(execFile);
const mebibyte = 1024 * 1024;
const unixId = 100_779;
const packings: readonly Packing[] = ['gzip', 'xz', 'zstd'];
const every = packings.map((packing) => [packing] as const);
const sum = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe('a compressed image', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-unpack-'));
    await mkdir(join(folder, 'work'));
    await chown(join(folder, 'work'), 0, unixId);
  });
  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** Packs bytes by the tool of that name. */
  const pack = async (packing: Packing, bytes: Buffer): Promise<Buffer> => {
    const file = join(folder, `plain-${packing}`);
    await writeFile(file, bytes);
    const { stdout } = await run(packing, ['-c', '-q', file], { encoding: 'buffer', maxBuffer: 256 * mebibyte });
    return stdout;
  };
  const unpackIt = async (packed: Buffer, more: Partial<UnpackTask> & { signal?: AbortSignal } = {}) => {
    const source = join(folder, 'packed');
    await writeFile(source, packed, { mode: 0o600 });
    const out = join(folder, 'out');
    await rm(out, { force: true });
    await using sink = await open(out, 'wx+', 0o600);
    const { signal = AbortSignal.timeout(120_000), ...over } = more;
    await unpack({
      packing: packingOf(packed) ?? 'gzip', source, sink, directory: join(folder, 'work'), unixId,
      limits: { deadlineMs: 60_000, addressSpaceBytes: 2048 * mebibyte, cpuSeconds: 60 }, maxBytes: 512 * mebibyte, checkSpace: async () => {}, ...over,
    }, signal);
    return { bytes: await readFile(out), blocks: (await stat(out)).blocks };
  };
  // Data, a large hole, and data: as a disk is.
  const disk = Buffer.concat([Buffer.alloc(mebibyte, 'boot'), Buffer.alloc(40 * mebibyte), Buffer.alloc(mebibyte, 'data'), Buffer.alloc(6 * mebibyte)]);

  test.each(every)('by %s comes out whole, and sparse', async (packing) => {
    const packed = await pack(packing, disk);
    expect(packingOf(packed)).toBe(packing);
    const { bytes, blocks } = await unpackIt(packed);
    expect([bytes.byteLength, sum(bytes)]).toEqual([disk.byteLength, sum(disk)]);
    expect(blocks * 512).toBeLessThan(4 * mebibyte);
  });

  test.each(every)('by %s in several parts comes out whole', async (packing) => {
    const parts = await Promise.all([Buffer.alloc(100_000, 'a'), Buffer.alloc(100_000, 'b')].map((part, at) => pack(packing, Buffer.concat([part, Buffer.from([at])]))));
    const { bytes } = await unpackIt(Buffer.concat(parts));
    expect(bytes.byteLength).toBe(200_002);
  });

  test('by zstd that begins with a frame to be skipped comes out whole', async () => {
    const { bytes } = await unpackIt(Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]), await pack('zstd', Buffer.from('disk'))]));
    expect(bytes.toString()).toBe('disk');
  });

  test('by gzip with something behind it is taken as gzip takes it', async () => {
    const { bytes } = await unpackIt(Buffer.concat([await pack('gzip', Buffer.from('disk')), Buffer.from('a signature')]));
    expect(bytes.toString()).toBe('disk');
  });

  test.each(every)('by %s that is cut off is refused for ever', async (packing) => {
    const packed = await pack(packing, disk);
    for (const cut of [packed.subarray(0, packed.byteLength - 5), packed.subarray(0, packed.byteLength >> 1), packed.subarray(0, 8)]) {
      await expect(unpackIt(cut, { packing })).rejects.toMatchObject({ code: 'ImageRefused', retry: 'never', message: expect.stringContaining(packing) });
    }
  });

  test.each(every)('by %s with a wrong byte is refused for ever', async (packing) => {
    const packed = await pack(packing, Buffer.from(Array.from({ length: 100_000 }, (_, at) => (at * at) % 251)));
    packed[packed.byteLength >> 1] = (packed[packed.byteLength >> 1] ?? 0) ^ 0xff;
    await expect(unpackIt(packed)).rejects.toMatchObject({ code: 'ImageRefused', retry: 'never' });
  });

  test.each(every)('by %s that is a bomb is stopped at the limit', async (packing) => {
    // Zeros take time, the others take room.
    for (const filling of ['\0', 'x']) {
      const bomb = await pack(packing, Buffer.alloc(48 * mebibyte, filling));
      await expect(unpackIt(bomb, { maxBytes: 16 * mebibyte })).rejects.toMatchObject({ code: 'ImageRefused', retry: 'never', message: expect.stringContaining('larger than 16777216 bytes') });
      expect((await stat(join(folder, 'out'))).size).toBeLessThanOrEqual(16 * mebibyte);
      expect((await unpackIt(bomb, { maxBytes: 48 * mebibyte })).bytes.byteLength).toBe(48 * mebibyte);
    }
  });

  test('that fills the disk waits for room', async () => {
    const checkSpace = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
    await expect(unpackIt(await pack('zstd', Buffer.alloc(80 * mebibyte, 'x')), { checkSpace })).rejects.toMatchObject({ code: 'NoSpace', retry: 'later' });
  });

  test.each(['xz', 'zstd'] as const)('by %s that finds too little memory is not unpacked', async (packing) => {
    const limits = { deadlineMs: 60_000, addressSpaceBytes: 4 * mebibyte, cpuSeconds: 60 };
    await expect(unpackIt(await pack(packing, disk), { limits })).rejects.toMatchObject({ code: expect.stringMatching(/^(UnpackFailed|ImageRefused)$/) });
  });

  test('by zstd that asks for a GiB of memory is refused, whatever there is', async () => {
    const { stdout: packed } = await run('sh', ['-c', 'echo disk | zstd -c -q -1 --long=30'], { encoding: 'buffer' });
    await expect(unpackIt(packed)).rejects.toMatchObject({ code: 'ImageRefused', message: expect.stringMatching(/memory/i) });
  });

  test('that takes too long is ended and tried again', async () => {
    await expect(unpackIt(await pack('gzip', disk), { limits: { deadlineMs: 1, addressSpaceBytes: 2048 * mebibyte, cpuSeconds: 60 } })).rejects.toMatchObject({ code: 'UnpackFailed', retry: 'later', message: expect.stringContaining('longer than') });
  });

  test('can be ended by the caller, and its tool ends with it', async () => {
    // A source that never ends: gzip has read its header and waits.
    const source = join(folder, 'endless');
    await run('mkfifo', [source]);
    await using writer = await open(source, 'r+');
    await writer.write((await pack('gzip', disk)).subarray(0, 1000));
    const controller = new AbortController();
    const end = unpackIt(Buffer.alloc(0), { source, signal: controller.signal });
    const gzips = async () => (await run('ps', ['-o', 'args=', '-u', String(unixId)]).catch(() => ({ stdout: '' }))).stdout;
    await until('gzip', async () => (await gzips()).includes('gzip'), 20_000);
    controller.abort(new Error('removed'));
    await expect(end).rejects.toThrow('removed');
    await until('the end of gzip', async () => !(await gzips()).includes('gzip'), 20_000);
  });

  test.each([['xz', 'xz-utils'], ['zstd', 'zstd']] as const)('by %s on a node without the tool waits, and the package is named', async (packing, from) => {
    const packed = await pack(packing, disk);
    const bin = join(folder, 'bin');
    await mkdir(bin);
    for (const tool of ['setpriv', 'prlimit', 'unshare']) await symlink(`/usr/bin/${tool}`, join(bin, tool));
    const before = process.env.PATH;
    process.env.PATH = bin;
    try {
      await expect(unpackIt(packed)).rejects.toMatchObject({ code: 'UnpackFailed', retry: 'later', message: expect.stringContaining(`install the package ${from}`) });
    } finally {
      process.env.PATH = before;
    }
  });
});

test.each<[string, Packing | undefined]>([['\x1f\x8b\x08\0', 'gzip'], ['\xfd7zXZ\0', 'xz'], ['\x28\xb5\x2f\xfd', 'zstd'], ['QFI\xfb', undefined], ['', undefined], ['\x1f', undefined], ['BZh9', undefined]])('the first bytes %j say %s', (head, packing) => {
  expect(packingOf(Buffer.from(head, 'latin1'))).toBe(packing);
});
