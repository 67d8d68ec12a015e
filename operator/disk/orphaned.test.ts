import { expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { vmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import type { DiskOwner } from '#crds/wire/kept.ts';
import { fakeCache } from '../fakecache.ts';
import { orphanedFor } from './orphaned.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;
const { disks } = vmSpec.parse({ cpu: { cores: 1 }, memory: { size: '1Gi' }, disks: [{ name: 'data', blank: {}, size: '1Gi' }, { name: 'cd', cdrom: {} }] });
const vm = { namespace: 'default', namespaceUid: uidOf(8), name: 'web', disks };
const owner: DiskOwner = { namespace: 'default', namespaceUid: uidOf(8), vm: 'web', vmUid: uidOf(1), disk: 'data' };
const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' }, status: { observedGeneration: 1, orphanDisks: [{ uid: uidOf(5), namespace: 'default', vm: 'web', disk: 'data', size: '1Gi' }] } });
const recorded = virtualDisk.parse({ metadata: { name: 'd', namespace: 'default', uid: 'd', resourceVersion: '1' }, status: { observedGeneration: 1, uid: uidOf(4) } });

const found = ({ says = {}, spoke = true, ending = false, objects = [] as typeof recorded[], of = vm as Parameters<typeof orphanedFor>[0] } = {}) => orphanedFor(of, {
  nodes: fakeCache(() => [node]), disks: fakeCache(() => objects),
  fleet: { keptDisks: () => (spoke ? [{ uid: uidOf(4), owner: { ...owner, ...says }, sizeMiB: 1 }] : []), isEnding: () => ending, keepsDisks: () => (spoke ? true : undefined) },
}).map(({ kept, node: on, at }) => `${kept.slice(-1)} on ${on} ${at}`);

test.each([
  ['by the word of its node', found(), ['4 on node-1 orphaned']],
  ['by what was recorded of a node that has not spoken', found({ spoke: false }), ['5 on node-1 orphaned']],
  ['not when a VirtualDisk stands for it', found({ objects: [recorded] }), []],
  ['not when it is being discarded', found({ ending: true }), []],
  ['not of another VM', found({ says: { vm: 'other' } }), []],
  ['not of another namespace', found({ says: { namespace: 'other' } }), []],
  ['not of an earlier namespace of that name', found({ says: { namespaceUid: uidOf(9) } }), []],
  ['not of a disk that the VM does not have', found({ says: { disk: 'more' } }), []],
  ['not for a drive', found({ says: { disk: 'cd' } }), []],
])('a disk that is kept for a VM of that name without a VirtualDisk is found %s', (_, is, expected) => {
  expect(is).toEqual(expected);
});
