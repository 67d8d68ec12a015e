import { expect, test } from '@jest/globals';
import { bootSectorImage } from './bootsector.ts';

test('has one boot sector that holds its text and leaves the partition table empty', () => {
  const disk = bootSectorImage('x'.repeat(400));
  expect(disk).toHaveLength(1024 * 1024);
  expect(Array.from(disk.slice(510, 512))).toEqual([0x55, 0xaa]);
  expect(disk.slice(446, 510).every((byte) => byte === 0)).toBe(true);
  expect(new TextDecoder('latin1').decode(disk)).toContain(`${'x'.repeat(400)}\r\n\0`);
});

test.each(['x'.repeat(401), 'two\nlines', 'ümlaut'])('refuses %j', (text) => {
  expect(() => bootSectorImage(text)).toThrow(expect.objectContaining({ code: 'BootSectorText' }));
});
