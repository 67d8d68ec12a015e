import { describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { type VirtualMachineImage, virtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
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
const done = report({ state: 'ready', progress: 100, content: { digest, sizeBytes: 10, virtualSizeBytes: 64 * 1024 ** 2 } });
const facts = (over: Partial<ImageFacts> = {}): ImageFacts => ({ image: image(), users: [], connected: ['node-1', 'node-2'], reports: new Map(), holders: [], ...over });
const ready = (it: ReturnType<typeof decide>) => { const found = conditionOf(it.status?.conditions, 'Ready'); return `${found?.status} ${found?.reason}`; };

describe('an image', () => {
  test('that nobody refers to is imported by one node', () => {
    const decision = decide(facts(), now);
    expect([[...decision.tell.keys()], decision.status?.phase, ready(decision)]).toEqual([['node-1'], 'Importing', 'False Importing']);
  });

  test('is first imported by the node of the first VM that needs it, by that one alone', () => {
    expect([...decide(facts({ users: ['node-2', 'node-1'] }), now).tell.keys()]).toEqual(['node-2']);
  });

  test('is imported by the other nodes once its digest is fixed, and they are told the digest', () => {
    const decision = decide(facts({ users: ['node-2', 'node-1'], reports: new Map([['node-2', done]]) }), now);
    expect([...decision.tell].map(([node, desire]) => [node, desire.digest])).toEqual([['node-2', digest], ['node-1', digest]]);
    expect(decision.status).toMatchObject({ phase: 'Ready', digest, size: 10, virtualSize: '64Mi', progress: '100%', importingNode: 'node-2' });
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
    const decision = decide(facts({ reports: new Map([['node-1', failed]]) }), now);
    expect([decision.status?.phase, ready(decision), conditionOf(decision.status?.conditions, condition)?.status]).toEqual([phase, 'False ChecksumMismatch', 'True']);
  });

  test('keeps its importer while that one is connected, whoever else comes', () => {
    const decision = decide(facts({ image: image({ importingNode: 'node-2' }), users: ['node-1'] }), now);
    expect([...decision.tell.keys()]).toEqual(['node-2']);
  });

  test('waits when no node is connected', () => {
    expect(ready(decide(facts({ connected: [] }), now))).toBe('False WaitingForNode');
  });

  test('that is deleted is dropped where it is held', () => {
    const decision = decide(facts({ image: image({}, { deletionTimestamp: '2030-01-01T00:00:00Z' }), holders: ['node-2'] }), now);
    expect([decision.tell.size, decision.drop]).toEqual([0, ['node-2']]);
  });
});
