import type { MachineDisk, MachineNic } from '../driver.ts';

/** Properties of one thing that QEMU is to make; JSON on its command line, arguments of a QMP command while it runs. */
export type Props = Record<string, unknown>;

/** What makes a disk: its limits, its nodes from the file up, and the device that the guest sees. */
export type DiskParts = { group: Props; nodes: readonly Props[]; device: Props };

/** What makes a network card: its way out, and the device that the guest sees. */
export type NicParts = { netdev: Props; device: Props };

/** Ids of what belongs to a slot. */
export const idsOf = (slot: number) => ({ port: `port${slot}`, group: `limits${slot}`, node: `disk${slot}`, throttle: `throttle${slot}`, disk: `blk${slot}`, netdev: `net${slot}`, nic: `nic${slot}` });

/**
 * The parts of a disk. Pure. A limit is set and the disk resized at the throttle node. `backing: null` ends the chain, whatever
 * a header says. Source: QAPI BlockdevOptions.
 */
export const diskParts = ({ name, file, format, base, readOnly, slot, bootIndex }: MachineDisk): DiskParts => {
  const ids = idsOf(slot);
  const storage = (filename: string, only: boolean): Props => ({ driver: 'file', filename, 'read-only': only, ...(only ? {} : { discard: 'unmap' }) });
  const backing = base === undefined ? null : { driver: 'qcow2', 'read-only': true, file: storage(base, true), backing: null };
  return {
    group: { 'qom-type': 'throttle-group', id: ids.group },
    nodes: [
      {
        driver: format, 'node-name': ids.node, 'read-only': readOnly, file: storage(file, readOnly),
        ...(format === 'qcow2' ? { backing } : {}), ...(readOnly ? {} : { discard: 'unmap' }),
      },
      { driver: 'throttle', 'node-name': ids.throttle, 'throttle-group': ids.group, file: ids.node, 'read-only': readOnly },
    ],
    device: {
      driver: 'virtio-blk-pci', id: ids.disk, bus: ids.port, drive: ids.throttle, serial: name, werror: 'stop', rerror: 'stop',
      ...(bootIndex === undefined ? {} : { bootindex: bootIndex }),
    },
  };
};

/** The parts of a network card. Pure. Source: QAPI NetdevUserOptions. */
export const nicParts = ({ mac, slot, backend }: MachineNic): NicParts => {
  const ids = idsOf(slot);
  return {
    netdev: { type: 'user', id: ids.netdev, hostfwd: backend.forwards.map((forward) => ({ str: `${forwardFrom(forward)}-:${forward.port}` })) },
    device: { driver: 'virtio-net-pci', id: ids.nic, bus: ids.port, netdev: ids.netdev, mac, romfile: '' },
  };
};

/** The node's end of a forward, as libslirp writes it. */
export const forwardFrom = ({ protocol, address, hostPort }: MachineNic['backend']['forwards'][number]): string => `${protocol.toLowerCase()}:${address}:${hostPort}`;

/** Id of the device by which memory is plugged. */
export const memoryDevice = 'vmem0';

/** Memory is plugged in pieces of this size, in MiB. */
export const memoryBlockMiB = 2;
