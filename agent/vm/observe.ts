import { messageOf } from '#crds/kit/fault.ts';
import type { GuestSight } from '../guest/driver.ts';
import type { Sight } from '../hypervisor/driver.ts';
import { appliedOf } from './change.ts';
import type { VmEntry } from './entry.ts';
import type { VmFacts } from './facts.ts';
import type { Hands, Scratch } from './hands.ts';
import { observeDisks } from './observedisks.ts';
import { lookMs, within } from './within.ts';

/**
 * Looks at everything that a decision about one VM rests on. Never throws for what could not be seen: a machine that did
 * not answer is `unknown`, a disk that could not be looked at is a fault. Undefined when the ledger does not hold the uid.
 */
export const observeVm = async (hands: Hands, uid: string, scratch: Scratch, signal: AbortSignal): Promise<VmFacts | undefined> => {
  const before = hands.ledger.vm(uid);
  if (!before) return undefined;
  const wanted = before.ending ? [] : (before.desired?.disks ?? []);
  // Of the beginning: what is seen may be as old as that, when the machine or we ourselves stood still meanwhile.
  const nowMs = hands.hostMs();
  const [sight, { disks, staleDrives }] = await Promise.all([observeMachine(hands, uid, signal), observeDisks(hands, before, signal)]);
  // Read again, for what was recorded while we looked. It is not used when a new desire came meanwhile: that may name disks which were not looked at.
  const entry = hands.ledger.vm(uid);
  if (!entry) return undefined;
  const freeMiB = sight.is === 'present' && sight.guest === 'io-error' ? await freeOf(hands, signal) : undefined;
  const { unready } = hands.hypervisor.capabilities();
  const guest = followGuest(hands, entry, sight);
  for (const [name, seen] of disks) {
    if (seen.is === 'ready') scratch.places.set(name, seen);
    else scratch.places.delete(name);
  }
  return {
    entry: entry.desired === before.desired && entry.ending === before.ending ? entry : before,
    sight,
    disks, staleDrives, kept: hands.ledger.disks(),
    images: new Map(wanted.flatMap(({ imageUid }) => {
      if (imageUid === undefined) return [];
      const observed = hands.images.observe(imageUid);
      return [[imageUid, { ready: hands.images.ready(imageUid) !== undefined, ...(observed ? { observed } : {}) }] as const];
    })),
    attached: new Set(scratch.backends.keys()),
    holdsPorts: scratch.holdsPorts,
    ...(unready ? { unready } : {}),
    ...(guest ? { guest } : {}),
    now: hands.now(),
    nowMs,
    pressedMs: scratch.pressedMs,
    stopRenewed: scratch.stopRenewed,
    onReboot: scratch.onReboot,
    retried: scratch.retried,
    ...(freeMiB === undefined ? {} : { freeMiB }),
    freshId: hands.newId(),
  };
};

/** Has the guest of the run that is there looked into; what was seen of it so far. */
const followGuest = ({ guests, network }: Hands, entry: VmEntry, sight: Sight): GuestSight | undefined => {
  const { uid, desired, ending } = entry;
  if (sight.is === 'unknown') return guests.observe(uid);
  if (sight.is === 'gone' || ending || !desired) {
    guests.leave(uid);
    return undefined;
  }
  const { probe } = desired;
  const forward = probe?.is === 'tcp' ? desired.interfaces.flatMap(({ user }) => user.forwards).find(({ port, protocol }) => protocol === 'TCP' && port === probe.port) : undefined;
  guests.follow({
    uid, startId: sight.startId, cpus: appliedOf(entry)?.cpus ?? sight.facts.cpus, ...(probe ? { probe } : {}), ...(forward ? { tcp: { address: network.capabilities().forwards.address, port: forward.hostPort } } : {}),
  });
  const seen = guests.observe(uid);
  return seen?.startId === sight.startId ? seen : undefined;
};

const observeMachine = async ({ hypervisor }: Hands, uid: string, signal: AbortSignal): Promise<Sight> => {
  try {
    return await within(lookMs, signal, `looking at machine ${uid}`, (each) => hypervisor.observe(uid, each));
  } catch (thrown) {
    return { is: 'unknown', why: messageOf(thrown) };
  }
};

const freeOf = ({ storage }: Hands, signal: AbortSignal): Promise<number | undefined> =>
  within(lookMs, signal, 'asking for the free space of the storage', () => storage.space()).then(({ freeMiB }) => freeMiB, () => undefined);
