import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type FetchBed, openFetchBed } from './fetchbed.ts';
import type { Resolve } from './guard.ts';
import { openTestWeb } from './testweb.ts';

const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251));
const hash = (kind: string) => createHash(kind).update(bytes).digest('hex');

describe('fetching', () => {
  let bed: FetchBed;
  let web: FetchBed['web'];
  let fetchIt: FetchBed['fetchIt'];
  beforeEach(async () => {
    bed = await openFetchBed();
    ({ web, fetchIt } = bed);
  });
  afterEach(async () => {
    await bed[Symbol.asyncDispose]();
  });

  test('the bytes are hashed on the way and written as they came', async () => {
    const heard: number[] = [];
    const url = web.serve('/a', { is: 'bytes', bytes });
    expect(await fetchIt(url, { sha512: true, heard })).toEqual({ sizeBytes: bytes.byteLength, sha256: hash('sha256'), sha512: hash('sha512'), resumed: false });
    expect((await bed.bytes()).equals(bytes)).toBe(true);
    expect(heard.at(-1)).toBe(bytes.byteLength);
  });

  test('a length that is not said in advance is no matter', async () => {
    expect(await fetchIt(web.serve('/a', { is: 'bytes', bytes, chunked: true }))).toMatchObject({ sha256: hash('sha256') });
  });

  test('redirects are followed, up to a bound', async () => {
    web.serve('/c', { is: 'bytes', bytes });
    web.serve('/b', { is: 'status', status: 307, location: '/c' });
    expect(await fetchIt(web.serve('/a', { is: 'status', status: 302, location: './b' }))).toMatchObject({ sha256: hash('sha256') });
    await expect(fetchIt(web.serve('/loop', { is: 'status', status: 302, location: '/loop' }))).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('redirects') });
    expect(web.requests('/loop')).toBe(4);
  });

  test.each(['file:///etc/passwd', 'ftp://127.0.0.1/x', 'http://me:secret@127.0.0.1/x'])('a redirect to %s is refused for ever', async (location) => {
    await expect(fetchIt(web.serve('/a', { is: 'status', status: 302, location }))).rejects.toMatchObject({
      code: 'SourceRefused', retry: 'never', message: expect.stringMatching(/\/a: it redirects to where nothing is fetched from/),
    });
  });

  test.each([
    'http://127.0.0.2/x', 'http://[::1]/x', 'http://10.0.0.1/x', 'http://169.254.169.254/latest/', 'http://2130706434/x', 'http://0x7f.2/x', '//127.0.0.2/x', 'https://[::ffff:127.0.0.2]/x', 'http://name.inside/x',
  ])('each hop passes the guard: a redirect to %s goes nowhere', async (location) => {
    const other = await openTestWeb('127.0.0.2');
    other.serve('/x', { is: 'bytes', bytes });
    const to = location.replace('127.0.0.2/', `127.0.0.2:${other.port}/`);
    const url = web.serve('/a', { is: 'status', status: 302, location: to });
    await expect(fetchIt(url, { resolve: async () => ['10.96.0.10'] })).rejects.toMatchObject({ code: 'SourceRefused', retry: 'never', message: expect.stringContaining('it redirects') });
    expect(other.requests('/x')).toBe(0);
    await other.close();
  });

  test('without the setting nothing is fetched from this machine', async () => {
    const url = web.serve('/a', { is: 'bytes', bytes });
    await expect(fetchIt(url, { allowed: [] })).rejects.toMatchObject({ code: 'SourceRefused', retry: 'never', message: expect.stringContaining('image_allowed_networks') });
    expect(web.requests('/a')).toBe(0);
  });

  test('a name is looked up once for each request, and the connection goes where that answer said (no rebinding)', async () => {
    const inside = await openTestWeb('127.0.0.2', web.port);
    inside.serve('/a', { is: 'bytes', bytes: Buffer.from('secret of the inside') });
    web.serve('/a', { is: 'bytes', bytes });
    const answers = [['127.0.0.1'], ['127.0.0.2']];
    let asked = 0;
    const resolve: Resolve = async () => answers[asked++] ?? [];
    expect(await fetchIt(`http://rebinding.example:${web.port}/a`, { resolve })).toMatchObject({ sha256: hash('sha256') });
    expect([asked, inside.requests('/a'), web.seen('/a')[0]?.host]).toEqual([1, 0, `rebinding.example:${web.port}`]);
    // The second request gets the second answer, which is refused.
    await expect(fetchIt(`http://rebinding.example:${web.port}/b`, { resolve })).rejects.toMatchObject({ code: 'SourceRefused' });
    expect([inside.requests('/a'), inside.requests('/b')]).toEqual([0, 0]);
    await inside.close();
  });

  test('a name with several addresses is reached by the one that listens', async () => {
    web.serve('/a', { is: 'bytes', bytes });
    expect(await fetchIt(`http://two.example:${web.port}/a`, { resolve: async () => ['127.0.0.3', '127.0.0.1'], allowed: ['127.0.0.0/8'] })).toMatchObject({ sha256: hash('sha256') });
  });

  test.each([404, 403, 500, 206, 304])('HTTP %i is named and tried again later', async (status) => {
    await expect(fetchIt(web.serve('/a?token=secret', { is: 'status', status }))).rejects.toMatchObject({ code: 'DownloadFailed', retry: 'later', message: expect.stringContaining(`HTTP ${status}`) });
  });

  test('no message holds the query of a URL, which may be a secret', async () => {
    await expect(fetchIt(web.serve('/a?token=secret', { is: 'status', status: 404 }))).rejects.toMatchObject({ message: expect.not.stringContaining('secret') });
  });

  test.each([[false], [true]])('a connection that is cut in mid-body fails (chunked: %s)', async (chunked) => {
    await expect(fetchIt(web.serve('/a', { is: 'bytes', bytes, midway: 'cut', chunked }))).rejects.toMatchObject({ code: 'DownloadFailed', retry: 'later' });
  });

  test('nobody listening fails', async () => {
    const gone = await openTestWeb();
    const url = gone.serve('/a', { is: 'bytes', bytes });
    await gone.close();
    await expect(fetchIt(url)).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('ECONNREFUSED') });
  });

  test('a server that says nothing is given up', async () => {
    await expect(fetchIt(web.serve('/a', { is: 'silent' }), { limits: { connectMs: 50 } })).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('no answer') });
  });

  test('a server that stops in mid-body is given up', async () => {
    await expect(fetchIt(web.serve('/a', { is: 'bytes', bytes, midway: 'hold' }), { limits: { idleMs: 50 } })).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('no byte arrived') });
  });

  test('the whole download has a deadline', async () => {
    await expect(fetchIt(web.serve('/a', { is: 'bytes', bytes, midway: 'hold' }), { limits: { totalMs: 50 } })).rejects.toMatchObject({ code: 'DownloadFailed' });
  });

  test('the caller can end it', async () => {
    const controller = new AbortController();
    const url = web.serve('/a', { is: 'bytes', bytes, midway: 'hold' });
    const end = fetchIt(url, { signal: controller.signal });
    controller.abort(new Error('removed'));
    await expect(end).rejects.toThrow('removed');
  });

  test.each([[false], [true]])('a file that is too large is refused for ever (chunked: %s)', async (chunked) => {
    await expect(fetchIt(web.serve('/a', { is: 'bytes', bytes, chunked }), { limits: { maxBytes: 1_000 } })).rejects.toMatchObject({ code: 'ImageRefused', retry: 'never' });
  });

  test('a file that does not fit on the disk waits', async () => {
    const url = web.serve('/a', { is: 'bytes', bytes });
    await expect(fetchIt(url, { free: 1_000_000, limits: { keepFreeBytes: 900_000 } })).rejects.toMatchObject({ code: 'NoSpace', retry: 'later' });
  });
});
