import type { FileHandle } from 'node:fs/promises';
import type { Qcow2Header } from './qcow2.ts';

/** Which pieces of 64 KiB of a disk have data. */
export type Mapped = { clusters: number; has: (cluster: number) => boolean };

const pieceBytes = 65_536;
const entryBytes = 8;

/**
 * Reads the tables of an inspected qcow2 and tells where its disk has data; undefined when less than half of that is compressed, when its tables are
 * of a form that is seldom (small clusters, subclusters), or when they are broken. It reads tables and no data, at most one 8192nd of the
 * disk. Source: QEMU, docs/interop/qcow2.txt.
 */
export const mappedOf = async (file: FileHandle, header: Qcow2Header): Promise<Mapped | undefined> => {
  const { version, clusterBytes, virtualSizeBytes, l1Offset, extendedL2 } = header;
  if (clusterBytes < pieceBytes || extendedL2) return undefined;
  const fileBytes = (await file.stat()).size;
  const perTable = clusterBytes / entryBytes;
  const clusters = Math.ceil(virtualSizeBytes / pieceBytes);
  const pieces = clusterBytes / pieceBytes;
  const bitmap = new Uint8Array(Math.ceil(clusters / 8));
  const map = (from: number): void => {
    for (let at = from; at < Math.min(from + pieces, clusters); at += 1) bitmap[at >> 3] = (bitmap[at >> 3] ?? 0) | (1 << (at & 7));
  };
  const [l1, l2] = [Buffer.alloc(Math.ceil(virtualSizeBytes / (clusterBytes * perTable)) * entryBytes), Buffer.alloc(clusterBytes)];
  if (!(await fills(file, l1, l1Offset))) return undefined;
  let [compressed, plain] = [0, 0];
  for (let table = 0; table < l1.byteLength / entryBytes; table += 1) {
    const offset = offsetIn(l1, table);
    if (offset === 0) continue;
    if (offset % clusterBytes !== 0 || offset + clusterBytes > fileBytes || !(await fills(file, l2, offset))) return undefined;
    for (let entry = 0; entry < perTable; entry += 1) {
      const isCompressed = (l2.readUInt32BE(entry * entryBytes) & 0x4000_0000) !== 0;
      const isZero = version === 3 && (l2.readUInt32BE(entry * entryBytes + 4) & 1) !== 0;
      if (!isCompressed && (isZero || offsetIn(l2, entry) === 0)) continue;
      if (isCompressed) compressed += 1;
      else plain += 1;
      map((table * perTable + entry) * pieces);
    }
  }
  return compressed > plain ? { clusters, has: (at) => ((bitmap[at >> 3] ?? 0) & (1 << (at & 7))) !== 0 } : undefined;
};

/** Bits 9 to 55 of an entry. */
const offsetIn = (table: Buffer, entry: number): number => {
  const at = entry * entryBytes;
  return (table.readUInt32BE(at) & 0x00ff_ffff) * 2 ** 32 + ((table.readUInt32BE(at + 4) & 0xffff_fe00) >>> 0);
};

const fills = async (file: FileHandle, buffer: Buffer, at: number): Promise<boolean> => (await file.read(buffer, 0, buffer.byteLength, at)).bytesRead === buffer.byteLength;
