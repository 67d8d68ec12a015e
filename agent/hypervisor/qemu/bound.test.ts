import { appendFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { paths as pathsOf } from '../../host/paths.ts';
import { boundRecord, boundRecords, collapseRange, runBound, serialBound } from './bound.ts';

const text = Array.from({ length: 100_000 }, (_, line) => String(line).padStart(9, '0')).join('\n');
let folder: string;
beforeEach(async () => { folder = await mkdtemp(join(tmpdir(), 'strato-bound-')); });
afterEach(() => rm(folder, { recursive: true }));

describe('a record', () => {
  let file: string;
  beforeEach(() => { file = join(folder, 'record'); });

  const wheres = [['where a range can be collapsed or not', undefined], ['where it can not', async () => false]] as const;
  test.each(wheres)('that is too long loses its oldest part when its end counts, %s', async (_where, collapse) => {
    const bound = { most: 400_000, head: 0, tail: 200_000 };
    await writeFile(file, text);
    await boundRecord(file, bound, collapse);
    const rest = await readFile(file, 'utf8');
    expect(text.endsWith(rest)).toBe(true);
    expect(rest.length).toBeGreaterThanOrEqual(bound.tail);
    expect(rest.length).toBeLessThanOrEqual(bound.most);
    await appendFile(file, 'more');
    expect((await stat(file)).size).toBe(rest.length + 4);
  });

  test.each(wheres)('that is too long loses its middle when its beginning counts too, %s', async (_where, collapse) => {
    const bound = { most: 500_000, head: 131_072, tail: 131_072 };
    await writeFile(file, text);
    await boundRecord(file, bound, collapse);
    const rest = await readFile(file, 'utf8');
    expect([rest.slice(0, bound.head) === text.slice(0, bound.head), text.endsWith(rest.slice(bound.head))]).toEqual([true, true]);
    expect(rest.length).toBeGreaterThanOrEqual(bound.head + bound.tail);
    expect(rest.length).toBeLessThanOrEqual(bound.most);
  });

  test('stays as it is when the tool that collapses it does not end in time: it may yet do so', async () => {
    const path = process.env.PATH ?? '';
    await writeFile(join(folder, 'fallocate'), '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 });
    await writeFile(file, text);
    process.env.PATH = `${folder}:${path}`;
    try {
      await expect(boundRecord(file, { most: 400_000, head: 0, tail: 200_000 }, (...a) => collapseRange(...a, AbortSignal.timeout(100)))).rejects.toMatchObject({ code: 'ToolCut' });
    } finally {
      process.env.PATH = path;
    }
    expect(await readFile(file, 'utf8')).toBe(text);
  });

  test('that is short is left alone, and one that is not there is nothing', async () => {
    await boundRecord(file, serialBound);
    await writeFile(file, 'short');
    await boundRecord(file, serialBound);
    expect(await readFile(file, 'utf8')).toBe('short');
  });
});

describe('the records of a node', () => {
  const [first, second] = ['00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002'] as const;
  const long = Buffer.alloc(5 * 1024 * 1024, 'x');

  test('are bounded for every VM that is there, whatever is known of it; one that can not be costs the others nothing', async () => {
    const at = pathsOf({ stateDir: folder, imageCacheDir: '/none', socketDir: '/none' });
    await mkdir(join(at.vms, 'no-uid'), { recursive: true });
    await mkdir(at.vm(first), { recursive: true });
    await writeFile(at.runs(first), 'no folder');
    for (const run of ['a', 'b']) await mkdir(at.run(second, run), { recursive: true });
    const files = [at.serialLog(second), ...['a', 'b'].flatMap((run) => ['events', 'stderr'].map((name) => join(at.run(second, run), name)))];
    for (const file of files) await writeFile(file, long);
    const failed: string[] = [];
    await boundRecords(at, (uid) => void failed.push(uid));
    const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
    expect(sizes.map((size, index) => size <= (index === 0 ? serialBound.most : runBound.most))).toEqual(files.map(() => true));
    expect(failed).toEqual([first]);
  });

  test('of a node without VMs are none', async () => {
    await boundRecords(pathsOf({ stateDir: folder, imageCacheDir: '/none', socketDir: '/none' }), (_uid, thrown) => { throw thrown; });
  });
});
