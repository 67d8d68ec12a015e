import { expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { hypervisorNode, type NodeStatus } from '#crds/v1alpha1/hypervisornode.ts';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import { type VirtualDisk, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { makeNodeReconciler } from './reconcile.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;

test('a disk that can not be recorded keeps neither the status of its node from being written nor another disk from being recorded', async () => {
  const fleet = makeFleet(() => 0);
  const keptDisks = [4, 5, 6].map((digit) => ({ uid: uidOf(digit), owner: { namespace: 'default', namespaceUid: uidOf(8), vm: 'web', vmUid: uidOf(1), disk: `d${digit}` }, sizeMiB: 1 }));
  Object.assign(fleet.member('node-1'), {
    agentId: 'mine', view: { is: 'joined', told: new Map() }, session: { id: 1, wake: () => undefined, close: () => undefined },
    facts: {
      agentVersion: '1', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b', capacity: { cpus: 1, memoryMiB: 1, storageMiB: 1 },
      forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [], keptDisks,
    },
  });
  const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1', annotations: { 'strato.dev/adopt-orphan': [4, 5, 6].map(uidOf).join() } } });
  const objects: VirtualDisk[] = [];
  const statuses: NodeStatus[] = [];
  const reconcile = makeNodeReconciler({
    clusterId: 'c', nodes: fakeCache(() => [node]), vms: fakeCache<VirtualMachine>(() => []), disks: fakeCache(() => objects), fleet, monotonicMs: () => 0, now: () => new Date('2030-01-02T03:04:05Z'),
    namespaces: fakeCache(() => [{ metadata: objectMeta.parse({ name: 'default', uid: uidOf(8), resourceVersion: '1' }) }]),
    images: { ...fakeCache<VirtualMachineImage>(() => []), hasSynced: () => true },
    writeStatus: async (_, status) => { statuses.push(status); },
    recordDisk: async ({ uid }) => {
      if (uid === uidOf(5)) throw new Fault('Forbidden', 'exceeded quota');
      objects.push(virtualDisk.parse({ metadata: { name: uid, namespace: 'default', uid, resourceVersion: '1' }, status: { observedGeneration: 1, uid } }));
    },
  });
  const outcome = await reconcile('node-1');
  expect(objects.map(({ status }) => status.uid)).toEqual([uidOf(4), uidOf(6)]);
  expect(statuses).toHaveLength(1);
  expect(statuses[0]?.orphanDisks?.map(({ uid }) => uid)).toEqual([uidOf(5)]);
  expect(conditionOf(statuses[0]?.conditions, 'OrphansPresent')?.message).toContain(`disk d5 is kept under ${uidOf(5)} and gets no VirtualDisk now: exceeded quota`);
  expect(outcome).toMatchObject({ is: 'blocked', by: { code: 'Forbidden' } });
});

test('what an administrator takes back while disks are being recorded is not ended', async () => {
  const fleet = makeFleet(() => 0);
  const owner = { namespace: 'default', namespaceUid: uidOf(8), vm: 'web', vmUid: uidOf(1), disk: 'data' };
  Object.assign(fleet.member('node-1'), {
    agentId: 'mine', view: { is: 'joined', told: new Map() }, session: { id: 1, wake: () => undefined, close: () => undefined },
    facts: {
      agentVersion: '1', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b', capacity: { cpus: 1, memoryMiB: 1, storageMiB: 1 },
      forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [], keptDisks: [{ uid: uidOf(4), owner, sizeMiB: 1 }, { uid: uidOf(5), owner, sizeMiB: 1 }],
    },
  });
  const annotated = (annotations: Record<string, string>) => hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1', annotations } });
  const adopt = { 'strato.dev/adopt-orphan': uidOf(4) };
  let node = annotated({ ...adopt, 'strato.dev/discard-orphan': uidOf(5) });
  const reconcile = makeNodeReconciler({
    clusterId: 'c', nodes: fakeCache(() => [node]), vms: fakeCache<VirtualMachine>(() => []), disks: fakeCache<VirtualDisk>(() => []), fleet, monotonicMs: () => 0, now: () => new Date('2030-01-02T03:04:05Z'),
    namespaces: fakeCache(() => [{ metadata: objectMeta.parse({ name: 'default', uid: uidOf(8), resourceVersion: '1' }) }]),
    images: { ...fakeCache<VirtualMachineImage>(() => []), hasSynced: () => true },
    writeStatus: async () => {},
    recordDisk: async () => { node = annotated(adopt); },
  });
  await reconcile('node-1');
  expect([...fleet.member('node-1').doomed.keys()]).toEqual([]);
});
