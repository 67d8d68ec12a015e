// From which source the bytes come, and what is said when none gives them.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { limits, sha256, wanted } from './localbed.ts';
import { expectedSum, obtain } from './obtain.ts';
import { openPartial } from './partial.ts';
import { makeGuard } from './web/guard.ts';
import { openTestWeb, type TestWeb } from './web/testweb.ts';

const bytes = Buffer.alloc(300_000, 'disk');
const other = Buffer.alloc(300_000, 'other');
const checksum = sha256(bytes);
const good = { is: 'bytes' as const, bytes, etag: '"1"' };

describe('the sources of an image', () => {
  let web: TestWeb;
  let folder: string;
  beforeEach(async () => {
    web = await openTestWeb();
    folder = await mkdtemp(join(tmpdir(), 'strato-obtain-'));
  });
  afterEach(async () => {
    await web.close();
    await rm(folder, { recursive: true });
  });

  const kit = { guard: makeGuard({ allowed: ['127.0.0.1'] }), limits: { ...limits.fetch, resumes: 1 }, freeBytes: async () => Number.MAX_SAFE_INTEGER };
  const get = async (more: Partial<DesiredImage> & { url: string }, signal = AbortSignal.timeout(20_000)) => {
    const desire = wanted(more);
    await using partial = await openPartial(folder, 'boot-1');
    return await obtain(kit, { desire: () => desire, progress: () => {} }, await expectedSum(kit, desire, signal), partial, signal);
  };

  test('are tried in their order until one gives the bytes', async () => {
    const [url, second, third, fourth] = [
      web.serve('/1', { is: 'status', status: 404 }), web.serve('/2', { ...good, midway: 'cut' }), web.serve('/3', { ...good }), web.serve('/4', { ...good }),
    ];
    expect(await get({ url, mirrors: [second, third, fourth], checksum })).toEqual({ sizeBytes: bytes.byteLength, sha256: checksum.slice(7) });
    expect([1, 2, 3, 4].map((at) => web.requests(`/${at}`))).toEqual([1, 2, 1, 0]);
    expect((await readFile(join(folder, 'fetched'))).equals(bytes)).toBe(true);
  });

  test('with wrong bytes are passed over', async () => {
    const url = web.serve('/1', { is: 'bytes', bytes: other });
    expect(await get({ url, mirrors: [web.serve('/2', good)], checksum })).toMatchObject({ sha256: checksum.slice(7) });
    expect(await get({ url, mirrors: [web.serve('/2', good)], digest: checksum, checksumUrl: 'http://127.0.0.1:9/unread' })).toMatchObject({ sha256: checksum.slice(7) });
  });

  test('that may not be fetched are passed over', async () => {
    expect(await get({ url: 'http://169.254.169.254/x', mirrors: [web.serve('/2', good)], checksum })).toMatchObject({ sha256: checksum.slice(7) });
  });

  test('of which one has given a part begin with that one the next time', async () => {
    const url = web.serve('/1', { is: 'status', status: 503 });
    const mirror = web.serve('/2', { ...good, midway: 'cut' });
    await expect(get({ url, mirrors: [mirror], checksum })).rejects.toMatchObject({ code: 'DownloadFailed' });
    web.serve('/2', good);
    expect(await get({ url, mirrors: [mirror], checksum })).toMatchObject({ sha256: checksum.slice(7) });
    expect([web.requests('/1'), web.seen('/2').at(-1)?.range]).toEqual([1, expect.stringMatching(/^bytes=[1-9]/)]);
  });

  test('that all fail are all told, and may work later when one of them may', async () => {
    const [url, second] = [web.serve('/1', { is: 'bytes', bytes: other }), web.serve('/2', { is: 'status', status: 500 })];
    await expect(get({ url, mirrors: [second], checksum })).rejects.toMatchObject({
      code: 'DownloadFailed', retry: 'later', message: expect.stringMatching(/^none of the 2 sources gives the image: 1\. the fetched bytes hash to .*; 2\. fetching .*\/2: HTTP 500/),
    });
    await expect(get({ url, mirrors: [web.serve('/3', { is: 'bytes', bytes: other })], checksum })).rejects.toMatchObject({ code: 'ChecksumMismatch', retry: 'never' });
    await expect(get({ url: 'http://10.0.0.1/x', mirrors: ['http://10.0.0.2/x'], checksum })).rejects.toMatchObject({ code: 'SourceRefused', retry: 'never' });
  });

  test('alone says its fault as it is', async () => {
    await expect(get({ url: web.serve('/1', { is: 'status', status: 500 }), checksum })).rejects.toMatchObject({ message: expect.stringMatching(/^fetching .*\/1: HTTP 500/) });
  });

  test('ended by the caller ask nobody else', async () => {
    const controller = new AbortController();
    const end = get({ url: web.serve('/1', { is: 'silent' }), mirrors: [web.serve('/2', good)], checksum }, controller.signal);
    controller.abort(new Error('removed'));
    await expect(end).rejects.toThrow('removed');
    expect(web.requests('/2')).toBe(0);
  });

  test.each(['sha256', 'sha512'])('have a checksum in a list of %s', async (kind) => {
    const sum = (of: Buffer) => createHash(kind).update(of).digest('hex');
    const checksumUrl = web.serve('/SUMS', { is: 'bytes', bytes: Buffer.from(`${sum(other)}  other.img\n${sum(bytes)}  my disk.img\n`) });
    const url = web.serve('/my%20disk.img?x=y', good);
    expect(await get({ url, checksumUrl })).toMatchObject({ sha256: checksum.slice(7) });
    await expect(get({ url: web.serve('/other.img', good), checksumUrl })).rejects.toMatchObject({ code: 'ChecksumMismatch', retry: 'never' });
    await expect(get({ url: web.serve('/third.img', good), checksumUrl })).rejects.toMatchObject({ code: 'ChecksumMissing', retry: 'later', message: expect.stringContaining('"third.img"') });
    expect(web.requests('/third.img')).toBe(0);
  });

  test('that are pinned need no list', async () => {
    expect(await get({ url: web.serve('/1', good), digest: checksum, checksumUrl: 'http://127.0.0.1:9/gone' })).toMatchObject({ sha256: checksum.slice(7) });
    await expect(get({ url: web.serve('/2', { is: 'bytes', bytes: other }), digest: checksum })).rejects.toMatchObject({ code: 'DigestMismatch', retry: 'never' });
  });
});
