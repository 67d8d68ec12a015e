import type { DesiredVm, Hardware } from '#crds/wire/desired.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { type DiskChange, diskChanges, disksAfter } from './diskchange.ts';
import { cardKey, forwardsKey, memoryKey, mostCpus } from './doubt.ts';
import type { VmEntry } from './entry.ts';

/** What can be changed while the guest runs; `apply` has one function for each. */
export type LiveChange =
  | { is: 'cpus'; cpus: number }
  | { is: 'memory'; memoryMiB: number }
  | { is: 'plugNic'; name: string }
  | { is: 'unplugNic'; name: string }
  | { is: 'forwards'; name: string }
  | DiskChange;

/**
 * One difference between the hardware of a run and what is wanted. Without `live` it waits for the next power cycle. `held` tells
 * why nothing is done about it now.
 */
export type Change = { path: string; current: string; desired: string; live?: LiveChange; held?: string };

/** The hardware of the run that an entry tells of; undefined without a run. Version 1 took no edits, so there it is the desire's. */
export const appliedOf = ({ applied, desired, run }: Pick<VmEntry, 'applied' | 'desired' | 'run'>): Hardware | undefined =>
  run === null ? undefined : (applied ?? (desired ? hardwareOf(desired) : undefined));

/**
 * Everything in which a run differs from what is wanted. Pure. `bootMemoryMiB` is what the machine started with: memory is
 * never asked back below that. `plugging`: in what `applied` is in doubt (`doubt.ts`); that is made anew, as it is wanted now.
 * Removals come before additions, which may need what they free.
 */
export const changesOf = (applied: Hardware, desired: Hardware, bootMemoryMiB: number, plugging: readonly string[] = []): Change[] => {
  const changes = [
    ...cpuChanges(applied, desired, plugging),
    ...memoryChanges(applied, desired, bootMemoryMiB, plugging),
    ...nicChanges(applied, desired, plugging),
    ...diskChanges(applied.disks, desired.disks, plugging),
    ...boardChanges(applied, desired),
  ];
  const isRemoval = ({ live }: Change): boolean => live?.is === 'unplugNic' || live?.is === 'unplugDisk';
  return [...changes.filter(isRemoval), ...changes.filter((change) => !isRemoval(change))];
};

/** What tells live changes of one pass apart. */
export const changeKey = (change: LiveChange): string => ('name' in change ? `${change.is} ${change.name}` : change.is);

/** Most CPUs that can be plugged into a machine: `max` may be lower than what it starts with. */
export const maxCpusOf = ({ cpus, maxCpus, architecture }: Pick<Hardware, 'cpus' | 'maxCpus' | 'architecture'>): number =>
  // QEMU's arm64 machine takes no CPUs while it runs.
  (architecture === 'arm64' ? cpus : Math.max(cpus, maxCpus ?? cpus));

/** Most memory that can be plugged into a machine, in MiB. */
export const maxMemoryOf = ({ memoryMiB, maxMemoryMiB }: Pick<Hardware, 'memoryMiB' | 'maxMemoryMiB'>): number => Math.max(memoryMiB, maxMemoryMiB ?? memoryMiB);

const cpuChanges = (applied: Hardware, desired: Hardware, plugging: readonly string[]): Change[] => {
  const changes: Change[] = [];
  const most = mostCpus(applied.cpus, plugging);
  if (applied.cpus !== desired.cpus || most > applied.cpus) {
    // Taking a CPU away crashed QEMU under TCG at the next plug (4 of 4), so fewer wait for a restart.
    const fits = desired.cpus >= most && desired.cpus <= maxCpusOf(applied);
    changes.push({ path: 'cpu.cores', current: most > applied.cpus ? `up to ${most}` : String(applied.cpus), desired: String(desired.cpus), ...(fits ? { live: { is: 'cpus', cpus: desired.cpus } } : {}) });
  }
  if (applied.maxCpus !== desired.maxCpus) changes.push({ path: 'cpu.max', current: numberOr(applied.maxCpus), desired: numberOr(desired.maxCpus) });
  return changes;
};

const numberOr = (value: number | undefined): string => (value === undefined ? 'none' : String(value));
const sizeOr = (sizeMiB: number | undefined): string => (sizeMiB === undefined ? 'none' : fromMiB(sizeMiB));

const memoryChanges = (applied: Hardware, desired: Hardware, bootMemoryMiB: number, plugging: readonly string[]): Change[] => {
  const changes: Change[] = [];
  const differs = applied.memoryMiB !== desired.memoryMiB;
  if (differs || plugging.includes(memoryKey)) {
    const fits = desired.memoryMiB >= bootMemoryMiB && desired.memoryMiB <= maxMemoryOf(applied);
    changes.push({
      path: 'memory.size', current: differs ? fromMiB(applied.memoryMiB) : 'unknown', desired: fromMiB(desired.memoryMiB), ...(fits ? { live: { is: 'memory', memoryMiB: desired.memoryMiB } } : {}),
    });
  }
  if (applied.maxMemoryMiB !== desired.maxMemoryMiB) changes.push({ path: 'memory.max', current: sizeOr(applied.maxMemoryMiB), desired: sizeOr(desired.maxMemoryMiB) });
  return changes;
};

/** What only another start can change. */
const boardChanges = (applied: Hardware, desired: Hardware): Change[] => {
  const textOf = (value: string | boolean | undefined): string => (value === undefined ? 'default' : String(value));
  const differ = (path: string, now: string | boolean | undefined, then: string | boolean | undefined): Change[] => (textOf(now) === textOf(then) ? [] : [{ path, current: textOf(now), desired: textOf(then) }]);
  const devices = [...new Set([...Object.keys(applied.devices ?? {}), ...Object.keys(desired.devices ?? {})])];
  const members = (hardware: Hardware): Readonly<Record<string, boolean>> => hardware.devices ?? {};
  return [
    ...differ('cpu.model', applied.cpuModel, desired.cpuModel),
    ...(applied.devices && desired.devices ? devices.flatMap((name) => differ(`devices.${name}`, members(applied)[name], members(desired)[name])) : []),
  ];
};

const nicChanges = (applied: Hardware, desired: Hardware, plugging: readonly string[]): Change[] => {
  const wanted = new Map(desired.interfaces.map((nic) => [nic.name, nic]));
  const there = new Map(applied.interfaces.map((nic) => [nic.name, nic]));
  const inDoubt = (name: string): boolean => plugging.includes(cardKey(name));
  // One that QEMU may have with other forwards goes, and comes anew.
  const goes = (nic: Hardware['interfaces'][number]): boolean => {
    const then = wanted.get(nic.name);
    return !then || (inDoubt(nic.name) && forwardsText(nic) !== forwardsText(then));
  };
  const removed = applied.interfaces.filter(goes)
    .map(({ name }): Change => ({ path: `interfaces[${name}]`, current: 'present', desired: 'absent', live: { is: 'unplugNic', name } }));
  const moved = desired.interfaces.flatMap((nic): Change[] => {
    const now = there.get(nic.name);
    if (!now || inDoubt(nic.name) || (forwardsText(now) === forwardsText(nic) && !plugging.includes(forwardsKey(nic.name)))) return [];
    return [{ path: `interfaces[${nic.name}].user.forwards`, current: forwardsText(now), desired: forwardsText(nic), live: { is: 'forwards', name: nic.name } }];
  });
  const added = desired.interfaces.filter(({ name }) => {
    const now = there.get(name);
    return !now || (inDoubt(name) && !goes(now));
  }).map(({ name }): Change => ({ path: `interfaces[${name}]`, current: 'absent', desired: 'present', live: { is: 'plugNic', name } }));
  return [...removed, ...moved, ...added];
};

const forwardsText = ({ user }: Hardware['interfaces'][number]): string =>
  user.forwards.map(({ name, protocol, hostPort, port }) => `${name}=${protocol}/${hostPort}:${port}`).sort().join(' ') || 'none';

/** The hardware of a run after one live change. Pure. */
export const withChange = (applied: Hardware, desired: Hardware, change: LiveChange): Hardware => {
  switch (change.is) {
    case 'cpus':
      return { ...applied, cpus: change.cpus };
    case 'memory':
      return { ...applied, memoryMiB: change.memoryMiB };
    case 'unplugNic':
      return { ...applied, interfaces: applied.interfaces.filter(({ name }) => name !== change.name) };
    case 'plugNic':
    case 'forwards': {
      const nic = desired.interfaces.find(({ name }) => name === change.name);
      return { ...applied, interfaces: [...applied.interfaces.filter(({ name }) => name !== change.name), ...(nic ? [nic] : [])] };
    }
    case 'plugDisk':
    case 'unplugDisk':
    case 'growDisk':
    case 'limits':
    case 'medium':
      return { ...applied, disks: disksAfter(applied.disks, desired.disks, change) };
  }
};

/** The part of a desire that a run is made from. */
export const hardwareOf = ({ generation, cpus, maxCpus, memoryMiB, maxMemoryMiB, architecture, cpuModel, firmware, devices, disks, interfaces }: DesiredVm): Hardware => ({
  ...(architecture === undefined ? {} : { architecture }), ...(cpuModel === undefined ? {} : { cpuModel }), ...(firmware === undefined ? {} : { firmware }), ...(devices === undefined ? {} : { devices }),
  generation, cpus, ...(maxCpus === undefined ? {} : { maxCpus }), memoryMiB, ...(maxMemoryMiB === undefined ? {} : { maxMemoryMiB }), disks, interfaces,
});
