import { describe, expect, test } from '@jest/globals';
import { virtualMachine, type VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import { fakeCache } from '../fakecache.ts';
import { usersOf } from '../image/observe.ts';
import { usesImage } from './images.ts';

const image = { namespace: 'default', name: 'guest', uid: 'i', deleting: false };
const vm = (status: Partial<VmStatus> = {}, disk: object = { image: { name: 'guest' } }, metadata: object = {}) => virtualMachine.parse({
  metadata: { name: 'a', namespace: 'default', uid: '11111111-2222-4333-8444-555555555555', resourceVersion: '1', ...metadata },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', ...disk }] },
  status: { observedGeneration: 1, ...status },
});
const made = { disks: [{ name: 'root', size: '1Gi', format: 'qcow2', state: 'Ready' as const }] };
const from = (uid: string, disk?: string) => ({ resolved: { uuid: 'u', images: [{ name: 'guest', uid, ...(disk === undefined ? {} : { disk }) }] } });

describe('a VM uses an image', () => {
  test.each([
    ['its disk names it', vm(), true],
    ['its drive has it', vm({}, { cdrom: { image: { name: 'guest' } } }), true],
    ['its disk is blank', vm({}, { blank: {}, size: '1Gi' }), false],
    ['its disk names another one', vm({}, { image: { name: 'other' } }), false],
    ['it is in another namespace', vm({}, undefined, { namespace: 'other' }), false],
  ])('when %s', (_, it, uses) => {
    expect(usesImage(it, image)).toBe(uses);
  });

  test.each([
    ['it came later', vm(), false],
    ['it was given to it, whether its disk is made or not', vm(from('i', 'root')), true],
    ['its disk was made from it, as an older operator recorded', vm({ ...from('i'), ...made }), true],
    ['its disk is made, and nobody recorded from what', vm(made), true],
    ['its disk was made from an older one of that name', vm({ ...from('before', 'root'), ...made }), false],
  ])('that is being deleted, when %s: %#', (_, it, uses) => {
    expect(usesImage(it, { ...image, deleting: true })).toBe(uses);
  });
});

test('one that can not be read uses every image whose name stands in it', () => {
  const odd = vm({}, undefined, { name: 'odd' }).metadata;
  const vms = { ...fakeCache(() => [vm()], [odd]), all: () => fakeCache(() => [vm()], [odd]).all().map((held) => (held.is === 'object' ? held : { ...held, raw: { spec: { disks: [{ image: { name: 'guest' }, bus: 'tape' }] } } })) };
  expect([usersOf(image, vms), usersOf({ ...image, name: 'gues' }, vms), usersOf({ ...image, namespace: 'other' }, vms)]).toEqual([['a', 'odd'], [], []]);
});
