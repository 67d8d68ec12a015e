import { join } from 'node:path';
import { z } from 'zod';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { Fault } from '#crds/kit/fault.ts';
import { until } from '../bed/until.ts';
import { endProcess, signalIfSame } from './end.ts';
import { observeHolders } from './guests.ts';
import type { Layout } from './layout.ts';

/** How a guest ended: by its power button, by SIGTERM to QEMU (which writes its caches back), or by SIGKILL. */
export type GuestEnd = 'powered off' | 'switched off' | 'killed';

/** How long each way to end a guest is given, in milliseconds. */
export type GuestGrace = { powerMs: number; termMs: number };

const usual: GuestGrace = { powerMs: 15_000, termMs: 5_000 };
const killMs = 5_000;

/**
 * Ends one guest: its power button, then SIGTERM to QEMU, then SIGKILL to QEMU, and at last to whoever still holds the lock.
 * Returns when nobody holds it. Fault GuestStays.
 */
export const endGuest = async (at: Layout, uid: string, { powerMs, termMs } = usual): Promise<GuestEnd> => {
  const holders = async () => (await observeHolders(at.agent.vms)).get(uid) ?? [];
  const isFree = (ms: number) => until('the lock', async () => (await holders()).length === 0, ms).catch(() => false);
  const asked = await pressPower(join(at.agent.sockets, uid, 'tools.sock'), AbortSignal.timeout(5_000)).then(() => true, () => false);
  if (asked && (await isFree(powerMs))) return 'powered off';
  // QEMU first: its supervisor then writes down how it ended.
  const signalQemu = async (signal: NodeJS.Signals) => {
    for (const each of (await holders()).filter(({ isQemu }) => isQemu)) await signalIfSame(each, signal);
  };
  await signalQemu('SIGTERM');
  if (await isFree(termMs)) return 'switched off';
  await signalQemu('SIGKILL');
  if (await isFree(killMs)) return 'killed';
  for (const each of await holders()) await endProcess(each, 0);
  if (!(await isFree(killMs))) throw new Fault('GuestStays', `the processes of guest ${uid} could not be ended`);
  return 'killed';
};

/** Presses the power button of a guest by the tools' QMP socket. */
const pressPower = async (socketFile: string, signal: AbortSignal): Promise<void> => {
  using qmp = await openQmp(socketFile, signal);
  await qmp.execute('system_powerdown', z.unknown(), signal);
};
