import { mkdtemp, readdir, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeWhole } from './durable.ts';

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
