// A download that is cut goes on where it stopped, and never joins what does not belong together.
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type FetchBed, openFetchBed } from './fetchbed.ts';
import { restOf, strongValidator, wholeOfRest } from './range.ts';

const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 7) % 251));
const other = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 11) % 241));
const sum = (of: Buffer, kind = 'sha256') => createHash(kind).update(of).digest('hex');
const etag = '"v1"';
const long = { is: 'bytes' as const, bytes, etag, midway: 'cut' as const };
const cut = { code: 'DownloadFailed', retry: 'later' };

describe('a download that is cut', () => {
  let bed: FetchBed;
  beforeEach(async () => {
    bed = await openFetchBed();
  });
  afterEach(async () => {
    await bed[Symbol.asyncDispose]();
  });
  const ranges = (path = '/a') => bed.web.seen(path).map(({ range, 'if-range': condition }) => [range, condition]);

  test.each([[false], [true]])('goes on at once with what is missing, and its hashes are right (chunked: %s)', async (chunked) => {
    const url = bed.web.serve('/a', { ...long, cuts: 2, chunked });
    expect(await bed.fetchIt(url, { sha512: true })).toEqual({ sizeBytes: bytes.byteLength, sha256: sum(bytes), sha512: sum(bytes, 'sha512'), resumed: true });
    expect((await bed.bytes()).equals(bytes)).toBe(true);
    expect(ranges()).toEqual([[undefined, undefined], [expect.stringMatching(/^bytes=[1-9]\d+-$/), etag], [expect.stringMatching(/^bytes=[1-9]\d+-$/), etag]]);
  });

  test('goes on with a date instead of an ETag', async () => {
    const changed = new Date('2020-01-02T03:04:05Z');
    const url = bed.web.serve('/a', { is: 'bytes', bytes, changed, midway: 'cut', cuts: 1 });
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes), resumed: true });
    expect(ranges()).toEqual([[undefined, undefined], [expect.stringMatching(/^bytes=[1-9]\d+-$/), 'Thu, 02 Jan 2020 03:04:05 GMT']]);
  });

  test('goes on behind a redirect', async () => {
    bed.web.serve('/b', { ...long, cuts: 1 });
    const url = bed.web.serve('/a', { is: 'status', status: 302, location: '/b' });
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes), resumed: true });
    expect(ranges('/b')[1]).toEqual([expect.stringMatching(/^bytes=[1-9]\d+-$/), etag]);
  });

  test('again and again is given up for now, keeps what it has, and goes on with that later, over a restart of the agent', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    expect(bed.web.requests('/a')).toBe(4);
    const kept = (await bed.bytes()).byteLength;
    expect(kept).toBeGreaterThan(150_000);
    bed.web.serve('/a', { is: 'bytes', bytes, etag });
    const heard: number[] = [];
    expect(await bed.fetchIt(url, { sha512: true, heard })).toEqual({ sizeBytes: bytes.byteLength, sha256: sum(bytes), sha512: sum(bytes, 'sha512'), resumed: true });
    expect([ranges().at(-1), heard[0]]).toEqual([[`bytes=${kept}-`, etag], expect.any(Number)]);
    expect(heard[0]).toBeGreaterThan(kept);
  });

  test('of many MiB begins anew when it is another file by now, and its hash has nothing of the old one', async () => {
    const [old, fresh] = [Buffer.alloc(8 * 1024 * 1024, 'old'), Buffer.alloc(7 * 1024 * 1024, 'fresh')];
    const url = bed.web.serve('/a', { is: 'bytes', bytes: old, etag, midway: 'cut' });
    await expect(bed.fetchIt(url, { limits: { resumes: 0 } })).rejects.toMatchObject(cut);
    bed.web.serve('/a', { is: 'bytes', bytes: fresh, etag: '"v2"' });
    expect(await bed.fetchIt(url)).toEqual({ sizeBytes: fresh.byteLength, sha256: sum(fresh), resumed: false });
    expect((await bed.bytes()).equals(fresh)).toBe(true);
  });

  test('begins anew after the node went down: nobody knows what reached the disk', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    bed.web.serve('/a', { is: 'bytes', bytes, etag });
    expect(await bed.fetchIt(url, { bootId: 'boot-2' })).toMatchObject({ sha256: sum(bytes), resumed: false });
    expect(ranges().at(-1)).toEqual([undefined, undefined]);
  });

  test('begins anew when another URL is asked for', async () => {
    await expect(bed.fetchIt(bed.web.serve('/a', long))).rejects.toMatchObject(cut);
    expect(await bed.fetchIt(bed.web.serve('/b', { is: 'bytes', bytes: other, etag }))).toMatchObject({ sha256: sum(other), resumed: false });
    expect((await bed.bytes()).equals(other)).toBe(true);
  });

  test('that is complete asks no server again', async () => {
    const url = bed.web.serve('/a', { is: 'bytes', bytes, chunked: true });
    await bed.fetchIt(url);
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes) });
    expect(bed.web.requests('/a')).toBe(1);
  });

  test('from a server that has another content by now begins anew', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    bed.web.serve('/a', { is: 'bytes', bytes: other, etag: '"v2"' });
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(other), resumed: false });
    expect((await bed.bytes()).equals(other)).toBe(true);
  });

  test.each<[string, object]>([['no validator', { etag: undefined }], ['a weak ETag', { etag: 'W/"v1"' }]])('from a server with %s is not gone on with', async (_, less) => {
    const url = bed.web.serve('/a', { ...long, cuts: 1, ...less });
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes), resumed: false });
    expect(ranges().flat()).toEqual([undefined, undefined, undefined, undefined]);
  });

  // What servers, proxies and attackers answer to a range that begins at `n`. None of it may be joined to what is there.
  type Wrong = (n: number) => { headers: Record<string, string>; body: Buffer; status?: number };
  const from = (n: number) => other.subarray(n);
  test.each<[string, Wrong]>([
    ['the whole under 206', () => ({ headers: { 'content-range': 'bytes 0-299999/300000' }, body: other })],
    ['a part that begins elsewhere', (n) => ({ headers: { 'content-range': `bytes ${n + 1}-299999/300000` }, body: from(n + 1) })],
    ['a part that does not reach the end', (n) => ({ headers: { 'content-range': `bytes ${n}-${n + 9}/300000` }, body: from(0).subarray(0, 10) })],
    ['a part of a larger whole', (n) => ({ headers: { 'content-range': `bytes ${n}-399999/400000` }, body: Buffer.alloc(400_000 - n) })],
    ['a part of unknown size', (n) => ({ headers: { 'content-range': `bytes ${n}-299999/*` }, body: from(n) })],
    ['a part of another ETag', (n) => ({ headers: { 'content-range': `bytes ${n}-299999/300000`, etag: '"v2"' }, body: from(n) })],
    ['several parts', () => ({ headers: { 'content-type': 'multipart/byteranges; boundary=x' }, body: Buffer.from('--x--') })],
    ['206 and nothing that says which part', (n) => ({ headers: {}, body: from(n) })],
    ['nonsense for a range', (n) => ({ headers: { 'content-range': `bytes ${n}-9e99/300000` }, body: from(n) })],
    ['that there is no such range', () => ({ headers: { 'content-range': 'bytes */10' }, body: Buffer.alloc(0), status: 416 })],
  ])('is fetched anew when the answer to a range is %s', async (_, wrong) => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    const n = (await bed.bytes()).byteLength;
    bed.web.serve('/a', {
      is: 'by',
      answer: (request, response) => {
        const { headers, body, status = 206 } = request.headers.range === `bytes=${n}-` ? wrong(n) : { headers: { etag: '"v3"' }, body: other, status: 200 };
        response.writeHead(status, { 'content-length': body.byteLength, ...headers }).end(body);
      },
    });
    expect(await bed.fetchIt(url)).toEqual({ sizeBytes: other.byteLength, sha256: sum(other), resumed: false });
    expect((await bed.bytes()).equals(other)).toBe(true);
    expect(bed.web.seen('/a').filter(({ range }) => range === `bytes=${n}-`)).toHaveLength(1);
  });

  test('and whose rest is longer than promised fails', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    const n = (await bed.bytes()).byteLength;
    bed.web.serve('/a', { is: 'by', answer: (_request, response) => void response.writeHead(206, { etag, 'content-range': `bytes ${n}-299999/300000` }).end(Buffer.alloc(300_000)) });
    await expect(bed.fetchIt(url, { limits: { resumes: 0 } })).rejects.toMatchObject({ ...cut, message: expect.stringContaining('more arrives than the 300000 bytes') });
    expect((await bed.bytes()).byteLength).toBeLessThanOrEqual(300_000);
  });

  test('keeps what it has while the server fails', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    bed.web.serve('/a', { is: 'status', status: 503 });
    await expect(bed.fetchIt(url)).rejects.toMatchObject({ ...cut, message: expect.stringContaining('HTTP 503') });
    bed.web.serve('/a', { is: 'bytes', bytes, etag });
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes), resumed: true });
  });

  test('and whose file is longer than the whole begins anew', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    await bed.overwrite(Buffer.alloc(300_001));
    bed.web.serve('/a', { is: 'bytes', bytes, etag });
    expect(await bed.fetchIt(url)).toMatchObject({ sha256: sum(bytes), resumed: false });
  });

  test('may be ended while it hashes what is there', async () => {
    const url = bed.web.serve('/a', long);
    await expect(bed.fetchIt(url)).rejects.toMatchObject(cut);
    await expect(bed.fetchIt(url, { signal: AbortSignal.abort(new Error('removed')) })).rejects.toThrow('removed');
  });
});

describe('what may be gone on with', () => {
  test.each<[IncomingHttpHeaders, string | undefined]>([
    [{ etag: '"a"' }, '"a"'], [{ etag: 'W/"a"' }, undefined], [{ etag: 'a' }, undefined], [{}, undefined],
    [{ 'last-modified': 'Thu, 02 Jan 2020 03:04:05 GMT', date: 'Thu, 02 Jan 2020 03:04:06 GMT' }, 'Thu, 02 Jan 2020 03:04:05 GMT'],
    // Within one second it may have changed twice.
    [{ 'last-modified': 'Thu, 02 Jan 2020 03:04:05 GMT', date: 'Thu, 02 Jan 2020 03:04:05 GMT' }, undefined],
    [{ 'last-modified': 'Thu, 02 Jan 2020 03:04:05 GMT' }, undefined], [{ 'last-modified': 'yesterday', date: 'today' }, undefined],
  ])('%j: %j', (headers, validator) => {
    expect(strongValidator(headers)).toBe(validator);
  });

  test('nothing is asked for without a validator, or when nothing is there', () => {
    expect([restOf({ url: 'x' }, 5), restOf({ url: 'x', validator: etag }, 0), restOf({ url: 'x', validator: etag }, 5)]).toEqual([undefined, undefined, { range: 'bytes=5-', 'if-range': etag }]);
  });

  test('a rest is taken only when it begins behind what is there and ends with the whole', () => {
    fc.assert(fc.property(fc.nat(1000), fc.nat(1000), fc.nat(1000), fc.nat(1000), fc.option(fc.nat(1000), { nil: undefined }), (first, last, whole, received, totalBytes) => {
      const range = wholeOfRest({ status: 206, headers: { 'content-range': `bytes ${first}-${last}/${whole}` } }, { url: 'x', ...(totalBytes === undefined ? {} : { totalBytes }) }, received);
      const right = first === received && last === whole - 1 && (totalBytes === undefined || totalBytes === whole);
      expect(range).toBe(right ? whole : undefined);
    }), { numRuns: 2000, examples: [[5, 9, 10, 5, undefined], [5, 9, 10, 5, 10], [5, 9, 10, 5, 11]] });
  });
});
