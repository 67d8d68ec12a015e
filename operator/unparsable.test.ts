import { describe, expect, test } from '@jest/globals';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import { reportUnparsable, statusOfUnparsable, type Unparsable } from './unparsable.ts';

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
