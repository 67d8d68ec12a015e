import { describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { conditionTypes } from './conditiontypes.ts';
import { toCrd } from './crd.ts';
import { kinds } from './kinds.ts';
import { policies } from './policy.ts';
import type { Structural } from './structural.ts';

const allOf = (schema: Structural): Structural[] => [schema, ...Object.values(schema.properties ?? {}).flatMap(allOf), ...(schema.items ? allOf(schema.items) : [])];

describe.each(kinds.map((kind) => [kind.kind, kind] as const))('the CRD of %s', (_name, kind) => {
  const crd = toCrd(kind);
  const [version] = crd.spec.versions;
  const properties = version?.schema.openAPIV3Schema.properties ?? {};
  const fields = ['spec', 'status'].flatMap((part) => {
    const schema = properties[part];
    return schema && 'type' in schema && 'properties' in schema ? allOf(schema) : [];
  });

  test('is below 100 KB, so that a client-side apply with its annotation fits', () => {
    expect(Buffer.byteLength(stringify(crd, { lineWidth: 0 }))).toBeLessThan(100_000);
    expect(Buffer.byteLength(JSON.stringify(crd))).toBeLessThan(100_000);
  });

  test('describes every field', () => {
    expect(fields.length).toBeGreaterThan(5);
    const silent = fields.flatMap(({ properties: members = {} }) => Object.entries(members)).filter(([, { description }]) => description === undefined || description.length < 3);
    expect(silent).toEqual([]);
  });

  test('bounds every text and list', () => {
    const loose = fields.filter(({ type, maxLength, maxItems, enum: words }) => (type === 'string' && maxLength === undefined && words === undefined) || (type === 'array' && maxItems === undefined));
    expect(loose).toEqual([]);
  });

  test('has a default for scalars and the roots alone, and a status of its own that says it was not seen yet', () => {
    expect(properties['status']).toMatchObject({ default: { observedGeneration: -1 }, 'x-kubernetes-map-type': 'atomic' });
    expect(version?.subresources).toEqual({ status: {} });
  });

  test('has columns, a short name and the category', () => {
    expect(version?.additionalPrinterColumns.map(({ name }) => name)).toEqual(expect.arrayContaining(['Ready', 'Age']));
    expect(crd.spec.names).toMatchObject({ categories: ['strato'], shortNames: expect.arrayContaining([expect.any(String)]) });
  });
});

test('policies fail closed and forbid', () => {
  expect(policies.map(({ spec }) => [spec.failurePolicy, spec.validations.map(({ reason }) => reason)])).toEqual(policies.map(() => ['Fail', ['Forbidden']]));
});

test('every condition type says on which kinds it is', () => {
  const known: string[] = kinds.map(({ kind }) => kind);
  expect(Object.values(conditionTypes).flatMap(([on]) => on).filter((kind) => !known.includes(kind))).toEqual([]);
});
