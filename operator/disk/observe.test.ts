import { expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { observe } from './observe.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;
const disk = virtualDisk.parse({ metadata: { name: 'd', namespace: 'default', uid: 'd', resourceVersion: '1' }, status: { observedGeneration: 1, uid: uidOf(4), nodeName: 'node-1', vmName: 'web', diskName: 'data' } });
const vm = virtualMachine.parse({
  metadata: { name: 'web', namespace: 'default', uid: uidOf(1), resourceVersion: '1' }, status: { observedGeneration: 1, nodeName: 'node-1' },
  spec: { cpu: { cores: 1 }, memory: { size: '64Mi' }, disks: [{ name: 'data', blank: {}, size: '1Gi' }] },
});
const desired: DesiredVm = {
  kind: 'vm', uid: uidOf(1), namespace: 'default', name: 'web', generation: 1, epoch: 1, uuid: uidOf(1), powerState: 'Running', cpus: 1, memoryMiB: 64, disks: [{ name: 'data', kept: uidOf(4) }],
  interfaces: [], cloudInit: { hostname: 'v', sshAuthorizedKeys: [] }, stop: { mode: 'Graceful', gracePeriodSeconds: 90 },
};
const pending = (over: object) => ({ applied: { generation: 1, pending: [{ path: 'disks[data]', current: 'absent', desired: 'present', restart: false, ...over }] } });

/** What is known of a disk that its node keeps no more, while the VM that it is for runs there without it, by its last report. */
const seen = (told: DesiredVm | undefined, over: Partial<ObservedVm> = {}, awaited = false) => {
  const fleet = makeFleet(() => 0);
  Object.assign(fleet.member('node-1'), { view: { is: 'joined', told: new Map() }, session: { id: 1, wake: () => undefined, close: () => undefined }, facts: { keptDisks: [], troubles: [] } });
  if (told) fleet.want('node-1', told);
  fleet.member('node-1').vms.set(uidOf(1), { kind: 'vm', uid: uidOf(1), generation: 1, epoch: 1, digest: '', state: 'running', disks: [], forwards: [], ...over });
  if (awaited) fleet.member('node-1').awaited.add(uidOf(1));
  return observe(disk, { fleet, vms: fakeCache(() => [vm]), nodes: fakeCache(() => [hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' } })]) });
};

test.each<[string, Parameters<typeof seen>, boolean]>([
  ['is being given to it as it runs', [desired], true],
  ['is not told to it', [{ ...desired, disks: [] }], false],
  ['was refused by it', [desired, pending({ why: 'the files are gone' })], false],
  ['comes with its next start', [desired, pending({ restart: true })], false],
  ['is told to one that does not run', [desired, { state: 'stopped' }], false],
  ['is told to one that is in trouble', [desired, { trouble: { reason: 'DiskMissing', message: 'gone', final: true } }], false],
  ['may be with it, which says so soon', [undefined, {}, true], true],
])('a disk that %s: is its VM awaited? %s', (_, about, awaited) => {
  expect(seen(...about)).toMatchObject({ awaited, taken: false });
});
