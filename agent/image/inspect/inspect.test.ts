import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Fault } from '#crds/kit/fault.ts';
import { emptyQcow2 } from '../../storage/qcow2.ts';
import { absurdBytes, inspect, tailBytes } from './inspect.ts';
import { parseQcow2 } from './qcow2.ts';

const gibibyte = 1024 ** 3;
const most = 64 * gibibyte;

const fileOf = (virtualSizeBytes: number, backing?: string): Buffer => {
  const { fileBytes, pieces } = emptyQcow2(virtualSizeBytes, backing);
  const file = Buffer.alloc(fileBytes);
  for (const { at, bytes } of pieces) file.set(bytes, at);
  return file;
};
const sampleOf = (file: Buffer) => ({ head: file, tail: file.subarray(-tailBytes), fileBytes: file.byteLength });
const verdict = (file: Buffer, format: 'qcow2' | 'raw' = 'qcow2') => inspect(sampleOf(file), format, most);
const good = fileOf(gibibyte);
const u32 = (at: number, value: number) => (file: Buffer) => void file.writeUInt32BE(value, at);
const u64 = (at: number, value: bigint) => (file: Buffer) => void file.writeBigUInt64BE(value, at);
const both = (...changes: ((file: Buffer) => void)[]) => (file: Buffer) => {
  for (const change of changes) change(file);
};

describe('a qcow2', () => {
  test('of ours is accepted, with its size', () => {
    expect(verdict(good)).toEqual({ format: 'qcow2', virtualSizeBytes: gibibyte });
  });

  test.each<[string, (file: Buffer) => void, RegExp]>([
    ['a backing file', (file) => file.set(fileOf(gibibyte, '../../etc/shadow').subarray(0, 300)), /backing file \("..\/..\/etc\/shadow"\)/],
    ['a backing file outside of the header', both(u64(8, 70_000n), u32(16, 5)), /backing file name lies outside/],
    ['a backing file over the header', both(u64(8, 8n), u32(16, 5)), /backing file name lies outside/],
    ['a backing file of no length', u64(8, 200n), /backing file name lies outside/],
    ['a backing file without a place', u32(16, 5), /without a place/],
    ['an external data file by feature bit', u32(76, 4), /external data file/],
    ['an external data file by header extension', u32(104, 0x44_41_54_41), /external data file/],
    ['an external data file behind another extension', both(u32(104, 0x68_03_f8_57), u32(108, 3), u32(120, 0x44_41_54_41)), /external data file/],
    ['encryption by method', u32(32, 2), /encrypted/],
    ['encryption by extension', u32(104, 0x05_37_be_77), /encrypted/],
    ['the corrupt bit', u32(76, 2), /marked corrupt/],
    ['an unknown incompatible feature', u32(76, 32), /not known/],
    ['an unknown incompatible feature in the high half', u32(72, 1), /not known/],
    ['version 1', u32(4, 1), /version 1 is not known/],
    ['version 4', u32(4, 4), /version 4 is not known/],
    ['cluster_bits 8', u32(20, 8), /cluster_bits 8/],
    ['cluster_bits 22', u32(20, 22), /cluster_bits 22/],
    ['a size above what is configured', both(u64(24, BigInt(most) + 512n), u32(36, 129)), /this node takes 68719476736 at most/],
    ['a size beyond all numbers', u64(24, 2n ** 63n), /virtual size is absurdly large/],
    ['no size', u64(24, 0n), /no size/],
    ['an L1 table that is too short', u32(36, 1), /too short/],
    ['an L1 table out of the file', u64(40, 2n ** 40n), /L1 table lies outside/],
    ['an L1 table of absurd length', u32(36, 2 ** 31), /L1 table is absurdly large/],
    ['an L1 table between clusters', u64(40, 65_537n), /L1 table does not begin at a cluster/],
    ['an L1 table over the header', u64(40, 0n), /L1 table does not begin at a cluster/],
    ['a refcount table out of the file', u64(48, 2n ** 40n), /refcount table lies outside/],
    ['an absurd refcount table', u32(56, 2 ** 31), /refcount table is absurdly large/],
    ['no refcount table', u32(56, 0), /no refcount table/],
    ['refcount_order 7', u32(96, 7), /refcount_order 7/],
    ['snapshots', u32(60, 1), /internal snapshots/],
    ['header_length 72 in version 3', u32(100, 72), /header_length 72/],
    ['header_length 105', u32(100, 105), /header_length 105/],
    ['a header_length beyond the cluster', u32(100, 65_544), /header_length 65544/],
    ['an extension that leaves the header', both(u32(104, 1), u32(108, 2 ** 31)), /extension leaves the header/],
    ['an unknown compression', both(u32(76, 8), u32(100, 112), (file) => void file.writeUInt8(7, 104)), /compression type 7/],
    ['a compression without its bit', both(u32(100, 112), (file) => void file.writeUInt8(1, 104)), /do not agree/],
    ['extended L2 entries in small clusters', both(u32(76, 16), u32(20, 12)), /extended L2/],
    ['the magic of another format', (file) => void file.write('KDMV', 0, 'latin1'), /said to be qcow2, but it is VMDK/],
    ['no magic', (file) => void file.fill(0, 0, 4), /does not begin with the magic/],
  ])('with %s is refused for ever', (_, change, why) => {
    const file = Buffer.from(good);
    change(file);
    expect(() => verdict(file)).toThrow(expect.objectContaining({ code: 'ImageRefused', retry: 'never', message: expect.stringMatching(why) }));
  });

  test('above 16 TiB is refused whatever is configured', () => {
    const file = fileOf(absurdBytes + 1024 ** 3);
    expect(() => inspect(sampleOf(file), 'qcow2', Number.MAX_SAFE_INTEGER)).toThrow(/at most/);
  });

  test('that is cut off anywhere in its header is refused', () => {
    for (let bytes = 0; bytes < 112; bytes += 1) {
      expect(() => verdict(good.subarray(0, bytes))).toThrow(expect.objectContaining({ code: 'ImageRefused' }));
    }
  });

  test('of version 2 is accepted', () => {
    const file = Buffer.from(good);
    u32(4, 2)(file);
    file.fill(0, 72, 112);
    expect(verdict(file)).toMatchObject({ virtualSizeBytes: gibibyte });
  });
});

describe('a raw disk', () => {
  const disk = Buffer.alloc(4096);
  disk.set([0x55, 0xaa], 510);

  test('is accepted, its size rounded up to a sector', () => {
    expect(verdict(disk, 'raw')).toEqual({ format: 'raw', virtualSizeBytes: 4096 });
    expect(verdict(Buffer.alloc(513), 'raw')).toEqual({ format: 'raw', virtualSizeBytes: 1024 });
  });

  test('that is empty is refused', () => {
    expect(() => verdict(Buffer.alloc(0), 'raw')).toThrow(/empty/);
  });

  test.each<[string, number, string]>([
    ['QFI\xfb', 0, 'qcow2'], ['KDMV', 0, 'VMDK'], ['# Disk DescriptorFile\n', 0, 'VMDK descriptor'], ['vhdxfile', 0, 'VHDX'],
    ['conectix', 4096 - 512, 'VHD'], ['\x7f\x10\xda\xbe', 64, 'VDI'], ['\x1f\x8b', 0, 'gzip'], ['\xfd7zXZ\0', 0, 'xz'],
    ['ustar', 257, 'tar'], ['<!DOCTYPE html>', 0, 'web page'], ['LUKS\xba\xbe', 0, 'LUKS'],
  ])('that carries %j at %i is refused, since a later reader might guess', (bytes, at, name) => {
    const file = Buffer.from(disk);
    file.write(bytes, at, 'latin1');
    expect(() => verdict(file, 'raw')).toThrow(expect.objectContaining({ code: 'ImageRefused', message: expect.stringContaining(name) }));
  });
});

describe('hostile bytes', () => {
  const endsWell = (file: Buffer, fileBytes: number, format: 'qcow2' | 'raw') => {
    try {
      const { virtualSizeBytes } = inspect({ head: file, tail: file.subarray(-tailBytes), fileBytes }, format, most);
      expect(virtualSizeBytes).toBeGreaterThan(0);
      expect(virtualSizeBytes).toBeLessThanOrEqual(most);
    } catch (thrown) {
      expect(thrown).toMatchObject({ code: 'ImageRefused', retry: 'never' });
      expect(thrown instanceof Fault).toBe(true);
    }
  };

  test('end in a verdict or in ImageRefused, whatever they are', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 2048 }), fc.nat(), fc.constantFrom('qcow2', 'raw'), (bytes, fileBytes, format) =>
      endsWell(Buffer.from(bytes), fileBytes, format)), { numRuns: 500 });
  });

  test('that nearly are a qcow2 end likewise', () => {
    const change = fc.tuple(fc.nat({ max: 200 }), fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat({ max: 255 })));
    fc.assert(fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), fc.nat({ max: 262_144 }), (changes, cut) => {
      const file = Buffer.from(good.subarray(0, 4096));
      for (const [at, value] of changes) file[at] = value;
      endsWell(file, good.byteLength, 'qcow2');
      endsWell(Buffer.from(file.subarray(0, cut)), cut, 'qcow2');
    }), { numRuns: 2000 });
  });

  test('that pass as a qcow2 name no other file', () => {
    const change = fc.tuple(fc.integer({ min: 4, max: 140 }), fc.nat({ max: 255 }));
    fc.assert(fc.property(fc.array(change, { maxLength: 4 }), (changes) => {
      const file = Buffer.from(good);
      for (const [at, value] of changes) file[at] = value;
      const passed = (() => {
        try {
          return verdict(file) !== undefined;
        } catch {
          return false;
        }
      })();
      if (!passed) return;
      expect(file.readBigUInt64BE(8)).toBe(0n);
      expect(parseQcow2(file, file.byteLength).backing).toBeUndefined();
      if (file.readUInt32BE(4) === 3) expect(file.readUInt32BE(76) & 4).toBe(0);
    }), { numRuns: 2000 });
  });
});
