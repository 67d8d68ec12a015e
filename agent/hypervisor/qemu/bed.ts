import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { appendFile, chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { quiet } from '#crds/kit/log.ts';
import { until } from '#hack/bed/until.ts';
import { type Paths, paths as pathsOf } from '../../host/paths.ts';
import { type Hypervisor, type MachineSpec, plainDisk, plainHardware } from '../driver.ts';
import { testGuest, testGuestReady } from '../testguest.ts';
import { makeQemu } from './driver.ts';

const waitMs = 120_000;

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
  /** See `HypervisorBench.stall`. */
  stall: (spec: MachineSpec) => Promise<{ thaw: () => Promise<void> }>;
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
  const stalled = new Set<number>();
  const stall: QemuBed['stall'] = async (spec) => {
    const tools = join(folder, `tools-${spec.startId}`);
    const stopped = join(tools, 'stopped');
    await mkdir(tools);
    // The launcher's own call, the last argument of which is a descriptor, stands still; all others go on.
    await writeFile(join(tools, 'flock'), stoppingFlock(stopped), { mode: 0o755 });
    const path = process.env.PATH ?? '';
    const given = new AbortController();
    process.env.PATH = `${tools}:${path}`;
    let tool = 0;
    let launcher = 0;
    try {
      const starting = hypervisor.start(spec, given.signal).then(() => 'started', () => 'given up');
      [tool = 0, launcher = 0] = await until('the launcher to stand still', async () => {
        const pids = (await readFile(stopped, 'utf8').catch(() => '')).trim().split(' ').map(Number);
        return pids.length === 2 && stateOf(pids[0] ?? 0) === 'T' && pids;
      }, waitMs);
      for (const pid of [launcher, tool]) stalled.add(pid);
      given.abort();
      if ((await starting) === 'started') throw new Error('a machine was made although its launcher stands still');
    } finally {
      process.env.PATH = path;
    }
    return {
      thaw: async () => {
        stalled.clear();
        if (runs(tool)) process.kill(tool, 'SIGCONT');
        await until('the launcher to have ended or to have a machine that answers', async () => !runs(launcher) || (await hypervisor.observe(spec.uid, AbortSignal.timeout(waitMs))).is === 'present', waitMs);
      },
    };
  };
  const serial = (uid: string) => readFile(paths.serialLog(uid), 'utf8').catch(() => '');
  return {
    paths, hypervisor, reopen, serial, stall,
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
      for (const pid of stalled) if (runs(pid)) process.kill(pid, 'SIGKILL');
      for (const uid of uids) {
        await hypervisor.kill(uid, AbortSignal.timeout(waitMs));
        await hypervisor.forget(uid, AbortSignal.timeout(waitMs));
      }
      ending.abort();
      await rm(folder, { recursive: true, force: true });
    },
  };
};

const stoppingFlock = (stopped: string): string => `#!/bin/sh
for last; do :; done
case $last in 9) echo "$$ $PPID" > ${stopped}.new; mv ${stopped}.new ${stopped}; kill -STOP $$;; esac
PATH=\${PATH#*:} exec flock "$@"
`;

/** The state of a process as proc(5) tells it: T is stopped, Z has ended; undefined when there is none. */
const stateOf = (pid: number): string | undefined => {
  try {
    return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
};

const runs = (pid: number): boolean => !['Z', undefined].includes(stateOf(pid));
