import { z } from 'zod';
import type { MachineDisk } from '../driver.ts';
import { diskParts, idsOf } from './devices.ts';
import { deviceIds, release, unlessRefused } from './peripherals.ts';
import type { Qmp } from './qmp.ts';

const nothing = z.unknown();
const mebibyte = 1024 * 1024;

/** Plugs a disk. What an attempt that was cut off left behind is cleared first: without a device it is in nobody's way. */
export const addDisk = async (qmp: Qmp, disk: MachineDisk, signal: AbortSignal): Promise<void> => {
  const { group, nodes, device } = diskParts(disk);
  if ((await deviceIds(qmp, signal)).has(idsOf(disk.slot).disk)) return;
  await dropNodes(qmp, disk.slot, signal);
  await qmp.execute('object-add', nothing, signal, group);
  for (const node of nodes) await qmp.execute('blockdev-add', nothing, signal, node);
  // The order in which firmware tries disks is made at a start.
  const { bootindex: _, ...plugged } = device;
  await qmp.execute('device_add', nothing, signal, plugged);
};

/** Has the guest release a disk, and closes its files. */
export const removeDisk = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  await release(qmp, idsOf(slot).disk, `the disk in slot ${slot}`, signal);
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

const dropNodes = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  const { throttle, node, group } = idsOf(slot);
  for (const name of [throttle, node]) await unlessRefused(qmp.execute('blockdev-del', nothing, signal, { 'node-name': name }));
  await unlessRefused(qmp.execute('object-del', nothing, signal, { id: group }));
};
