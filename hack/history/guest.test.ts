import { expect, test } from '@jest/globals';
import { bootsOf, diaryGuest } from './guest.ts';

test('the disk has one boot sector with its texts, and nothing in the place of the diary', () => {
  const disk = diaryGuest();
  expect([disk.length, ...disk.slice(510, 512)]).toEqual([1024 * 1024, 0x55, 0xaa]);
  expect(disk.slice(512, 1024).every((byte) => byte === 0)).toBe(true);
  // The code names its texts by address.
  const at = (address: number, length: number) => new TextDecoder('latin1').decode(disk.slice(address - 0x7c00, address - 0x7c00 + length));
  expect([at(0x7cdc, 6), at(0x7ce2, 7), at(0x7ce9, 3), at(0x7cec, 13)]).toEqual(['disk \0', ' boot \0', '\r\n\0', 'disk failed\r\n']);
});

test('boots are read from whole lines', () => {
  expect(bootsOf('SeaBIOS\r\ndisk 0000BEEF boot 00000001\r\ndisk 0000BEEF boot 0000000A\r\ndisk 0000BEEF boot 0000')).toEqual([
    { mark: '0000BEEF', count: 1 }, { mark: '0000BEEF', count: 10 },
  ]);
});
