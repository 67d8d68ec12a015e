import { createHash } from 'node:crypto';
import { closeSync, constants, openSync, readSync } from 'node:fs';

/** Which file, and whether its SHA-512 is wanted beside the SHA-256. */
export type HashWish = { path: string; sha512: boolean };
/** In hex. */
export type FileHashes = { sha256: string; sha512?: string };
/** To a thread that hashes: so much of the file is there; or, once, that this was all. It answers the last one with FileHashes. */
export type HashOrder = { upTo: number } | { end: number };

const readBytes = 1024 * 1024;

/** Hashes a file from its beginning, in steps. It reads in the thread that calls: keep steps short or the thread your own. */
export const openFileHash = ({ path, sha512 }: HashWish) => {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const sums = { sha256: createHash('sha256'), ...(sha512 ? { sha512: createHash('sha512') } : {}) };
  const buffer = Buffer.alloc(readBytes);
  let at = 0;
  const upTo = (bytes: number): void => {
    while (at < bytes) {
      const read = readSync(file, buffer, 0, Math.min(readBytes, bytes - at), at);
      if (read === 0) throw new Error(`the file ends at byte ${at}, where ${bytes} were written`);
      sums.sha256.update(buffer.subarray(0, read));
      sums.sha512?.update(buffer.subarray(0, read));
      at += read;
    }
  };
  return {
    upTo,
    /** The hashes of the first `bytes`. */
    end: (bytes: number): FileHashes => {
      upTo(bytes);
      return { sha256: sums.sha256.digest('hex'), ...(sums.sha512 ? { sha512: sums.sha512.digest('hex') } : {}) };
    },
    [Symbol.dispose]: () => closeSync(file),
  };
};
