import { expect, test } from '@jest/globals';
import { virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { fakeCache } from '../fakecache.ts';
import { maxRecorded, unrecordedOf } from './unrecorded.ts';

const uidOf = (count: number) => `11111111-2222-4333-8444-${String(count).padStart(12, '0')}`;
const vm = { namespace: 'default', name: 'web', uid: uidOf(0) };
const claims = Array.from({ length: 384 }, (_, count) => ({ uid: uidOf(count + 1), owner: { namespace: 'default', namespaceUid: uidOf(0), vm: 'web', vmUid: vm.uid, disk: 'data' }, sizeMiB: 1 }));
const objects = (count: number, name = 'web') => claims.slice(0, count).map(({ uid }, at) =>
  virtualDisk.parse({ metadata: { name: `${name}-${at}`, namespace: 'default', uid, resourceVersion: '1' }, status: { observedGeneration: 1, uid, nodeName: 'node-1', vmName: name, diskName: 'data', namespaceUid: vm.uid } }));

test.each([
  ['each that has none yet', objects(2), 4, [3, 4]],
  ['no more than a VM can sensibly have', objects(0), 384, claims.slice(0, maxRecorded).map((_, at) => at + 1)],
  ['none when it has so many already, whatever its node keeps on claiming', objects(maxRecorded), 384, []],
])('the disks that get a VirtualDisk: %s', (_, recorded, kept, expected) => {
  const fleet = { keptDisks: () => claims.slice(0, kept), isEnding: () => false };
  expect(unrecordedOf('node-1', vm, { disks: fakeCache(() => recorded), fleet }).map(({ uid }) => Number(uid.slice(-12)))).toEqual(expected);
  expect(unrecordedOf('node-1', { ...vm, uid: uidOf(999) }, { disks: fakeCache(() => recorded), fleet })).toEqual([]);
});
