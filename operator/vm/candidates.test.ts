import { describe, expect, test } from '@jest/globals';
import { type HypervisorNode, hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { Held } from '#crds/wire/messages.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { candidates } from './candidates.ts';
import { observe } from './observe.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;
const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' } });
const vm = (digit: number, status: object = {}): VirtualMachine => virtualMachine.parse({
  metadata: { name: `vm-${digit}`, namespace: 'default', uid: uidOf(digit), resourceVersion: '1' }, status: { observedGeneration: 1, ...status },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', blank: {}, size: '1Gi' }] },
});
const held = (digit: number, over: Partial<Held> = {}): Held => ({ kind: 'vm', uid: uidOf(digit), namespace: 'default', name: `vm-${digit}`, generation: 1, epoch: 1, digest: 'd', ending: false, ...over });
const facts: NodeFacts = {
  agentVersion: '1', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
  capacity: { cpus: 4, memoryMiB: 8192, storageMiB: 8192 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
};

/** One node that holds some VMs; `unreadable` are objects that our schema refuses. */
const cluster = (told: Held[], readable: VirtualMachine[], unreadable: { vms?: number[]; nodes?: string[] } = {}) => {
  const fleet = makeFleet(() => 0);
  const view = { is: 'joined' as const, told: new Map(told.map((each) => [each.uid, each])) };
  Object.assign(fleet.member('node-1'), { facts, view, session: { id: 1, wake: () => {}, close: () => {} } });
  return {
    fleet, clusterId: 'c', inherited: () => false, historyWentBack: () => false, disks: fakeCache<VirtualDisk>(() => []), namespaces: fakeCache(() => []),
    vms: fakeCache(() => readable, (unreadable.vms ?? []).map((digit) => ({ ...vm(digit).metadata }))),
    nodes: fakeCache(() => [node], (unreadable.nodes ?? []).map((name) => ({ ...node.metadata, name }))),
    images: fakeCache<VirtualMachineImage>(() => []),
  };
};

describe('a node is kept free of new VMs', () => {
  test.each<[string, ReturnType<typeof cluster>, string | undefined]>([
    ['not by VMs that are known', cluster([held(1)], [vm(1)]), undefined],
    ['by an orphan', cluster([held(1)], []), 'holds 1 orphans of unknown size; discard them first'],
    ['by an orphan until nothing is left of it', cluster([held(1, { ending: true })], []), 'holds 1 orphans of unknown size; discard them first'],
    ['by a VM whose object can not be read: that is no orphan', cluster([held(1)], [], { vms: [1] }), 'holds VM default/vm-1 of unknown size: its object can not be read'],
    ['by a VM that is bound to another node', cluster([held(1)], [vm(1, { nodeName: 'node-2', epoch: 2 })]), 'holds 1 orphans of unknown size; discard them first'],
    ['not by an image', cluster([held(1, { kind: 'image' })], []), undefined],
  ])('%s', (_, sources, trouble) => {
    expect(candidates(sources).map((each) => each.trouble)).toEqual([trouble]);
  });
});

test('not every node has reported while one is silent, although its object can not be read; nor when there is none', () => {
  expect(observe(vm(1), cluster([], [])).everyNodeReported).toBe(true);
  expect(observe(vm(1), cluster([], [], { nodes: ['node-2'] })).everyNodeReported).toBe(false);
  expect(observe(vm(1), { ...cluster([], []), nodes: fakeCache<HypervisorNode>(() => []) }).everyNodeReported).toBe(false);
  expect(observe(vm(1), cluster([], [], { nodes: ['node-2'] })).unreported).toBe('node-2');
});

test.each([['connected', 'node-1', [], false], ['silent', 'node-2', ['node-2'], false], ['silent and has no object', 'node-2', [], true]] as const)('that its node is gone is said of one that is %s: %s', (_, nodeName, nodes, gone) => {
  const sources = cluster([], [], { nodes: [...nodes] });
  const silent = { ...sources.fleet, link: (name: string) => (name === 'node-1' ? 'connected' as const : 'silent' as const) };
  const bound = vm(1, { nodeName, epoch: 1 });
  expect(observe(bound, { ...sources, fleet: silent, nodes: gone ? fakeCache<HypervisorNode>(() => [node]) : sources.nodes }).nodeGone).toBe(gone);
});

test('what the bound VMs take is added up once for all VMs that wait, and anew when one of them has changed', () => {
  let reads = 0;
  const counted = (digit: number): VirtualMachine => {
    const { spec, ...rest } = vm(digit, { nodeName: 'node-1', epoch: 1 });
    return { ...rest, get spec() { reads += 1; return spec; } };
  };
  const lists = [[1, 2].map(counted), [1, 2, 3].map(counted)] as const;
  const taken = lists.map((list) => [4, 5, 6].map((digit) => observe(vm(digit), cluster([], list)).candidates[0]?.taken.cpus));
  expect([taken, reads]).toEqual([[[2, 2, 2], [3, 3, 3]], 2 * 5]);
});
