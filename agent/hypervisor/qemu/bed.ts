import { randomUUID } from 'node:crypto';
import { appendFile, chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '#hack/bed/until.ts';
import { type Paths, paths as pathsOf } from '../../host/paths.ts';
import { quiet } from '../../vm/bed.ts';
import { type Hypervisor, type MachineSpec, plainDisk, plainHardware } from '../driver.ts';
import { testGuest, testGuestReady } from '../testguest.ts';
import { makeQemu } from './driver.ts';

const waitMs = 30_000;

/** A folder of an agent's own with the QEMU driver over it. */
export type QemuBed = {
  paths: Paths;
  hypervisor: Hypervisor;
  reopen: () => Promise<Hypervisor>;
  /** A machine with one raw disk, whose guest is `testGuest`. */
  spec: (uid: string) => Promise<MachineSpec>;
  /** Waits until the guest says that it is up, and tells it to power itself off. */
  powerOff: (uid: string) => Promise<void>;
  serial: (uid: string) => Promise<string>;
  /** Ends every machine and removes everything. */
  close: () => Promise<void>;
};

/** Makes a bed in a folder of its own. Needs root and QEMU. */
export const openQemuBed = async (): Promise<QemuBed> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-qemu-'));
  await chmod(folder, 0o755);
  const paths = pathsOf({ stateDir: join(folder, 'state'), imageCacheDir: join(folder, 'images'), socketDir: join(folder, 's') });
  await mkdir(paths.vms, { recursive: true });
  const ending = new AbortController();
  const opened: Hypervisor[] = [];
  const reopen = async (): Promise<Hypervisor> => {
    const proved = Promise.withResolvers<void>();
    const next = await makeQemu({ paths, bootId: 'boot-1', accelerate: false, log: quiet, onProved: proved.resolve }, ending.signal);
    await proved.promise;
    opened.push(next);
    return next;
  };
  const hypervisor = await reopen();
  const uids = new Set<string>();
  const serial = (uid: string) => readFile(paths.serialLog(uid), 'utf8').catch(() => '');
  return {
    paths, hypervisor, reopen, serial,
    spec: async (uid) => {
      const unixId = 240_000 + uids.size;
      uids.add(uid);
      await mkdir(paths.vm(uid), { mode: 0o750 });
      await chown(paths.vm(uid), 0, unixId);
      await mkdir(paths.disks(uid));
      const file = join(paths.disks(uid), 'root.raw');
      await writeFile(file, testGuest(), { mode: 0o600 });
      await chown(file, unixId, unixId);
      return {
        ...plainHardware, uid, startId: randomUUID(), epoch: 1, uuid: uid, cpus: 2, maxCpus: 2, memoryMiB: 32, maxMemoryMiB: 32, unixId, nics: [],
        disks: [{ ...plainDisk, name: 'root', file: 'disks/root.raw', format: 'raw', readOnly: false, slot: 0, bootIndex: 0 }],
      };
    },
    powerOff: async (uid) => {
      await until('the guest is up', async () => (await serial(uid)).includes(testGuestReady), waitMs);
      await appendFile(paths.serialInput(uid), 'q');
    },
    close: async () => {
      for (const uid of uids) {
        await hypervisor.kill(uid, AbortSignal.timeout(waitMs));
        await hypervisor.forget(uid, AbortSignal.timeout(waitMs));
      }
      ending.abort();
      await rm(folder, { recursive: true, force: true });
    },
  };
};
