import { Fault } from '#crds/kit/fault.ts';
import type { DesiredForward } from '#crds/wire/desired.ts';
import { changeDisk } from './applydisk.ts';
import { appliedOf, hardwareOf, type LiveChange, withChange } from './change.ts';
import { cardKey, doubtOf, doubtsAfter, forwardsKey } from './doubt.ts';
import type { VmEntry } from './entry.ts';
import type { Hands, Scratch } from './hands.ts';
import { withSlots } from './places.ts';

/**
 * Changes a machine that runs, and then remembers that its run has it. What QEMU may have is remembered before: an agent that
 * dies in between does it again, or what is wanted by then.
 * Faults: those of the drivers.
 */
export const applyChange = async (hands: Hands, uid: string, scratch: Scratch, change: LiveChange, signal: AbortSignal): Promise<void> => {
  const entry = hands.ledger.vm(uid);
  const applied = entry && appliedOf(entry);
  if (!entry?.desired || !applied) return;
  const desired = hardwareOf(entry.desired);
  const slotOf = (name: string): number => {
    const slot = entry.slots[`nic/${name}`];
    if (slot === undefined) throw new Fault('ChangeRefused', `interface ${name} has no slot in the machine; it is connected at the next start`);
    return slot;
  };
  /** Remembers that the run has the change now, or, for a card that is `plugging`, that it may have it. */
  const remember = (plugging = false): Promise<void> => hands.ledger.change(uid, (mine) => {
    const has = appliedOf(mine);
    if (!has) return mine;
    const next = withChange(has, desired, change);
    const others = doubtsAfter(mine.plugging, change);
    return { ...mine, applied: next, plugging: change.is === 'plugNic' && plugging ? [...others, cardKey(change.name)] : others, slots: withSlots(mine.slots, mine.desired ?? desired, next) };
  });
  const doubt = doubtOf(change);
  if (doubt !== undefined) await hands.ledger.change(uid, (mine) => withDoubt(mine, doubt));
  switch (change.is) {
    case 'cpus':
      await hands.hypervisor.change(uid, { do: 'cpus', cpus: change.cpus }, signal);
      break;
    case 'memory':
      await hands.hypervisor.change(uid, { do: 'memory', memoryMiB: change.memoryMiB }, signal);
      break;
    case 'plugNic': {
      const nic = desired.interfaces.find(({ name }) => name === change.name);
      const backend = scratch.backends.get(change.name);
      if (!nic || !backend) throw new Fault('ChangeRefused', `interface ${change.name} was not made ready`);
      // Before QEMU may have it: who takes over then takes it away again when nobody wants it any more.
      await remember(true);
      await hands.hypervisor.change(uid, { do: 'addNic', nic: { name: nic.name, mac: nic.mac, slot: slotOf(nic.name), backend } }, signal);
      break;
    }
    case 'unplugNic':
      await hands.hypervisor.change(uid, { do: 'removeNic', slot: slotOf(change.name) }, signal);
      await hands.network.detach(uid, signal, change.name);
      scratch.backends.delete(change.name);
      break;
    case 'forwards': {
      const now = applied.interfaces.find(({ name }) => name === change.name);
      const nic = desired.interfaces.find(({ name }) => name === change.name);
      if (!now || !nic) return;
      const { address } = hands.network.capabilities().forwards;
      const backend = await hands.network.attach({ uid, name: nic.name, mac: nic.mac, forwards: nic.user.forwards }, signal);
      scratch.backends.set(nic.name, backend);
      scratch.holdsPorts = true;
      const isNew = (each: DesiredForward): boolean => !nic.user.forwards.some((other) => textOf(other) === textOf(each));
      // Before QEMU may have them: all that may be open. Where that is in doubt, what shall be open is opened anew.
      const inDoubt = entry.plugging.includes(forwardsKey(nic.name));
      const from = now.user.forwards.filter((each) => !inDoubt || isNew(each)).map(({ protocol, hostPort, port }) => ({ protocol, address, hostPort, port }));
      await hands.ledger.change(uid, (mine) => withOpen(mine, nic.name, [...nic.user.forwards, ...now.user.forwards.filter(isNew)]));
      await hands.hypervisor.change(uid, { do: 'forwards', slot: slotOf(nic.name), from, to: backend.forwards }, signal);
      break;
    }
    case 'plugDisk':
    case 'unplugDisk':
    case 'growDisk':
    case 'limits':
    case 'medium':
      await changeDisk(hands, scratch, entry, change, signal);
      break;
  }
  await remember();
};

const textOf = ({ protocol, hostPort, port }: DesiredForward): string => `${protocol}/${hostPort}:${port}`;

// As many as a card may have.
const mostForwards = 32;

/** An entry by whose record a card may have these forwards open, or some of them. Pure. */
const withOpen = (entry: VmEntry, name: string, forwards: DesiredForward[]): VmEntry => {
  const has = appliedOf(entry);
  if (!has) return entry;
  const interfaces = has.interfaces.map((nic) => (nic.name === name ? { ...nic, user: { forwards: forwards.slice(0, mostForwards) } } : nic));
  return withDoubt({ ...entry, applied: { ...has, interfaces } }, forwardsKey(name));
};

const withDoubt = (entry: VmEntry, key: string): VmEntry => ({ ...entry, plugging: [...new Set([...entry.plugging, key])] });
