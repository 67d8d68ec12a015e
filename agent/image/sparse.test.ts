import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { holeBytes, makeSparseWriter } from './sparse.ts';

describe('a sparse writer', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-sparse-'));
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  const written = async (parts: readonly Buffer[]) => {
    const path = join(folder, 'file');
    await rm(path, { force: true });
    await using file = await open(path, 'wx+');
    const writer = makeSparseWriter(file);
    for (const part of parts) await writer.write(part);
    await writer.finish();
    return { bytes: await readFile(path), wrote: writer.writtenBytes(), size: writer.sizeBytes() };
  };

  test('keeps every byte, in whatever parts they come', async () => {
    const piece = fc.oneof(
      fc.nat(3 * holeBytes).map((length) => Buffer.alloc(length)),
      fc.tuple(fc.nat(2 * holeBytes), fc.integer({ min: 1, max: 255 })).map(([length, value]) => Buffer.alloc(length, value)),
      fc.tuple(fc.nat(holeBytes), fc.nat(holeBytes)).map(([before, behind]) => Buffer.concat([Buffer.alloc(before), Buffer.from([1]), Buffer.alloc(behind)])),
    );
    await fc.assert(fc.asyncProperty(fc.array(piece, { maxLength: 6 }), async (parts) => {
      const whole = Buffer.concat(parts);
      const { bytes, wrote, size } = await written(parts);
      expect(bytes.equals(whole)).toBe(true);
      expect(size).toBe(whole.byteLength);
      expect(wrote).toBeLessThanOrEqual(whole.byteLength);
    }), { numRuns: 60 });
  });

  test('writes nothing of what is zero, wherever the parts end', async () => {
    const { wrote, size } = await written([Buffer.alloc(100), Buffer.alloc(holeBytes - 100), Buffer.alloc(5 * holeBytes + 7), Buffer.from([1]), Buffer.alloc(3 * holeBytes)]);
    expect([wrote, size]).toEqual([1, 9 * holeBytes + 8]);
  });
});
