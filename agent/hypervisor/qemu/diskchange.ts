import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { DiskLimits, MachineDisk } from '../driver.ts';
import { idsOf, type Props } from './devices.ts';
import { diskParts, limitsOf } from './diskparts.ts';
import { deviceIds, release, unlessRefused } from './peripherals.ts';
import type { Qmp } from './qmp.ts';

const nothing = z.unknown();
const mebibyte = 1024 * 1024;

/** Plugs a disk. */
export const addDisk = async (qmp: Qmp, disk: MachineDisk, signal: AbortSignal): Promise<void> => {
  const { group, nodes, devices } = diskParts(disk, noSata);
  await plug(qmp, disk.slot, async () => {
    await qmp.execute('object-add', nothing, signal, group);
    for (const node of nodes) await qmp.execute('blockdev-add', nothing, signal, node);
  }, devices, signal);
};

/** Plugs the devices of a slot. What an attempt that was cut off left behind is cleared first: without its last device it is in nobody's way. */
export const plug = async (qmp: Qmp, slot: number, makeNodes: () => Promise<void>, devices: readonly Props[], signal: AbortSignal): Promise<void> => {
  if ((await deviceIds(qmp, signal)).has(idsOf(slot).disk)) return;
  await removeDisk(qmp, slot, signal);
  await makeNodes();
  for (const device of devices) {
    // The order in which firmware tries disks is made at a start.
    const { bootindex: _, ...plugged } = device;
    await qmp.execute('device_add', nothing, signal, plugged);
  }
};

/** Names no bus: QEMU's SATA controllers are not for plugging. */
export const noSata = (): never => {
  throw new Fault('ChangeRefused', 'a disk or drive on SATA can not be plugged while the guest runs');
};

/** Has the guest release a disk, and closes its files. */
export const removeDisk = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  const { scsi, disk } = idsOf(slot);
  // With its controller a SCSI disk goes too.
  await release(qmp, (await deviceIds(qmp, signal)).has(scsi) ? scsi : disk, `the disk in slot ${slot}`, signal);
  await dropNodes(qmp, slot, signal);
};

const nodeList = z.array(z.object({ 'node-name': z.string(), image: z.object({ 'virtual-size': z.number() }) }));

/** Makes a disk larger at its uppermost node, through which the guest hears of it. Source: QAPI block_resize. */
export const growDisk = async (qmp: Qmp, slot: number, sizeMiB: number, signal: AbortSignal): Promise<void> => {
  const ids = idsOf(slot);
  const size = sizeMiB * mebibyte;
  const nodes = await qmp.execute('query-named-block-nodes', nodeList, signal, { flat: true });
  // block_resize shrinks without complaint.
  const has = nodes.find((node) => node['node-name'] === ids.node)?.image['virtual-size'] ?? 0;
  if (has < size) await qmp.execute('block_resize', nothing, signal, { 'node-name': ids.throttle, size });
};

/** Sets what a guest may do with a disk; what is not limited any more is lifted. */
export const setLimits = async (qmp: Qmp, slot: number, limits: DiskLimits, signal: AbortSignal): Promise<void> => {
  await qmp.execute('qom-set', nothing, signal, { path: `/objects/${idsOf(slot).group}`, property: 'limits', value: limitsOf(limits) });
};

const dropNodes = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  const { throttle, node, group } = idsOf(slot);
  for (const name of [throttle, node]) await unlessRefused(qmp.execute('blockdev-del', nothing, signal, { 'node-name': name }));
  await unlessRefused(qmp.execute('object-del', nothing, signal, { id: group }));
};
