import { z } from 'zod';
import { assertLossless, celRules, notStructural } from './lossless.ts';
import type { CelRule } from './meta.ts';

/** A structural schema, the part of OpenAPI v3 that a CRD may use. Source: Kubernetes, "Specifying a structural schema". */
export type Structural = {
  type: 'object' | 'array' | 'string' | 'integer' | 'boolean';
  description?: string;
  format?: 'int32' | 'int64';
  default?: unknown;
  enum?: string[];
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Structural>;
  required?: string[];
  items?: Structural;
  'x-kubernetes-list-type'?: 'map' | 'atomic';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-map-type'?: 'atomic';
  'x-kubernetes-validations'?: CelRule[];
};

/**
 * The structural schema of a zod object. Whatever the API server would read differently from zod, or would refuse, is a
 * `SchemaNotStructural` fault that names the field: unions, formats, transforms, rules without a CEL half, regex flags,
 * a missing description or bound, a default inside a list. `root` is the name of the field, for those messages.
 */
export const toStructural = (schema: z.ZodType, root: string): Structural => {
  assertLossless(schema, root);
  const json = z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input', reused: 'inline', cycles: 'throw', unrepresentable: 'throw' });
  const adapted = adapt(json, { path: root, inList: false });
  describeAll(adapted, root);
  return adapted;
};

type Place = { path: string; inList: boolean };

const adapt = (node: unknown, at: Place): Structural => {
  if (!isRecord(node)) throw notStructural(at.path, 'not a schema');
  for (const keyword of Object.keys(node)) {
    if (!(keyword in readers)) throw notStructural(at.path, `"${keyword}" can not be used in a CRD${advice[keyword] ?? ''}`);
  }
  if (node['default'] !== undefined && at.inList) throw notStructural(at.path, 'a default inside a list makes every applied list differ from its file');
  const type = types.get(String(node['type']));
  if (type === undefined) throw notStructural(at.path, `type "${node['type']}" can not be used in a CRD`);
  const out: Structural = { type };
  for (const read of Object.values(readers)) read(node, out, at);
  bound(out, at.path);
  return out;
};

const types = new Map<string, Structural['type']>([['object', 'object'], ['array', 'array'], ['string', 'string'], ['integer', 'integer'], ['boolean', 'boolean']]);

const advice: Readonly<Record<string, string>> = {
  anyOf: ': make the members optional and add a rule that exactly one is given',
  oneOf: ': make the members optional and add a rule that exactly one is given',
  allOf: ': give a string one pattern only',
  $ref: ': do not register an id',
  format: ': zod and the API server read formats differently; use a pattern',
};

type Read = (node: Record<string, unknown>, out: Structural, at: Place) => void;

const copyText = (key: 'description' | 'pattern'): Read => (node, out) => {
  const value = node[key];
  if (typeof value === 'string') out[key] = value;
};
const copyNumber = (key: 'minLength' | 'maxLength' | 'minimum' | 'maximum' | 'minItems' | 'maxItems'): Read => (node, out) => {
  const value = node[key];
  if (typeof value === 'number') out[key] = value;
};

/** One reader a keyword, in the order in which they are printed. A keyword without a reader is refused. */
const readers: Readonly<Record<string, Read>> = {
  type: () => undefined,
  description: copyText('description'),
  default: (node, out) => {
    if (node['default'] !== undefined) out.default = node['default'];
  },
  enum: (node, out, at) => {
    if (node['enum'] !== undefined) out.enum = texts(node['enum'], at.path);
  },
  pattern: copyText('pattern'),
  minLength: copyNumber('minLength'),
  maxLength: copyNumber('maxLength'),
  minimum: copyNumber('minimum'),
  maximum: copyNumber('maximum'),
  minItems: copyNumber('minItems'),
  maxItems: copyNumber('maxItems'),
  'x-kubernetes-list-type': (node, out) => {
    // Without it a list is atomic anyway; said aloud, so that nobody has to know.
    if (out.type === 'array') out['x-kubernetes-list-type'] = node['x-kubernetes-list-type'] === 'map' ? 'map' : 'atomic';
  },
  'x-kubernetes-list-map-keys': (node, out, at) => {
    const keys = node['x-kubernetes-list-map-keys'];
    if (keys !== undefined) out['x-kubernetes-list-map-keys'] = texts(keys, at.path);
  },
  'x-kubernetes-validations': (node, out) => {
    const rules = node['x-kubernetes-validations'];
    if (rules !== undefined) out['x-kubernetes-validations'] = celRules.parse(rules);
  },
  additionalProperties: (node, _out, at) => {
    // strictObject says false; in a CRD pruning does that job, and the API server refuses both together.
    const value = node['additionalProperties'];
    if (value !== undefined && value !== false) throw notStructural(at.path, 'maps are not used: a list keyed by name can be owned item by item');
  },
  required: (node, out, at) => {
    if (node['required'] !== undefined) out.required = texts(node['required'], at.path);
  },
  properties: (node, out, at) => {
    const members = node['properties'];
    if (!isRecord(members)) return;
    out.properties = {};
    for (const [name, member] of Object.entries(members)) {
      const path = `${at.path}.${name}`;
      const child = adapt(member, { path, inList: at.inList });
      const always = (out.required ?? []).includes(name) || child.default !== undefined;
      if (!always && hasDefault(child)) throw notStructural(path, 'has members with defaults, so it needs .prefault({})');
      out.properties[name] = child;
    }
  },
  items: (node, out, at) => {
    if (node['items'] !== undefined) out.items = adapt(node['items'], { path: `${at.path}[]`, inList: true });
  },
};

const hasDefault = (schema: Structural): boolean =>
  Object.values(schema.properties ?? {}).some((child) => child.default !== undefined || hasDefault(child));

/** The cost of a CEL rule is estimated from bounds: one unbounded value makes the API server refuse the whole CRD. */
const bound = (out: Structural, path: string): void => {
  if (out.type === 'string' && out.maxLength === undefined && out.enum === undefined) throw notStructural(path, 'a string needs a maximum length');
  if (out.type === 'array' && out.maxItems === undefined) throw notStructural(path, 'a list needs a maximum number of items');
  if (out.type !== 'integer') return;
  const { minimum, maximum } = out;
  if (minimum === undefined || maximum === undefined) throw notStructural(path, 'an integer needs both bounds');
  out.format = minimum >= -(2 ** 31) && maximum < 2 ** 31 ? 'int32' : 'int64';
};

const describeAll = (schema: Structural, path: string): void => {
  if (schema.description === undefined || schema.description === '') throw notStructural(path, 'has no description');
  for (const [name, child] of Object.entries(schema.properties ?? {})) describeAll(child, `${path}.${name}`);
  for (const [name, child] of Object.entries(schema.items?.properties ?? {})) describeAll(child, `${path}[].${name}`);
};

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const texts = (value: unknown, path: string): string[] => {
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) throw notStructural(path, 'expected a list of strings');
  return [...value];
};
