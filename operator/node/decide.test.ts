import { describe, expect, test } from '@jest/globals';
import { conditionOf, type Verdict } from '#crds/v1alpha1/condition.ts';
import { type HypervisorNode, hypervisorNode, hypervisorNodeKind } from '#crds/v1alpha1/hypervisornode.ts';
import type { Held } from '#crds/wire/messages.ts';
import { type NodeFacts as AgentFacts, nodeFacts } from '#crds/wire/observed.ts';
import { decide, type NodeFacts } from './decide.ts';

const now = new Date('2030-01-02T03:04:05Z');
const orphan: Held & { state: 'running' } = { kind: 'vm', uid: '11111111-2222-4333-8444-555555555555', namespace: 'a', name: 'b', generation: 1, epoch: 1, digest: 'd', ending: false, state: 'running' as const };
const agent: AgentFacts = {
  agentVersion: '1', qemuVersion: '7.2', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
  capacity: { cpus: 2, memoryMiB: 1024, storageMiB: 2048 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
};
const node = (status?: object): HypervisorNode => hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'u', resourceVersion: '1', generation: 1 }, ...(status ? { status } : {}) });
const facts = (over: Partial<NodeFacts> = {}): NodeFacts => ({
  node: node(), link: 'connected', agentId: 'id', protocol: 1, agent, allocated: { cpus: 1, memoryMiB: 512 }, vmCount: 1, orphans: [], lostCopies: [], discard: [], adopt: [], ...over,
});
const conditionsOf = ({ status }: ReturnType<typeof decide>, ...types: Verdict['type'][]) => types.map((type) => conditionOf(status?.conditions, type)?.status);

describe('a node', () => {
  test('says what it has, what is taken, and what executes its guests', () => {
    const decision = decide(facts(), now);
    expect(decision.status).toMatchObject({
      agentId: 'id', capacity: { cpu: 2, memory: '1Gi', storage: '2Gi' }, allocated: { cpu: 1, memory: '512Mi' }, vmCount: 1, accelerators: ['tcg'], versions: { qemu: '7.2', protocol: 1 },
    });
    expect(conditionsOf(decision, 'Ready', 'AgentConnected', 'AcceleratorAvailable', 'OrphansPresent')).toEqual(['True', 'True', 'False', 'False']);
  });

  test('has a status that the API server takes, whatever its agent says', () => {
    const disk = (at: number) => ({ uid: `11111111-2222-4333-8444-${String(at).padStart(12, '0')}`, owner: { namespace: 'n', namespaceUid: orphan.uid, vm: 'v', vmUid: orphan.uid, disk: 'd' }, sizeMiB: Number.MAX_SAFE_INTEGER });
    const most = nodeFacts.parse({ ...agent, capacity: { cpus: 2 ** 31 - 1, memoryMiB: Number.MAX_SAFE_INTEGER, storageMiB: Number.MAX_SAFE_INTEGER } });
    const orphanDisks = Array.from({ length: 500 }, (_, at) => ({ disk: disk(at), adoptable: false }));
    expect(hypervisorNodeKind.status.safeParse(decide(facts({ agent: most, orphanDisks }), now).status).error).toBeUndefined();
    expect(nodeFacts.safeParse({ ...agent, capacity: { ...agent.capacity, cpus: 2 ** 31 } }).success).toBe(false);
  });

  test('that is silent is Unknown, not bad', () => {
    expect(conditionsOf(decide(facts({ link: 'silent' }), now), 'Ready', 'AgentConnected')).toEqual(['Unknown', 'False']);
  });

  test('with a fault of its own says which', () => {
    const decision = decide(facts({ agent: { ...agent, troubles: [{ reason: 'LedgerQuarantined', message: 'one file' }] } }), now);
    expect(conditionOf(decision.status?.conditions, 'Ready')).toMatchObject({ status: 'False', message: 'LedgerQuarantined: one file' });
  });

  test.each([
    [[], 'True', 'StorageReady'],
    [[{ reason: 'QemuUnusable', message: 'no QEMU' }], 'True', 'StorageReady'],
    [[{ reason: 'QemuUnusable', message: 'no QEMU' }, { reason: 'LedgerFull', message: 'no space' }], 'False', 'LedgerFull'],
    [[{ reason: 'LedgerReadOnly', message: 'read-only' }], 'False', 'LedgerReadOnly'],
    [[{ reason: 'LedgerQuarantined', message: 'one file' }], 'False', 'LedgerQuarantined'],
    [[{ reason: 'StorageHung', message: 'no answer' }], 'False', 'StorageHung'],
  ])('with the troubles %j its storage is ready: %s %s', (troubles, status, reason) => {
    const verdict = conditionOf(decide(facts({ agent: { ...agent, troubles } }), now).status?.conditions, 'StorageReady');
    expect(verdict).toMatchObject({ status, reason, message: troubles.find((each) => each.reason === reason)?.message ?? 'the agent keeps what it is told' });
  });

  test('that never spoke says nothing of its storage, and one that is silent does not know', () => {
    const { agent: _agent, ...before } = facts({ link: 'silent' });
    expect([conditionsOf(decide(before, now), 'StorageReady'), conditionsOf(decide(facts({ link: 'silent' }), now), 'StorageReady')]).toEqual([[undefined], ['Unknown']]);
  });

  test.each(['connected', 'silent'] as const)('that is %s tells of a rival that was refused, and how to accept it', (link) => {
    const decision = decide(facts({ link, rival: { agentId: 'other', message: 'to accept it: kubectl annotate' } }), now);
    expect(conditionOf(decision.status?.conditions, 'AgentRefused')).toMatchObject({ status: 'True', reason: 'IdentityConflict', message: 'agent other is refused: to accept it: kubectl annotate' });
    expect(conditionsOf(decision, 'AgentConnected')).toEqual([link === 'connected' ? 'True' : 'False']);
    expect(conditionsOf(decide(facts({ link }), now), 'AgentRefused')).toEqual([undefined]);
  });

  test('lists its orphans and ends none of them by itself', () => {
    const decision = decide(facts({ orphans: [orphan] }), now);
    expect([decision.status?.orphans, decision.end, ...conditionsOf(decision, 'OrphansPresent')]).toEqual([[{ uid: orphan.uid, namespace: 'a', name: 'b', state: 'running' }], [], 'True']);
  });

  test('ends an orphan that an administrator discards, and nothing else', () => {
    const other = '99999999-2222-4333-8444-555555555555';
    expect(decide(facts({ orphans: [orphan], discard: [orphan.uid, other] }), now).end).toEqual([orphan.uid]);
    expect(decide(facts({ discard: [other] }), now).end).toEqual([]);
  });

  test('says what an orphan waits for that shall be adopted, and ends none that shall be', () => {
    const decision = decide(facts({ orphans: [orphan], adopt: [orphan.uid], discard: [orphan.uid] }), now);
    expect(decision.end).toEqual([]);
    expect(conditionOf(decision.status?.conditions, 'OrphansPresent')?.message).toContain(`${orphan.uid} waits for a VirtualMachine a/b without a node`);
    const nameless = decide(facts({ orphans: [{ ...orphan, name: '' }], adopt: [orphan.uid] }), now);
    expect(conditionOf(nameless.status?.conditions, 'OrphansPresent')?.message).toContain('can not be adopted: its record on the node is damaged');
  });

  const lost = { uid: '99999999-2222-4333-8444-666666666666', owner: { namespace: 'a', namespaceUid: orphan.uid, vm: 'b', vmUid: orphan.uid, disk: 'data' }, sizeMiB: 2048 };
  test('lists kept disks that nobody stands for, ends one only for an administrator, and never one that shall be adopted', () => {
    const orphanDisks = [{ disk: lost, adoptable: true }];
    const decision = decide(facts({ orphanDisks }), now);
    expect([decision.status?.orphanDisks, decision.endDisks, decision.record, ...conditionsOf(decision, 'OrphansPresent')]).toEqual([[{ uid: lost.uid, namespace: 'a', vm: 'b', disk: 'data', size: '2Gi' }], [], [], 'True']);
    expect(decide(facts({ orphanDisks, discard: [lost.uid] }), now)).toMatchObject({ endDisks: [lost.uid], record: [] });
    expect(decide(facts({ orphanDisks, discard: [lost.uid], adopt: [lost.uid] }), now)).toMatchObject({ endDisks: [], record: [lost] });
    expect(decide(facts({ discard: [lost.uid], adopt: [lost.uid] }), now)).toMatchObject({ endDisks: [], record: [] });
  });

  test('gives a kept disk to no namespace that came later', () => {
    const decision = decide(facts({ orphanDisks: [{ disk: lost, adoptable: false }], adopt: [lost.uid] }), now);
    expect([decision.record, conditionOf(decision.status?.conditions, 'OrphansPresent')?.message]).toEqual([[], expect.stringContaining(`disk ${lost.uid} can not be adopted: namespace a is gone, or is another one now`)]);
  });

  test('keeps its orphans listed while the operator does not know what it holds', () => {
    const { orphans: _none, ...unknown } = facts();
    const listed = decide(facts({ orphans: [orphan] }), now).status;
    const decision = decide({ ...unknown, node: node(listed), discard: [orphan.uid] }, now);
    expect([decision.status?.orphans?.length, decision.end]).toEqual([1, []]);
  });

  test('keeps the status that the last operator wrote until its agent has spoken', () => {
    const { agent: _agent, ...before } = facts({ node: node({ observedGeneration: 1 }), link: 'joining' });
    expect(decide(before, now).status).toBeUndefined();
  });

  test.each([['joining', 1], ['joining', -1], ['connected', -1]] as const)('is not judged before its agent has spoken: %s, observed %s', (link, observedGeneration) => {
    const { agent: _agent, ...before } = facts({ node: node({ observedGeneration }), link });
    expect(decide(before, now)).toEqual({ end: [], drop: [], endDisks: [], record: [] });
  });
});
