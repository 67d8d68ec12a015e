import { describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { type DiskStatus, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { decide, type DiskFacts } from './decide.ts';
import { recordedStatus } from './record.ts';

const now = new Date('2030-01-02T03:04:05Z');
const uid = '11111111-2222-4333-8444-555555555555';
const kept = { uid, owner: { namespace: 'default', namespaceUid: uid, vm: 'web', vmUid: uid, disk: 'data' }, sizeMiB: 2048 };
const claimed = { ...kept, owner: { ...kept.owner, namespace: 'stolen', vm: 'stolen' } };
const recorded = recordedStatus(claimed, { namespace: 'default', namespaceUid: uid, vm: 'web', node: 'node-1' });

const disk = ({ status = recorded, ...metadata }: { status?: DiskStatus; creationTimestamp?: string; deletionTimestamp?: string; finalizers?: string[] } = {}) =>
  virtualDisk.parse({ metadata: { name: 'web-data-11111111', namespace: 'default', uid: 'o', resourceVersion: '1', generation: 1, finalizers: ['strato.dev/disk'], ...metadata }, spec: {}, status });
const facts = (over: Partial<DiskFacts> = {}): DiskFacts => ({ disk: disk(), link: 'connected', kept, taken: false, awaited: false, absent: false, ...over });
const gone = (over: Partial<DiskFacts> = {}): DiskFacts => { const { kept: _kept, ...rest } = facts(over); return rest; };
const deleted = disk({ deletionTimestamp: '2030-01-01T00:00:00Z' });
const said = ({ status }: { status?: DiskStatus }) => { const ready = conditionOf(status?.conditions, 'Ready'); return [status?.state, `${ready?.status} ${ready?.reason}`]; };

test('a disk is recorded for the VM that the operator knows, whatever its node claims', () => {
  expect(recorded).toMatchObject({ uid, nodeName: 'node-1', vmName: 'web', diskName: 'data', size: '2Gi', state: 'Kept' });
});

describe('the object of a disk that has outlived its VM', () => {
  test.each<[string, DiskFacts, unknown[]]>([
    ['that is there', facts(), ['Kept', 'True Kept']],
    ['on a silent node', gone({ link: 'silent' }), ['Unknown', 'Unknown NodeUnreachable']],
    ['on a node that was deleted', gone({ link: 'deleted' }), ['Unknown', 'Unknown NodeUnreachable']],
    ['that its node does not have any more', gone(), ['Missing', 'False DiskMissing']],
    ['made by hand', gone({ disk: disk({ finalizers: [], status: { observedGeneration: -1 } }) }), [undefined, 'False NotRecorded']],
    ['restored without its status', gone({ disk: disk({ creationTimestamp: '2030-01-02T03:03:00Z', status: { observedGeneration: -1 } }) }), [undefined, 'False NotRecorded']],
    ['that is deleted', facts({ disk: deleted }), ['Deleting', 'False Terminating']],
    ['that is deleted while its node is silent', facts({ disk: deleted, link: 'silent' }), ['Deleting', 'False NodeUnreachable']],
  ])('%s says so, and nothing else happens to the object', (_, of, verdict) => {
    const decision = decide(of, now);
    expect(said(decision)).toEqual(verdict);
    expect([decision.finalizer, decision.remove]).toEqual([undefined, undefined]);
  });

  test('knows what it stands for, also when its node says nothing', () => {
    expect(decide(gone({ link: 'silent' }), now).status).toMatchObject({ uid, nodeName: 'node-1', vmName: 'web', diskName: 'data', size: '2Gi' });
  });

  test('that is being recorded, whose node has just connected, or that its VM is perhaps just given, is left alone', () => {
    expect(decide(gone({ awaited: true }), now)).toEqual({ outcome: expect.objectContaining({ is: 'waiting' }) });
    expect(decide(gone({ disk: disk({ creationTimestamp: '2030-01-02T03:03:30Z', status: { observedGeneration: -1 } }) }), now)).toEqual({ outcome: expect.objectContaining({ is: 'waiting' }) });
    expect(decide(gone({ link: 'joining' }), now)).toEqual({ outcome: expect.objectContaining({ is: 'waiting' }) });
  });

  test('goes when the VM has the disk back; its files are the VM\'s then', () => {
    expect(decide(gone({ taken: true, disk: disk({ finalizers: [] }) }), now)).toMatchObject({ remove: true });
    const after = decide(gone({ taken: true, disk: deleted }), now);
    expect([after.finalizer, after.end]).toEqual(['remove', undefined]);
  });

  test('loses its finalizer before we delete it: a VM may give the disk up in that moment, and only a delete of its user ends it', () => {
    const { finalizer, remove } = decide(gone({ taken: true }), now);
    expect([finalizer, remove]).toEqual(['remove', undefined]);
  });

  test.each<[string, Partial<typeof kept.owner>]>([
    ['another namespace', { namespace: 'elsewhere' }],
    ['an earlier namespace of that name', { namespaceUid: '99999999-2222-4333-8444-555555555555' }],
  ])('that a status written by hand makes stand for a disk of %s says so, and ends nothing when it is deleted', (_, owner) => {
    const others = { ...kept, owner: { ...kept.owner, ...owner } };
    expect(said(decide(facts({ kept: others }), now))).toEqual([undefined, 'False NotRecorded']);
    const { finalizer, end } = decide(facts({ kept: others, disk: deleted }), now);
    expect([finalizer, end]).toEqual(['remove', undefined]);
  });

  test.each<[string, Partial<DiskFacts>, boolean, 'remove' | undefined]>([
    ['has its node remove the files', {}, true, undefined],
    ['has it do so once it is back and has said whose the disk is', { link: 'silent' }, false, undefined],
    ['goes when its node says that they are gone', { absent: true }, false, 'remove'],
    ['goes when its node was deleted and is away', { link: 'deleted' }, false, 'remove'],
  ])('that is deleted %s', (_, over, end, finalizer) => {
    const decision = decide(facts({ disk: deleted, ...over }), now);
    expect([decision.end ?? false, decision.finalizer]).toEqual([end, finalizer]);
  });

  test('gets its finalizer back', () => {
    expect(decide(facts({ disk: disk({ finalizers: [] }) }), now)).toMatchObject({ finalizer: 'add' });
  });
});
