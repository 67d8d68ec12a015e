import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';
import { platform } from '../../host/platform.ts';
import { isThere } from '../../storage/durable.ts';
import type { IoError, Sight } from '../driver.ts';
import { qmpSocket, tpmChardev } from './args.ts';
import { isPanicked } from './events.ts';
import type { House } from './house.ts';
import { lockIsFree } from './lock.ts';
import { openQmp, type Qmp } from './qmp.ts';
import { readEnd, readEvents, readRun, type StartRecord } from './record.ts';

/** How long a QEMU may take to answer when it is looked at. */
export const answerMs = 3_000;

// Between the end of QEMU and that of its supervisor, or the lock and the first answer, nobody answers although all is well.
const betweenMs = 2_000;
const lockWaitMs = 200;

const status = z.object({ status: z.string() });
const name = z.object({ name: z.string().optional() });
const threads = z.array(z.object({ 'thread-id': z.int() })).min(1);

const chardevs = z.array(z.object({ label: z.string(), filename: z.string() }));

const blocks = z.array(z.object({ 'io-status': z.enum(['ok', 'failed', 'nospace']).optional(), inserted: z.object({ 'node-name': z.string().optional() }).optional() }));

/**
 * Which disks keep the guest from running, and why. Pure. The `device` of a block event is empty for disks that were given by `-blockdev`; the
 * number of the node is that of the disk's slot. One that failed outweighs one that is full. Source: QAPI BlockInfo, BlockDeviceIoStatus.
 */
export const ioErrorOf = (devices: z.output<typeof blocks>): IoError => {
  const bad = devices.filter((each) => each['io-status'] === 'failed' || each['io-status'] === 'nospace');
  const failed = bad.filter((each) => each['io-status'] === 'failed');
  const full = failed.length === 0 && bad.length > 0;
  const slots = (full ? bad : failed).flatMap(({ inserted }) => /\d+$/.exec(inserted?.['node-name'] ?? '')?.map(Number) ?? []);
  return { reason: full ? 'NoSpace' : 'IOError', slots };
};

/** Whether the connection to the emulator of a TPM is closed; QEMU makes it once, at its start. Pure. Source: QAPI ChardevInfo. */
const isTpmLost = (devices: z.output<typeof chardevs>): boolean =>
  devices.some(({ label, filename }) => label === tpmChardev && filename.startsWith('disconnected:'));

/** QEMU's run states (QAPI RunState), as far as a machine is sound in them. */
const guestStates = {
  prelaunch: 'prelaunch', running: 'running', suspended: 'running', paused: 'paused', 'io-error': 'io-error', shutdown: 'shutdown',
} as const satisfies Record<string, Extract<Sight, { is: 'present' }>['guest']>;

/** Run states that a guest leaves by a reset alone. */
const brokenStates: ReadonlySet<string> = new Set(['internal-error', 'guest-panicked', 'watchdog']);

const isGuestState = (text: string): text is keyof typeof guestStates => Object.hasOwn(guestStates, text);

/** What a look reaches for. */
type Look = Pick<House, 'paths' | 'log' | 'bootId' | 'watcher'> & { cgroups: Pick<House['cgroups'], 'pids' | 'oomKills'> };

/** Opens the agent's monitor of a machine. Faults as `openQmp`. */
export const openMonitor = (house: Pick<House, 'paths'>, uid: string, signal: AbortSignal): Promise<Qmp> => openQmp(`${house.paths.sockets(uid)}/${qmpSocket}`, signal);

/** The state of a machine, as QEMU names it. */
export const statusOf = async (qmp: Qmp, signal: AbortSignal): Promise<string> => (await qmp.execute('query-status', status, signal)).status;

/** The directory of a run, and so who answers: it is told to nobody but the holder of the lock. */
export const observeMachine = async (house: Look, uid: string, signal: AbortSignal): Promise<Sight> => {
  const lock = house.paths.lock(uid);
  if (!(await isThere(lock))) {
    // Who removed its files has not ended it.
    const pids = await house.cgroups.pids(uid);
    return pids.length === 0 ? { is: 'gone' } : { is: 'unknown', why: `${lock} is not there and processes of the VM are, among them ${pids[0]}` };
  }
  const end = performance.now() + betweenMs;
  for (;;) {
    const limit = AbortSignal.any([signal, patience(answerMs)]);
    try {
      using qmp = await openMonitor(house, uid, limit);
      return await describe(house, uid, qmp, limit);
    } catch (thrown) {
      signal.throwIfAborted();
      const refused = thrown instanceof Fault && (thrown.code === 'QmpRefused' || thrown.code === 'QmpBroken');
      // Before the lock: a launcher that is late may take that, and write down its own run, as soon as it was found free.
      const [last] = await Promise.allSettled([readRun(house.paths, uid)]);
      // QEMU's answer or silence decides nothing: only the lock tells that the disks are free.
      if (await lockIsFree(lock, refused ? lockWaitMs : 0, signal)) return await describeGone(house, uid, last);
      if (!refused || performance.now() >= end) return { is: 'unknown', why: limit.aborted || (thrown instanceof Fault && thrown.code === 'QmpSilent') ? `QEMU did not answer within ${answerMs} ms` : messageOf(thrown) };
      await delay(20, undefined, { signal });
    }
  }
};

const describe = async (house: Look, uid: string, qmp: Qmp, signal: AbortSignal): Promise<Sight> => {
  const [{ name: given }, now, [cpu], devices] = await Promise.all([
    qmp.execute('query-name', name, signal), statusOf(qmp, signal), qmp.execute('query-cpus-fast', threads, signal), qmp.execute('query-chardev', chardevs, signal),
  ]);
  if (given !== uid) return { is: 'unknown', why: `the QEMU that answers calls itself ${JSON.stringify(given ?? '')}` };
  const record = await readRun(house.paths, uid);
  if (!record) return { is: 'unknown', why: 'a QEMU answers, but nothing was written down of its start' };
  if (record.bootId !== house.bootId) return { is: 'unknown', why: 'a QEMU answers, but what was written down is of an earlier boot of the node' };
  house.watcher.add(uid, house.paths.run(uid, record.startId));
  if (!isGuestState(now)) {
    return brokenStates.has(now)
      ? { is: 'unknown', broken: true, why: `QEMU is in the state ${now}: its guest can not go on; stop or restart the VM` }
      : { is: 'unknown', why: `QEMU is in the state ${now}, which says nothing of its guest` };
  }
  const ioError = now === 'io-error' ? { ioError: ioErrorOf(await qmp.execute('query-block', blocks, signal)) } : {};
  const tpmLost = isTpmLost(devices);
  const panicked = isPanicked(await readEvents(house.paths, uid, record.startId));
  return {
    is: 'present', startId: record.startId, guest: guestStates[now], facts: record.facts, pid: await platform.processOf(cpu?.['thread-id'] ?? 0), ...(panicked ? { panicked } : {}), ...(tpmLost ? { tpmLost } : {}), ...ioError,
  };
};

const describeGone = async (house: Look, uid: string, last: PromiseSettledResult<StartRecord | undefined>): Promise<Sight> => {
  house.watcher.remove(uid);
  if (last.status === 'rejected') {
    // The lock is free, and that alone says that nobody has the disks; how the last run ended is lost.
    house.log.warn({ uid, err: messageOf(last.reason) }, 'what was written down of the last run can not be read');
    return { is: 'gone' };
  }
  return last.value ? { is: 'gone', last: await readEnd(house.paths, last.value, house.bootId, await house.cgroups.oomKills(uid)) } : { is: 'gone' };
};
