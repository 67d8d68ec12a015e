import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { link, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { systemClock } from '#crds/kit/clock.ts';
import { until } from '#hack/bed/until.ts';
import { imageStoreContract, settledImage } from './contract.ts';
import { limits, type LocalBed, openLocalBed, sha256, uids, wanted } from './localbed.ts';

const run = promisify(execFile);
// Of all tests together.
const signal = AbortSignal.timeout(900_000);
const [uid = ''] = uids;

imageStoreContract('local', async () => {
  const it = await openLocalBed({ cacheRules: { maxBytes: 0, keepMs: 0 }, sweepMs: 20 });
  return {
    store: it.store,
    offer: async (virtualSizeMiB) => {
      const bytes = await it.make(virtualSizeMiB);
      return { url: it.web.serve(`/${virtualSizeMiB}`, { is: 'bytes', bytes }), digest: sha256(bytes) };
    },
    hold: it.web.holdAll,
    release: it.web.release,
    downloads: (url) => it.web.requests(new URL(url).pathname),
    evict: async (of) => {
      it.store.protect(() => new Set([...uids, '00000000-0000-4000-8000-000000000001'].filter((each) => each !== of)));
      await until('the eviction', () => it.store.observe(of)?.cached === false, 10_000);
      it.store.protect(() => new Set([of]));
    },
    reopen: () => it.reopen(),
    close: it.close,
  };
});

describe('images of a node', () => {
  let it: LocalBed;
  beforeEach(async () => {
    it = await openLocalBed();
  });
  afterEach(() => it.close());

  test('a ready image is our own uncompressed qcow2, root, 0444, with the same content', async () => {
    const source = join(it.folder, 'compressed.qcow2');
    await writeFile(join(it.folder, 'plain.qcow2'), await it.make(64, 8));
    await run('qemu-img', ['convert', '-c', '-O', 'qcow2', join(it.folder, 'plain.qcow2'), source]);
    const bytes = await readFile(source);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), checksum: sha256(bytes) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready', content: { digest: sha256(bytes), sizeBytes: bytes.byteLength } });
    const file = it.store.ready(uid)?.file ?? '';
    const { mode, uid: owner, gid } = await stat(file);
    expect([(mode & 0o777).toString(8), owner, gid]).toEqual(['444', 0, 0]);
    await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', source, file]);
    expect(await readFile(file, 'latin1')).toContain('\x07'.repeat(4096));
    expect(await it.partial()).toEqual([]);
  });

  test('a raw disk is converted, too', async () => {
    const bytes = Buffer.alloc(3_000_000, 'disk');
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), format: 'raw' }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready', content: { virtualSizeBytes: 3_000_320 } });
  });

  test.each([
    ['gzip', 'raw'], ['xz', 'raw'], ['zstd', 'raw'], ['gzip', 'qcow2'], ['xz', 'qcow2'], ['zstd', 'qcow2'],
  ] as const)('a disk compressed by %s is unpacked as %s; checksum and digest are those of the published file', async (packing, format) => {
    const plain = join(it.folder, 'plain.qcow2');
    const source = join(it.folder, `source.${format}`);
    await writeFile(plain, await it.make(64, 8));
    await run('qemu-img', ['convert', '-O', format, plain, source]);
    const { stdout: bytes } = await run(packing, ['-c', '-q', source], { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 });
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), checksum: sha256(bytes), format }));
    expect(await settledImage(it.store, uid)).toMatchObject({
      state: 'ready', content: { digest: sha256(bytes), sizeBytes: bytes.byteLength, virtualSizeBytes: 64 * 1024 * 1024 },
    });
    await run('qemu-img', ['compare', '-f', format, '-F', 'qcow2', source, it.store.ready(uid)?.file ?? '']);
    expect(await it.partial()).toEqual([]);
  });

  test('20 images of one checksum share one download, and each is ready (F15)', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes });
    it.web.holdAll();
    for (const each of uids) it.store.want(wanted({ uid: each, url, checksum: sha256(bytes) }));
    await until('the download', () => it.web.requests('/a') > 0, 10_000);
    it.web.release();
    for (const each of uids) expect(await settledImage(it.store, each)).toMatchObject({ state: 'ready' });
    expect(it.web.requests('/a')).toBe(1);
    // The content stays until the last of them is gone.
    for (const each of uids.slice(1)) await it.store.remove(each, signal);
    expect(await it.contents()).toHaveLength(2);
    await it.store.remove(uid, signal);
    expect(await it.contents()).toEqual([]);
  });

  test('images whose checksum is in one list share one download; what is there needs neither list nor source any more', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/mini.qcow2', { is: 'bytes', bytes });
    const checksumUrl = it.web.serve('/SHA256SUMS', { is: 'bytes', bytes: Buffer.from(`${sha256(bytes).slice(7)}  mini.qcow2\n`) });
    const mirrors = [it.web.serve('/mirror', { is: 'status', status: 500 })];
    it.web.holdAll();
    const three = uids.slice(0, 3);
    for (const each of three) it.store.want(wanted({ uid: each, url, mirrors, checksumUrl }));
    await until('the list', () => it.web.requests('/SHA256SUMS') > 0, 10_000);
    it.web.release();
    for (const each of three) expect(await settledImage(it.store, each)).toMatchObject({ state: 'ready', content: { digest: sha256(bytes) } });
    expect(it.web.requests('/mini.qcow2')).toBe(1);
    const lists = it.web.requests('/SHA256SUMS');
    const again = await it.reopen();
    for (const each of three) expect(again.ready(each)).toMatchObject({ digest: sha256(bytes) });
    expect([it.web.requests('/mini.qcow2'), it.web.requests('/SHA256SUMS')]).toEqual([1, lists]);
  });

  test('a removed leader leaves its download to the others', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes });
    it.web.holdAll();
    for (const each of uids.slice(0, 3)) it.store.want(wanted({ uid: each, url, checksum: sha256(bytes) }));
    await until('the download', () => it.web.requests('/a') > 0, 10_000);
    await it.store.remove(uid, signal);
    it.web.release();
    for (const each of uids.slice(1, 3)) expect(await settledImage(it.store, each)).toMatchObject({ state: 'ready', progress: 100 });
  });

  test('a connection that is cut again and again is told, and goes on where it stopped, also after a restart of the agent', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes, midway: 'cut', etag: '"1"' });
    it.store.want(wanted({ url, checksum: sha256(bytes) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'importing', trouble: { reason: 'DownloadFailed', final: false } });
    const again = await it.reopen();
    it.web.serve('/a', { is: 'bytes', bytes, etag: '"1"' });
    const before = it.web.requests('/a');
    const seen = await until('ready', () => again.observe(uid)?.state === 'ready' && again.observe(uid), 10_000);
    expect(seen).toMatchObject({ content: { digest: sha256(bytes) } });
    expect(seen.trouble).toBeUndefined();
    const ranges = it.web.seen('/a').map(({ range }) => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0));
    expect(ranges.toSorted((a, b) => a - b)).toEqual(ranges);
    expect(ranges.slice(0, before).filter((at) => at === 0)).toHaveLength(1);
    expect(await it.partial()).toEqual([]);
  });

  test('parts that a server should not have joined are noticed by the checksum, and all is fetched anew', async () => {
    const bytes = await it.make(64);
    let whole = 0;
    const url = it.web.serve('/a', {
      is: 'by',
      answer: ({ headers: { range } }, response) => {
        const etag = '"1"';
        if (range === undefined) whole += 1;
        if (range === undefined && whole === 1) {
          response.writeHead(200, { etag, 'content-length': bytes.byteLength }).write(Buffer.alloc(100_000, 'other'));
          return void until('some bytes to arrive', async () => (await it.arrived()) > 0, 10_000).finally(() => response.destroy());
        }
        const from = Number(/\d+/.exec(range ?? '0')?.[0]);
        response.writeHead(from > 0 ? 206 : 200, { etag, ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.byteLength - 1}/${bytes.byteLength}` } : {}) }).end(bytes.subarray(from));
      },
    });
    it.store.want(wanted({ url, checksum: sha256(bytes) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready', content: { digest: sha256(bytes) } });
    expect(it.web.seen('/a').map(({ range }) => range !== undefined)).toEqual([false, true, false]);
  });

  test('an image that is removed leaves no part of its download', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes, midway: 'cut', etag: '"1"' });
    it.store.want(wanted({ url }));
    await settledImage(it.store, uid);
    expect(await it.partial()).toHaveLength(1);
    await it.store.remove(uid, signal);
    expect(await it.partial()).toEqual([]);
  });

  test('a right sha512 is accepted, and known after a restart', async () => {
    const bytes = await it.make(64);
    const checksum = `sha512:${createHash('sha512').update(bytes).digest('hex')}`;
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), checksum }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready' });
    const again = await it.reopen();
    again.want(wanted({ uid: uids[1] ?? '', url: 'http://127.0.0.1:1/nowhere', checksum }));
    expect(await settledImage(again, uids[1] ?? '')).toMatchObject({ state: 'ready' });
  });

  test('progress goes up in steps of ten', async () => {
    const bytes = await it.make(200, 60);
    const seen: number[] = [];
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    using watch = it.store.watch(() => void seen.push(it.store.observe(uid)?.progress ?? -1));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready', progress: 100 });
    expect(watch).toBeDefined();
    expect(seen.every((percent, at) => percent % 10 === 0 && percent > (seen[at - 1] ?? -1))).toBe(true);
    expect(seen.length).toBeGreaterThan(5);
  });

  test('damage in the cache is noticed at a start, cleared and imported again', async () => {
    const bytes = await it.make(64);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    await settledImage(it.store, uid);
    const file = it.store.ready(uid)?.file ?? '';
    for (const spoil of [() => writeFile(file.replace('.qcow2', '.json'), '{}'), () => rm(file), () => writeFile(file, 'short')]) {
      await it.store[Symbol.asyncDispose]();
      await spoil();
      const again = await it.reopen();
      expect(await settledImage(again, uid)).toMatchObject({ state: 'ready' });
      expect((await stat(file)).size).toBeGreaterThan(1000);
    }
    expect(it.web.requests('/a')).toBe(4);
  });

  test('a damaged claim costs nothing but its memory', async () => {
    const bytes = await it.make(64);
    const desire = wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), checksum: sha256(bytes) });
    it.store.want(desire);
    await settledImage(it.store, uid);
    await it.store[Symbol.asyncDispose]();
    await writeFile(join(it.images, 'wanted', `${uid}.json`), '{"version":1');
    const again = await it.reopen();
    expect(again.observe(uid)).toBeUndefined();
    again.want(desire);
    expect(await settledImage(again, uid)).toMatchObject({ state: 'ready' });
    expect(it.web.requests('/a')).toBe(1);
  });
});

describe('a cache that holds too much', () => {
  let it: LocalBed;
  let used: Set<string>;
  let ms: number;
  const clock = { ...systemClock, now: () => new Date(ms) };
  beforeEach(async () => {
    used = new Set();
    // Not that of the file system, however slow the machine is.
    ms = Date.now() - 3_600_000;
    // Each content is two and a half MiB of data and tables.
    it = await openLocalBed({ clock, cacheRules: { maxBytes: 6 * 1024 * 1024, keepMs: 1_000 }, sweepMs: 20 });
    it.store.protect(() => used);
  });
  afterEach(() => it.close());

  /** Imports an image of its own content; a second passes meanwhile. */
  const have = async (at: number): Promise<string> => {
    const of = uids[at] ?? '';
    it.store.want(wanted({ uid: of, url: it.web.serve(`/${at}`, { is: 'bytes', bytes: await it.make(64 + at, 2) }) }));
    expect(await settledImage(it.store, of)).toMatchObject({ state: 'ready' });
    ms += 1_000;
    return of;
  };
  const evicted = () => uids.filter((each) => it.store.observe(each)?.cached === false);
  const gone = (...at: number[]) => until('the eviction', () => String(evicted()) === String(at.map((each) => uids[each])), 10_000);

  test('loses the least recently used of those that no VM uses; it comes back when it is needed', async () => {
    const [first, second] = [await have(0), await have(1)];
    expect(evicted()).toEqual([]);
    await have(2);
    await gone(0);
    await until('its files to go', async () => (await it.contents()).length === 4, 10_000);
    it.store.need(first);
    expect(await settledImage(it.store, first)).toMatchObject({ state: 'ready' });
    ms += 1_000;
    await gone(1);
    expect([it.web.requests('/0'), it.web.requests('/1'), it.store.ready(second)]).toEqual([2, 1, undefined]);
  });

  test('keeps what VMs use, also when that is the oldest and all of it is too much', async () => {
    used = new Set(uids.slice(0, 3));
    await have(0);
    await have(1);
    await have(2);
    await have(3);
    await gone(3);
    used = new Set(uids.slice(1, 3));
    ms += 1_000;
    await gone(0, 3);
  });

  test('keeps what a VM has a link to: removing it would free nothing', async () => {
    const first = await have(0);
    await link(it.store.ready(first)?.file ?? '', join(it.folder, 'root.base'));
    await have(1);
    await have(2);
    await gone(1);
  });

  test('remembers over a restart what was used last, and what has left', async () => {
    await have(0);
    await have(1);
    await have(2);
    await gone(0);
    const again = await it.reopen({ cacheRules: { maxBytes: 3 * 1024 * 1024, keepMs: 1_000 } });
    again.protect(() => used);
    ms += 1_000;
    await gone(0, 1);
    expect(again.ready(uids[2] ?? '')).toBeDefined();
    await until('their files to go', async () => (await it.contents()).length === 2, 10_000);
  });

  test('whose node has set its clock back loses what it has no room for', async () => {
    await have(0);
    const tomorrow = ms / 1000 + 86_400;
    for (const name of await it.contents()) await utimes(join(it.images, name), tomorrow, tomorrow);
    const again = await it.reopen({ cacheRules: { maxBytes: 0, keepMs: 1_000 } });
    again.protect(() => used);
    ms += 1_000;
    await gone(0);
  });

  test('loses nothing before somebody has said what VMs use', async () => {
    const again = await it.reopen({ cacheRules: { maxBytes: 0, keepMs: 0 } });
    await have(0);
    await have(1);
    expect(evicted()).toEqual([]);
    again.protect(() => used);
    await gone(0, 1);
  });

  test('makes room on a full disk, one by one', async () => {
    await it.reopen({ cacheRules: { maxBytes: 1024 ** 4, keepMs: 1_000 }, limits });
    it.store.protect(() => used);
    await have(0);
    await have(1);
    await have(2);
    // From here on it is full until two of them have gone.
    const full = { ...limits, fetch: { ...limits.fetch, keepFreeBytes: Number.MAX_SAFE_INTEGER } };
    const again = await it.reopen({ cacheRules: { maxBytes: 1024 ** 4, keepMs: 1_000 }, limits: full });
    used = new Set([uids[0] ?? '']);
    again.protect(() => used);
    again.want(wanted({ uid: uids[5] ?? '', url: it.web.serve('/5', { is: 'bytes', bytes: await it.make(99, 1) }) }));
    expect(await settledImage(again, uids[5] ?? '')).toMatchObject({ state: 'importing', trouble: { reason: 'NoSpace', final: false } });
    await gone(1, 2);
  });
});
