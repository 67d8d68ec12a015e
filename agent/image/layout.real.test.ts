import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { attemptFiles, convert } from './convert.ts';
import { sampleOf } from './inspect/sample.ts';
import { mappedOf } from './inspect/mapped.ts';
import { parseQcow2 } from './inspect/qcow2.ts';
import { layOut, layoutOf } from './layout.ts';

const run = promisify(execFile);
const mebibyte = 1024 * 1024;
const unixId = 265_535;
const limits = { deadlineMs: 60_000, addressSpaceBytes: 2048 * mebibyte, cpuSeconds: 60 };

describe('a conversion into a layout', () => {
  let folder: string;
  const at = (name: string) => join(folder, name);
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-layout-'));
    await chown(folder, 0, unixId);
    await chmod(folder, 0o750);
    // Data that can be compressed, holes between it, a stretch of written zeros, and an end that is no whole cluster.
    const raw = await open(at('raw'), 'w');
    for (const mib of [0, 1, 5, 40, 41, 42, 70]) await raw.write(Buffer.alloc(mebibyte, randomBytes(500)), 0, mebibyte, mib * mebibyte);
    await raw.write(Buffer.alloc(mebibyte), 0, mebibyte, 50 * mebibyte);
    await raw.truncate(80 * mebibyte + 512);
    await raw.close();
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const make = (...options: string[]) => run('qemu-img', ['convert', ...options, '-f', 'raw', '-O', 'qcow2', at('raw'), at(attemptFiles.source)]);
  const mapped = async () => {
    await using source = await open(at(attemptFiles.source), 'r');
    const { head, fileBytes } = await sampleOf(source);
    const header = parseQcow2(head, fileBytes);
    return { header, map: await mappedOf(source, header) };
  };

  test.each([
    ['of the usual form', ['-c']],
    ['of version 2', ['-c', '-o', 'compat=0.10']],
    ['of large clusters', ['-c', '-o', 'cluster_size=2M']],
    ['compressed by zstd', ['-c', '-o', 'compression_type=zstd']],
  ])('of a compressed qcow2 %s gives the same disk, without a fault, each stretch in one piece', async (_, options) => {
    await make(...options);
    const { header, map } = await mapped();
    if (!map) throw new Error('it is compressed');
    await using converted = await open(at(attemptFiles.converted), 'wx', 0o600);
    await layOut(converted, layoutOf(header.virtualSizeBytes, map));
    await converted.chown(unixId, unixId);
    await chown(at(attemptFiles.source), 0, unixId);
    await chmod(at(attemptFiles.source), 0o440);
    await convert({ directory: folder, format: 'qcow2', virtualSizeBytes: header.virtualSizeBytes, laidOut: true, unixId, limits, progress: () => {} }, AbortSignal.timeout(60_000));
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', at('raw'), at(attemptFiles.converted)]);
    await run('qemu-img', ['check', '-q', at(attemptFiles.converted)]);
    const { stdout } = await run('qemu-img', ['map', '--output=json', '-f', 'qcow2', at(attemptFiles.converted)]);
    const pieces: { data: boolean; offset?: number }[] = JSON.parse(stdout);
    const offsets = pieces.flatMap(({ data, offset }) => (data && offset !== undefined ? [offset] : []));
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    expect(offsets.length).toBeLessThanOrEqual(8);
    // What takes room is the data, not its place.
    expect((await stat(at(attemptFiles.converted))).blocks * 512).toBeLessThan(9 * mebibyte);
  });

  test.each([
    ['is not compressed', []],
    ['has small clusters', ['-c', '-o', 'cluster_size=4k']],
    ['has subclusters', ['-o', 'extended_l2=on,cluster_size=64k']],
  ])('is not tried with a qcow2 that %s', async (_, options) => {
    await make(...options);
    expect((await mapped()).map).toBeUndefined();
  });

  test('is not tried with one whose tables lead nowhere', async () => {
    await make('-c');
    const { header } = await mapped();
    const file = await open(at(attemptFiles.source), 'r+');
    await file.write(Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]), 0, 8, header.l1Offset);
    await file.close();
    expect((await mapped()).map).toBeUndefined();
  });
});
