import type { FileHandle } from 'node:fs/promises';
import { clusterBytes, numbers, qcow2Header } from '../storage/qcow2.ts';
import type { Mapped } from './inspect/mapped.ts';

/** A file as data, piece by piece; all else is zero up to `fileBytes`. */
export type Layout = { fileBytes: number; pieces: Iterable<{ at: number; bytes: Uint8Array }> };

const perTable = clusterBytes / 8;
const perBlock = clusterBytes / 2;

/**
 * An empty qcow2 in which what `mapped` names has its place already, in the order of the disk. Whoever writes it in whatever order leaves neighbours
 * neighbours, and what is never written is a hole that reads as zeros. Pure. Source: QEMU, docs/interop/qcow2.txt.
 */
export const layoutOf = (virtualSizeBytes: number, { clusters, has }: Mapped): Layout => {
  const l1Entries = Math.ceil(clusters / perTable);
  const l1Clusters = Math.ceil((l1Entries * 8) / clusterBytes);
  const mappedIn = Array.from({ length: l1Entries }, (_, table) => {
    let count = 0;
    for (let at = table * perTable; at < Math.min((table + 1) * perTable, clusters); at += 1) if (has(at)) count += 1;
    return count;
  });
  const tables = mappedIn.filter((count) => count > 0).length;
  const data = mappedIn.reduce((sum, count) => sum + count, 0);
  // Header and refcount table, refcount blocks, L1 table, L2 tables, data. Blocks count themselves, too.
  const others = 2 + l1Clusters + tables + data;
  let blocks = 1;
  while (blocks * perBlock < others + blocks) blocks += 1;
  const l1At = (2 + blocks) * clusterBytes;
  const l2At = l1At + l1Clusters * clusterBytes;
  const total = others + blocks;

  const pieces = function* (): Generator<{ at: number; bytes: Uint8Array }> {
    yield { at: 0, bytes: qcow2Header({ virtualSizeBytes, l1Entries, l1At }) };
    yield { at: clusterBytes, bytes: numbers(8, Array.from({ length: blocks }, (_, block) => (2 + block) * clusterBytes)) };
    for (let block = 0; block < blocks; block += 1) {
      yield { at: (2 + block) * clusterBytes, bytes: numbers(2, Array.from({ length: Math.min(perBlock, total - block * perBlock) }, () => 1)) };
    }
    const l1 = Buffer.alloc(l1Entries * 8);
    let [tableAt, dataAt] = [l2At, l2At + tables * clusterBytes];
    for (const [table, count] of mappedIn.entries()) {
      if (count === 0) continue;
      entry(l1, table, tableAt);
      const l2 = Buffer.alloc(clusterBytes);
      for (let at = 0; at < perTable; at += 1) {
        if (table * perTable + at >= clusters || !has(table * perTable + at)) continue;
        entry(l2, at, dataAt);
        dataAt += clusterBytes;
      }
      yield { at: tableAt, bytes: l2 };
      tableAt += clusterBytes;
    }
    yield { at: l1At, bytes: l1 };
  };
  return { fileBytes: total * clusterBytes, pieces: pieces() };
};

/** A place in the file that nobody else refers to (QCOW_OFLAG_COPIED). */
const entry = (table: Buffer, at: number, offset: number): void => {
  table.writeUInt32BE(0x8000_0000 + Math.floor(offset / 2 ** 32), at * 8);
  table.writeUInt32BE(offset % 2 ** 32, at * 8 + 4);
};

/** Writes a layout into an empty file. */
export const layOut = async (file: FileHandle, { fileBytes, pieces }: Layout): Promise<void> => {
  await file.truncate(fileBytes);
  for (const { at, bytes } of pieces) for (let done = 0; done < bytes.byteLength; ) done += (await file.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten;
};
