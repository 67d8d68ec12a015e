import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { boundRecord } from './serial.ts';

const bound = { most: 400_000, kept: 200_000 };
const text = Array.from({ length: 50_000 }, (_, line) => String(line).padStart(9, '0')).join('\n');

describe('the record of a serial console', () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-serial-'));
    file = join(folder, 'serial.log');
  });
  afterEach(() => rm(folder, { recursive: true }));

  test.each([['where a range can be collapsed or not', undefined], ['where it can not', async () => false]])('that is too long loses its oldest part, %s', async (_where, collapse) => {
    await writeFile(file, text);
    await boundRecord(file, bound, collapse);
    const rest = await readFile(file, 'utf8');
    expect(text.endsWith(rest)).toBe(true);
    expect(rest.length).toBeGreaterThanOrEqual(bound.kept);
    expect(rest.length).toBeLessThanOrEqual(bound.most);
    await appendFile(file, 'more');
    expect((await stat(file)).size).toBe(rest.length + 4);
  });

  test('of a run keeps its beginning and its end; where no range can be collapsed it stays as it is', async () => {
    const events = { most: 400_000, kept: 131_072, head: 65_536 };
    await writeFile(file, text);
    await boundRecord(file, events, async () => false);
    expect(await readFile(file, 'utf8')).toBe(text);
    await boundRecord(file, events);
    const rest = await readFile(file, 'utf8');
    expect([text.slice(0, 65_536), text.slice(-131_072)]).toEqual([rest.slice(0, 65_536), rest.slice(-131_072)]);
    expect(rest.length).toBeLessThan(events.most);
  });

  test('that is short is left alone, and one that is not there is nothing', async () => {
    await boundRecord(file, bound);
    await writeFile(file, 'short');
    await boundRecord(file, bound);
    expect(await readFile(file, 'utf8')).toBe('short');
  });
});
