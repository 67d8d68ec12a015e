import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { Qmp } from './qmp.ts';

// A guest that is up releases a device within moments; one that is not never does.
const releaseMs = 10_000;
const lookAgainMs = 50;

/** Names of the devices that have an id. */
export const deviceIds = async (qmp: Qmp, signal: AbortSignal): Promise<Set<string>> =>
  new Set((await qmp.execute('qom-list', z.array(z.object({ name: z.string() })), signal, { path: '/machine/peripheral' })).map(({ name }) => name));

/** Asks the guest to release a device and waits until it did. Faults: ChangeRefused, when it does not. */
export const release = async (qmp: Qmp, id: string, what: string, signal: AbortSignal): Promise<void> => {
  if (!(await deviceIds(qmp, signal)).has(id)) return;
  // It is refused while an earlier request is still open.
  await unlessRefused(qmp.execute('device_del', z.unknown(), signal, { id }));
  if (await reached(releaseMs, signal, async () => !(await deviceIds(qmp, signal)).has(id))) return;
  throw new Fault('ChangeRefused', `the guest does not release ${what}; it is asked again, and gone after the next power cycle`);
};

/** Waits for a command; QEMU's refusal of it is no fault. */
export const unlessRefused = async (asked: Promise<unknown>): Promise<void> => {
  await asked.catch((thrown: unknown) => {
    if (!(thrown instanceof Fault) || thrown.code !== 'QmpFailed') throw thrown;
  });
};

/** Looks again and again whether something is so, for `ms` at most. */
export const reached = async (ms: number, signal: AbortSignal, isSo: () => Promise<boolean>): Promise<boolean> => {
  for (const end = performance.now() + ms; ;) {
    if (await isSo()) return true;
    if (performance.now() >= end) return false;
    await delay(lookAgainMs, undefined, { signal });
  }
};
