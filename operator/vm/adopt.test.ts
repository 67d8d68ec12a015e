import { describe, expect, test } from '@jest/globals';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Held } from '#crds/wire/messages.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { machineUuid } from './identity.ts';
import { observe } from './observe.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;
const machine = (status?: object): VirtualMachine => virtualMachine.parse({
  metadata: { name: 'web', namespace: 'default', uid: uidOf(1), resourceVersion: '1', generation: 1 },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'guest' } }] }, ...(status ? { status } : {}),
});
const held = (digit: number, over: Partial<Held> = {}): Held =>
  ({ kind: 'vm', uid: uidOf(digit), namespace: 'default', name: 'web', generation: 1, epoch: 4, digest: 'd', ending: false, uuid: machineUuid('c', 'default', 'web'), ...over });

/** What is seen of the VM `web` when nodes hold these machines and carry these annotations. */
const look = (nodes: Record<string, { holds: Held[]; adopt?: string; away?: boolean }>, vm = machine()) => {
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  for (const [name, { holds, away }] of Object.entries(nodes)) {
    Object.assign(fleet.member(name), { listed: true, view: { is: away ? 'joining' : 'joined', told: new Map(holds.map((each) => [each.uid, each])) }, ...(away ? {} : { session: { id: 1, wake: () => {}, close: () => {} } }) });
  }
  const objects = Object.entries(nodes).map(([name, { adopt }]) => hypervisorNode.parse({ metadata: { name, uid: name, resourceVersion: '1', annotations: adopt === undefined ? {} : { 'strato.dev/adopt-orphan': adopt } } }));
  return observe(vm, { clusterId: 'c', inherited: () => false, historyWentBack: () => false, disks: fakeCache<VirtualDisk>(() => []), namespaces: fakeCache(() => []), vms: fakeCache(() => [vm]), images: fakeCache<VirtualMachineImage>(() => []), nodes: fakeCache(() => objects), fleet });
};

describe('a machine of the name that is still on a node', () => {
  test.each([
    ['is in the way', { 'node-1': { holds: [held(2)] } }, false],
    ['is adopted when its node says so', { 'node-1': { holds: [held(2)], adopt: `${uidOf(7)}, ${uidOf(2)}` } }, true],
    ['is not adopted for an annotation of another node', { 'node-1': { holds: [held(2)] }, 'node-2': { holds: [], adopt: uidOf(2) } }, false],
    ['is not adopted for another uid', { 'node-1': { holds: [held(2)], adopt: uidOf(3) } }, false],
    ['is not adopted while it ends', { 'node-1': { holds: [held(2, { ending: true })], adopt: uidOf(2) } }, false],
    ['is not adopted while its node is away: nobody knows what it holds by now', { 'node-1': { holds: [held(2)], adopt: uidOf(2), away: true } }, false],
    ['is not adopted while there is another of the name', { 'node-1': { holds: [held(2)], adopt: uidOf(2) }, 'node-2': { holds: [held(3)] } }, false],
  ])('%s', (_, nodes, adopt) => {
    expect(look(nodes).elder).toEqual({ node: 'node-1', uid: uidOf(2), epoch: 4, ending: nodes['node-1'].holds[0]?.ending, adopt });
  });

  test.each([['another name', { name: 'db' }], ['another namespace', { namespace: 'other' }], ['a name that can not be read', { namespace: '', name: '' }], ['a name that its node can not prove to have been given', { uuid: uidOf(5) }], ['a name of another cluster', { uuid: machineUuid('d', 'default', 'web') }]])('of %s is none', (_, over) => {
    expect(look({ 'node-1': { holds: [held(2, over)], adopt: uidOf(2) } }).elder).toBeUndefined();
  });

  test('is what an adopting VM is judged by from then on', () => {
    const adopted = machine({ observedGeneration: 1, nodeName: 'node-1', epoch: 4, machineUid: uidOf(2) });
    const facts = look({ 'node-1': { holds: [held(2)], adopt: uidOf(2) } }, adopted);
    expect([facts.elder, facts.link]).toEqual([undefined, 'connected']);
  });
});
