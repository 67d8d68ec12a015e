import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { limitsFor } from './limits.ts';
import { type ImageStoreOptions, type LocalImageStore, makeImageStore } from './local.ts';
import { makeGuard } from './web/guard.ts';
import { openTestWeb, type TestWeb } from './web/testweb.ts';

const run = promisify(execFile);

/** Uids of images for tests. */
export const uids = Array.from({ length: 20 }, (_, at) => `00000000-0000-4000-8000-0000000000${String(at + 10)}`);

/** An image that is wanted: the first of `uids`, a qcow2. */
export const wanted = (more: Partial<DesiredImage> & { url: string }): DesiredImage => ({
  kind: 'image', uid: uids[0] ?? '', namespace: 'default', name: 'mini', generation: 1, format: 'qcow2', ...more,
});

/** `sha256:HEX` of bytes. */
export const sha256 = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const usual = limitsFor(1024);
/** Bounds for tests: small disks, and no space that is kept free. */
export const limits = { ...usual, fetch: { ...usual.fetch, keepFreeBytes: 0 } };

/** A real image store over a folder of its own, and a web to fetch from. */
export type LocalBed = {
  folder: string;
  /** The cache. */
  images: string;
  web: TestWeb;
  store: LocalImageStore;
  /** The store anew over the same files, as after a restart of the agent; it is `store` from then on. */
  reopen: (more?: Partial<ImageStoreOptions>) => Promise<LocalImageStore>;
  /** A qcow2 with `dataMiB` of data in a disk of `virtualSizeMiB`. */
  make: (virtualSizeMiB: number, dataMiB?: number) => Promise<Buffer>;
  /** Names of unfinished downloads and conversions. */
  partial: () => Promise<string[]>;
  /** Bytes of the download that is under way. */
  arrived: () => Promise<number>;
  /** Names of the files of contents. */
  contents: () => Promise<string[]>;
  close: () => Promise<void>;
};

/** Opens a real image store for a test. Needs root. */
export const openLocalBed = async (more: Partial<ImageStoreOptions> = {}): Promise<LocalBed> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-images-'));
  // A closed parent: the user that converts may not pass through it.
  await chmod(folder, 0o700);
  const images = join(folder, 'images');
  const web = await openTestWeb();
  const open = (over: Partial<ImageStoreOptions> = {}) => makeImageStore({
    paths: { images }, unixId: 100_777, bootId: 'boot-1', guard: makeGuard({ allowed: ['127.0.0.1'] }), clock: systemClock, chance: () => 0,
    log: pino({ level: 'silent' }), limits, backoff: { baseMs: 50, maxMs: 50 }, ...more, ...over,
  });
  let store = await open();
  const partial = () => readdir(join(images, 'partial'));
  return {
    folder, images, web, partial,
    get store() {
      return store;
    },
    reopen: async (over) => {
      await store[Symbol.asyncDispose]();
      store = await open(over);
      return store;
    },
    make: async (virtualSizeMiB, dataMiB = 1) => {
      const file = join(folder, `source-${virtualSizeMiB}-${dataMiB}.qcow2`);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, `${virtualSizeMiB}M`]);
      await run('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 7 0 ${dataMiB}M`, file]);
      return readFile(file);
    },
    arrived: async () => {
      const sizes = await Promise.all((await partial()).map((key) => stat(join(images, 'partial', key, 'fetched')).then(({ size }) => size, () => 0)));
      return Math.max(0, ...sizes);
    },
    contents: async () => (await readdir(images)).filter((name) => /\.(qcow2|json)/.test(name)),
    close: async () => {
      await store[Symbol.asyncDispose]();
      await web.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
};
