import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ReadyImage } from '../image/store.ts';
import type { DiskSpec, Storage } from './driver.ts';

/** A storage under test, with one image that disks can start from. */
export type StorageBench = {
  storage: Storage;
  image: ReadyImage;
  /** Another driver over the same files, as after a restart of the agent. */
  reopen: () => Storage;
  unixId: number;
  close: () => Promise<void>;
};

const uid = '00000000-0000-4000-8000-00000000000a';
const other = '00000000-0000-4000-8000-00000000000b';

/** What every storage driver keeps. */
export const storageContract = (name: string, make: () => Promise<StorageBench>): void => {
  describe(`storage contract: ${name}`, () => {
    let bench: StorageBench;
    // Of all tests together.
    const signal = AbortSignal.timeout(600_000);
    const spec = (more: Partial<DiskSpec> = {}): DiskSpec => ({ uid, name: 'root', unixId: bench.unixId, ...more });
    beforeEach(async () => {
      bench = await make();
    });
    afterEach(() => bench.close());

    test('a disk that nobody made is absent', async () => {
      expect(await bench.storage.observe(uid, 'root', signal)).toEqual({ is: 'absent' });
    });

    test('a disk from an image is as large as the image, and it is there after a restart', async () => {
      const made = await bench.storage.create(spec({ image: bench.image }), signal);
      expect(made).toEqual({ is: 'ready', file: 'disks/root.qcow2', base: 'disks/root.base', sizeMiB: bench.image.virtualSizeMiB, format: 'qcow2' });
      expect(await bench.reopen().observe(uid, 'root', signal)).toEqual(made);
    });

    test('a disk is grown to its size', async () => {
      const sizeMiB = bench.image.virtualSizeMiB + 512;
      expect(await bench.storage.create(spec({ image: bench.image, sizeMiB }), signal)).toMatchObject({ is: 'ready', sizeMiB });
    });

    test('a blank disk has the size that was asked for', async () => {
      expect(await bench.storage.create(spec({ sizeMiB: 300 }), signal)).toMatchObject({ is: 'ready', sizeMiB: 300 });
    });

    test('a disk smaller than its image is refused for ever; both sizes are named and nothing is left', async () => {
      await expect(bench.storage.create(spec({ image: bench.image, sizeMiB: bench.image.virtualSizeMiB - 1 }), signal)).rejects.toMatchObject({
        code: 'DiskTooSmall',
        retry: 'never',
        message: expect.stringMatching(new RegExp(`${bench.image.virtualSizeMiB - 1} MiB.*${bench.image.virtualSizeMiB} MiB`)),
      });
      expect(await bench.storage.observe(uid, 'root', signal)).toEqual({ is: 'absent' });
    });

    test('a blank disk without a size is refused', async () => {
      await expect(bench.storage.create(spec(), signal)).rejects.toMatchObject({ code: 'DiskTooSmall', retry: 'never' });
    });

    test('making a disk twice keeps the first one', async () => {
      const made = await bench.storage.create(spec({ sizeMiB: 300 }), signal);
      expect(await bench.storage.create(spec({ sizeMiB: 900 }), signal)).toEqual(made);
    });

    test('a disk grows, with what it starts from, and never shrinks', async () => {
      for (const more of [{ image: bench.image }, { sizeMiB: 300 }]) {
        const spec0 = spec({ name: more.image ? 'root' : 'data', ...more });
        const made = await bench.storage.create(spec0, signal);
        const was = made.is === 'ready' ? made.sizeMiB : 0;
        expect(await bench.storage.grow(uid, spec0.name, was + 700, signal)).toEqual({ ...made, sizeMiB: was + 700 });
        expect(await bench.storage.grow(uid, spec0.name, was + 700, signal)).toEqual({ ...made, sizeMiB: was + 700 });
        expect(await bench.storage.grow(uid, spec0.name, was, signal)).toEqual({ ...made, sizeMiB: was + 700 });
        expect(await bench.reopen().observe(uid, spec0.name, signal)).toEqual({ ...made, sizeMiB: was + 700 });
      }
      await expect(bench.storage.grow(uid, 'nobody', 10, signal)).rejects.toMatchObject({ code: 'DiskMissing', retry: 'never' });
    });

    test('dropping a disk takes that one alone, and may be done twice; the name can be used again', async () => {
      await bench.storage.create(spec({ image: bench.image }), signal);
      await bench.storage.create(spec({ name: 'data', image: bench.image }), signal);
      await bench.storage.drop(uid, 'data', undefined, signal);
      await bench.storage.drop(uid, 'data', undefined, signal);
      expect(await bench.storage.observe(uid, 'data', signal)).toEqual({ is: 'absent' });
      expect(await bench.storage.observe(uid, 'root', signal)).toMatchObject({ is: 'ready' });
      expect(await bench.storage.create(spec({ name: 'data', sizeMiB: 20 }), signal)).toMatchObject({ is: 'ready', sizeMiB: 20 });
      await bench.storage.drop(other, 'data', undefined, signal);
    });

    test('a CD drive has the medium that it was given, whole and alone, after a restart too', async () => {
      const [first, second] = ['00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-0000000000c2'] as const;
      const medium = (imageUid: string) => ({ is: 'ready', file: `disks/cd.${imageUid}.medium`, format: 'qcow2', sizeMiB: bench.image.virtualSizeMiB });
      expect(await bench.storage.drive(uid, 'cd', first, signal)).toEqual({ medium: { is: 'absent' }, stale: false });
      expect(await bench.storage.insert({ uid, name: 'cd', imageUid: first, image: bench.image, unixId: bench.unixId }, signal)).toEqual(medium(first));
      await bench.storage.insert({ uid, name: 'cd', imageUid: first, image: bench.image, unixId: bench.unixId }, signal);
      expect(await bench.reopen().drive(uid, 'cd', first, signal)).toEqual({ medium: medium(first), stale: false });
      await bench.storage.insert({ uid, name: 'cd', imageUid: second, image: bench.image, unixId: bench.unixId }, signal);
      await bench.storage.create(spec({ name: 'cd-2', sizeMiB: 10 }), signal);
      expect(await bench.storage.drive(uid, 'cd', second, signal)).toEqual({ medium: medium(second), stale: true });
      await bench.storage.tidy(uid, 'cd', second, signal);
      expect(await bench.storage.drive(uid, 'cd', first, signal)).toEqual({ medium: { is: 'absent' }, stale: true });
      expect(await bench.storage.drive(uid, 'cd', second, signal)).toEqual({ medium: medium(second), stale: false });
      await bench.storage.create(spec({ name: 'cd', sizeMiB: 10 }), signal);
      await bench.storage.drop(uid, 'cd', second, signal);
      expect(await bench.storage.observe(uid, 'cd', signal)).toEqual({ is: 'absent' });
      expect(await bench.storage.drive(uid, 'cd', second, signal)).toEqual({ medium: medium(second), stale: false });
      await bench.storage.drop(uid, 'cd', undefined, signal);
      expect(await bench.storage.drive(uid, 'cd', undefined, signal)).toEqual({ medium: { is: 'absent' }, stale: false });
      expect(await bench.storage.observe(uid, 'cd-2', signal)).toMatchObject({ is: 'ready' });
    });

    test('removing a VM takes all of its disks and no others, and may be done twice', async () => {
      await bench.storage.create(spec({ image: bench.image }), signal);
      await bench.storage.create(spec({ name: 'data', sizeMiB: 10 }), signal);
      await bench.storage.seed(uid, { instanceId: uid, hostname: 'a', sshAuthorizedKeys: [] }, bench.unixId, signal);
      await bench.storage.create(spec({ uid: other, sizeMiB: 10 }), signal);
      await bench.storage.remove(uid, signal);
      await bench.storage.remove(uid, signal);
      expect(await bench.storage.observe(uid, 'root', signal)).toEqual({ is: 'absent' });
      expect(await bench.storage.observe(uid, 'data', signal)).toEqual({ is: 'absent' });
      expect(await bench.storage.observe(other, 'root', signal)).toMatchObject({ is: 'ready' });
    });

    const kept = '00000000-0000-4000-8000-0000000000d1';
    const record = 'whose it is';
    test('a disk that is kept is out of its VM and outlives it; another VM gets the same one, after a restart too, and it may all be done twice', async () => {
      const place = { uid, name: 'data', kept, record };
      expect(await bench.storage.keep(place, signal)).toEqual({ is: 'absent' });
      const made = await bench.storage.create(spec({ name: 'data', image: bench.image, sizeMiB: 300 }), signal);
      await bench.storage.create(spec({ image: bench.image }), signal);
      for (const storage of [bench.storage, bench.storage, bench.reopen()]) expect(await storage.keep(place, signal)).toEqual({ is: 'kept', sizeMiB: 300 });
      expect([await bench.storage.observe(uid, 'data', signal), await bench.storage.observe(uid, 'root', signal)]).toMatchObject([{ is: 'absent' }, { is: 'ready' }]);
      await bench.storage.remove(uid, signal);
      for (const storage of [bench.reopen(), bench.storage]) expect(await storage.takeBack({ ...place, uid: other, unixId: bench.unixId + 1 }, signal)).toEqual(made);
      expect(await bench.storage.observe(other, 'data', signal)).toEqual(made);
    });

    test('a kept disk that is nowhere is never made anew; one in two places is left in both', async () => {
      await expect(bench.storage.takeBack({ uid, name: 'data', kept, unixId: bench.unixId }, signal)).rejects.toMatchObject({ code: 'DiskMissing', retry: 'never' });
      await bench.storage.create(spec({ name: 'data', sizeMiB: 10 }), signal);
      await bench.storage.keep({ uid, name: 'data', kept, record }, signal);
      await bench.storage.create(spec({ name: 'data', sizeMiB: 20 }), signal);
      await expect(bench.storage.keep({ uid, name: 'data', kept, record }, signal)).rejects.toMatchObject({ code: 'DiskConflict' });
      await expect(bench.storage.takeBack({ uid, name: 'data', kept, unixId: bench.unixId }, signal)).rejects.toMatchObject({ code: 'DiskConflict' });
      expect(await bench.storage.observe(uid, 'data', signal)).toMatchObject({ sizeMiB: 20 });
    });

    test('a kept disk is removed, which may be done twice', async () => {
      await bench.storage.create(spec({ name: 'data', image: bench.image }), signal);
      await bench.storage.keep({ uid, name: 'data', kept, record }, signal);
      await bench.storage.removeKept(kept, signal);
      await bench.storage.removeKept(kept, signal);
      await expect(bench.storage.takeBack({ uid, name: 'data', kept, unixId: bench.unixId }, signal)).rejects.toMatchObject({ code: 'DiskMissing' });
    });

    test('a seed can be written before any disk, and again', async () => {
      await bench.storage.seed(uid, { instanceId: uid, hostname: 'a', sshAuthorizedKeys: [] }, bench.unixId, signal);
      await bench.storage.seed(uid, { instanceId: uid, hostname: 'b', userData: '#!/bin/sh\n', sshAuthorizedKeys: ['ssh-ed25519 AAAA me'] }, bench.unixId, signal);
    });

    test('space is told in MiB', async () => {
      const { sizeMiB, freeMiB } = await bench.storage.space();
      expect(sizeMiB).toBeGreaterThan(0);
      expect(freeMiB).toBeLessThanOrEqual(sizeMiB);
      expect(Number.isInteger(sizeMiB) && Number.isInteger(freeMiB)).toBe(true);
    });

    test('an aborted call does nothing', async () => {
      await expect(bench.storage.create(spec({ sizeMiB: 10 }), AbortSignal.abort())).rejects.toBeDefined();
      expect(await bench.storage.observe(uid, 'root', signal)).toEqual({ is: 'absent' });
    });
  });
};
