import { expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import { type VirtualDisk, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Held } from '#crds/wire/messages.ts';
import type { NodeFacts as AgentFacts } from '#crds/wire/observed.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { observe } from './observe.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;
const held = (digit: number, over: Partial<Held> = {}): Held => ({ kind: 'vm', uid: uidOf(digit), namespace: 'default', name: `vm-${digit}`, generation: 1, epoch: 1, digest: 'd', ending: false, ...over });

/** A node that holds some objects, in a cluster without any. */
const lab = (told: Held[], hasSynced = true) => {
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  Object.assign(fleet.member('node-1'), { agentId: 'mine', view: { is: 'joined', told: new Map(told.map((each) => [each.uid, each])) } });
  const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' } });
  const images = { ...fakeCache<VirtualMachineImage>(() => []), hasSynced: () => hasSynced };
  return { time, member: fleet.member('node-1'), look: () => observe(node, { clusterId: 'c', nodes: fakeCache(() => [node]), vms: fakeCache<VirtualMachine>(() => []), disks: fakeCache<VirtualDisk>(() => []), namespaces: fakeCache(() => []), images, fleet, monotonicMs: () => time.ms }) };
};

test('an orphan has the state that its node reports, and none that is ending is one', () => {
  const { member, look } = lab([held(1), held(2), held(3, { ending: true })]);
  member.vms.set(uidOf(1), { kind: 'vm', uid: uidOf(1), generation: 1, epoch: 1, digest: 'd', state: 'paused', disks: [], forwards: [] });
  expect(look().orphans?.map(({ uid, state }) => [uid, state])).toEqual([[uidOf(1), 'paused'], [uidOf(2), 'unknown']]);
});

test.each([[true, [uidOf(1)]], [false, []]])('a copy of an image is lost when all image objects are known (%s) and its own is not there', (hasSynced, lost) => {
  expect(lab([held(1, { kind: 'image' })], hasSynced).look().lostCopies).toEqual(lost);
});

test('a rival is told of until it has been quiet for five minutes, or is the accepted agent', () => {
  const { time, member, look } = lab([]);
  member.rival = { agentId: 'other', message: 'm', atMs: 0 };
  time.ms = 299_999;
  expect(look().rival?.agentId).toBe('other');
  time.ms = 300_000;
  expect(look().rival).toBeUndefined();
  time.ms = 1_000;
  member.agentId = 'other';
  expect(look().rival).toBeUndefined();
});

test('a kept disk is an orphan when no VirtualDisk stands for it and its VM is not bound there; it can be adopted by the namespace that it is for alone', () => {
  const owner = { namespace: 'default', namespaceUid: uidOf(8), vm: 'web', vmUid: uidOf(1), disk: 'data' };
  const kept = (digit: number, over: Partial<typeof owner> = {}) => ({ uid: uidOf(digit), owner: { ...owner, ...over }, sizeMiB: 1 });
  const facts: AgentFacts = {
    agentVersion: '1', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b', capacity: { cpus: 1, memoryMiB: 1, storageMiB: 1 },
    forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [], keptDisks: [kept(4), kept(5, { vmUid: uidOf(2) }), kept(6), kept(7, { namespaceUid: uidOf(9) })],
  };
  const fleet = makeFleet(() => 0);
  fleet.member('node-1').facts = facts;
  const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' } });
  const vm = virtualMachine.parse({ metadata: { name: 'v', namespace: 'default', uid: uidOf(2), resourceVersion: '1' }, spec: { cpu: { cores: 1 }, memory: { size: '1Gi' }, disks: [{ name: 'd', blank: {}, size: '1Gi' }] }, status: { observedGeneration: 1, nodeName: 'node-1' } });
  const disk = virtualDisk.parse({ metadata: { name: 'd', namespace: 'default', uid: 'd', resourceVersion: '1' }, status: { observedGeneration: 1, uid: uidOf(6) } });
  const namespace = { metadata: objectMeta.parse({ name: 'default', uid: uidOf(8), resourceVersion: '1' }) };
  const look = () => observe(node, {
    clusterId: 'c', nodes: fakeCache(() => [node]), vms: fakeCache(() => [vm]), disks: fakeCache(() => [disk]), namespaces: fakeCache(() => [namespace]),
    images: { ...fakeCache<VirtualMachineImage>(() => []), hasSynced: () => true }, fleet, monotonicMs: () => 0,
  }).orphanDisks?.map(({ disk: { uid }, adoptable }) => [uid, adoptable]);
  expect(look()).toEqual([[uidOf(4), true], [uidOf(7), false]]);
  fleet.doom('node-1', uidOf(4), 'disk');
  expect(look()).toEqual([[uidOf(7), false]]);
});
