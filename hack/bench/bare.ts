import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, link, mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { z } from 'zod';
import { readBootId } from '#agent/host/bootid.ts';
import type { Paths } from '#agent/host/paths.ts';
import type { Hypervisor } from '#agent/hypervisor/driver.ts';
import { makeQemu } from '#agent/hypervisor/qemu/driver.ts';
import { launchArgs, startFile } from '#agent/hypervisor/qemu/launcher.ts';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { makeFileStorage } from '#agent/storage/files.ts';
import { quiet } from '#crds/kit/log.ts';

/** A machine without Strato: a directory that was prepared for it, and the command of the QEMU that shall run there. */
export type Bare = { paths: Paths; uid: string; unixId: number; command: readonly string[] };

/** The start id of every bare machine. */
export const bareStart = 'bare';

const silent = pino({ level: 'silent' });
const resumed = z.object({ event: z.literal('RESUME'), timestamp: z.object({ seconds: z.int(), microseconds: z.int() }) });

/** What an agent makes before it calls the launcher. */
export const prepareBare = async ({ paths, uid, unixId }: Pick<Bare, 'paths' | 'uid' | 'unixId'>): Promise<void> => {
  await mkdir(paths.run(uid, bareStart), { recursive: true, mode: 0o700 });
  await writeFile(join(paths.run(uid, bareStart), startFile), '');
  await mkdir(paths.sockets(uid), { recursive: true });
  await chown(paths.sockets(uid), 0, unixId);
  await chmod(paths.sockets(uid), 0o770);
  const serial = await open(paths.serialLog(uid), 'a', 0o600);
  await serial.chown(0, unixId);
  await serial.chmod(0o660);
  await serial.close();
};

/** The disk of a bare machine, an overlay on `base` as the agent makes it, and its seed. `base` is kept as `kept` beside the images. */
export const makeBareDisks = async ({ paths, uid, unixId }: Pick<Bare, 'paths' | 'uid' | 'unixId'>, base: string, kept: string, sizeMiB: number, signal: AbortSignal): Promise<void> => {
  const storage = makeFileStorage({ paths, log: silent });
  const file = join(paths.images, kept);
  await mkdir(paths.images, { recursive: true });
  await link(base, file).catch(() => {});
  await storage.create({ uid, name: 'root', image: { file, digest: '', virtualSizeMiB: sizeMiB }, unixId }, signal);
  await storage.seed(uid, { instanceId: uid, hostname: 'bare', sshAuthorizedKeys: [] }, unixId, signal);
};

/** Runs the launcher and says `cont` as soon as QEMU listens. Resolves when the guest runs. */
export const launchBare = async ({ paths, uid, unixId, command }: Bare, signal: AbortSignal): Promise<void> => {
  const args = launchArgs({ directory: paths.vm(uid), run: join('runs', bareStart), startId: bareStart, unixId, procs: [], command });
  const child = spawn('/bin/sh', args, { detached: true, cwd: '/', stdio: 'ignore' });
  await once(child, 'spawn');
  child.unref();
  for (;;) {
    try {
      using qmp = await openQmp(join(paths.sockets(uid), 'qmp.sock'), signal);
      await qmp.execute('cont', z.unknown(), signal);
      return;
    } catch {
      signal.throwIfAborted();
      await delay(1, undefined, { signal });
    }
  }
};

/** What ends bare machines. Its probe is over when it resolves. */
export const openHypervisor = async (paths: Paths, ending: DisposableStack): Promise<Hypervisor> => {
  const stop = new AbortController();
  ending.defer(() => stop.abort());
  const proved = Promise.withResolvers<void>();
  const hypervisor = await makeQemu({ paths, bootId: await readBootId(), accelerate: false, log: quiet, onProved: proved.resolve }, stop.signal);
  await proved.promise;
  return hypervisor;
};

/** Ends a bare machine and removes all that is of it. */
export const endBare = async (hypervisor: Hypervisor, paths: Paths, uid: string, signal: AbortSignal): Promise<void> => {
  await hypervisor.kill(uid, signal);
  await hypervisor.forget(uid, signal);
  await makeFileStorage({ paths, log: silent }).remove(uid, signal);
};

/** When the guest of a machine first ran, in milliseconds of the Unix epoch: QEMU itself dates its `cont`. Undefined before it has. */
export const resumedMs = async (directory: string): Promise<number | undefined> => {
  for (const run of await readdir(join(directory, 'runs')).catch(() => [])) {
    const events = await readFile(join(directory, 'runs', run, 'events'), 'utf8').catch(() => '');
    const line = events.split('\n').find((each) => each.includes('"RESUME"'));
    if (line === undefined) continue;
    const { timestamp } = resumed.parse(JSON.parse(line));
    return timestamp.seconds * 1000 + timestamp.microseconds / 1000;
  }
  return undefined;
};

/** Milliseconds of the Unix epoch, in fractions. */
export const nowMs = (): number => performance.timeOrigin + performance.now();
