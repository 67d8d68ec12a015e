import type { Hardware } from '#crds/wire/desired.ts';
import type { VmEntry } from './entry.ts';

/** The Unix ids that an agent may give to VMs, both ends included. */
export type IdRange = { min: number; max: number };

/** Root ports that a machine has. */
export const slotCount = 16;

/** Key of the cloud-init seed among the slots. */
export const seedSlot = 'seed';

/** Every device of a VM, by the key that its slot is kept under. */
const devicesOf = (desired: Pick<Hardware, 'disks' | 'interfaces'>): string[] => [
  ...desired.disks.map(({ name }) => `disk/${name}`),
  seedSlot,
  ...desired.interfaces.map(({ name }) => `nic/${name}`),
];

/** The lowest id that nobody has; undefined when the range is used up. */
export const freeId = (range: IdRange, taken: ReadonlySet<number>): number | undefined => {
  for (let id = range.min; id <= range.max; id += 1) if (!taken.has(id)) return id;
  return undefined;
};

/**
 * Slots for every device, also of those that a run still has: a device keeps the one it has, a new one gets the lowest that is free.
 * When none is, it gets one that no machine has (`slotCount` and up), until another device is gone.
 */
export const withSlots = (slots: VmEntry['slots'], desired: Hardware, applied?: Hardware): VmEntry['slots'] => {
  const devices = [...new Set([...devicesOf(desired), ...(applied ? devicesOf(applied) : [])])];
  const kept = Object.entries(slots).filter(([device, slot]) => devices.includes(device) && slot < slotCount);
  const next = new Map(kept);
  const used = new Set(next.values());
  for (const device of devices) {
    if (next.has(device)) continue;
    const slot = Array.from({ length: slotCount }, (_, at) => at).find((at) => !used.has(at)) ?? slotCount;
    next.set(device, slot);
    used.add(slot);
  }
  return Object.fromEntries(next);
};
