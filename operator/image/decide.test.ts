import { describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { imageFinalizer } from '#crds/v1alpha1/names.ts';
import { type VirtualMachineImage, virtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import { decide, type ImageFacts } from './decide.ts';

const now = new Date('2030-01-02T03:04:05Z');
const uid = '11111111-2222-4333-8444-555555555555';
const digest = `sha256:${'a'.repeat(64)}`;

const image = (status: object = {}, metadata: object = {}): VirtualMachineImage => virtualMachineImage.parse({
  metadata: { name: 'guest', namespace: 'default', uid, resourceVersion: '1', generation: 2, ...metadata },
  spec: { source: { http: { url: 'http://h/i' } }, format: 'qcow2' },
  status: { observedGeneration: -1, ...status },
});

const report = (over: Partial<ObservedImage> = {}): ObservedImage => ({ kind: 'image', uid, generation: 2, digest: 'd', state: 'importing', progress: 30, ...over });
const holds = (of: string, reflects = 'd'): ObservedImage => report({ state: 'ready', progress: 100, digest: reflects, content: { digest: of, sizeBytes: 10, virtualSizeBytes: 64 * 1024 ** 2 } });
const facts = (over: Partial<ImageFacts> = {}): ImageFacts => ({ image: image(), users: [], usedBy: [], connected: ['node-1', 'node-2'], refusing: [], reports: new Map(), holders: [], ...over });
/** What a node that was asked answers when it has imported: `of`, under the very desire that it is told. */
const answer = (before: ImageFacts, node: string, of = digest): ImageFacts => {
  const desire = decide(before, now).tell.get(node);
  return { ...before, reports: new Map([...before.reports, [node, holds(of, desire && desireDigest(desire))]]) };
};
const refusals = (it: ReturnType<typeof decide>) => conditionOf(it.status?.conditions, 'CopiesRefused');
const ready = (it: ReturnType<typeof decide>) => { const found = conditionOf(it.status?.conditions, 'Ready'); return `${found?.status} ${found?.reason}`; };

describe('an image', () => {
  test('that nobody refers to is imported by one node', () => {
    const decision = decide(facts(), now);
    expect([[...decision.tell.keys()], decision.status?.phase, ready(decision)]).toEqual([['node-1'], 'Importing', 'False Importing']);
  });

  test('is first imported by the node of the first VM that needs it, by that one alone', () => {
    expect([...decide(facts({ users: ['node-2', 'node-1'] }), now).tell.keys()]).toEqual(['node-2']);
  });

  test('is imported by the other nodes once its digest is recorded, and they are told the digest: not before, since another one may be recorded then', () => {
    const told = answer(facts({ users: ['node-2', 'node-1'] }), 'node-2');
    const decision = decide(told, now);
    expect([...decision.tell].map(([node, desire]) => [node, desire.digest])).toEqual([['node-2', undefined]]);
    const after = decide({ ...told, image: image(decision.status) }, now);
    expect([...after.tell].map(([node, desire]) => [node, desire.digest])).toEqual([['node-2', digest], ['node-1', digest]]);
    expect(after.status).toMatchObject({ phase: 'Ready', digest, size: 10, virtualSize: '64Mi', progress: '100%', importingNode: 'node-2' });
  });

  test.each([
    ['nobody asked', 'node-1'],
    ['was asked for something else', 'node-2'],
  ])('gets no digest from a node that %s', (_, node) => {
    const before = facts({ image: image({ importingNode: 'node-2' }), users: ['node-2'] });
    const decision = decide({ ...before, reports: new Map([[node, holds(`sha256:${'e'.repeat(64)}`, 'of another desire')]]) }, now);
    expect([decision.status?.digest, decision.status?.importingNode, decision.status?.phase]).toEqual([undefined, 'node-2', 'Importing']);
    expect([...decision.tell].map(([told, desire]) => [told, desire.digest])).toEqual([['node-2', undefined]]);
  });

  test('gets no digest from a node that reports other bytes than spec.checksum: another one imports it, and a condition says so', () => {
    const checksum = `sha256:${'c'.repeat(64)}`;
    const summed = virtualMachineImage.parse({ ...image({ importingNode: 'node-1' }), spec: { ...image().spec, checksum } });
    const decision = decide(answer(facts({ image: summed }), 'node-1'), now);
    expect([decision.status?.digest, decision.status?.importingNode, [...decision.tell.keys()]]).toEqual([undefined, 'node-2', ['node-2']]);
    expect(refusals(decision)).toMatchObject({ status: 'True', reason: 'ChecksumMismatch', message: expect.stringContaining(`node-1 reports ${digest}`) });
    const alone = decide(answer(facts({ image: summed, connected: ['node-1'] }), 'node-1'), now);
    expect([alone.status?.digest, ready(alone), conditionOf(alone.status?.conditions, 'Reconciling')?.status]).toEqual([undefined, 'False ChecksumMismatch', 'True']);
    expect(decide(answer(facts({ image: summed }), 'node-1', checksum), now).status).toMatchObject({ digest: checksum, phase: 'Ready' });
  });

  test('keeps its digest when a node that was told it reports another one; the condition names the node, and the sizes stay', () => {
    const other = `sha256:${'b'.repeat(64)}`;
    const fixed = facts({ image: image({ digest, importingNode: 'node-1', size: 5, virtualSize: '1Mi' }), users: ['node-1', 'node-2'] });
    const decision = decide(answer(answer(fixed, 'node-2', other), 'node-1', other), now);
    expect([decision.status?.digest, decision.status?.size, decision.status?.virtualSize, ready(decision)]).toEqual([digest, 5, '1Mi', 'True Ready']);
    expect(refusals(decision)).toMatchObject({ status: 'True', reason: 'DigestMismatch', message: expect.stringMatching(/^node-1 reports sha256:b+, node-2 reports/) });
    expect([...decision.tell.values()].map((desire) => desire.digest)).toEqual([digest, digest]);
    expect(refusals(decide(answer(fixed, 'node-2'), now))).toBeUndefined();
  });

  test('says nothing of a node that has not been told the digest yet', () => {
    const fixed = facts({ image: image({ digest, importingNode: 'node-1' }), users: ['node-2'] });
    expect(refusals(decide({ ...fixed, reports: new Map([['node-2', holds(`sha256:${'b'.repeat(64)}`, 'told before')]]) }, now))).toBeUndefined();
  });

  test('names a few of many such nodes', () => {
    const names = Array.from({ length: 20 }, (_, at) => `node-${at + 10}`);
    const fixed = facts({ image: image({ digest, importingNode: 'node-10' }), users: names });
    const decision = decide(names.reduce((before, node) => answer(before, node, `sha256:${'b'.repeat(64)}`), fixed), now);
    expect(refusals(decision)?.message).toMatch(/node-12 reports sha256:b+ and 17 more/);
  });

  test('tells the node all of where the content comes from', () => {
    const sources = { source: { http: { url: 'http://h/i', mirrors: ['http://m/i'] } }, checksumUrl: 'http://h/SHA256SUMS', format: 'raw' };
    const [desire] = decide(facts({ image: virtualMachineImage.parse({ ...image(), spec: sources }) }), now).tell.values();
    expect(desire).toMatchObject({ url: 'http://h/i', mirrors: ['http://m/i'], checksumUrl: 'http://h/SHA256SUMS', format: 'raw' });
    const [plain] = decide(facts(), now).tell.values();
    expect(Object.keys(plain ?? {})).toEqual(['kind', 'uid', 'namespace', 'name', 'generation', 'url', 'format']);
  });

  test('stays Ready with its digest when a later copy fails', () => {
    const failed = report({ state: 'failed', trouble: { reason: 'DigestMismatch', message: 'other bytes', final: true } });
    const decision = decide(facts({ image: image({ digest, importingNode: 'node-1' }), users: ['node-1'], reports: new Map([['node-1', failed]]) }), now);
    expect([ready(decision), decision.status?.digest]).toEqual(['True Ready', digest]);
  });

  test.each([
    [true, 'Failed', 'Stalled'],
    [false, 'Importing', 'Reconciling'],
  ] as const)('whose import fails (final: %s) is %s and %s', (final, phase, condition) => {
    const failed = report({ state: 'failed', trouble: { reason: 'ChecksumMismatch', message: 'wrong', final } });
    const decision = decide(facts({ image: image({ importingNode: 'node-1' }), reports: new Map([['node-1', failed]]) }), now);
    expect([decision.status?.phase, ready(decision), conditionOf(decision.status?.conditions, condition)?.status]).toEqual([phase, 'False ChecksumMismatch', 'True']);
  });

  test('keeps its importer while that one is connected, whoever else comes', () => {
    const decision = decide(facts({ image: image({ importingNode: 'node-2' }), users: ['node-1'] }), now);
    expect([...decision.tell.keys()]).toEqual(['node-2']);
  });

  const failing = (node: string, final = false) => [node, report({ state: final ? 'failed' : 'importing', trouble: { reason: 'FetchFailed', message: 'no route', final } })] as const;
  test.each<[string, string, Partial<ImageFacts>, string | undefined]>([
    ['none yet', 'takes no new intent', { refusing: ['node-1'] }, undefined],
    ['that one', 'takes no new intent', { refusing: ['node-1'] }, 'node-1'],
    ['that one', 'fails, while a VM on another one waits', { users: ['node-2'], reports: new Map([failing('node-1')]) }, 'node-1'],
    ['that one', 'fails for good, while a VM on another one waits', { users: ['node-1', 'node-2'], reports: new Map([failing('node-1', true)]) }, 'node-1'],
  ])('with %s as its importer goes to another node when the first %s', (_, __, over, importingNode) => {
    const decision = decide(facts({ ...over, image: image(importingNode === undefined ? {} : { importingNode }) }), now);
    expect([[...decision.tell.keys()], decision.status?.importingNode, ready(decision)]).toEqual([['node-2'], 'node-2', 'False Importing']);
  });

  test.each<[string, Partial<ImageFacts>]>([
    ['fails and no VM waits elsewhere', { reports: new Map([failing('node-1')]) }],
    ['fails as the others do that need it', { users: ['node-2'], reports: new Map([failing('node-1'), failing('node-2')]) }],
    ['takes no new intent, nor does any other', { refusing: ['node-1', 'node-2'] }],
  ])('stays with its importer when that one %s', (_, over) => {
    expect(decide(facts({ ...over, image: image({ importingNode: 'node-1' }) }), now).status?.importingNode).toBe('node-1');
  });

  test('waits when no node is connected', () => {
    expect(ready(decide(facts({ connected: [] }), now))).toBe('False WaitingForNode');
  });

  const deleted = (finalizers: string[], over: object = {}) => image({ digest, importingNode: 'node-1', ...over }, { deletionTimestamp: '2030-01-01T00:00:00Z', finalizers });

  test('gets its finalizer with its first VM, before anything is written, and not twice', () => {
    expect(decide(facts({ usedBy: ['a'] }), now)).toMatchObject({ finalizer: 'add', tell: new Map([['node-1', expect.anything()]]) });
    expect([decide(facts(), now).finalizer, decide(facts({ image: image({}, { finalizers: [imageFinalizer] }), usedBy: ['a'] }), now).finalizer]).toEqual([undefined, undefined]);
  });

  test.each([
    [['a'], 'deleted, but used by VM a: it goes'],
    [['a', 'b', 'c', 'd', 'e', 'f', 'g'], 'deleted, but used by 7 VMs, a, b, c, d, e and 2 more: it goes'],
  ])('that is deleted while %j use it stays Ready for them, is told to their nodes, and says who they are', (usedBy, said) => {
    const decision = decide(facts({ image: deleted([imageFinalizer]), usedBy, users: ['node-2'], holders: ['node-1', 'node-2'] }), now);
    expect([decision.finalizer, decision.drop, [...decision.tell.keys()], ready(decision)]).toEqual([undefined, [], ['node-2', 'node-1'], 'True Ready']);
    expect(conditionOf(decision.status?.conditions, 'InUse')).toMatchObject({ status: 'True', reason: 'InUse', message: expect.stringContaining(said) });
  });

  test('whose finalizer was stripped while it was deleted asks for none: the API server takes none more', () => {
    expect(decide(facts({ image: deleted([]), usedBy: ['a'] }), now).finalizer).toBeUndefined();
  });

  test('that is deleted goes with its last VM: its copies are dropped, and it is let go', () => {
    const decision = decide(facts({ image: deleted([imageFinalizer]), holders: ['node-2'] }), now);
    expect([decision.finalizer, decision.status, decision.tell.size, decision.drop]).toEqual(['remove', undefined, 0, ['node-2']]);
  });

  test('that is deleted is dropped where it is held', () => {
    const decision = decide(facts({ image: image({}, { deletionTimestamp: '2030-01-01T00:00:00Z' }), holders: ['node-2'] }), now);
    expect([decision.tell.size, decision.drop]).toEqual([0, ['node-2']]);
  });
});
