// The process that imports is killed at any moment; what is used afterwards is whole. Needs root.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { slowConversions } from '#hack/bed/slowconversions.ts';
import { catching, until } from '#hack/bed/until.ts';
import { settledImage } from './contract.ts';
import { openLocalBed, sha256, uids, wanted } from './localbed.ts';

const run = promisify(execFile);
const [uid = ''] = uids;
// Of this suite alone: its processes are told by it.
const unixId = '100782';

// The child says its progress by lines; it is killed at a moment of it, then a new store opens the same cache.
const importer = `
  const [, , root, images, desire, unixId] = process.argv;
  const { makeImageStore } = await import(root + '/agent/image/local.ts');
  const { makeGuard } = await import(root + '/agent/image/web/guard.ts');
  const { systemClock } = await import(root + '/crds/kit/clock.ts');
  const log = { info: () => {}, warn: () => {} };
  const store = await makeImageStore({ paths: { images }, unixId: Number(unixId), bootId: 'boot-1', guard: makeGuard({ allowed: ['127.0.0.1'] }), clock: systemClock, chance: Math.random, log });
  store.watch((uid) => console.log(store.observe(uid).state, store.observe(uid).progress));
  store.want(JSON.parse(desire));
  setInterval(() => {}, 1000);
`;

describe('SIGKILL at any moment of an import (F15)', () => {
  // With how many requests for the whole at most: before a byte is on disk there is nothing to go on with.
  const moments: [string, 1 | 2, (said: string, images: string) => Promise<boolean>][] = [
    ['at its begin', 2, async (said) => said.includes('importing 0')],
    ['in mid-download', 1, async (said) => said.includes('importing 40')],
    ['when the download is complete', 1, async (said) => said.includes('importing 90')],
    ['while it is converted', 1, async (_, images) => {
      const attempts = await readdir(join(images, 'partial')).catch(() => []);
      const sizes = await Promise.all(attempts.map((attempt) => stat(join(images, 'partial', attempt, 'converted.qcow2')).then(({ size }) => size, () => 0)));
      return sizes.some((size) => size > 10_000_000);
    }],
    ['when it is renamed', 1, async (_, images) => (await readdir(images)).some((name) => name.endsWith('.qcow2'))],
    ['when it is ready', 1, async (said) => said.includes('ready 100')],
  ];

  test.each(moments)('%s: what is used afterwards is whole, and nothing partial stays', async (moment, wholes, isNow) => {
    const it = await openLocalBed();
    await using slow = await slowConversions(50);
    try {
      // It gets no further than to the middle of it.
      if (moment === 'in mid-download') it.web.holdAll();
      await it.store[Symbol.asyncDispose]();
      const bytes = await it.make(150, 100);
      const desire = wanted({ url: it.web.serve('/a', { is: 'bytes', bytes, etag: '"1"' }) });
      const script = join(it.folder, 'importer.mjs');
      await writeFile(script, importer);
      const child = spawn(process.execPath, [script, process.cwd(), it.images, JSON.stringify(desire), unixId], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, PATH: slow.path } });
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      const ended = once(child, 'exit');
      await catching('the moment', () => isNow(said, it.images), 60_000);
      child.kill('SIGKILL');
      await ended;
      it.web.release();
      // Its qemu-img dies with it.
      await until('the end of qemu-img', async () => !(await run('ps', ['-o', 'args=', '-u', unixId]).catch(() => ({ stdout: '' }))).stdout.includes('qemu-img'), 60_000);

      const store = await it.reopen();
      // Killed early enough, it had not even written down what it shall have; an operator says it again anyway.
      store.want(desire);
      expect(await settledImage(store, uid)).toMatchObject({ state: 'ready', content: { digest: sha256(bytes) } });
      await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', join(it.folder, 'source-150-100.qcow2'), store.ready(uid)?.file ?? '']);
      expect(await readdir(join(it.images, 'partial'))).toEqual([]);
      // A download that was complete, or that went on, was not begun anew.
      expect(it.web.seen('/a').filter(({ range }) => range === undefined).length).toBeLessThanOrEqual(wholes);
      expect((await readdir(it.images)).filter((name) => /\.(qcow2|json|new)/.test(name))).toHaveLength(2);
    } finally {
      await it.close();
    }
  });

  test('what an agent of long ago left half-made is cleared', async () => {
    const it = await openLocalBed();
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
