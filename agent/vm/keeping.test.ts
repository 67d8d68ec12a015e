import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Paths, paths as pathsOf } from '../host/paths.ts';
import { makeKeeping } from './keeping.ts';
import { makeFileShelf } from './shelf.ts';

let folder: string;
let at: Paths;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'strato-keeping-'));
  at = pathsOf({ stateDir: folder, imageCacheDir: '/none', socketDir: '/none' });
  await mkdir(at.ledger);
});
afterEach(() => rm(folder, { recursive: true }));

test('intents that come at once, while the ballast is not there yet, are all kept', async () => {
  const shelf = makeFileShelf(at, false);
  const keeping = makeKeeping(shelf);
  const signal = new AbortController().signal;
  const kept = await Promise.allSettled([keeping.tend(signal), ...Array.from({ length: 20 }, (_, nth) => keeping.may(`desire ${nth}`, () => shelf.write(`${nth}.json`, '{}')))]);
  expect(kept.filter(({ status }) => status === 'rejected')).toEqual([]);
  expect([keeping.trouble(), await shelf.ballast.drop()]).toEqual([undefined, true]);
});
