import type { DesiredVm } from '#crds/wire/desired.ts';
import { type MachineDisk, type MachineDrive, type MachineSpec, plainDisk, plainHardware } from '../hypervisor/driver.ts';
import type { NicBackend } from '../network/driver.ts';
import type { DiskPlace } from '../storage/driver.ts';
import { bootNames } from './bootorder.ts';
import { maxCpusOf, maxMemoryOf } from './change.ts';
import type { VmEntry } from './entry.ts';
import { seedSlot } from './places.ts';

/** No user can name a disk so (`_` is not allowed), so the serial number of the seed is nobody else's. */
const seedName = 'seed_';

/**
 * What one start of a VM needs. Pure. Undefined when something was not made ready: a disk without a place, an interface
 * without a backend, a VM without a Unix id.
 */
export const machineSpec = (
  entry: VmEntry,
  startId: string,
  places: ReadonlyMap<string, DiskPlace>,
  backends: ReadonlyMap<string, NicBackend>,
): MachineSpec | undefined => {
  const { desired, unixId, machine } = entry;
  if (!desired || unixId === null) return undefined;
  const disks = disksOf(entry, desired, places);
  const drives = drivesOf(entry, desired, places);
  const nics = desired.interfaces.flatMap(({ name, mac }) => {
    const backend = backends.get(name);
    const slot = entry.slots[`nic/${name}`];
    return backend && slot !== undefined ? [{ name, mac, slot, backend }] : [];
  });
  if (disks.length + drives.length !== desired.disks.length + 1 || nics.length !== desired.interfaces.length) return undefined;
  const { uid, epoch, uuid, cpus, memoryMiB } = desired;
  return {
    ...boardOf(desired), firmwareMade: entry.firmwareMade,
    uid, startId, epoch, uuid, ...(machine ? { type: machine.type } : {}), cpus, maxCpus: maxCpusOf(desired), memoryMiB, maxMemoryMiB: maxMemoryOf(desired), disks, drives, nics, unixId,
  };
};

/** What was left out by an operator of the first version is as it was then. */
const boardOf = ({ architecture, firmware, cpuModel, devices }: DesiredVm): Pick<MachineSpec, 'architecture' | 'firmware' | 'cpuModel' | 'devices'> => ({
  architecture: architecture ?? plainHardware.architecture,
  firmware: firmware ?? plainHardware.firmware,
  ...(cpuModel === undefined ? {} : { cpuModel }),
  devices: devices ?? plainHardware.devices,
});

/** A disk as a machine takes it. Pure. */
export const machineDisk = (
  { name, bus, cache, readOnly, limits }: DesiredVm['disks'][number],
  { file, format, base }: DiskPlace,
  slots: VmEntry['slots'],
): MachineDisk | undefined => {
  const slot = slots[`disk/${name}`];
  if (slot === undefined) return undefined;
  return {
    name, file, format, ...(base === undefined ? {} : { base }), slot, port: slots[`sata/${name}`] ?? plainDisk.port,
    bus: bus ?? plainDisk.bus, cache: cache ?? plainDisk.cache, readOnly: readOnly ?? plainDisk.readOnly, limits: limits ?? plainDisk.limits,
  };
};

/** A CD drive as a machine takes it; undefined when it shall have a medium that was not made ready. Pure. */
export const machineDrive = ({ name, imageUid, bus }: DesiredVm['disks'][number], place: DiskPlace | undefined, slots: VmEntry['slots']): MachineDrive | undefined => {
  const slot = slots[`disk/${name}`];
  if (slot === undefined || (imageUid !== undefined && !place)) return undefined;
  const medium = imageUid === undefined || !place ? {} : { medium: place.file };
  return { name, slot, bus: bus === 'sata' ? bus : 'scsi', port: slots[`sata/${name}`] ?? plainDisk.port, ...medium };
};

const drivesOf = ({ slots }: VmEntry, desired: DesiredVm, places: ReadonlyMap<string, DiskPlace>): MachineDrive[] => {
  const boots = bootNames(desired.disks);
  return desired.disks.filter(({ cdrom }) => cdrom).flatMap((wanted): MachineDrive[] => {
    const drive = machineDrive(wanted, places.get(wanted.name), slots);
    if (!drive) return [];
    const bootIndex = boots.indexOf(wanted.name);
    return [bootIndex < 0 ? drive : { ...drive, bootIndex }];
  });
};

const disksOf = ({ slots }: VmEntry, desired: DesiredVm, places: ReadonlyMap<string, DiskPlace>): MachineDisk[] => {
  const boots = bootNames(desired.disks);
  const own = desired.disks.filter(({ cdrom }) => !cdrom).flatMap((wanted): MachineDisk[] => {
    const place = places.get(wanted.name);
    const disk = place && machineDisk(wanted, place, slots);
    if (!disk) return [];
    const bootIndex = boots.indexOf(wanted.name);
    return [bootIndex < 0 ? disk : { ...disk, bootIndex }];
  });
  const slot = slots[seedSlot];
  return slot === undefined ? own : [...own, { ...plainDisk, name: seedName, file: 'seed.img', format: 'raw', readOnly: true, slot }];
};
