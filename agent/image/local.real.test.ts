import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { until } from '#hack/bed/until.ts';
import { imageStoreContract, settledImage } from './contract.ts';
import { defaultLimits, type ImageStoreOptions, type LocalImageStore, makeImageStore } from './local.ts';
import { makeGuard } from './web/guard.ts';
import { openTestWeb } from './web/testweb.ts';

const run = promisify(execFile);
const signal = AbortSignal.timeout(300_000);
const uids = Array.from({ length: 20 }, (_, at) => `00000000-0000-4000-8000-0000000000${String(at + 10)}`);
const [uid = ''] = uids;
const wanted = (more: Partial<DesiredImage> & { url: string }): DesiredImage => ({
  kind: 'image', uid, namespace: 'default', name: 'mini', generation: 1, format: 'qcow2', ...more,
});
const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const limits = { ...defaultLimits, fetch: { ...defaultLimits.fetch, keepFreeBytes: 0 } };

const bed = async (more: Partial<ImageStoreOptions> = {}) => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-images-'));
  // A closed parent: the user that converts may not pass through it.
  await chmod(folder, 0o700);
  const images = join(folder, 'images');
  const web = await openTestWeb();
  const open = () => makeImageStore({
    paths: { images }, unixId: 100_777, bootId: 'boot-1', guard: makeGuard({ allowed: ['127.0.0.1'] }), clock: systemClock, chance: () => 0, log: pino({ level: process.env['LOUD'] ?? 'silent' }),
    limits, backoff: { baseMs: 50, maxMs: 50 }, ...more,
  });
  const stores: LocalImageStore[] = [await open()];
  return {
    folder, images, web, open,
    get store(): LocalImageStore {
      const last = stores.at(-1);
      if (!last) throw new Error('no store');
      return last;
    },
    reopen: async () => {
      await stores.at(-1)?.[Symbol.asyncDispose]();
      const next = await open();
      stores.push(next);
      return next;
    },
    /** A qcow2 with `dataMiB` of data in a disk of `virtualSizeMiB`. */
    make: async (virtualSizeMiB: number, dataMiB = 1): Promise<Buffer> => {
      const file = join(folder, `source-${virtualSizeMiB}-${dataMiB}.qcow2`);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, `${virtualSizeMiB}M`]);
      await run('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 7 0 ${dataMiB}M`, file]);
      return readFile(file);
    },
    close: async () => {
      await stores.at(-1)?.[Symbol.asyncDispose]();
      await web.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
};

imageStoreContract('local', async () => {
  const it = await bed();
  return {
    store: it.store,
    offer: async (virtualSizeMiB) => {
      const bytes = await it.make(virtualSizeMiB);
      return { url: it.web.serve(`/${virtualSizeMiB}`, { is: 'bytes', bytes }), digest: sha256(bytes) };
    },
    hold: it.web.holdAll,
    release: it.web.release,
    downloads: (url) => it.web.requests(new URL(url).pathname),
    reopen: it.reopen,
    close: it.close,
  };
});

describe('images of a node', () => {
  let it: Awaited<ReturnType<typeof bed>>;
  beforeEach(async () => {
    it = await bed();
  });
  afterEach(() => it.close());
  const partial = () => readdir(join(it.images, 'partial'));
  /** Bytes of the download that is under way. */
  const arrived = async (): Promise<number> => {
    const [key = 'none'] = await partial();
    return stat(join(it.images, 'partial', key, 'fetched')).then(({ size }) => size, () => 0);
  };
  const contents = async () => (await readdir(it.images)).filter((name) => /\.(qcow2|json)/.test(name));

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
    expect(await partial()).toEqual([]);
  });

  test('a raw disk is converted, too', async () => {
    const bytes = Buffer.alloc(3_000_000, 'disk');
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }), format: 'raw' }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'ready', content: { virtualSizeBytes: 3_000_320 } });
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
    expect(await contents()).toHaveLength(2);
    await it.store.remove(uid, signal);
    expect(await contents()).toEqual([]);
  });

  test('a removed leader leaves its download to the others', async () => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes });
    it.web.holdAll();
    for (const each of uids.slice(0, 3)) it.store.want(wanted({ uid: each, url, checksum: sha256(bytes) }));
    await until('the download', () => it.web.requests('/a') > 0, 10_000);
    await it.store.remove(uid, signal);
    it.web.release();
    for (const each of uids.slice(1, 3)) expect(await settledImage(it.store, each)).toMatchObject({ state: 'ready' });
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
    expect(await partial()).toEqual([]);
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
          return void until('some bytes to arrive', async () => (await arrived()) > 0, 10_000).finally(() => response.destroy());
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
    expect(await partial()).toHaveLength(1);
    await it.store.remove(uid, signal);
    expect(await partial()).toEqual([]);
  });

  test.each(['sha256', 'sha512'])('a wrong %s leaves no file at all and is not tried again (N11)', async (kind) => {
    const bytes = await it.make(64);
    const url = it.web.serve('/a', { is: 'bytes', bytes });
    it.store.want(wanted({ url, checksum: `${kind}:${'0'.repeat(kind === 'sha256' ? 64 : 128)}` }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', progress: 0, trouble: { reason: 'ChecksumMismatch', final: true } });
    expect(await partial()).toEqual([]);
    expect(await contents()).toEqual([]);
    expect(it.web.requests('/a')).toBe(1);
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

  test.each<[string, (path: (name: string) => string) => Promise<void>]>([
    ['a backing file', async (path) => {
      await writeFile(path('secret'), Buffer.alloc(1024 * 1024, 's'));
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', path('secret'), path('evil')]);
    }],
    ['an external data file', async (path) => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${path('secret')},data_file_raw=on`, path('evil'), '1M']);
    }],
    ['encryption', async (path) => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '--object', 'secret,id=s,data=x', '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10', path('evil'), '1M']);
    }],
    ['snapshots', async (path) => {
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', path('evil'), '1M']);
      await run('qemu-img', ['snapshot', '-c', 's', path('evil')]);
    }],
    ['a VMDK inside', async (path) => void (await run('qemu-img', ['create', '-q', '-f', 'vmdk', path('evil'), '1M']))],
  ])('a qcow2 with %s is refused before any QEMU tool opens it (A19)', async (_, make) => {
    const path = (name: string) => join(it.folder, name);
    await make(path);
    // With a qemu-img that fails the test by its very use: nothing of that name is on this path.
    const before = process.env.PATH;
    process.env.PATH = path('nothing-here');
    try {
      it.store.want(wanted({ url: it.web.serve('/evil', { is: 'bytes', bytes: await readFile(path('evil')) }) }));
      expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', final: true } });
    } finally {
      process.env.PATH = before;
    }
    expect(await partial()).toEqual([]);
    expect(await contents()).toEqual([]);
  });

  test('a broken table that only qemu-img can see is refused, too, with what it said', async () => {
    const bytes = await it.make(64);
    // The first L1 entry (cluster 3 of what qemu-img makes) points beyond the file: a read there gives zeros.
    bytes.writeBigUInt64BE(0x8000_0fff_ffff_0000n, 3 * 65_536);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused', message: expect.stringContaining('qemu-img check') } });
    expect(await partial()).toEqual([]);
  });

  test('a qcow2 that is cut off in its data is refused, not read as zeros', async () => {
    const bytes = (await it.make(64, 8)).subarray(0, 4 * 1024 * 1024);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ImageRefused' } });
  });

  test.each([
    ['memory', { addressSpaceBytes: 8 * 1024 * 1024 }],
    ['time', { deadlineMs: 1 }],
  ])('a conversion that gets too little %s is ended and tried again', async (_, less) => {
    await it.close();
    it = await bed({ limits: { ...limits, convert: { ...limits.convert, ...less } } });
    const bytes = await it.make(64);
    it.store.want(wanted({ url: it.web.serve('/a', { is: 'bytes', bytes }) }));
    expect(await settledImage(it.store, uid)).toMatchObject({ state: 'importing', trouble: { reason: 'ConvertFailed', final: false } });
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

// The child says its progress by lines; it is killed at a moment of it, then a new store opens the same cache.
const importer = `
  const { makeImageStore } = await import(process.argv[1] + '/agent/image/local.ts');
  const { makeGuard } = await import(process.argv[1] + '/agent/image/web/guard.ts');
  const { systemClock } = await import(process.argv[1] + '/crds/kit/clock.ts');
  const log = { info: () => {}, warn: () => {} };
  const store = await makeImageStore({ paths: { images: process.argv[2] }, unixId: 100777, bootId: 'boot-1', guard: makeGuard({ allowed: ['127.0.0.1'] }), clock: systemClock, chance: Math.random, log });
  store.watch((uid) => console.log(store.observe(uid).state, store.observe(uid).progress));
  store.want(JSON.parse(process.argv[3]));
  setInterval(() => {}, 1000);
`;

describe('SIGKILL at any moment of an import (F15)', () => {
  const moments: [string, (said: string, images: string) => Promise<boolean>][] = [
    ['at its begin', async (said) => said.includes('importing 0')],
    ['in mid-download', async (said) => /importing [1-8]0/.test(said)],
    ['when the download is complete', async (said) => said.includes('importing 90')],
    ['while it is converted', async (_, images) => {
      const attempts = await readdir(join(images, 'partial')).catch(() => []);
      const sizes = await Promise.all(attempts.map((attempt) => stat(join(images, 'partial', attempt, 'converted.qcow2')).then(({ size }) => size, () => 0)));
      return sizes.some((size) => size > 10_000_000);
    }],
    ['when it is renamed', async (_, images) => (await readdir(images)).some((name) => name.endsWith('.qcow2'))],
    ['when it is ready', async (said) => said.includes('ready 100')],
  ];

  test.each(moments)('%s: what is used afterwards is whole, and nothing partial stays', async (_, isNow) => {
    const it = await bed();
    try {
      await it.store[Symbol.asyncDispose]();
      const bytes = await it.make(150, 100);
      const desire = wanted({ url: it.web.serve('/a', { is: 'bytes', bytes, etag: '"1"' }) });
      const child = spawn(process.execPath, ['--input-type=module', '-e', importer, process.cwd(), it.images, JSON.stringify(desire)], { stdio: ['ignore', 'pipe', 'inherit'] });
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      const ended = once(child, 'exit');
      const end = performance.now() + 30_000;
      while (!(await isNow(said, it.images)) && performance.now() < end) await new Promise((resolve) => setImmediate(resolve));
      child.kill('SIGKILL');
      await ended;
      // Its qemu-img dies with it.
      await until('the end of qemu-img', async () => !(await run('ps', ['-o', 'args=', '-u', '100777']).catch(() => ({ stdout: '' }))).stdout.includes('qemu-img'), 10_000);

      const store = await it.reopen();
      // Killed early enough, it had not even written down what it shall have; an operator says it again anyway.
      store.want(desire);
      expect(await settledImage(store, uid)).toMatchObject({ state: 'ready', content: { digest: sha256(bytes) } });
      await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', join(it.folder, 'source-150-100.qcow2'), store.ready(uid)?.file ?? '']);
      expect(await readdir(join(it.images, 'partial'))).toEqual([]);
      // A download that was complete, or that went on, was not begun anew.
      expect(it.web.seen('/a').filter(({ range }) => range === undefined)).toHaveLength(1);
      expect((await readdir(it.images)).filter((name) => /\.(qcow2|json|new)/.test(name))).toHaveLength(2);
    } finally {
      await it.close();
    }
  }, 60_000);

  test('what an agent of long ago left half-made is cleared', async () => {
    const it = await bed();
    try {
      await it.store[Symbol.asyncDispose]();
      await mkdir(join(it.images, 'partial', 'old'), { recursive: true });
      await writeFile(join(it.images, 'partial', 'old', 'fetched'), 'x');
      await writeFile(join(it.images, `${'a'.repeat(64)}.qcow2`), 'half');
      await it.reopen();
      expect(await readdir(join(it.images, 'partial'))).toEqual([]);
      expect((await readdir(it.images)).toSorted()).toEqual(['partial', 'wanted']);
    } finally {
      await it.close();
    }
  });
});
