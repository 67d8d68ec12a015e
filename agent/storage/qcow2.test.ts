import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseQcow2 } from '../image/inspect/qcow2.ts';
import { emptyQcow2, type SparseFile } from './qcow2.ts';

const headOf = (file: SparseFile): Uint8Array => file.pieces.find(({ at }) => at === 0)?.bytes ?? new Uint8Array();
const mebibyte = 1024 * 1024;

describe('an empty qcow2', () => {
  test('any size up to 9 TiB, with and without a base, reads back as it was asked for', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 9 * mebibyte }), fc.option(fc.stringMatching(/^[a-z0-9]{1,20}$/), { nil: undefined }), (sizeMiB, disk) => {
      const backing = disk === undefined ? undefined : `${disk}.base`;
      const file = emptyQcow2(sizeMiB * mebibyte, backing);
      const header = parseQcow2(headOf(file), file.fileBytes);
      expect(header).toMatchObject({ version: 3, virtualSizeBytes: sizeMiB * mebibyte });
      expect(header.backing).toBe(backing);
    }));
  });

  test('takes a few KiB on disk, however large', () => {
    const { pieces } = emptyQcow2(9 * mebibyte * mebibyte, 'root.base');
    expect(pieces.reduce((sum, { bytes }) => sum + bytes.byteLength, 0)).toBeLessThan(4096);
  });
});
