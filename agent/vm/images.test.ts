import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { systemClock } from '#crds/kit/clock.ts';
import { quiet } from '#crds/kit/log.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { until } from '#hack/bed/until.ts';
import { paths as pathsOf } from '../host/paths.ts';
import { makeFakeImageStore } from '../image/fake.ts';
import { uidOf } from './bed.ts';
import { makeImageKeeper } from './images.ts';
import { openLedger } from './ledger.ts';
import { makeFileShelf } from './shelf.ts';

const image: DesiredImage = { kind: 'image', uid: uidOf(900), namespace: 'default', name: 'debian', generation: 1, url: 'https://images/debian.qcow2', format: 'qcow2' };
let folder: string;
beforeEach(async () => { folder = await mkdtemp(join(tmpdir(), 'strato-images-')); });
afterEach(() => rm(folder, { recursive: true }));

test('an image that is removed and wanted again (etcd was restored) is imported again, also after a restart', async () => {
  const stop = new AbortController();
  const at = pathsOf({ stateDir: folder, imageCacheDir: join(folder, 'images'), socketDir: '/none' });
  const shelf = makeFileShelf(at, true);
  const ledger = await openLedger(shelf, { min: 200_000, max: 200_001 });
  const images = makeFakeImageStore();
  const absents: string[] = [];
  using keeper = makeImageKeeper({ ledger, images, clock: systemClock, log: quiet, chance: () => 0.5, changed: () => {}, absent: (uid) => void absents.push(uid) }, stop.signal);
  const say = async (revision: number, type: 'desire' | 'tombstone') => {
    const order = { leaderEpoch: 1, revision };
    await (type === 'desire' ? ledger.accept({ type, ...order, object: image }) : ledger.doom({ type, ...order, kind: 'image', uid: image.uid }));
    keeper.take(image.uid);
  };
  await say(1, 'desire');
  await until('the import', () => images.ready(image.uid) !== undefined, 5_000);
  await say(2, 'tombstone');
  await until('the removal', () => absents.length === 1, 5_000);
  expect([images.ready(image.uid), await readdir(at.ended)]).toEqual([undefined, []]);
  await say(3, 'desire');
  await until('the second import', () => images.ready(image.uid) !== undefined, 5_000);
  const next = await openLedger(makeFileShelf(at, false), { min: 200_000, max: 200_001 });
  expect(next.entries().get(image.uid)).toMatchObject({ desired: image, ending: false });
});
