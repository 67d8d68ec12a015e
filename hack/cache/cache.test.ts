import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { artifactDir, cached, cacheRoot, digestFiles } from './cache.ts';
import { takeLock } from './lock.ts';

let root = '';
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'strato-cache-'));
});
afterEach(async () => rm(root, { recursive: true, force: true }));

const visible = async () => (await readdir(root)).filter((name) => !name.startsWith('.lock.'));
const write = (text: string) => async (dir: string) => writeFile(join(dir, 'it'), text);

describe('an artifact', () => {
  test('is made once, then found', async () => {
    const first = await cached({ name: 'etcd', version: 'v1', root }, write('one'));
    const second = await cached({ name: 'etcd', version: 'v1', root }, write('two'));
    expect(second).toBe(first);
    expect(await readFile(join(first, 'it'), 'utf8')).toBe('one');
  });

  test('has no name before it is whole', async () => {
    const dir = artifactDir({ name: 'etcd', version: 'v1', root });
    const seen: string[] = [];
    await cached({ name: 'etcd', version: 'v1', root }, async (making) => {
      await writeFile(join(making, 'it'), 'half');
      seen.push(await stat(dir).then(() => 'there', (thrown: NodeJS.ErrnoException) => thrown.code ?? ''));
    });
    expect(seen).toEqual(['ENOENT']);
    expect(await visible()).toEqual(['etcd-v1']);
  });

  test('whose making fails leaves nothing and is made by the next run', async () => {
    const failing = cached({ name: 'etcd', version: 'v1', root }, async (dir) => {
      await writeFile(join(dir, 'it'), 'half');
      throw new Error('no luck');
    });
    await expect(failing).rejects.toThrow('no luck');
    expect(await visible()).toEqual([]);
    expect(await cached({ name: 'etcd', version: 'v1', root }, write('whole'))).toBe(join(root, 'etcd-v1'));
  });

  test('is made by one of many that want it at once', async () => {
    let made = 0;
    const want = () =>
      cached({ name: 'etcd', version: 'v1', root }, async (dir) => {
        made += 1;
        await write('once')(dir);
      });
    await Promise.all([want(), want(), want(), want()]);
    expect(made).toBe(1);
  });

  test('takes what killed runs of its name left away, and nothing of another name', async () => {
    await mkdir(join(root, '.tmp.kube.17-dead', 'deep'), { recursive: true });
    await mkdir(join(root, '.tmp.kube-apiserver.18-live'));
    await cached({ name: 'kube', version: 'v1', root }, write('whole'));
    expect((await visible()).toSorted()).toEqual(['.tmp.kube-apiserver.18-live', 'kube-v1']);
  });

  test('aborted in the making leaves nothing and passes the reason on', async () => {
    const stop = new AbortController();
    const making = cached({ name: 'etcd', version: 'v1', root, signal: stop.signal }, async (dir) => {
      await write('whole')(dir);
      stop.abort(new Error('Ctrl-C'));
    });
    await expect(making).rejects.toThrow('Ctrl-C');
    expect(await visible()).toEqual([]);
  });

  test.each([['../etcd', 'v1'], ['etcd', '../v1'], ['etcd', 'v1/x'], ['', 'v1'], ['etcd', '']])('refuses the name %s-%s', (name, version) => {
    expect(() => artifactDir({ name, version, root })).toThrow(expect.objectContaining({ code: 'CacheName' }));
  });
});

describe('the lock', () => {
  test('is waited for, the one who waits is told, and may give up', async () => {
    const file = join(root, '.lock.x');
    const stop = new AbortController();
    await using _held = await takeLock(file);
    const second = takeLock(file, { signal: stop.signal, onWait: () => stop.abort(new Error('gave up')) });
    await expect(second).rejects.toThrow('gave up');
  });

  test('is free as soon as its holder lets go', async () => {
    const file = join(root, '.lock.x');
    await (await takeLock(file))[Symbol.asyncDispose]();
    await using _again = await takeLock(file, { signal: AbortSignal.timeout(10_000) });
  });

  test('does not outlive a holder that was killed', async () => {
    const file = join(root, '.lock.x');
    const script = `import { takeLock } from ${JSON.stringify(join(import.meta.dirname, 'lock.ts'))};
      await takeLock(${JSON.stringify(file)}); console.log('held'); setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: import.meta.dirname,
    });
    try {
      await once(holder.stdout, 'data', { signal: AbortSignal.timeout(15_000) });
    } finally {
      holder.kill('SIGKILL');
    }
    await using _mine = await takeLock(file, { signal: AbortSignal.timeout(10_000) });
  });

  test('that cannot be opened is a fault', async () => {
    await expect(takeLock(join(root, 'no', 'such', 'folder'))).rejects.toMatchObject({ code: 'CacheLock' });
  });
});

test('the root is STRATO_CACHE, else in the home folder', () => {
  expect(cacheRoot({ STRATO_CACHE: '/x' })).toBe('/x');
  expect(cacheRoot({})).toMatch(/\/\.cache\/strato$/);
});

test('the digest of files changes with a name or a byte, not with order or folder', async () => {
  await mkdir(join(root, 'sub'));
  await writeFile(join(root, 'a'), '1');
  await writeFile(join(root, 'b'), '2');
  await writeFile(join(root, 'sub', 'a'), '1');
  await writeFile(join(root, 'sub', 'b'), '3');
  const [a, b, a2, b2] = [join(root, 'a'), join(root, 'b'), join(root, 'sub', 'a'), join(root, 'sub', 'b')];
  const digest = await digestFiles([a, b]);
  expect(await digestFiles([b, a])).toBe(digest);
  expect(await digestFiles([a2, b])).toBe(digest);
  expect(await digestFiles([a, b2])).not.toBe(digest);
  expect(await digestFiles([a])).not.toBe(digest);
});

test('until says what it waited for and why it was not so', async () => {
  await expect(until('rain', () => false, 60)).rejects.toThrow('rain');
  let tries = 0;
  expect(await until('third try', () => (tries++ > 2 ? tries : undefined), 5_000)).toBe(4);
});
