import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { machineUidOf } from '../vm/identity.ts';
import type { DiskFacts } from './decide.ts';

/** Where the facts about kept disks come from. */
export type DiskSources = { vms: Cache<VirtualMachine>; nodes: Cache<HypervisorNode>; fleet: Fleet };

/** Reads everything that a decision about a VirtualDisk needs. */
export const observe = (disk: VirtualDisk, { vms, nodes, fleet }: DiskSources): DiskFacts => {
  const { nodeName, uid, vmName, diskName } = disk.status;
  if (nodeName === undefined || uid === undefined) return { disk, link: 'joining', taken: false, awaited: false, absent: false };
  const link = fleet.link(nodeName);
  const known = nodes.all().some(({ meta }) => meta.name === nodeName);
  const kept = fleet.keptDisks(nodeName).find((each) => each.uid === uid);
  const vm = vms.get(`${disk.metadata.namespace}/${vmName}`);
  const bound = vm?.status.nodeName === nodeName && vm.metadata.deletionTimestamp === undefined;
  const report = vm?.status.nodeName === nodeName ? fleet.report(nodeName, machineUidOf(vm)) : undefined;
  const has = report?.disks.some(({ name, state }) => name === diskName && state === 'Ready') ?? false;
  return {
    disk,
    link: known || link === 'connected' ? link : 'deleted',
    ...(kept ? { kept } : {}),
    taken: has && kept === undefined && link === 'connected' && fleet.keepsDisks(nodeName) === true,
    awaited: bound && (report === undefined || fleet.awaits(nodeName, machineUidOf(vm)) || isOnItsWay(report, diskName, fleet.takes(nodeName, machineUidOf(vm), uid))),
    absent: fleet.isAbsent(nodeName, uid),
  };
};

/** Whether a VM is perhaps being given a disk in this moment, which its node keeps no more from the first step on: before it starts, or as it runs. Pure. */
const isOnItsWay = ({ state, trouble, applied }: ObservedVm, disk: string | undefined, isTold: boolean): boolean => {
  if (trouble !== undefined) return false;
  if (state === 'preparing' || state === 'starting') return true;
  // What waits for the next start, or was refused, is told as pending.
  return isTold && (state === 'running' || state === 'paused') && applied?.pending.some(({ path }) => path === `disks[${disk}]`) !== true;
};
