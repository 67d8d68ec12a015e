import { z } from 'zod';
import { sizePattern, toMiB } from '#crds/kit/quantity.ts';

/** The API group of every Strato kind. */
export const group = 'strato.dev';
/** The version of every Strato kind. */
export const version = 'v1alpha1';
/** `apiVersion` of every Strato object. */
export const apiVersion = `${group}/${version}`;

/** One CEL rule of a CRD. Source: Kubernetes, "CRD validation rules". */
export type CelRule = { rule: string; message: string; fieldPath?: string };

/**
 * Puts one rule into both worlds: CEL for the API server, `holds` for zod. A property test proves that they agree.
 * Rules about `oldSelf` have no zod half: use `transition`.
 */
export const ruled = <T extends z.ZodType>(schema: T, cel: CelRule, holds: (value: z.output<T>) => boolean): T => {
  const refined = schema.refine((value) => holds(value), { error: cel.message });
  return refined.meta({ ...schema.meta(), 'x-kubernetes-validations': [...rulesOf(schema), cel] });
};

/** Adds a CEL rule that compares with the old object; only the API server can check it. */
export const transition = <T extends z.ZodType>(schema: T, cel: CelRule): T =>
  schema.meta({ ...schema.meta(), 'x-kubernetes-validations': [...rulesOf(schema), cel] });

const rulesOf = (schema: z.ZodType): CelRule[] => {
  const rules = schema.meta()?.['x-kubernetes-validations'];
  return Array.isArray(rules) ? rules : [];
};

/** A list merged by key (`x-kubernetes-list-type: map`), so that two appliers can own different items. */
export const listMap = <T extends z.ZodType<Record<string, unknown>>>(item: T, key: string, bounds: { min?: number; max: number }) =>
  z.array(item).min(bounds.min ?? 0).max(bounds.max)
    .refine((items) => new Set(items.map((each) => each[key])).size === items.length, { error: `two items have the same ${key}` })
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': [key] });

/**
 * Free text of at most `max` characters. zod's own `max` counts UTF-16 units, the API server counts code points: an emoji
 * is two of the former and one of the latter.
 */
export const text = (max: number, min = 0) =>
  z.string().min(min).refine((value) => value.length <= max || Array.from(value).length <= max, { error: `too long: at most ${max} characters` }).meta({ maxLength: max });

/** A DNS label (RFC 1123): lower-case letters, digits and dashes. */
export const label = (maxLength: number) => z.string().min(1).max(maxLength).regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/);

/** A name of an object in the same namespace (RFC 1123 subdomain). */
export const objectName = () =>
  z.string().min(1).max(253).regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);

/** A size in whole MiB within bounds that are given as sizes too. */
export const size = (least: string, most: string) =>
  ruled(
    z.string().max(10).regex(new RegExp(sizePattern)),
    {
      rule: `quantity(self).compareTo(quantity('${least}')) >= 0 && quantity(self).compareTo(quantity('${most}')) <= 0`,
      message: `must be between ${least} and ${most}, in whole Mi, Gi or Ti`,
    },
    (value) => toMiB(value) >= toMiB(least) && toMiB(value) <= toMiB(most),
  );

/** A condition as every Kubernetes kind has it. Source: KEP-1623. */
export const condition = z.object({
  type: z.string().max(64).describe('Name of the condition.'),
  status: z.enum(['True', 'False', 'Unknown']).describe('Whether the condition holds.'),
  observedGeneration: z.int32().describe('The generation of the spec that this verdict is about.'),
  lastTransitionTime: z.string().max(40).describe('When `status` last changed (RFC 3339).'),
  reason: z.string().max(64).describe('One word for machines; each is explained in docs/conditions.md.'),
  message: z.string().max(4096).describe('A sentence for people.'),
}).describe('One verdict about this object.');

/** A condition as every Kubernetes kind has it. */
export type Condition = z.output<typeof condition>;

/** The list of conditions of a status. */
export const conditions = () =>
  z.array(condition).max(16)
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
    .describe('The verdicts about this object, one a type.');

/** The part of object metadata that Strato reads. Anything else in it is kept out of memory. */
export const objectMeta = z.object({
  name: z.string(),
  namespace: z.string().optional(),
  uid: z.string(),
  resourceVersion: z.string(),
  generation: z.number().default(0),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).default([]),
  annotations: z.record(z.string(), z.string()).default({}),
  labels: z.record(z.string(), z.string()).default({}),
});

/** The part of object metadata that Strato reads. */
export type ObjectMeta = z.output<typeof objectMeta>;

/** A column that `kubectl get` prints; `wide` ones only with `-o wide`. */
export type Column = { name: string; type: 'string' | 'integer' | 'date'; jsonPath: string; description: string; wide?: boolean };

/** Everything a CRD is made from. */
export type Kind = {
  kind: string;
  plural: string;
  singular: string;
  shortNames: string[];
  scope: 'Namespaced' | 'Cluster';
  description: string;
  spec: z.ZodType;
  status: z.ZodType;
  columns: Column[];
};
