import { expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Held } from '#crds/wire/messages.ts';
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
  return { time, member: fleet.member('node-1'), look: () => observe(node, { clusterId: 'c', nodes: fakeCache(() => [node]), vms: fakeCache<VirtualMachine>(() => []), images, fleet, monotonicMs: () => time.ms }) };
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
