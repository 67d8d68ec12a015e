import { refused } from './refused.ts';

/**
 * The header of a qcow2 file, as far as it matters here. Sizes and offsets in bytes.
 * Source: QEMU, docs/interop/qcow2.txt.
 */
export type Qcow2Header = {
  version: 2 | 3;
  clusterBytes: number;
  virtualSizeBytes: number;
  /** Name of the backing file; undefined when there is none. */
  backing?: string;
  l1Entries: number;
  l1Offset: number;
  /** L2 entries of 16 bytes, with subclusters. */
  extendedL2: boolean;
};

/** The most of a file that the header and its extensions can take: one cluster of the largest size. */
export const headBytes = 2 * 1024 * 1024;

export const magic = 0x51_46_49_fb;
const bits = { dirty: 1, corrupt: 2, dataFile: 4, compression: 8, extendedL2: 16 };
const extensions = { end: 0, dataFile: 0x44_41_54_41, encryption: 0x05_37_be_77 };
// QEMU refuses larger tables as well: QCOW_MAX_L1_SIZE and QCOW_MAX_REFTABLE_SIZE in block/qcow2.h.
const maxL1Bytes = 32 * 1024 * 1024;
const maxRefcountTableBytes = 8 * 1024 * 1024;

/**
 * Reads the header out of the first bytes of a qcow2 file and checks that it is one that can be opened without
 * looking at any other file, except for a backing file, which is named in the answer. `head` is the whole file or its
 * first `headBytes`. Reads nothing outside of `head` and keeps nothing of it. Fault: ImageRefused.
 */
export const parseQcow2 = (head: Uint8Array, fileBytes: number): Qcow2Header => {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const u32 = (at: number): number => (at + 4 <= view.byteLength ? view.getUint32(at) : refused('the header is cut off'));
  const u64 = (at: number, what: string): number => {
    const high = u32(at);
    if (high >= 2 ** 21) return refused(`${what} is absurdly large`);
    return high * 2 ** 32 + u32(at + 4);
  };
  if (u32(0) !== magic) return refused('it does not begin with the magic bytes of qcow2');
  const version = u32(4);
  if (version !== 2 && version !== 3) return refused(`qcow2 version ${version} is not known`);

  const clusterBits = u32(20);
  if (clusterBits < 9 || clusterBits > 21) return refused(`cluster_bits ${clusterBits} is not between 9 and 21`);
  const clusterBytes = 2 ** clusterBits;
  if (u32(32) !== 0) return refused('it is encrypted');
  const headerBytes = version === 2 ? 72 : u32(100);
  if (version === 3) checkVersion3({ low: u32(76), high: u32(72), refcountOrder: u32(96), headerBytes, clusterBits, clusterBytes });
  if (version === 3 && headerBytes > 104) checkCompression(head[104] ?? 0, (u32(76) & bits.compression) !== 0);

  const backingOffset = u64(8, 'backing_file_offset');
  const backing = backingOffset === 0 ? undefined : readName(head, backingOffset, u32(16), headerBytes, clusterBytes);
  if (backingOffset === 0 && u32(16) !== 0) return refused('it has a backing file name without a place');
  checkExtensions(u32, headerBytes, backingOffset === 0 ? clusterBytes : backingOffset, Math.min(fileBytes, head.byteLength));

  const virtualSizeBytes = u64(24, 'the virtual size');
  const l1Entries = u32(36);
  const l1Offset = u64(40, 'l1_table_offset');
  const extendedL2 = version === 3 && (u32(76) & bits.extendedL2) !== 0;
  const bytesPerL2 = clusterBytes * (clusterBytes / (extendedL2 ? 16 : 8));
  if (l1Entries < Math.ceil(virtualSizeBytes / bytesPerL2)) return refused('the L1 table is too short for the virtual size');
  checkTable('the L1 table', l1Offset, l1Entries * 8, maxL1Bytes, clusterBytes, fileBytes);
  if (u32(56) === 0) return refused('it has no refcount table');
  checkTable('the refcount table', u64(48, 'refcount_table_offset'), u32(56) * clusterBytes, maxRefcountTableBytes, clusterBytes, fileBytes);
  if (u32(60) !== 0) return refused('it holds internal snapshots; flatten it with `qemu-img convert` first');
  return { version, clusterBytes, virtualSizeBytes, l1Entries, l1Offset, extendedL2, ...(backing === undefined ? {} : { backing }) };
};

type Version3 = { low: number; high: number; refcountOrder: number; headerBytes: number; clusterBits: number; clusterBytes: number };

const checkVersion3 = ({ low, high, refcountOrder, headerBytes, clusterBits, clusterBytes }: Version3): void => {
  if ((low & bits.dataFile) !== 0) refused('its data lies in an external data file');
  if ((low & bits.corrupt) !== 0) refused('it is marked corrupt');
  const known = bits.dirty | bits.corrupt | bits.dataFile | bits.compression | bits.extendedL2;
  if (high !== 0 || (low & ~known) !== 0) refused('it needs an incompatible feature that is not known');
  if ((low & bits.extendedL2) !== 0 && clusterBits < 14) refused('extended L2 entries need clusters of 16 KiB at least');
  if (refcountOrder > 6) refused(`refcount_order ${refcountOrder} is above 6`);
  if (headerBytes < 104 || headerBytes % 8 !== 0 || headerBytes > clusterBytes) refused(`header_length ${headerBytes} is not possible`);
  if ((low & bits.compression) !== 0 && headerBytes <= 104) refused('it names a compression type but has no room for it');
};

const checkCompression = (type: number, flagged: boolean): void => {
  if (type > 1) refused(`compression type ${type} is not known`);
  if (flagged !== (type !== 0)) refused('its compression type and its feature bits do not agree');
};

const readName = (head: Uint8Array, offset: number, bytes: number, headerBytes: number, clusterBytes: number): string => {
  if (bytes < 1 || bytes > 1023 || offset < headerBytes || offset + bytes > clusterBytes) refused('its backing file name lies outside of the header');
  if (offset + bytes > head.byteLength) refused('the header is cut off');
  return Buffer.from(head.buffer, head.byteOffset + offset, bytes).toString('latin1');
};

const checkExtensions = (u32: (at: number) => number, from: number, end: number, readable: number): void => {
  // A header whose area ends without an end mark is accepted by QEMU too, when less than one entry is left.
  for (let at = from; at + 8 <= end && at + 8 <= readable; ) {
    const type = u32(at);
    const bytes = u32(at + 4);
    if (type === extensions.end) return;
    if (type === extensions.dataFile) refused('its data lies in an external data file');
    if (type === extensions.encryption) refused('it is encrypted');
    if (at + 8 + bytes > end) refused('a header extension leaves the header');
    at += 8 + Math.ceil(bytes / 8) * 8;
  }
};

const checkTable = (what: string, offset: number, bytes: number, most: number, clusterBytes: number, fileBytes: number): void => {
  if (bytes > most) refused(`${what} is absurdly large`);
  if (bytes > 0 && (offset === 0 || offset % clusterBytes !== 0)) refused(`${what} does not begin at a cluster`);
  if (bytes > 0 && offset + bytes > fileBytes) refused(`${what} lies outside of the file`);
};
