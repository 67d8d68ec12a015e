import { describe, expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Held } from '#crds/wire/messages.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { observe as observeNode } from '../node/observe.ts';
import { machineUuid } from './identity.ts';
import { observe } from './observe.ts';

const uid = '11111111-2222-4333-8444-000000000001';
const vm = (status?: object): VirtualMachine => virtualMachine.parse({
  metadata: { name: 'web', namespace: 'default', uid, resourceVersion: '1', generation: 1 },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', blank: {}, size: '1Gi' }] }, ...(status ? { status } : {}),
});
const held = (over: Partial<Held> = {}): Held =>
  ({ kind: 'vm', uid, namespace: 'default', name: 'web', generation: 1, epoch: 2, digest: 'd', ending: false, uuid: machineUuid('c', 'default', 'web'), ...over });
const on = (nodeName: string) => vm({ observedGeneration: 1, nodeName, epoch: 1 });

type NodeState = { holds?: Held[]; recorded?: { uid: string; namespace: string; name: string }[]; gone?: boolean; away?: boolean };

/** A cluster with one VM. A node without `holds` has not spoken since the operator began; `away`: it did and is silent now; `gone`: its object is deleted. */
const cluster = (object: VirtualMachine, states: Record<string, NodeState>, over: { inherited?: boolean; wentBack?: boolean; ms?: number } = {}) => {
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  for (const [name, { holds, away }] of Object.entries(states)) {
    if (!holds) continue;
    const told = new Map(holds.map((each) => [each.uid, each]));
    Object.assign(fleet.member(name), { listed: true, view: { is: away ? 'joining' : 'joined', told }, lastHeardMs: away ? 0 : 1e9, ...(away ? {} : { session: { id: 1, wake: () => {}, close: () => {} } }) });
  }
  time.ms = over.ms ?? 1_000;
  const nodes = Object.entries(states).filter(([, { gone }]) => !gone).map(([name, { recorded }]) => hypervisorNode.parse({
    metadata: { name, uid: name, resourceVersion: '1' }, status: { observedGeneration: 1, orphans: (recorded ?? []).map((each) => ({ ...each, state: 'running' })) },
  }));
  const images = Object.assign(fakeCache<VirtualMachineImage>(() => []), { hasSynced: () => true });
  const sources = {
    clusterId: 'c', vms: fakeCache(() => [object]), images, nodes: fakeCache(() => nodes), fleet,
    inherited: () => over.inherited === true, historyWentBack: () => over.wentBack === true, disks: fakeCache<VirtualDisk>(() => []), namespaces: fakeCache(() => []),
  };
  const orphansOn = (name: string) => {
    const node = nodes.find(({ metadata }) => metadata.name === name);
    if (!node) throw new Error(`the test has no node ${name}`);
    return observeNode(node, { ...sources, monotonicMs: () => time.ms }).orphans?.map((each) => `${each.namespace}/${each.name}`);
  };
  return { facts: observe(object, sources), orphansOn };
};

const record = { uid, namespace: 'default', name: 'web' };

describe('the nodes that hold a VM', () => {
  test.each<[string, VirtualMachine, Record<string, NodeState>, string[]]>([
    ['are not its own', on('a'), { a: { holds: [held()] } }, []],
    ['are others beside its own', on('b'), { a: { holds: [held()] }, b: { holds: [held()] } }, ['a 2 said']],
    ['are others although its own does not hold it', on('b'), { a: { holds: [held()] }, b: { holds: [] } }, ['a 2 said']],
    ['are those that are silent by now: what they hold has not changed', on('b'), { a: { holds: [held()], away: true } }, ['a 2 said']],
    ['are those that are ending it', on('b'), { a: { holds: [held({ ending: true })] } }, ['a 2 ending said']],
    ['are known from the record of one that has not spoken', on('b'), { a: { recorded: [record] } }, ['a 0']],
    ['are not known from a record when it has spoken since', on('b'), { a: { holds: [], recorded: [record] } }, []],
    ['are none whose object an administrator has deleted', on('b'), { a: { holds: [held()], away: true, gone: true } }, []],
    ['are all of them for a VM without a node', vm(), { a: { holds: [held()] }, b: { holds: [held({ epoch: 3 })] } }, ['a 2 said', 'b 3 said']],
    ['claim no placement beyond reason', vm(), { a: { holds: [held({ epoch: 2 ** 40 })] }, b: { holds: [held({ epoch: 0 })] } }, ['a 1000000 said', 'b 1 said']],
  ])('%s', (_, object, nodes, expected) => {
    expect(cluster(object, nodes).facts.holders.map(({ node, epoch, ending, said }) => `${node} ${epoch}${ending ? ' ending' : ''}${said ? ' said' : ''}`)).toEqual(expected);
  });
});

describe('an orphan', () => {
  test.each<[string, VirtualMachine, Record<string, NodeState>, string[]]>([
    ['is no VM that is bound here', on('a'), { a: { holds: [held()] } }, []],
    ['is a VM that is bound elsewhere', on('b'), { a: { holds: [held()] }, b: { holds: [held()] } }, ['default/web']],
    ['is no VM without a node that is about to be bound here', vm(), { a: { holds: [held()] } }, []],
    ['is a VM without a node that another holds too', vm(), { a: { holds: [held()] }, b: { holds: [held()] } }, ['default/web']],
    ['has no name that its node can not prove to have been given', on('b'), { a: { holds: [held({ uuid: uid })] } }, ['/']],
  ])('%s', (_, object, nodes, expected) => {
    expect(cluster(object, nodes).orphansOn('a')).toEqual(expected);
  });

  test('stands in the way of its name also while its node has not spoken', () => {
    const recorded = [{ ...record, uid: uid.replace('1', '2') }];
    expect(cluster(vm(), { a: { recorded } }).facts.elder).toMatchObject({ node: 'a', adopt: false });
    expect(cluster(vm(), { a: { holds: [], recorded } }).facts.elder).toBeUndefined();
  });
});

describe('a VM without a node', () => {
  const silent = { a: { holds: [] }, b: {} };
  test.each<[string, Parameters<typeof cluster>[2], { node: string; forLong: boolean } | undefined]>([
    ['that came after this operator began waits for nobody', {}, undefined],
    ['that was there before waits for nodes that have not spoken', { inherited: true }, { node: 'b', forLong: false }],
    ['that was there before does not wait for a node that does not come', { inherited: true, ms: 45_001 }, undefined],
    ['that was there before waits for every node in a history that went back', { inherited: true, wentBack: true, ms: 1e7 }, { node: 'b', forLong: true }],
    ['that came after waits for nobody, also then', { wentBack: true, ms: 1e7 }, undefined],
  ])('%s', (_, over, expected) => {
    expect(cluster(vm(), silent, over).facts.unheard).toEqual(expected);
  });

  test('waits for nobody once every node has spoken', () => {
    expect(cluster(vm(), { a: { holds: [], away: true }, b: { holds: [] } }, { inherited: true, wentBack: true }).facts.unheard).toBeUndefined();
  });
});

test('silence is counted from when agents can come, not from when a follower began to wait', () => {
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  time.ms = 3_600_000;
  fleet.begin();
  expect([fleet.link('a'), fleet.hasSettled()]).toEqual(['joining', false]);
  // An agent may have just begun to wait for 30 s before it dials again, and then it has to be let in.
  time.ms += 45_000;
  expect([fleet.link('a'), fleet.link(fleet.member('b').node), fleet.hasSettled()]).toEqual(['joining', 'joining', false]);
  time.ms += 1;
  expect([fleet.link('a'), fleet.link('b'), fleet.hasSettled()]).toEqual(['silent', 'silent', true]);
});
