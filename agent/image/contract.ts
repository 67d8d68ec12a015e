import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import type { ImageStore } from './store.ts';

/** An image store under test, with a web to fetch from. */
export type ImageBench = {
  store: ImageStore;
  /** Serves a qcow2 with a disk of this size; different sizes are different contents. */
  offer: (virtualSizeMiB: number) => Promise<{ url: string; digest: string }>;
  /** The web stops before the end of a content, until `release`. */
  hold: () => void;
  release: () => void;
  downloads: (url: string) => number;
  /** Has the content of an image, which no VM uses, leave the cache. */
  evict: (uid: string) => Promise<void>;
  /** Another store over the same files, as after a restart of the agent. The first one is no longer used. */
  reopen: () => Promise<ImageStore>;
  close: () => Promise<void>;
};

const uids = ['1', '2', '3'].map((each) => `00000000-0000-4000-8000-00000000000${each}`);
const [uid = '', other = '', third = ''] = uids;

/** Waits for an end of an import, told by `watch`. */
export const settledImage = (store: ImageStore, of: string, deadlineMs = 120_000): Promise<ObservedImage> =>
  new Promise((resolve, reject) => {
    const look = (): boolean => {
      const seen = store.observe(of);
      const done = seen !== undefined && (seen.state !== 'importing' || seen.trouble !== undefined);
      if (done) {
        watch[Symbol.dispose]();
        clearTimeout(timer);
        resolve(seen);
      }
      return done;
    };
    const timer = setTimeout(() => {
      watch[Symbol.dispose]();
      reject(new Error(`image ${of} did not settle: ${JSON.stringify(store.observe(of))}`));
    }, deadlineMs);
    const watch = store.watch((changed) => changed === of && look());
    look();
  });

/** What every image store keeps. */
export const imageStoreContract = (name: string, make: () => Promise<ImageBench>): void => {
  describe(`image store contract: ${name}`, () => {
    let bench: ImageBench;
    // Of all tests together.
    const signal = AbortSignal.timeout(600_000);
    const desire = (more: Partial<DesiredImage> & { url: string }): DesiredImage => ({
      kind: 'image', uid, namespace: 'default', name: 'mini', generation: 1, format: 'qcow2', ...more,
    });
    beforeEach(async () => {
      bench = await make();
    });
    afterEach(() => bench.close());

    test('an image that nobody wanted is not known', () => {
      expect(bench.store.observe(uid)).toBeUndefined();
      expect(bench.store.ready(uid)).toBeUndefined();
      expect(bench.store.list()).toEqual([]);
    });

    test('a wanted image becomes ready, with its digest and size', async () => {
      const { url, digest } = await bench.offer(40);
      const want = desire({ url });
      bench.store.want(want);
      expect(bench.store.observe(uid)).toMatchObject({ state: 'importing', digest: desireDigest(want) });
      expect(await settledImage(bench.store, uid)).toMatchObject({
        kind: 'image', uid, generation: 1, digest: desireDigest(want), state: 'ready', progress: 100,
        content: { digest, virtualSizeBytes: 40 * 1024 * 1024 },
      });
      expect(bench.store.ready(uid)).toMatchObject({ digest, virtualSizeMiB: 40 });
      expect(bench.store.list()).toHaveLength(1);
    });

    test('wanting it often fetches it once', async () => {
      const { url } = await bench.offer(40);
      for (let times = 0; times < 20; times += 1) bench.store.want(desire({ url }));
      await settledImage(bench.store, uid);
      bench.store.want(desire({ url }));
      expect(bench.downloads(url)).toBe(1);
    });

    test('it is not ready before its end', async () => {
      const { url } = await bench.offer(40);
      bench.hold();
      bench.store.want(desire({ url }));
      expect(bench.store.ready(uid)).toBeUndefined();
      expect(bench.store.observe(uid)).toMatchObject({ state: 'importing' });
      bench.release();
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'ready' });
    });

    test('a wrong checksum fails for ever', async () => {
      const { url } = await bench.offer(40);
      bench.store.want(desire({ url, checksum: `sha256:${'0'.repeat(64)}` }));
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'ChecksumMismatch', final: true } });
      expect(bench.store.ready(uid)).toBeUndefined();
    });

    test('a content other than the pinned one fails for ever', async () => {
      const { url } = await bench.offer(40);
      bench.store.want(desire({ url, digest: `sha256:${'0'.repeat(64)}` }));
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'failed', trouble: { reason: 'DigestMismatch', final: true } });
    });

    test('pinning the content that is there changes nothing but what is reported', async () => {
      const { url, digest } = await bench.offer(40);
      bench.store.want(desire({ url }));
      await settledImage(bench.store, uid);
      const pinned = desire({ url, digest, generation: 2 });
      bench.store.want(pinned);
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'ready', generation: 2, digest: desireDigest(pinned) });
      expect(bench.downloads(url)).toBe(1);
    });

    test('a failed image is tried again when its desire changes', async () => {
      const { url } = await bench.offer(40);
      bench.store.want(desire({ url, checksum: `sha256:${'0'.repeat(64)}` }));
      await settledImage(bench.store, uid);
      bench.store.want(desire({ url, generation: 2 }));
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'ready', generation: 2 });
    });

    test('a restart finds what was imported without fetching it', async () => {
      const { url, digest } = await bench.offer(40);
      bench.store.want(desire({ url }));
      await settledImage(bench.store, uid);
      const again = await bench.reopen();
      expect(again.ready(uid)).toMatchObject({ digest });
      again.want(desire({ url }));
      expect(await settledImage(again, uid)).toMatchObject({ state: 'ready' });
      expect(bench.downloads(url)).toBe(1);
    });

    test('an image that leaves the cache stays known, can not be used, and is fetched again when it is needed, once', async () => {
      const { url, digest } = await bench.offer(40);
      bench.store.want(desire({ url }));
      const content = (await settledImage(bench.store, uid)).content;
      await bench.evict(uid);
      expect(bench.store.observe(uid)).toMatchObject({ state: 'ready', progress: 100, cached: false, content });
      expect(bench.store.ready(uid)).toBeUndefined();
      bench.store.want(desire({ url, digest, generation: 2 }));
      expect(bench.store.observe(uid)).toMatchObject({ state: 'ready', generation: 2, cached: false });
      expect(bench.downloads(url)).toBe(1);
      for (let times = 0; times < 20; times += 1) bench.store.need(uid);
      expect(bench.store.observe(uid)).toMatchObject({ state: 'importing' });
      expect((await settledImage(bench.store, uid)).cached).toBeUndefined();
      expect(bench.store.ready(uid)).toMatchObject({ digest });
      bench.store.need(uid);
      bench.store.need(third);
      expect(bench.store.observe(uid)).toMatchObject({ state: 'ready' });
      expect(bench.downloads(url)).toBe(2);
    });

    test('what has left the cache is not fetched by a restart, and can be removed', async () => {
      const { url, digest } = await bench.offer(40);
      bench.store.want(desire({ url }));
      await settledImage(bench.store, uid);
      await bench.evict(uid);
      const again = await bench.reopen();
      again.want(desire({ url }));
      expect(again.observe(uid)).toMatchObject({ state: 'ready', cached: false, content: { digest } });
      expect(bench.downloads(url)).toBe(1);
      await again.remove(uid, signal);
      expect(again.observe(uid)).toBeUndefined();
    });

    test('removing ends it, may be done twice, and leaves the others', async () => {
      const a = await bench.offer(40);
      const b = await bench.offer(50);
      bench.store.want(desire({ url: a.url }));
      bench.store.want(desire({ url: b.url, uid: other }));
      await settledImage(bench.store, uid);
      await settledImage(bench.store, other);
      await bench.store.remove(uid, signal);
      await bench.store.remove(uid, signal);
      await bench.store.remove(third, signal);
      expect(bench.store.observe(uid)).toBeUndefined();
      expect(bench.store.ready(uid)).toBeUndefined();
      expect(bench.store.ready(other)).toBeDefined();
    });

    test('removing while it is imported ends the import', async () => {
      const { url } = await bench.offer(40);
      bench.hold();
      bench.store.want(desire({ url }));
      await bench.store.remove(uid, signal);
      bench.release();
      expect(bench.store.observe(uid)).toBeUndefined();
      bench.store.want(desire({ url, generation: 2 }));
      expect(await settledImage(bench.store, uid)).toMatchObject({ state: 'ready', generation: 2 });
    });

    test('watchers hear of changes until they leave', async () => {
      const { url } = await bench.offer(40);
      const heard: string[] = [];
      const watch = bench.store.watch((changed) => void heard.push(changed));
      bench.store.want(desire({ url }));
      await settledImage(bench.store, uid);
      expect(heard).toContain(uid);
      watch[Symbol.dispose]();
      const before = heard.length;
      await bench.store.remove(uid, signal);
      expect(heard).toHaveLength(before);
    });
  });
};
