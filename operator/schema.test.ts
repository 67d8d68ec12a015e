import { expect, test } from '@jest/globals';
import { revisionAnnotation, toCrd } from '#crds/v1alpha1/crd.ts';
import { kinds } from '#crds/v1alpha1/kinds.ts';
import { virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { judgeSchema } from './schema.ts';

/** A CRD as another build would have made it. */
const other = (change: (statusFields: Record<string, unknown>) => void): unknown => {
  const crd = structuredClone(toCrd(virtualMachineKind));
  crd.metadata.annotations[revisionAnnotation] = 'another';
  for (const { schema } of crd.spec.versions) change(Object(Object(schema.openAPIV3Schema.properties['status'])['properties']));
  return crd;
};

test.each(kinds)('the CRD of $kind of this build fits', (kind) => {
  expect(judgeSchema(kind, toCrd(kind))).toEqual({ is: 'fits' });
});

test('one that lacks a field is older, and the field is named', () => {
  expect(judgeSchema(virtualMachineKind, other((fields) => { delete fields['epoch']; }))).toEqual({ is: 'older', lacks: ['.status.epoch'] });
});

test('a field within a list counts too', () => {
  const verdict = judgeSchema(virtualMachineKind, other((fields) => { delete Object(Object(Object(fields['conditions'])['items'])['properties'])['reason']; }));
  expect(verdict).toEqual({ is: 'older', lacks: ['.status.conditions[].reason'] });
});

test('a newer one, with more fields, fits', () => {
  expect(judgeSchema(virtualMachineKind, other((fields) => { fields['colour'] = { type: 'string' }; }))).toEqual({ is: 'fits' });
});

test('one that serves another version lacks everything', () => {
  expect(judgeSchema(virtualMachineKind, { metadata: {}, spec: { versions: [] } }).is).toBe('older');
});
