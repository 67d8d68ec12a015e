// A look at a machine whose launcher is late, on a real lock; no QEMU is needed for that.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { quiet } from '#crds/kit/log.ts';
import { type Paths, paths as pathsOf } from '../../host/paths.ts';
import { observeMachine } from './look.ts';
import { writeStart } from './record.ts';
import { makeWatcher } from './watch.ts';

const uid = '11111111-1111-4111-8111-111111111111';
const facts = { type: 'pc-q35-7.2', cpuModel: 'max', accelerator: 'tcg' as const, cpus: 1, memoryMiB: 32 };
const path = process.env.PATH ?? '';

let folder: string;
let paths: Paths;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'strato-look-'));
  paths = pathsOf({ stateDir: join(folder, 'state'), imageCacheDir: '/none', socketDir: join(folder, 's') });
  for (const startId of ['before', 'late']) {
    await mkdir(paths.run(uid, startId), { recursive: true });
    await writeStart(paths, { uid, startId, epoch: 1, bootId: 'boot-1', oomKills: 0, facts });
  }
  await writeFile(paths.lock(uid), '');
});
afterEach(async () => {
  process.env.PATH = path;
  await rm(folder, { recursive: true });
});

const look = () => observeMachine({ paths, log: quiet, bootId: 'boot-1', watcher: makeWatcher(quiet), cgroups: { pids: async () => [], oomKills: async () => 0 } }, uid, AbortSignal.timeout(60_000));

/** As soon as the lock was found free a launcher takes it and tells its run. */
const launchAfterLook = async () => {
  const tools = join(folder, 'tools');
  await mkdir(tools);
  await writeFile(join(tools, 'flock'), `#!/bin/sh\nPATH='${path}'\nflock "$@" || exit\necho late > '${paths.runPointer(uid)}'\n`, { mode: 0o755 });
  process.env.PATH = `${tools}:${path}`;
};

test.each([
  ['the first one', undefined, { is: 'gone' }], ['another one', 'before', { is: 'gone', last: expect.objectContaining({ startId: 'before' }) }],
] as const)('a start that comes to its lock just after a look at it, %s, is not told to have ended', async (_, pointer, seen) => {
  if (pointer !== undefined) await writeFile(paths.runPointer(uid), `${pointer}\n`);
  await launchAfterLook();
  expect(await look()).toEqual(seen);
});
