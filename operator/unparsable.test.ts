import { describe, expect, test } from '@jest/globals';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import { endsOn, endUnparsable, machineUidIn, reportUnparsable, statusOfUnparsable, type Unparsable } from './unparsable.ts';

const now = new Date('2030-01-02T03:04:05Z');
const condition = (type: string, status = 'True') => ({ type, status, observedGeneration: 1, lastTransitionTime: '2029-01-01T00:00:00Z', reason: 'Running', message: 'm' });
const held = (status?: unknown): Unparsable => {
  const metadata = { name: 'v', namespace: 'default', uid: 'u', resourceVersion: '7', generation: 3 };
  return { is: 'unparsable', key: 'default/v', meta: objectMeta.parse(metadata), message: 'spec.cpu.cores: too big', raw: { metadata, spec: {}, ...(status === undefined ? {} : { status }) } };
};

describe('an object that can not be parsed', () => {
  test('is Stalled by SpecInvalid, and the message says what is wrong', () => {
    const said = statusOfUnparsable(held({ observedGeneration: -1 }), now);
    expect(said).toMatchObject({ observedGeneration: 3, conditions: [{ type: 'Ready', status: 'False', reason: 'SpecInvalid' }, { type: 'Stalled', status: 'True', reason: 'SpecInvalid' }] });
    expect(JSON.stringify(said)).toContain('spec.cpu.cores: too big');
  });

  test('keeps its binding and every other word of its status, also those that nobody understands', () => {
    const status = { observedGeneration: 1, nodeName: 'node-1', epoch: 4, colour: 'red', conditions: [condition('Ready'), condition('Scheduled'), condition('Reconciling')] };
    const { conditions, ...rest } = statusOfUnparsable(held(status), now);
    expect([rest, Object(conditions).map(({ type }: { type: string }) => type)]).toEqual([{ observedGeneration: 3, nodeName: 'node-1', epoch: 4, colour: 'red' }, ['Ready', 'Stalled', 'Scheduled']]);
  });

  test.each([['missing', undefined], ['no object', 'x'], ['of strange conditions', { conditions: 'x' }]])('is told so when its status is %s', (_, status) => {
    expect(Object(statusOfUnparsable(held(status), now)['conditions'])).toHaveLength(2);
  });

  test('is told so once', async () => {
    const written: unknown[] = [];
    const write = async (_: unknown, status: unknown) => { written.push(status); };
    await reportUnparsable(held(), now, write);
    await reportUnparsable(held(written[0]), now, write);
    expect(written).toHaveLength(1);
  });
});

describe('a VM that can not be parsed and was deleted', () => {
  const deleted = (raw: object, over: object = {}): Unparsable => ({
    ...held(), raw, meta: objectMeta.parse({ name: 'v', namespace: 'default', uid: 'u', resourceVersion: '7', finalizers: ['strato.dev/vm', 'other'], deletionTimestamp: '2030-01-01T00:00:00Z', ...over }),
  });
  const bound = { spec: { cpu: 'x' }, status: { nodeName: 'node-1' } };
  const retains = deleted({ ...bound, spec: { disks: [{ name: 'root', bus: 'strange' }, { name: 'data', deletionPolicy: 'Retain', size: 'x' }, 7, { deletionPolicy: 'Retain' }, { name: '../x', deletionPolicy: 'Retain' }] } });
  const keepsNone = { nodeGone: () => false, unrecorded: () => [], recordDisk: async () => {}, namespaceUid: () => 'n' };

  test.each([
    ['ends on its node', deleted(bound), 'node-1'],
    ['does not end while it is not deleted', deleted(bound, { deletionTimestamp: undefined }), undefined],
    ['does not end while it is protected', deleted({ ...bound, spec: { deletionProtection: true } }), undefined],
    ['does not end while its protection can not be read', deleted({ ...bound, spec: { deletionProtection: 'maybe' } }), undefined],
    ['does not end when its binding can not be read', deleted({ ...bound, status: { nodeName: 7 } }), undefined],
    ['needs no end when it was never bound', deleted(bound, { finalizers: ['other'] }), undefined],
  ])('%s', (_, vm, node) => {
    expect(endsOn(vm)).toBe(node);
  });

  test.each([[false, ['doom'], []], [true, ['release'], [['other']]]])('is let go when its node says absent: %s', async (absent, calls, finalizers) => {
    const called: string[] = [];
    const written: (readonly string[])[] = [];
    const fleet = { isAbsent: () => absent, doom: () => void called.push('doom'), release: () => void called.push('release'), keepsDisks: () => true };
    await endUnparsable(deleted(bound), 'node-1', { fleet, writeFinalizers: async (_vm, next) => void written.push(next), ...keepsNone });
    expect([called, written]).toEqual([calls, finalizers]);
  });

  test('is let go when its node is gone for good', async () => {
    const written: (readonly string[])[] = [];
    const fleet = { isAbsent: () => false, doom: () => {}, release: () => {}, keepsDisks: () => undefined };
    await endUnparsable(retains, 'node-1', { ...keepsNone, fleet, nodeGone: (node) => node === 'node-1', writeFinalizers: async (_vm, next) => void written.push(next) });
    expect(written).toEqual([['other']]);
  });

  test('is let go after each disk that outlives it has its VirtualDisk', async () => {
    const called: string[] = [];
    const disk = { uid: 'k', owner: { namespace: 'default', namespaceUid: 'n', vm: 'v', vmUid: 'u', disk: 'data' }, sizeMiB: 1 };
    await endUnparsable(deleted(bound), 'node-1', {
      ...keepsNone, fleet: { isAbsent: () => true, doom: () => {}, release: () => {}, keepsDisks: () => true }, writeFinalizers: async () => void called.push('finalizers'),
      unrecorded: (node, of) => (node === 'node-1' && of.uid === 'u' && of.name === 'v' ? [disk] : []), recordDisk: async ({ uid }, { name }, node) => void called.push(`${uid} of ${name} on ${node}`),
    });
    expect(called).toEqual(['k of v on node-1', 'finalizers']);
  });

  const order = { namespace: 'default', namespaceUid: 'n', vm: 'v', disks: ['data'] };

  test.each<[string, { keepsDisks?: boolean; namespaceUid?: string }, unknown[]]>([
    ['tells its node which disks outlive it, as far as that can be read', { keepsDisks: true, namespaceUid: 'n' }, [order]],
    ['tells it so also before the node has spoken', { namespaceUid: 'n' }, [order]],
    ['waits for a node whose agent keeps no disks', { keepsDisks: false, namespaceUid: 'n' }, []],
    ['waits until its namespace is known', { keepsDisks: true }, []],
  ])('%s', async (_, { keepsDisks, namespaceUid }, told) => {
    const orders: unknown[] = [];
    const fleet = { isAbsent: () => false, doom: (_node: string, _uid: string, _kind: string, keep?: unknown) => void orders.push(keep), release: () => {}, keepsDisks: () => keepsDisks };
    const outcome = await endUnparsable(retains, 'node-1', { ...keepsNone, fleet, writeFinalizers: async () => {}, namespaceUid: () => namespaceUid });
    expect([orders, outcome.is]).toStrictEqual([told, 'waiting']);
  });

  test.each([
    ['its own', undefined, 'u'],
    ['the one that it adopted', '99999999-2222-4333-8444-555555555555', '99999999-2222-4333-8444-555555555555'],
    ['its own when the adopted one can not be read', 7, 'u'],
  ])('ends under %s uid', async (_, machineUid, uid) => {
    const doomed: string[] = [];
    const fleet = { isAbsent: () => false, doom: (_node: string, of: string) => void doomed.push(of), release: () => {}, keepsDisks: () => true };
    const vm = deleted({ ...bound, status: { nodeName: 'node-1', machineUid } });
    await endUnparsable(vm, 'node-1', { fleet, writeFinalizers: async () => {}, ...keepsNone });
    expect([doomed, machineUidIn(vm)]).toEqual([[uid], uid]);
  });
});
