import { describe, expect, test } from '@jest/globals';
import { type VirtualMachine, virtualMachine, type VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { disksOf, madeDisks, removedDisks } from './disks.ts';

const uid = '11111111-2222-4333-8444-555555555555';
const vm = (disks: readonly string[], known: VmStatus['disks'] = []): VirtualMachine => virtualMachine.parse({
  metadata: { name: 'a', namespace: 'default', uid, resourceVersion: '1', generation: 3 },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: disks.map((name) => ({ name, blank: {}, size: '1Gi' })) },
  status: { observedGeneration: 2, disks: known },
});
const inStatus = (name: string, state: 'Ready' | 'Missing' | 'Unclaimed' | 'Empty' = 'Ready') => ({ name, size: '1Gi', format: 'qcow2', state });
const report = (...disks: { name: string; state?: 'Ready' | 'Missing' | 'Unclaimed' }[]): ObservedVm => ({
  kind: 'vm', uid, generation: 2, epoch: 1, digest: '', state: 'running', forwards: [], disks: disks.map(({ name, state = 'Ready' }) => ({ name, state, sizeMiB: 1024, format: 'qcow2' })),
});

describe('a disk that is not in the spec', () => {
  test.each<[string, Parameters<typeof removedDisks>[0], string[]]>([
    ['and was in the status, has been taken away', { vm: vm(['root'], [inStatus('root'), inStatus('data')]) }, ['data']],
    ['also when its file is missing', { vm: vm(['root'], [inStatus('data', 'Missing')]) }, ['data']],
    ['and was told to the node by this operator, too', { vm: vm(['root']), toldDisks: new Set(['root', 'data']), report: report({ name: 'data' }) }, ['data']],
    ['and is gone from the node, is not asked for any more', { vm: vm(['root'], [inStatus('data')]), report: report({ name: 'root' }) }, []],
    ['and that nobody remembers (a restored cluster), has not been taken away', { vm: vm(['root'], [inStatus('root')]), report: report({ name: 'root' }, { name: 'data' }) }, []],
    ['and was unclaimed before, stays so', { vm: vm(['root'], [inStatus('data', 'Unclaimed')]), report: report({ name: 'data', state: 'Unclaimed' }) }, []],
  ])('%s', (_, facts, removed) => {
    expect(removedDisks(facts).map(({ name }) => name)).toEqual(removed);
  });

  test('is told as unclaimed when nobody remembers it, whatever its node calls it: that word must be no evidence later', () => {
    const restored = { vm: vm(['root'], [inStatus('root')]), report: report({ name: 'root' }, { name: 'data', state: 'Ready' }) };
    const disks = disksOf(restored);
    expect(disks?.map(({ name, state }) => `${name} ${state}`)).toEqual(['root Ready', 'data Unclaimed']);
    expect(removedDisks({ ...restored, vm: vm(['root'], disks) })).toEqual([]);
    const claimed = { ...restored, vm: vm(['root', 'data'], disks) };
    expect(disksOf(claimed)?.map(({ state }) => state)).toEqual(['Ready', 'Ready']);
  });

  test('keeps its line in the status of a silent node', () => {
    expect(disksOf({ vm: vm(['root'], [inStatus('data')]) })).toEqual([inStatus('data')]);
  });
});

test('disks are known to be made by their line in the status, also while they are missing; a drive without a medium is none', () => {
  expect(madeDisks(vm(['root'], [inStatus('root'), inStatus('data', 'Missing'), inStatus('cd', 'Empty'), inStatus('old', 'Unclaimed')]))).toEqual(['root', 'data', 'old']);
});
