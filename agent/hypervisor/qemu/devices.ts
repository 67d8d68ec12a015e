import type { MachineNic } from '../driver.ts';

/** Properties of one thing that QEMU is to make; JSON on its command line, arguments of a QMP command while it runs. */
export type Props = Record<string, unknown>;

/** What makes a network card: its way out, and the device that the guest sees. */
export type NicParts = { netdev: Props; device: Props };

/** Ids of what belongs to a slot. */
export const idsOf = (slot: number) => ({
  port: `port${slot}`, group: `limits${slot}`, node: `disk${slot}`, throttle: `throttle${slot}`, disk: `blk${slot}`, scsi: `scsi${slot}`, netdev: `net${slot}`, nic: `nic${slot}`,
});

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
