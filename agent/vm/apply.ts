import { asFault, Fault } from '#crds/kit/fault.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { applyChange } from './applychange.ts';
import { keepDisk, takeDisk } from './applykept.ts';
import { createDisk, disksAsMade, dropDisk, growDisk, mustBeThere, tidyDrive } from './applydisk.ts';
import { hardwareOf } from './change.ts';
import type { VmEntry } from './entry.ts';
import type { Step } from './facts.ts';
import { afterRetry } from './halted.ts';
import type { Hands, Scratch } from './hands.ts';
import { machineSpec } from './machine.ts';
import { withSlots } from './places.ts';
import { afterEnd } from './restart.ts';
import { rivalOf } from './rival.ts';

/** What a step works on. */
type Work = { hands: Hands; scratch: Scratch; entry: VmEntry; uid: string; signal: AbortSignal };

/** How long each step may take, in milliseconds. */
export const deadlineMs = (step: Step['do']): number => {
  switch (step) {
    case 'createDisk':
    case 'growDisk':
    case 'dropDisk':
    case 'keepDisk':
    case 'takeDisk':
    case 'tidyDrive':
    case 'removeFiles':
      return 60_000;
    case 'start':
    case 'kill':
    case 'seed':
    case 'change':
      return 30_000;
    case 'allot':
    case 'needImage':
    case 'intend':
    case 'remember':
    case 'beginStop':
    case 'clearStop':
    case 'noteReady':
    case 'settle':
    case 'end':
      return 30_000;
    case 'attach':
    case 'detach':
    case 'forget':
    case 'revoke':
    case 'resume':
    case 'retryIo':
    case 'pause':
    case 'powerdown':
    case 'onReboot':
      return 15_000;
  }
};

// What it takes from the record of a stop to its button on a machine that is well.
const promptMs = 1_000;

/** Does one step. Every step is safe to do twice. Its faults are those of the driver it calls. */
export const applyStep = async (hands: Hands, uid: string, scratch: Scratch, step: Step, signal: AbortSignal): Promise<void> => {
  const { ledger, hypervisor, storage } = hands;
  const entry = ledger.vm(uid);
  if (!entry) return;
  const work: Work = { hands, scratch, entry, uid, signal };
  switch (step.do) {
    case 'allot':
      return ledger.allot(uid);
    case 'needImage':
      return hands.images.need(step.uid);
    case 'intend':
      return intend(work, step.startId);
    case 'remember':
      return remember(work, step);
    case 'beginStop':
      Object.assign(scratch, { pressedMs: undefined, stopUntold: true, stopRenewed: step.anew === true });
      return ledger.change(uid, (mine) => ({ ...mine, stopping: { sinceMs: Math.trunc(step.sinceMs), forced: step.forced, why: step.why } }));
    case 'clearStop':
      return ledger.change(uid, (mine) => ({ ...mine, stopping: null }));
    case 'noteReady':
      return ledger.change(uid, (mine) => (mine.times ? { ...mine, times: { ...mine.times, guestReady: step.time } } : mine));
    case 'settle':
      return settle(work, step);
    case 'createDisk':
      return createDisk(hands, scratch, entry, step.name, signal);
    case 'growDisk':
      return growDisk(hands, scratch, entry, step.name, step.sizeMiB, signal);
    case 'dropDisk':
      return dropDisk(hands, scratch, entry, step.name, signal);
    case 'keepDisk':
      return keepDisk(hands, scratch, entry, step.name, signal);
    case 'takeDisk':
      return takeDisk(hands, scratch, entry, step.name, step.kept, signal);
    case 'tidyDrive':
      return tidyDrive(hands, entry, step.name, signal);
    case 'seed':
      return seed(work);
    case 'attach':
      return attach(work, step.name);
    case 'start':
      return start(work, step.startId);
    case 'revoke':
      return hypervisor.revoke(uid, step.startId, signal);
    case 'resume':
      return hypervisor.resume(uid, signal);
    case 'retryIo':
      scratch.retried = afterRetry(scratch.retried, hands.hostMs());
      return hypervisor.resume(uid, signal);
    case 'pause':
      return hypervisor.pause(uid, signal);
    case 'powerdown':
      return press(work);
    case 'onReboot':
      await hypervisor.change(uid, { do: 'onReboot', action: step.action }, signal);
      scratch.onReboot = step.action;
      return;
    case 'change':
      return applyChange(hands, uid, scratch, step.change, signal);
    case 'kill':
      return hypervisor.kill(uid, signal);
    case 'detach':
      return detach(work);
    case 'forget':
      return hypervisor.forget(uid, signal);
    case 'removeFiles':
      return storage.remove(uid, signal);
    case 'end':
      await ledger.end(uid);
      hands.absent(uid);
      return;
  }
};

const desiredOf = ({ desired, uid }: VmEntry): DesiredVm => {
  if (desired) return desired;
  throw new Fault('LedgerFailed', `the ledger holds no desire for ${uid}`);
};

const unixIdOf = ({ unixId, uid }: VmEntry): number => {
  if (unixId !== null) return unixId;
  throw new Fault('NoUnixId', `VM ${uid} has no Unix id yet`);
};

/** Every disk and the seed were made before: from here on a missing file is a loss, not something to make. */
const intend = ({ hands, scratch, entry, uid }: Work, startId: string): Promise<void> => {
  const desired = desiredOf(entry);
  return hands.ledger.change(uid, (mine) => ({
    ...mine, disks: mustBeThere(mine.disks, desired.disks), seeded: true, run: { startId, ran: false }, stopping: null,
    applied: { ...hardwareOf(desired), disks: disksAsMade(desired.disks, scratch.places) }, plugging: [], slots: withSlots(mine.slots, hardwareOf(desired)),
    ended: false, restarts: { ...mine.restarts, count: mine.restarts.count + (mine.ended ? 1 : 0), dueMs: null, dueTime: null },
    restartToken: desired.restartToken ?? null, times: { prepared: hands.now().toISOString(), running: null, guestReady: null },
  }));
};

/** Whether a firmware keeps something on the node. */
const keepsState = (firmware: DesiredVm['firmware']): boolean => firmware !== undefined && (firmware.tpm || firmware.type === 'uefi');

const remember = ({ hands, uid }: Work, { startId, ran, machine, time }: Extract<Step, { do: 'remember' }>): Promise<void> =>
  hands.ledger.change(uid, (mine) => {
    const ranSinceMs = !ran ? null : mine.run?.ran === true ? mine.restarts.ranSinceMs : Math.trunc(hands.hostMs());
    const times = ran && mine.times?.running === null ? { ...mine.times, running: time } : mine.times;
    // Also of a start that was given up and came about all the same: it had made that before.
    const firmwareMade = mine.firmwareMade || (startId === mine.run?.startId && keepsState(mine.desired?.firmware));
    return { ...mine, run: { startId, ran }, machine, restarts: { ...mine.restarts, ranSinceMs }, times, firmwareMade };
  });

const settle = async ({ hands, scratch, uid }: Work, { exit, ended, failed }: Extract<Step, { do: 'settle' }>): Promise<void> => {
  // powerState may have become Stopped since this was planned: then the VM is not kept from its next start.
  await hands.ledger.change(uid, (mine) => {
    const stays = ended && mine.desired?.powerState !== 'Stopped';
    const restarts = stays && exit && !mine.ended ? afterEnd(mine.restarts, exit.reason, hands.hostMs(), hands.now()) : mine.restarts;
    return { ...mine, run: null, applied: null, plugging: [], stopping: null, ended: stays, restarts, lastExit: exit };
  });
  Object.assign(scratch, { pressedMs: undefined, stopUntold: false, stopRenewed: false });
  // When our own `start` step failed, that fault is reported already.
  if (failed !== undefined && scratch.failure === undefined) throw new Fault('StartFailed', failed);
};

/** The grace period of a stop counts from when its guest was told, however long that took from its record. */
const press = async ({ hands, scratch, entry, uid, signal }: Work): Promise<void> => {
  await hands.hypervisor.powerdown(uid, signal);
  const nowMs = hands.hostMs();
  scratch.pressedMs = nowMs;
  const isLate = scratch.stopUntold && entry.stopping !== null && nowMs - entry.stopping.sinceMs > promptMs;
  scratch.stopUntold = false;
  if (isLate) await hands.ledger.change(uid, (mine) => (mine.stopping ? { ...mine, stopping: { ...mine.stopping, sinceMs: Math.trunc(nowMs) } } : mine));
};

const seed = ({ hands, entry, uid, signal }: Work): Promise<void> => {
  return hands.storage.seed(uid, { instanceId: uid, ...desiredOf(entry).cloudInit }, unixIdOf(entry), signal);
};

const attach = async ({ hands, scratch, entry, uid, signal }: Work, name: string): Promise<void> => {
  const nic = desiredOf(entry).interfaces.find((each) => each.name === name);
  if (!nic) return;
  scratch.holdsPorts = true;
  try {
    scratch.backends.set(name, await hands.network.attach({ uid, name, mac: nic.mac, forwards: nic.user.forwards }, signal));
  } catch (thrown) {
    const fault = asFault(thrown, 'NetworkFailed', `attaching interface ${name}`);
    const rival = fault.code === 'ForwardInUse' ? rivalOf(nic.user.forwards, uid, hands.ledger.entries().values()) : undefined;
    if (!rival) throw fault;
    throw new Fault('ForwardConflict', `interface ${name}: ${rival.forward.protocol} port ${rival.forward.hostPort} is used by VM ${rival.vm}; choose another hostPort`, { cause: fault });
  }
};

const detach = async ({ hands, scratch, uid, signal }: Work): Promise<void> => {
  await hands.network.detach(uid, signal);
  scratch.backends.clear();
  scratch.holdsPorts = false;
};

const start = async ({ hands, scratch, entry, signal }: Work, startId: string): Promise<void> => {
  scratch.onReboot = undefined;
  const spec = machineSpec(entry, startId, scratch.places, scratch.backends);
  if (!spec) throw new Fault('StartFailed', `VM ${entry.uid}: a disk or an interface was not made ready`);
  await hands.hypervisor.start(spec, signal);
  scratch.onReboot = 'reset';
  if (!entry.firmwareMade && keepsState(spec.firmware)) await hands.ledger.change(entry.uid, (mine) => ({ ...mine, firmwareMade: true }));
};
