import type { FileHandle } from 'node:fs/promises';
import { headBytes, type Sample, tailBytes } from './inspect.ts';

/** Reads the parts of a file that a verdict needs. */
export const sampleOf = async (file: FileHandle): Promise<Sample> => {
  const fileBytes = (await file.stat()).size;
  const read = async (bytes: number, at: number): Promise<Uint8Array> => {
    const buffer = Buffer.alloc(bytes);
    const { bytesRead } = await file.read(buffer, 0, bytes, at);
    return buffer.subarray(0, bytesRead);
  };
  const tail = Math.min(tailBytes, fileBytes);
  return { head: await read(Math.min(headBytes, fileBytes), 0), tail: await read(tail, fileBytes - tail), fileBytes };
};
