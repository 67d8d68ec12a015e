import type { DiskLimits, MachineDisk, MachineDrive } from '../driver.ts';
import { idsOf, type Props } from './devices.ts';

/** What makes a disk: its limits, its nodes from the file up, and the devices through which the guest sees it. */
export type DiskParts = { group: Props; nodes: readonly Props[]; devices: readonly Props[] };

const mebibyte = 1024 * 1024;

/** Limits as a throttle group takes them; 0 is none. Pure. Source: QAPI ThrottleLimits. */
export const limitsOf = ({ iops = 0, mibPerSecond = 0 }: DiskLimits): Props => ({ 'iops-total': iops, 'bps-total': mibPerSecond * mebibyte });

/**
 * The parts of a disk. Pure. A limit is set and the disk resized at the throttle node. `backing: null` ends the chain, whatever
 * a header says. `sataBus` names the bus of a SATA port. Source: QAPI BlockdevOptions.
 */
export const diskParts = (disk: MachineDisk, sataBus: (port: number) => string): DiskParts => {
  const { file, format, base, readOnly, slot, cache, limits } = disk;
  const ids = idsOf(slot);
  // Past the node's page cache; the guest's own flushes are heeded either way.
  const direct = cache === 'none' ? { cache: { direct: true } } : {};
  const storage = (filename: string, only: boolean): Props => ({ driver: 'file', filename, 'read-only': only, ...direct, ...(only ? {} : { discard: 'unmap' }) });
  const backing = base === undefined ? null : { driver: 'qcow2', 'read-only': true, ...direct, file: storage(base, true), backing: null };
  return {
    group: { 'qom-type': 'throttle-group', id: ids.group, limits: limitsOf(limits) },
    nodes: [
      {
        driver: format, 'node-name': ids.node, 'read-only': readOnly, ...direct, file: storage(file, readOnly),
        ...(format === 'qcow2' ? { backing } : {}), ...(readOnly ? {} : { discard: 'unmap' }),
      },
      { driver: 'throttle', 'node-name': ids.throttle, 'throttle-group': ids.group, file: ids.node, 'read-only': readOnly },
    ],
    devices: devicesOf(disk, sataBus),
  };
};

const devicesOf = ({ name, bus, port, slot, cache, bootIndex }: MachineDisk, sataBus: (port: number) => string): Props[] => {
  const ids = idsOf(slot);
  const seen = {
    id: ids.disk, drive: ids.throttle, serial: name, 'write-cache': cache === 'writethrough' ? 'off' : 'on', ...(bootIndex === undefined ? {} : { bootindex: bootIndex }),
  };
  const halts = { werror: 'stop', rerror: 'stop' };
  switch (bus) {
    case 'virtio':
      return [{ driver: 'virtio-blk-pci', bus: ids.port, ...seen, ...halts }];
    case 'scsi':
      return [{ driver: 'virtio-scsi-pci', id: ids.scsi, bus: ids.port }, { driver: 'scsi-hd', bus: `${ids.scsi}.0`, ...seen, ...halts }];
    case 'sata':
      return [{ driver: 'ide-hd', bus: sataBus(port), ...seen, ...halts }];
    case 'nvme':
      // NVMe has no werror option: the guest itself gets the error of the node's disk.
      return [{ driver: 'nvme', bus: ids.port, ...seen }];
  }
};

/** The node of a medium: an image, only read. Pure. */
export const mediumNode = (slot: number, medium: string): Props => ({
  driver: 'qcow2', 'node-name': idsOf(slot).node, 'read-only': true, file: { driver: 'file', filename: medium, 'read-only': true }, backing: null,
});

/** The parts of a CD drive. Pure. */
export const driveParts = ({ name, slot, bus, port, medium, bootIndex }: MachineDrive, sataBus: (port: number) => string): { nodes: readonly Props[]; devices: readonly Props[] } => {
  const ids = idsOf(slot);
  const seen = { id: ids.disk, serial: name, ...(medium === undefined ? {} : { drive: ids.node }), ...(bootIndex === undefined ? {} : { bootindex: bootIndex }) };
  return {
    nodes: medium === undefined ? [] : [mediumNode(slot, medium)],
    devices: bus === 'sata'
      ? [{ driver: 'ide-cd', bus: sataBus(port), ...seen }]
      : [{ driver: 'virtio-scsi-pci', id: ids.scsi, bus: ids.port }, { driver: 'scsi-cd', bus: `${ids.scsi}.0`, ...seen }],
  };
};
