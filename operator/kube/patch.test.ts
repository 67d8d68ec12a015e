import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { canonical } from '#crds/kit/digest.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';
import { applyMerge, mergeDiff, patchStatus, setFinalizers } from './patch.ts';

// Statuses: JSON whose objects hold no null (a merge patch can't store one).
const status = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: 'small' }, fc.string(), fc.integer(), fc.boolean(), fc.array(tie('value'), { maxLength: 3 }), tie('map')),
  map: fc.dictionary(fc.constantFrom('a', 'b', 'c', 'toString', '__proto__', ''), tie('value'), { maxKeys: 4 }),
})).map;

describe('merge patches', () => {
  test('the difference, applied to the old, gives the new; and none is no difference', () => {
    fc.assert(fc.property(status, status, (old, next) => {
      const diff = mergeDiff(old, next);
      expect(canonical(diff === undefined ? old : applyMerge(old, diff))).toBe(canonical(next));
      expect(diff === undefined).toBe(canonical(old) === canonical(next));
    }), { numRuns: 500 });
  });

  test.each<[string, unknown, unknown, unknown]>([
    ['equal but for the order', { a: 1, b: 2 }, { b: 2, a: 1 }, undefined],
    ['undefined is absent', { a: 1 }, { a: 1, b: undefined }, undefined],
    ['a vanished key is a null', { a: 1, b: { c: 1, d: 2 } }, { b: { d: 2 } }, { a: null, b: { c: null } }],
    ['lists are whole', { l: [1, 2] }, { l: [2] }, { l: [2] }],
    ['only what changed', { conditions: [{ type: 'Ready' }], phase: 'Pending' }, { conditions: [{ type: 'Ready' }], phase: 'Running' }, { phase: 'Running' }],
  ])('%s', (_rule, old, next, diff) => {
    expect(mergeDiff(old, next)).toEqual(diff);
  });

  test('nothing changed: no request', async () => {
    const kube = makeFakeKube(Object.values(fakeKinds));
    const object = { metadata: { name: 'a', namespace: 'ns', resourceVersion: '1', finalizers: ['x'] }, status: { phase: 'Running', conditions: [] } };
    expect(await patchStatus(kube, fakeKinds.vm.resource, object, { conditions: [], phase: 'Running' })).toEqual({ is: 'same' });
    expect(await setFinalizers(kube, fakeKinds.vm.resource, object, ['x'])).toEqual({ is: 'same' });
    expect(kube.requests).toEqual([]);
  });
});
