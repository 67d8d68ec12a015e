/** A sparse file as data: what to write where; all else is zero up to `fileBytes`. */
export type SparseFile = { fileBytes: number; pieces: readonly { at: number; bytes: Uint8Array }[] };

/** Of the qcow2 files that we write. */
export const clusterBytes = 65_536;
const headerBytes = 104;
const backingFormatExtension = 0xe2_79_2a_ca;

/**
 * An empty qcow2 (version 3, 64 KiB clusters) for a disk of `virtualSizeBytes`, or an overlay when `backing` names a
 * qcow2 in the same folder. Pure: it is written in well under a millisecond, where a qemu-img process takes 30.
 * Source: QEMU, docs/interop/qcow2.txt.
 */
export const emptyQcow2 = (virtualSizeBytes: number, backing?: string): SparseFile => {
  const l1Entries = Math.ceil(virtualSizeBytes / (clusterBytes * (clusterBytes / 8)));
  const l1Clusters = Math.ceil((l1Entries * 8) / clusterBytes);
  // Clusters: header, refcount table, one refcount block, L1 table.
  const clusters = 3 + l1Clusters;
  return {
    fileBytes: clusters * clusterBytes,
    pieces: [
      { at: 0, bytes: qcow2Header({ virtualSizeBytes, l1Entries, l1At: 3 * clusterBytes }, backing) },
      { at: clusterBytes, bytes: numbers(8, [2 * clusterBytes]) },
      { at: 2 * clusterBytes, bytes: numbers(2, Array.from({ length: clusters }, () => 1)) },
    ],
  };
};

/** The header of a qcow2 whose refcount table is its second cluster. Pure. */
export const qcow2Header = ({ virtualSizeBytes, l1Entries, l1At }: { virtualSizeBytes: number; l1Entries: number; l1At: number }, backing?: string): Uint8Array => {
  const name = Buffer.from(backing ?? '', 'utf8');
  const extensions = backing === undefined
    ? [numbers(4, [0, 0])]
    : [numbers(4, [backingFormatExtension, 5]), Buffer.from('qcow2\0\0\0', 'latin1'), numbers(4, [0, 0])];
  const nameAt = headerBytes + extensions.reduce((sum, each) => sum + each.byteLength, 0);
  return Buffer.concat([
    numbers(4, [0x51_46_49_fb, 3]),
    numbers(8, [backing === undefined ? 0 : nameAt]),
    numbers(4, [name.byteLength, 16]),
    numbers(8, [virtualSizeBytes]),
    numbers(4, [0, l1Entries]),
    numbers(8, [l1At, clusterBytes]),
    // refcount table clusters, number of snapshots
    numbers(4, [1, 0]),
    // snapshots offset; incompatible, compatible and autoclear features
    numbers(8, [0, 0, 0, 0]),
    // refcount order 4: counts of 16 bits
    numbers(4, [4, headerBytes]),
    ...extensions,
    name,
  ]);
};

/** Numbers of so many bytes, in network order. Pure. */
export const numbers = (width: 2 | 4 | 8, values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(width * values.length);
  values.forEach((value, index) => {
    if (width === 8) bytes.writeBigUInt64BE(BigInt(value), index * 8);
    else bytes.writeUIntBE(value, index * width, width);
  });
  return bytes;
};
