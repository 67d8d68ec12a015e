import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeSink } from './sink.ts';
import { until } from '#hack/bed/until.ts';

const mebibyte = 1024 * 1024;
const part = (fill: number, bytes = 65_536): Buffer => Buffer.alloc(bytes, fill);

describe('a sink', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-sink-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('writes everything in its order, from its position on, in large pieces', async () => {
    await using file = await open(join(folder, 'file'), 'w+');
    await file.write(Buffer.from('before'), 0, 6, 0);
    const reached: number[] = [];
    const sink = makeSink(file, 6, (upTo) => void reached.push(upTo));
    const parts = Array.from({ length: 50 }, (_, at) => part(at));
    for (const each of parts) await sink.take(each);
    await sink.flush();
    expect((await readFile(join(folder, 'file'))).equals(Buffer.concat([Buffer.from('before'), ...parts]))).toBe(true);
    expect(reached.at(-1)).toBe(6 + 50 * 65_536);
    // Four when nothing keeps us: what waits for 50 ms is written as it is.
    expect(reached.length).toBeLessThan(12);
    expect(reached).toEqual(reached.toSorted((a, b) => a - b));
  });

  test('does not keep for long what comes slowly', async () => {
    await using file = await open(join(folder, 'file'), 'w+');
    const reached: number[] = [];
    const sink = makeSink(file, 0, (upTo) => void reached.push(upTo));
    await sink.take(part(1, 10));
    await until('the part to be written', () => reached.length === 1, 5_000);
    await sink.take(part(2, 10));
    await until('the next one to be written', () => reached.length === 2, 5_000);
    expect(reached).toEqual([10, 20]);
  });

  test('finishes a write that came out short', async () => {
    const written: [number, number][] = [];
    const file = {
      writev: async () => ({ bytesWritten: 3 }),
      write: async (bytes: Buffer, at: number, length: number, position: number) => {
        written.push([position, bytes.byteLength - at]);
        return { bytesWritten: Math.min(4, length) };
      },
    };
    const reached: number[] = [];
    const sink = makeSink(file, 100, (upTo) => void reached.push(upTo));
    await sink.take(part(1, 10));
    await sink.flush();
    expect([written, reached]).toEqual([[[103, 7], [107, 3]], [110]]);
  });

  test('tells of a write that failed to whoever comes next, and counts nothing from there on', async () => {
    let calls = 0;
    const file = {
      writev: async (parts: readonly Buffer[]) => {
        calls += 1;
        if (calls > 1) throw new Error('ENOSPC');
        return { bytesWritten: parts.reduce((sum, { byteLength }) => sum + byteLength, 0) };
      },
      write: () => Promise.reject(new Error('not this')),
    };
    const reached: number[] = [];
    const sink = makeSink(file, 0, (upTo) => void reached.push(upTo));
    await sink.take(part(1, mebibyte));
    await sink.take(part(2, mebibyte));
    await expect(sink.take(part(3, mebibyte))).rejects.toThrow('ENOSPC');
    await expect(sink.flush()).rejects.toThrow('ENOSPC');
    expect([reached, calls]).toEqual([[mebibyte], 2]);
  });
});
