import { describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { vmFinalizer } from '#crds/v1alpha1/names.ts';
import { virtualMachine, type VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { decide } from './decide.ts';
import type { VmFacts } from './facts.ts';
import { skillsOf } from './needs.ts';

const now = new Date('2030-01-02T03:04:05Z');
const uid = '11111111-2222-4333-8444-555555555555';
const keptUid = '11111111-2222-4333-8444-666666666666';
const root = { disk: 'root', object: 'a-root', kept: keptUid, node: 'node-1', deleting: false, at: 'here' as const, architecture: 'arm64' as const };

const node = { name: 'node-1', connected: true, schedulable: true, accelerator: 'tcg' as const, skills: skillsOf({ architecture: 'amd64', features: ['arch:amd64', 'arch:arm64', 'uefi:arm64'] }), capacity: { cpus: 2, memoryMiB: 8192 }, taken: { cpus: 0, memoryMiB: 0 }, ports: { min: 1024, max: 65535, used: new Map() } };

/** A VM whose disks have images that are gone: `root`, and what else is given. */
const facts = ({ status, disks = [], spec, ...over }: Partial<VmFacts> & { status?: Partial<VmStatus>; disks?: object[]; spec?: object } = {}): VmFacts => ({
  vm: virtualMachine.parse({
    metadata: { name: 'a', namespace: 'default', uid, resourceVersion: '1', generation: 3, ...(status?.nodeName === undefined ? {} : { finalizers: [vmFinalizer] }) },
    spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'gone' } }, ...disks], ...spec },
    status: { observedGeneration: -1, ...status },
  }),
  clusterId: 'c', candidates: [node], link: 'connected', nodeGone: false, held: false, awaited: false, absent: false, endedForEver: false, images: new Map(), namespace: { uid, terminating: false },
  holders: [], claims: [root], unrecorded: [], everyNodeReported: true, ...over,
});
const placed = { nodeName: 'node-1', epoch: 1 };
const has: ObservedVm = { kind: 'vm', uid, generation: 3, epoch: 1, digest: '', state: 'running', disks: [{ name: 'root', sizeMiB: 64, format: 'qcow2', state: 'Ready' }], forwards: [] };
const ready = ({ status }: { status?: VmStatus }) => { const found = conditionOf(status?.conditions, 'Ready'); return `${found?.reason}: ${found?.message}`; };

describe('a VM that boots from a kept disk whose image is gone', () => {
  test('is placed, and told to have that disk, for the architecture of the guest that had it', () => {
    const first = decide(facts(), now);
    expect([first.binds, first.status]).toMatchObject([true, { nodeName: 'node-1', resolved: { architecture: 'arm64' } }]);
    expect(decide(facts({ status: placed }), now).tell).toMatchObject({ is: 'desire', vm: { architecture: 'arm64', disks: [{ name: 'root', kept: keptUid }] } });
  });

  test('goes on when it has the disk back, and can be edited then', () => {
    const status = { ...placed, resolved: { uuid: 'u', architecture: 'arm64' as const } };
    const { tell } = decide(facts({ status, claims: [], report: has, spec: { powerState: 'Stopped' } }), now);
    expect(tell).toMatchObject({ is: 'desire', vm: { powerState: 'Stopped', architecture: 'arm64' } });
    expect(tell.is === 'desire' && tell.vm.disks[0]).not.toHaveProperty('imageUid');
  });

  test('of which nobody recorded the architecture says that only the image could tell it, or the VM itself', () => {
    const { architecture: _architecture, ...old } = root;
    const message = 'ImageNotFound: image gone does not exist; it tells the architecture of the guest, unless spec.architecture does';
    expect([ready(decide(facts({ claims: [old] }), now)), ready(decide(facts({ status: placed, claims: [old] }), now))]).toEqual([message, message]);
    expect(decide(facts({ status: placed, claims: [old], spec: { architecture: 'arm64' } }), now).tell).toMatchObject({ is: 'desire', vm: { architecture: 'arm64' } });
    // An adopted machine has its disks, and its image may be long gone.
    expect(ready(decide(facts({ status: placed, claims: [], report: { ...has, generation: 2 } }), now))).toBe(`${message}; the latest edit waits for it`);
  });

  test.each([
    ['another disk', { name: 'data', image: { name: 'other' } }],
    ['a drive', { name: 'cd', cdrom: { image: { name: 'other' } } }],
  ])('still waits for the image of %s', (_, disk) => {
    const { tell, ...decision } = decide(facts({ status: placed, disks: [disk] }), now);
    expect([tell.is, ready(decision)]).toEqual(['keep', 'ImageNotFound: image other does not exist or is being deleted']);
  });

  test('is not stopped by an image of that name which can not be imported, nor by one for another architecture', () => {
    const images = new Map([['gone', { name: 'gone', uid, failed: 'no such host', architecture: 'amd64' as const }]]);
    const { tell, ...decision } = decide(facts({ status: placed, images, spec: { architecture: 'arm64' } }), now);
    expect([tell.is, ready(decision)]).toEqual(['desire', 'Applying: the node has not reported yet']);
  });
});
