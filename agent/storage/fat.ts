import { crc32 } from 'node:zlib';

/** A file of a FAT image; names are up to 64 characters of plain ASCII. */
export type FatFile = { name: string; bytes: Uint8Array };

const sector = 512;
const rootEntries = 512;
const maxClusters = 4084;
// 1 January 1980, the first date that FAT knows: the same content gives the same image.
const date = 0x00_21;

/**
 * A FAT12 file system with a label (up to 11 characters) and files with long names in its root. Pure. FAT12 since the
 * label is then at byte 43, where small guests look for it, and Linux, Windows and mtools read it.
 * Source: Microsoft, "FAT32 File System Specification" (fatgen103), which covers FAT12 and long names.
 */
export const fatImage = (label: string, files: readonly FatFile[]): Uint8Array => {
  const sectorsPerCluster = clusterSize(files);
  const clusterBytes = sectorsPerCluster * sector;
  const used = files.reduce((sum, { bytes }) => sum + Math.ceil(bytes.byteLength / clusterBytes), 0);
  const clusters = Math.max(used, 128);
  const fatSectors = Math.ceil(((clusters + 2) * 1.5) / sector);
  const rootAt = (1 + 2 * fatSectors) * sector;
  const dataAt = rootAt + rootEntries * 32;
  const image = Buffer.alloc(dataAt + clusters * clusterBytes);

  const chains: number[] = [0xff8, 0xfff];
  const directory: Buffer[] = [entry(shortName(label), 0x08, 0, 0)];
  for (const [index, { name, bytes }] of files.entries()) {
    const first = bytes.byteLength === 0 ? 0 : chains.length;
    const count = Math.ceil(bytes.byteLength / clusterBytes);
    image.set(bytes, dataAt + (chains.length - 2) * clusterBytes);
    for (let left = count; left > 0; left -= 1) chains.push(left === 1 ? 0xfff : chains.length + 1);
    const alias = shortName(`${name.replace(/[^A-Za-z0-9]/g, '').slice(0, 5)}~${index + 1}`);
    directory.push(...longName(name, alias), entry(alias, 0x20, first, bytes.byteLength));
  }
  const fat = packed(chains);
  image.set(bootSector(label, sectorsPerCluster, fatSectors, image.byteLength / sector, crc32(Buffer.concat(files.map(({ bytes }) => bytes)))), 0);
  image.set(fat, sector);
  image.set(fat, (1 + fatSectors) * sector);
  image.set(Buffer.concat(directory), rootAt);
  return image;
};

const clusterSize = (files: readonly FatFile[]): number => {
  for (const sectors of [1, 2, 4, 8, 16, 32, 64]) {
    if (files.reduce((sum, { bytes }) => sum + Math.ceil(bytes.byteLength / (sectors * sector)), 0) <= maxClusters) return sectors;
  }
  throw new RangeError('the files do not fit into a FAT12 file system');
};

const bootSector = (label: string, sectorsPerCluster: number, fatSectors: number, sectors: number, serial: number): Buffer => {
  const boot = Buffer.alloc(sector);
  // jmp over the table; there: int 18h ("no boot here", the BIOS goes on to the next disk), then halt.
  boot.set([0xeb, 0x3c, 0x90], 0);
  boot.write('STRATO  ', 3, 'latin1');
  boot.writeUInt16LE(sector, 11);
  boot.writeUInt8(sectorsPerCluster, 13);
  boot.writeUInt16LE(1, 14);
  boot.writeUInt8(2, 16);
  boot.writeUInt16LE(rootEntries, 17);
  if (sectors < 65_536) boot.writeUInt16LE(sectors, 19);
  else boot.writeUInt32LE(sectors, 32);
  boot.writeUInt8(0xf8, 21);
  boot.writeUInt16LE(fatSectors, 22);
  boot.writeUInt16LE(32, 24);
  boot.writeUInt16LE(64, 26);
  boot.writeUInt8(0x80, 36);
  boot.writeUInt8(0x29, 38);
  boot.writeUInt32LE(serial >>> 0, 39);
  boot.write(label.padEnd(11), 43, 'latin1');
  boot.write('FAT12   ', 54, 'latin1');
  boot.set([0xcd, 0x18, 0xf4, 0xeb, 0xfd], 62);
  boot.set([0x55, 0xaa], 510);
  return boot;
};

const shortName = (name: string): string => name.toUpperCase().slice(0, 11).padEnd(11);

const entry = (name: string, attributes: number, cluster: number, bytes: number): Buffer => {
  const made = Buffer.alloc(32);
  made.write(name, 0, 'latin1');
  made.writeUInt8(attributes, 11);
  made.writeUInt16LE(date, 16);
  made.writeUInt16LE(date, 18);
  made.writeUInt16LE(date, 24);
  made.writeUInt16LE(cluster, 26);
  made.writeUInt32LE(bytes, 28);
  return made;
};

/** The entries of a long name, last part first, each with 13 UTF-16 characters and the checksum of the short alias. */
const longName = (name: string, alias: string): Buffer[] => {
  const sum = [...Buffer.from(alias, 'latin1')].reduce((last, byte) => (((last & 1) << 7) + (last >> 1) + byte) & 0xff, 0);
  const parts = Math.ceil(name.length / 13);
  const units = Array.from({ length: parts * 13 }, (_, at) => (at < name.length ? name.charCodeAt(at) : at === name.length ? 0 : 0xffff));
  return Array.from({ length: parts }, (_, back) => {
    const order = parts - back;
    const made = Buffer.alloc(32);
    made.writeUInt8(order === parts ? order | 0x40 : order, 0);
    made.writeUInt8(0x0f, 11);
    made.writeUInt8(sum, 13);
    units.slice((order - 1) * 13, order * 13).forEach((unit, at) => made.writeUInt16LE(unit, at < 5 ? 1 + at * 2 : at < 11 ? 4 + at * 2 : 6 + at * 2));
    return made;
  });
};

/** FAT12 packs two entries of 12 bits into three bytes. */
const packed = (chains: readonly number[]): Buffer => {
  const fat = Buffer.alloc(Math.ceil(chains.length / 2) * 3);
  chains.forEach((next, at) => {
    const byte = Math.floor(at / 2) * 3;
    if (at % 2 === 0) {
      fat[byte] = next & 0xff;
      fat[byte + 1] = (fat[byte + 1] ?? 0) | (next >> 8);
    } else {
      fat[byte + 1] = (fat[byte + 1] ?? 0) | ((next & 0x0f) << 4);
      fat[byte + 2] = next >> 4;
    }
  });
  return fat;
};
