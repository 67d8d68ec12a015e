import type { FileHandle } from 'node:fs/promises';

/** Writes a stream of bytes from the beginning of an empty file on, and leaves holes where they are zero. */
export type SparseWriter = {
  write: (bytes: Buffer) => Promise<void>;
  /** Gives the file its length, with a hole at its end if need be. */
  finish: () => Promise<void>;
  /** What was given so far, and what of it takes room on the disk. */
  sizeBytes: () => number;
  writtenBytes: () => number;
};

/** Smaller holes than this are not made: file systems keep blocks of 4 KiB, and qemu-img asks for each hole. */
export const holeBytes = 65_536;
const zeros = Buffer.alloc(holeBytes);

/** A sparse writer onto a file that is empty. */
export const makeSparseWriter = (file: FileHandle): SparseWriter => {
  let at = 0;
  let written = 0;
  const put = async (bytes: Buffer, position: number): Promise<void> => {
    for (let done = 0; done < bytes.byteLength; ) done += (await file.write(bytes, done, bytes.byteLength - done, position + done)).bytesWritten;
    written += bytes.byteLength;
  };
  return {
    write: async (bytes) => {
      let data = 0;
      for (let from = 0; from < bytes.byteLength; ) {
        // Blocks lie at multiples of their size in the file, however the bytes arrive.
        const to = Math.min(bytes.byteLength, from + holeBytes - ((at + from) % holeBytes));
        if (zeros.compare(bytes, from, to, 0, to - from) === 0) {
          if (data < from) await put(bytes.subarray(data, from), at + data);
          data = to;
        }
        from = to;
      }
      if (data < bytes.byteLength) await put(bytes.subarray(data), at + data);
      at += bytes.byteLength;
    },
    finish: () => file.truncate(at),
    sizeBytes: () => at,
    writtenBytes: () => written,
  };
};
