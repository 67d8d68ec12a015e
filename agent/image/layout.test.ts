import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseQcow2 } from './inspect/qcow2.ts';
import { layoutOf } from './layout.ts';

const cluster = 65_536;
const u64 = (of: Buffer, at: number) => (of.readUInt32BE(at) & 0x7fff_ffff) * 2 ** 32 + of.readUInt32BE(at + 4);

/** The whole file, and what its tables say: the place of each cluster of the disk that has one. */
const read = (clusters: number, mapped: ReadonlySet<number>) => {
  const { fileBytes, pieces } = layoutOf(clusters * cluster, { clusters, has: (at) => mapped.has(at) });
  const file = new Map([...pieces].map(({ at, bytes }) => [at, Buffer.from(bytes)]));
  const header = parseQcow2(file.get(0) ?? Buffer.alloc(0), fileBytes);
  const l1 = file.get(header.l1Offset) ?? Buffer.alloc(0);
  const places = Array.from({ length: header.l1Entries }, (_, table) => u64(l1, table * 8)).flatMap((tableAt, table) => {
    const l2 = file.get(tableAt);
    return tableAt === 0 || !l2 ? [] : Array.from({ length: 8192 }, (_, at): [number, number] => [table * 8192 + at, u64(l2, at * 8)]).filter(([, place]) => place !== 0);
  });
  const blocks = file.get(cluster) ?? Buffer.alloc(0);
  const counted = Array.from({ length: blocks.byteLength / 8 }, (_, block) => (file.get(u64(blocks, block * 8))?.byteLength ?? 0) / 2).reduce((sum, each) => sum + each, 0);
  return { fileBytes, header, places, counted, tables: new Set(file.keys()) };
};

describe('a layout', () => {
  test('gives each mapped cluster one place of its own, in the order of the disk, behind all tables; every cluster of the file is counted once', () => {
    fc.assert(fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 40_000 }), { maxLength: 200 }), fc.integer({ min: 0, max: 9_000 }), (some, more) => {
      const mapped = new Set([...some, ...Array.from({ length: 20 }, (_, at) => more + at)]);
      const { fileBytes, header, places, counted, tables } = read(40_001, mapped);
      expect(header.virtualSizeBytes).toBe(40_001 * cluster);
      expect(places.map(([of]) => of)).toEqual([...mapped].toSorted((a, b) => a - b));
      const first = fileBytes - mapped.size * cluster;
      expect(places.map(([, place]) => place)).toEqual(places.map((_, at) => first + at * cluster));
      expect(Math.max(...tables)).toBeLessThan(first);
      expect(counted * cluster).toBe(fileBytes);
    }), { numRuns: 30 });
  });

  test('of more than a refcount block can count has two', () => {
    const clusters = 33_000;
    const { fileBytes, counted, places } = read(clusters, new Set(Array.from({ length: clusters }, (_, at) => at)));
    expect([places.length, counted * cluster === fileBytes]).toEqual([clusters, true]);
  });

  test('of nothing is an empty qcow2', () => {
    expect(read(1, new Set())).toMatchObject({ places: [], fileBytes: 4 * cluster });
  });
});
