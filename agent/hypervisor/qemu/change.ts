import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { MachineChange, MachineNic } from '../driver.ts';
import { forwardFrom, idsOf, memoryDevice, nicParts } from './devices.ts';
import { addDisk, growDisk, removeDisk, setLimits } from './diskchange.ts';
import { addDrive, setMedium } from './drivechange.ts';
import { deviceIds, reached, release, unlessRefused } from './peripherals.ts';
import { executeHmp, type Qmp } from './qmp.ts';

const nothing = z.unknown();
const mebibyte = 1024 * 1024;
const memoryMs = 5_000;

/** Changes a machine that runs. See `MachineChange`; every change may be made twice. Faults: ChangeRefused, and those of `execute`. */
export const changeMachine = async (qmp: Qmp, change: MachineChange, signal: AbortSignal): Promise<void> => {
  switch (change.do) {
    case 'cpus':
      return plugCpus(qmp, change.cpus, signal);
    case 'memory':
      return setMemory(qmp, change.memoryMiB, signal);
    case 'addNic':
      return addNic(qmp, change.nic, signal);
    case 'removeNic':
      return removeNic(qmp, change.slot, signal);
    case 'addDisk':
      return addDisk(qmp, change.disk, signal);
    case 'removeDisk':
      return removeDisk(qmp, change.slot, signal);
    case 'growDisk':
      return growDisk(qmp, change.slot, change.sizeMiB, signal);
    case 'addDrive':
      return addDrive(qmp, change.drive, signal);
    case 'medium':
      return setMedium(qmp, change.slot, change.medium, signal);
    case 'limits':
      return setLimits(qmp, change.slot, change.limits, signal);
    case 'forwards':
      return changeForwards(qmp, change, signal);
    case 'onReboot':
      await qmp.execute('set-action', nothing, signal, { reboot: change.action });
      return;
  }
};

const cpuSlots = z.array(z.object({ type: z.string(), props: z.record(z.string(), z.int()), 'qom-path': z.string().optional() }));

/** Source: QEMU docs/system/cpu-hotplug. */
const plugCpus = async (qmp: Qmp, cpus: number, signal: AbortSignal): Promise<void> => {
  const slots = await qmp.execute('query-hotpluggable-cpus', cpuSlots, signal);
  const place = (props: Record<string, number>): number => ((props['socket-id'] ?? 0) * 1024 + (props['core-id'] ?? 0)) * 1024 + (props['thread-id'] ?? 0);
  const free = slots.filter((slot) => slot['qom-path'] === undefined).sort((a, b) => place(a.props) - place(b.props));
  const wanted = cpus - (slots.length - free.length);
  if (wanted > free.length) throw new Fault('ChangeRefused', `the machine takes ${slots.length} CPUs at most; more need a restart`);
  for (const { type, props } of free.slice(0, Math.max(0, wanted))) {
    await qmp.execute('device_add', nothing, signal, { driver: type, id: `cpu-${place(props)}`, ...props });
  }
};

const memorySummary = z.object({ 'base-memory': z.number() });
const memoryDevices = z.array(z.object({ type: z.string(), data: z.object({ id: z.string().optional(), size: z.number().optional(), 'requested-size': z.number().optional() }) }));

/** Asks the guest to take or give back memory, and waits until it did. Source: QEMU docs/system/devices/virtio-mem (QAPI VirtioMEMDeviceInfo). */
const setMemory = async (qmp: Qmp, memoryMiB: number, signal: AbortSignal): Promise<void> => {
  const { 'base-memory': base } = await qmp.execute('query-memory-size-summary', memorySummary, signal);
  const bytes = memoryMiB * mebibyte - base;
  await qmp.execute('qom-set', nothing, signal, { path: `/machine/peripheral/${memoryDevice}`, property: 'requested-size', value: bytes });
  let plugged = -1;
  const done = await reached(memoryMs, signal, async () => {
    const devices = await qmp.execute('query-memory-devices', memoryDevices, signal);
    plugged = devices.find(({ data }) => data.id === memoryDevice)?.data.size ?? 0;
    return plugged === bytes;
  });
  if (done) return;
  const has = Math.round((base + plugged) / mebibyte);
  throw new Fault('ChangeRefused', `the guest has ${has} MiB of the ${memoryMiB} MiB that it was asked to have; it is asked again`);
};

const addNic = async (qmp: Qmp, nic: MachineNic, signal: AbortSignal): Promise<void> => {
  const { netdev, device } = nicParts(nic);
  if ((await deviceIds(qmp, signal)).has(idsOf(nic.slot).nic)) return;
  await dropNetdev(qmp, nic.slot, signal);
  await qmp.execute('netdev_add', nothing, signal, netdev);
  await qmp.execute('device_add', nothing, signal, device);
};

const removeNic = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  await release(qmp, idsOf(slot).nic, `the network card in slot ${slot}`, signal);
  await dropNetdev(qmp, slot, signal);
};

/** What an attempt that was cut off left behind; without a device it is in nobody's way. */
const dropNetdev = async (qmp: Qmp, slot: number, signal: AbortSignal): Promise<void> => {
  await unlessRefused(qmp.execute('netdev_del', nothing, signal, { id: idsOf(slot).netdev }));
};

const changeForwards = async (qmp: Qmp, { slot, from, to }: Extract<MachineChange, { do: 'forwards' }>, signal: AbortSignal): Promise<void> => {
  const id = idsOf(slot).netdev;
  const same = (a: (typeof from)[number], b: (typeof from)[number]) => forwardFrom(a) === forwardFrom(b) && a.port === b.port;
  const hmp = (line: string): Promise<string> => executeHmp(qmp, line, signal);
  for (const old of from.filter((each) => !to.some((other) => same(each, other)))) await hmp(`hostfwd_remove ${id} ${forwardFrom(old)}`);
  for (const fresh of to.filter((each) => !from.some((other) => same(each, other)))) {
    // An attempt that was cut off may have opened it; only QEMU's monitor for people knows forwards.
    await hmp(`hostfwd_remove ${id} ${forwardFrom(fresh)}`);
    const said = (await hmp(`hostfwd_add ${id} ${forwardFrom(fresh)}-:${fresh.port}`)).trim();
    if (said !== '') throw new Fault('ChangeRefused', `${forwardFrom(fresh)} could not be forwarded: ${said}`);
  }
};
