import { spawn } from 'node:child_process';
import { type FSWatcher, watch } from 'node:fs';
import { chmod, chown, mkdir, open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { errnoOf, syncDirectory } from '../../storage/durable.ts';
import type { MachineSpec } from '../driver.ts';
import { cpuModelOf, qemuArgs, tpmSocket } from './args.ts';
import { firmwareFor, prepareFirmware } from './firmware.ts';
import type { House } from './house.ts';
import { launchArgs, lockedExit } from './launcher.ts';
import { whyEmulated } from './probe.ts';
import { readTail, recordsEvents, writeStart } from './record.ts';

const root = () => process.getuid?.() ?? 0;

/** Starts a machine that waits before its first instruction. See `Hypervisor.start`. */
export const startMachine = async (house: House, spec: MachineSpec, signal: AbortSignal): Promise<void> => {
  const { paths } = house;
  const { uid, startId, unixId } = spec;
  const proved = house.proved();
  if (proved.is === 'unready') throw new Fault(proved.why.reason, proved.why.message, { retry: 'later' });
  const { verdict } = proved;
  const board = verdict.boards[spec.architecture];
  if (!board) throw new Fault('FeatureMissing', `the node has no QEMU that runs ${spec.architecture} guests; install it (Debian: qemu-system-x86, qemu-system-arm)`);
  if (spec.firmware.tpm && !house.hasTpm) throw new Fault('FeatureMissing', 'the node has no TPM emulator; install it (Debian: swtpm) and restart the agent');
  if (spec.devices.vsock && !house.hasVsock) throw new Fault('FeatureMissing', 'the node has no /dev/vhost-vsock; load the kernel module vhost_vsock and restart the agent');
  const uefi = firmwareFor(spec, house.firmware);
  const accelerator = board.accelerators[0] ?? 'tcg';
  const type = spec.type ?? board.type;
  const run = paths.run(uid, startId);
  await mkdir(run, { recursive: true, mode: 0o700 });
  await prepareFirmware(paths, spec, uefi);
  const why = whyEmulated(verdict, spec.architecture);
  const facts = { type, cpuModel: spec.cpuModel ?? cpuModelOf(accelerator), accelerator, cpus: spec.cpus, memoryMiB: spec.memoryMiB, ...(why === undefined ? {} : { why }) };
  const oomKills = await house.cgroups.oomKills(uid);
  const [procs] = await Promise.all([
    house.cgroups.make(uid),
    writeStart(paths, { uid, startId, epoch: spec.epoch, bootId: house.bootId, oomKills, facts }),
    openSockets(house, uid, unixId),
    makeSerialLog(paths.serialLog(uid), unixId),
  ]);
  const sockets = paths.sockets(uid);
  const command = [board.program, ...qemuArgs(spec, { accelerator, type, sockets, ...(uefi ? { uefi } : {}) })];
  signal.throwIfAborted();
  const kvmGroup = accelerator === 'kvm' ? (await stat('/dev/kvm')).gid : spec.devices.vsock ? (await stat('/dev/vhost-vsock')).gid : undefined;
  const launch = launchArgs({
    directory: paths.vm(uid), run: join('runs', startId), startId, unixId, procs, command,
    ...(kvmGroup === undefined ? {} : { kvmGroup }), ...(spec.firmware.tpm ? { tpmSocket: join(sockets, tpmSocket) } : {}),
  });
  const launcher = await spawnLauncher(house.cgroups.command(uid, startId, ['/bin/sh', ...launch]), join(run, 'stderr'));
  await greeted(house, spec, launcher, signal).catch(async (thrown: unknown) => {
    // A VM that never comes up is tried for ever, and must not fill the disk with its attempts.
    if (thrown instanceof Fault && thrown.code === 'StartFailed') await forgetOtherRuns(house, uid, startId);
    throw thrown;
  });
  // What was told so far is known by now.
  house.watcher.add(uid, run);
  await Promise.all([closeSockets(house, uid), makeDurable(paths.runPointer(uid)), forgetOtherRuns(house, uid, startId)]);
  await syncDirectory(paths.vm(uid));
};

/** A launcher that was started: whether and how it has ended, and a signal that aborts when it does. */
type Launcher = { ended: () => { code: number | null } | undefined; ends: AbortSignal };

/** Starts the launcher in a session of its own, so that nothing that happens to the agent reaches it. */
const spawnLauncher = async ([file = '', ...args]: readonly string[], stderrFile: string): Promise<Launcher> => {
  const stderr = await open(stderrFile, 'a', 0o600);
  try {
    let end: ReturnType<Launcher['ended']>;
    const ending = new AbortController();
    const child = spawn(file, args, { detached: true, cwd: '/', stdio: ['ignore', 'ignore', stderr.fd], env: { PATH: process.env.PATH, LC_ALL: 'C' } });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    child.on('spawn', resolve).on('error', reject).on('exit', (code) => {
      end = { code };
      ending.abort();
    });
    await promise;
    child.unref();
    return { ended: () => end, ends: ending.signal };
  } finally {
    await stderr.close();
  }
};

/** Waits until QEMU's events are recorded: it has answered its first command then, and answers others. Faults: AlreadyRunning, StartFailed. */
const greeted = async (house: House, { uid, startId }: MachineSpec, launcher: Launcher, signal: AbortSignal): Promise<void> => {
  using news = newsOf(house.paths.run(uid, startId), 'events');
  launcher.ends.addEventListener('abort', news.tell, { once: true });
  for (let answers = false; !answers;) {
    const end = launcher.ended();
    if (end?.code === lockedExit) throw new Fault('AlreadyRunning', `VM ${uid}: another process has its lock; it is not started a second time`);
    if (end) throw new Fault('StartFailed', `QEMU ended before the guest ran: ${await saidBy(house, uid, startId)}`);
    answers = await recordsEvents(house.paths, uid, startId);
    if (!answers) await news.next(signal);
  }
};

// Fifty machines that are started at once must not be looked at all the time; where inotify(7) has no watch left, there is nothing else.
const lookAgainMs = { watched: 1_000, unwatched: 50 };

const tried = (open: () => FSWatcher): FSWatcher | undefined => {
  try {
    return open();
  } catch {
    return undefined;
  }
};

/** Waits for changes of a file, by its directory since the file may not be there yet; or until it is time to look anyway. */
const newsOf = (directory: string, file: string): Disposable & { tell: () => void; next: (signal: AbortSignal) => Promise<void> } => {
  let came = false;
  let wake = (): void => {};
  const tell = (): void => {
    came = true;
    wake();
  };
  const watcher = tried(() => watch(directory, { persistent: false }, (_, name) => { if (name === file || name === null) tell(); }).on('error', tell));
  return {
    tell,
    next: async (signal) => {
      if (!came) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = () => resolve();
        const timer = setTimeout(wake, watcher ? lookAgainMs.watched : lookAgainMs.unwatched);
        signal.addEventListener('abort', wake, { once: true });
        await promise;
        signal.removeEventListener('abort', wake);
        clearTimeout(timer);
      }
      came = false;
      signal.throwIfAborted();
    },
    [Symbol.dispose]: () => watcher?.close(),
  };
};

const saidBy = async ({ paths }: House, uid: string, startId: string): Promise<string> => {
  const text = (await readTail(join(paths.run(uid, startId), 'stderr'))).trim();
  return text === '' ? 'it said nothing' : text;
};

/** QEMU makes its sockets as the VM's own user. */
const openSockets = async ({ paths }: House, uid: string, unixId: number): Promise<void> => {
  const directory = paths.sockets(uid);
  await mkdir(directory, { recursive: true, mode: 0o755 });
  await chown(directory, root(), unixId);
  await chmod(directory, 0o770);
};

/** Before the guest runs the directory is closed: nobody can put another socket in the place of one that root connects to. */
export const closeSockets = async ({ paths }: House, uid: string): Promise<void> => {
  await chmod(paths.sockets(uid), 0o700);
  await chown(paths.sockets(uid), root(), root());
};

const makeSerialLog = async (file: string, unixId: number): Promise<void> => {
  const handle = await open(file, 'a', 0o600);
  try {
    await handle.chown(root(), unixId);
    await handle.chmod(0o660);
  } finally {
    await handle.close();
  }
};

/** A shell can not: after a power cut it must be known which run had the disks. */
const makeDurable = async (file: string): Promise<void> => {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** Removes what is left of earlier runs. That which had the lock last stays: how it ended is read from there. */
const forgetOtherRuns = async ({ paths, log }: House, uid: string, startId: string): Promise<void> => {
  const last = (await readFile(paths.runPointer(uid), 'utf8').catch(() => '')).trim();
  for (const other of await readdir(paths.runs(uid))) {
    if (other === startId || other === last) continue;
    await rm(paths.run(uid, other), { recursive: true, force: true }).catch((thrown: unknown) => {
      log.warn({ uid, run: other, code: errnoOf(thrown) }, 'an old run could not be removed');
    });
  }
};
