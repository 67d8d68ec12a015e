import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeHasher } from './hasher.ts';

const mebibyte = 1024 * 1024;
const bytes = Buffer.from(Array.from({ length: 5 * mebibyte }, (_, at) => (at * 31) % 253));
const sum = (of: Buffer, kind = 'sha256') => createHash(kind).update(of).digest('hex');

describe('a hasher', () => {
  let folder: string;
  let path: string;
  const signal = AbortSignal.timeout(60_000);
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-hasher-'));
    path = join(folder, 'file');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test.each([[0], [1], [2 * mebibyte], [5 * mebibyte]])('hashes %i bytes of a file, and what lies behind them does not count', async (length) => {
    await writeFile(path, Buffer.concat([bytes.subarray(0, length), Buffer.from('behind')]));
    await using hasher = makeHasher({ path, sha512: true });
    hasher.reached(length);
    expect(await hasher.end(length, signal)).toEqual({ sha256: sum(bytes.subarray(0, length)), sha512: sum(bytes.subarray(0, length), 'sha512') });
  });

  test('follows a file that grows', async () => {
    await using hasher = makeHasher({ path, sha512: false });
    for (let at = 0; at < bytes.byteLength; at += mebibyte) {
      await appendFile(path, bytes.subarray(at, at + mebibyte));
      hasher.reached(at + mebibyte);
    }
    expect(await hasher.end(bytes.byteLength, signal)).toEqual({ sha256: sum(bytes) });
  });

  test('begins anew with another file', async () => {
    await writeFile(path, Buffer.alloc(4 * mebibyte, 'old'));
    await using hasher = makeHasher({ path, sha512: false });
    hasher.reached(4 * mebibyte);
    expect(await hasher.end(4 * mebibyte, signal)).toEqual({ sha256: sum(Buffer.alloc(4 * mebibyte, 'old')) });
    await hasher.restart();
    await writeFile(path, bytes);
    hasher.reached(3 * mebibyte);
    expect(await hasher.end(bytes.byteLength, signal)).toEqual({ sha256: sum(bytes) });
  });

  test.each([[1], [4 * mebibyte]])('of %i bytes that are not there says so and makes no hash', async (length) => {
    await writeFile(path, '');
    await using hasher = makeHasher({ path, sha512: false });
    hasher.reached(length);
    await expect(hasher.end(length, signal)).rejects.toThrow('the file ends at byte 0');
  });

  test('is left when the caller gives up', async () => {
    await writeFile(path, bytes);
    await using hasher = makeHasher({ path, sha512: false });
    hasher.reached(bytes.byteLength);
    await expect(hasher.end(bytes.byteLength, AbortSignal.abort(new Error('removed')))).rejects.toThrow();
  });
});
