import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { CelRule } from './meta.ts';

/** The fault of a schema that can not become a CRD: which field, and why. */
export const notStructural = (path: string, why: string): Fault => new Fault('SchemaNotStructural', `${path}: ${why}`, { retry: 'never' });

/** `x-kubernetes-validations`, as it stands in a schema's meta. */
export const celRules = z.array(
  z.strictObject({ rule: z.string(), message: z.string(), fieldPath: z.string().optional() })
    .transform(({ rule, message, fieldPath }): CelRule => (fieldPath === undefined ? { rule, message } : { rule, message, fieldPath })),
);

/**
 * Throws where zod's converter would forget something without a word, so that zod would refuse what the API server
 * accepts: a refine without its CEL half, regex flags, values changed while parsing, types that a CRD does not know.
 */
export const assertLossless = (schema: z.core.$ZodType, path: string): void => {
  const { def } = known(schema)._zod;
  assertChecks(schema, def.checks ?? [], path);
  if (def.type === 'object') {
    for (const [name, member] of Object.entries(def.shape)) assertLossless(member, `${path}.${name}`);
  } else if (def.type === 'array') assertLossless(def.element, `${path}[]`);
  else if (def.type === 'optional' || def.type === 'default' || def.type === 'prefault') assertLossless(def.innerType, path);
  else if (!scalars.has(def.type)) throw notStructural(path, `zod type "${def.type}" has no counterpart in a CRD${advice[def.type] ?? ''}`);
};

const scalars = new Set(['string', 'number', 'boolean', 'enum', 'literal']);

const advice: Readonly<Record<string, string>> = {
  union: ': make the members optional, with a rule that exactly one is given',
  record: ': a list keyed by name can be owned item by item',
  pipe: ': parse here, change the value elsewhere',
  nullable: ': leave the field out instead',
};

// Every zod schema is one of $ZodTypes; zod's own declarations only say so of the union's members.
const known = (schema: z.core.$ZodType): z.core.$ZodTypes => schema as z.core.$ZodTypes;

const assertChecks = (schema: z.core.$ZodType, checks: readonly z.core.$ZodCheck[], path: string): void => {
  const meta = z.globalRegistry.get(schema) ?? {};
  const rules = celRules.parse(meta['x-kubernetes-validations'] ?? []).filter(({ rule }) => !rule.includes('oldSelf')).length;
  // The keys of a list map, and a length counted in characters (text()), are the refinements that need no rule.
  const native = meta['x-kubernetes-list-type'] === 'map' || meta['maxLength'] !== undefined ? 1 : 0;
  const refined = checks.filter((check) => check._zod.def.check === 'custom').length;
  if (refined > rules + native) throw notStructural(path, 'a refine without a CEL rule: use ruled(), listMap() or text()');
  for (const { _zod: { def } } of checks) {
    if (def.check === 'overwrite') throw notStructural(path, 'a value can not be changed while parsing');
    if ('pattern' in def && def.pattern instanceof RegExp && def.pattern.flags !== '') throw notStructural(path, 'the flags of a pattern are lost in a CRD');
  }
};
