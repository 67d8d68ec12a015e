import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeWhole, syncDirectory, writeWhole } from './durable.ts';

const owner = { mode: 0o600, uid: 100_123, gid: 100_123 };

describe('a file that is made once', () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-durable-'));
    file = join(folder, 'disk');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('is whole, has its owner, and leaves nothing beside it', async () => {
    expect(await makeWhole(file, owner, (handle) => handle.writeFile('mine'))).toBe(true);
    expect([await readFile(file, 'utf8'), await readdir(folder)]).toEqual(['mine', ['disk']]);
    expect(await stat(file)).toMatchObject({ uid: 100_123, gid: 100_123, nlink: 1 });
  });

  test('never replaces what came to its name while it was filled, as by an agent that took over from a frozen one', async () => {
    const made = await makeWhole(file, owner, async (handle) => {
      await handle.writeFile('of the frozen one');
      expect(await makeWhole(file, owner, (other) => other.writeFile('of the other'))).toBe(true);
    });
    expect([made, await readFile(file, 'utf8'), await readdir(folder)]).toEqual([false, 'of the other', ['disk']]);
  });

  test('is not made from an attempt that somebody took away, and nobody takes that of another for his own', async () => {
    const made = await makeWhole(file, owner, async (handle) => {
      await handle.writeFile('of the frozen one');
      for (const name of await readdir(folder)) {
        await unlink(join(folder, name));
        await writeFile(join(folder, 'disk.new'), 'half of another one');
      }
    });
    expect([made, await readdir(folder)]).toEqual([false, ['disk.new']]);
  });

  test('leaves nothing when it can not be filled', async () => {
    await expect(makeWhole(file, owner, () => Promise.reject(new Error('full')))).rejects.toThrow('full');
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('a file that is replaced', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-durable-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test('gets over what a crash left beside it, and follows no link that lies there', async () => {
    const [file, victim] = [join(folder, 'file'), join(folder, 'victim')];
    await writeFile(victim, 'of somebody');
    await writeFile(`${file}.new`, 'half of a longer text');
    await writeWhole(file, owner, (handle) => handle.writeFile('one'));
    await symlink(victim, `${file}.new`);
    await writeWhole(file, owner, (handle) => handle.writeFile('two'));
    expect([await readFile(file, 'utf8'), await readFile(victim, 'utf8'), (await readdir(folder)).toSorted()]).toEqual(['two', 'of somebody', ['file', 'victim']]);
    expect(await stat(file)).toMatchObject({ uid: 100_123, gid: 100_123 });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  test('with fifty others at once is there, and a directory that could not be synced can be later', async () => {
    const names = Array.from({ length: 50 }, (_, at) => `file-${at}`);
    await Promise.all(names.map((name) => writeWhole(join(folder, name), owner, (handle) => handle.writeFile(name))));
    expect((await readdir(folder)).toSorted()).toEqual(names.toSorted());
    const later = join(folder, 'later');
    const early = await Promise.allSettled([1, 2, 3].map(() => syncDirectory(later)));
    expect(early.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    await mkdir(later);
    await Promise.all([1, 2, 3].map(() => syncDirectory(later)));
  });
});
