import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { quiet } from '#crds/kit/log.ts';
import { until } from '#hack/bed/until.ts';
import { makeWatcher, type Watcher } from './watch.ts';

const uid = '00000000-0000-4000-8000-000000000001';

describe('a watcher of runs', () => {
  let folder: string;
  let watcher: Watcher;
  let told: number;
  let others: number;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-watch-'));
    watcher = makeWatcher(quiet);
    told = 0;
    others = 0;
    watcher.listen((changed) => (changed === uid ? (told += 1) : (others += 1)));
    watcher.add(uid, folder);
  });
  afterEach(async () => {
    watcher[Symbol.dispose]();
    await rm(folder, { recursive: true });
  });

  test('tells an event, and the end that the supervisor wrote', async () => {
    await appendFile(join(folder, 'events'), 'x');
    await until('the event', () => told > 0, 5_000);
    const before = told;
    await writeFile(join(folder, 'exit.new'), '0\n');
    await rename(join(folder, 'exit.new'), join(folder, 'exit'));
    await until('the end', () => told > before, 5_000);
  });

  test('of a guest that has events written without end tells now and then, and the last one too', async () => {
    const beganMs = performance.now();
    while (performance.now() < beganMs + 1_000) await appendFile(join(folder, 'events'), 'x');
    await until('the last', () => told >= 2, 5_000);
    // Some are told, and not each: an event costs a look at the machine.
    const before = told;
    expect(before).toBeLessThan((performance.now() - beganMs) / 50);
    await appendFile(join(folder, 'events'), 'x');
    await until('one more', () => told > before, 5_000);
  });

  test('does not tell what QEMU says on stderr, nor anything of a machine that is looked at no more', async () => {
    for (let lines = 0; lines < 100; lines += 1) await appendFile(join(folder, 'stderr'), 'x');
    watcher.remove(uid);
    await appendFile(join(folder, 'events'), 'x');
    await mkdir(join(folder, 'other'));
    watcher.add('00000000-0000-4000-8000-000000000002', join(folder, 'other'));
    await appendFile(join(folder, 'other', 'events'), 'x');
    await until('what came after', () => others > 0, 5_000);
    expect(told).toBe(0);
  });
});
