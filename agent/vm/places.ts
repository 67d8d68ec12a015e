import type { Hardware } from '#crds/wire/desired.ts';
import type { VmEntry } from './entry.ts';

/** The Unix ids that an agent may give to VMs, both ends included. */
export type IdRange = { min: number; max: number };

/** Root ports that a machine has. */
export const slotCount = 16;

/** Key of the cloud-init seed among the slots. */
export const seedSlot = 'seed';

/** Ports of a SATA controller; those that disks have are kept beside the slots, as `sata/NAME`. */
const sataPorts = 6;

/** Every device of a VM, by the key that its slot is kept under. */
const devicesOf = (desired: Pick<Hardware, 'disks' | 'interfaces'>): string[] => [
  ...desired.disks.map(({ name }) => `disk/${name}`),
  seedSlot,
  ...desired.interfaces.map(({ name }) => `nic/${name}`),
];

const sataOf = ({ disks }: Pick<Hardware, 'disks'>): string[] => disks.flatMap(({ name, bus }) => (bus === 'sata' ? [`sata/${name}`] : []));

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
  const all = applied ? [desired, applied] : [desired];
  return Object.fromEntries([...given(slots, all.flatMap(devicesOf), slotCount), ...given(slots, all.flatMap(sataOf), sataPorts)]);
};

const given = (slots: VmEntry['slots'], wanted: readonly string[], count: number): Map<string, number> => {
  const devices = [...new Set(wanted)];
  const next = new Map(Object.entries(slots).filter(([device, slot]) => devices.includes(device) && slot < count));
  const used = new Set(next.values());
  for (const device of devices) {
    if (next.has(device)) continue;
    const slot = Array.from({ length: count }, (_, at) => at).find((at) => !used.has(at)) ?? count;
    next.set(device, slot);
    used.add(slot);
  }
  return next;
};
