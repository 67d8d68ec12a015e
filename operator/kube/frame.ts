import { z } from 'zod';
import { messageOf } from '#crds/kit/fault.ts';
import { type ObjectMeta, objectMeta } from '#crds/v1alpha1/meta.ts';
import { keyOf } from './resource.ts';

/** An object of the cluster as our caches hold it. One that our schema refuses is kept too: unknown is not empty. */
export type Held<T> =
  | { is: 'object'; key: string; meta: ObjectMeta; object: T }
  | { is: 'unparsable'; key: string; meta: ObjectMeta; message: string; raw: unknown };

const base = z.looseObject({ metadata: z.looseObject({ managedFields: z.unknown().optional() }) });

/**
 * Parses an object at the door: its metadata must be readable (else it throws, and the whole answer is worthless), the rest may be
 * refused by `parse`. managedFields are dropped. Lists of CRs leave apiVersion and kind in each item, those of built-in kinds do not.
 */
export const hold = <T>(raw: unknown, parse: (raw: unknown) => T): Held<T> => {
  const loose = base.parse(raw);
  const { managedFields: _dropped, ...metadata } = loose.metadata;
  const slim = { ...loose, metadata };
  const meta = objectMeta.parse(metadata);
  const key = keyOf(meta);
  try {
    return { is: 'object', key, meta, object: parse(slim) };
  } catch (thrown) {
    return { is: 'unparsable', key, meta, message: explain(thrown), raw: slim };
  }
};

/** What zod refused, in one bounded sentence. */
const explain = (thrown: unknown): string => {
  const issues = thrown instanceof z.ZodError ? thrown.issues.slice(0, 3).map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ') : messageOf(thrown);
  return issues.slice(0, 500);
};

const bookmark = z.object({ metadata: z.object({ resourceVersion: z.string(), annotations: z.record(z.string(), z.string()).nullish() }) });

/** One frame of a watch. Source: k8s.io/apimachinery/pkg/watch EventType. */
export type Frame =
  | { is: 'put' | 'gone'; raw: unknown }
  | { is: 'bookmark'; resourceVersion: string; endOfInitialEvents: boolean }
  | { is: 'error'; status: unknown }
  | { is: 'unknown'; type: string };

const envelope = z.object({ type: z.string(), object: z.unknown() });

/** Parses one line of a watch; throws when it is none. A type of a newer server is `unknown`. */
export const parseFrame = (line: unknown): Frame => {
  const { type, object } = envelope.parse(line);
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
      return { is: 'put', raw: object };
    case 'DELETED':
      return { is: 'gone', raw: object };
    case 'BOOKMARK': {
      const { metadata } = bookmark.parse(object);
      return { is: 'bookmark', resourceVersion: metadata.resourceVersion, endOfInitialEvents: metadata.annotations?.['k8s.io/initial-events-end'] === 'true' };
    }
    case 'ERROR':
      return { is: 'error', status: object };
    default:
      return { is: 'unknown', type };
  }
};

/** One page of a list. */
export const page = z.object({
  metadata: z.object({ resourceVersion: z.string().min(1), continue: z.string().optional() }),
  items: z.array(z.unknown()).nullish().transform((items) => items ?? []),
});
