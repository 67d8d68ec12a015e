import type { ObjectMeta } from '#crds/v1alpha1/meta.ts';
import type { Cache } from './cache.ts';
import { keyOf } from './kube/resource.ts';

/** A cache over objects of a test, as they are at each look. `odd` are objects that our schema refuses. */
export const fakeCache = <T extends { metadata: ObjectMeta }>(read: () => readonly T[], odd: readonly ObjectMeta[] = []): Cache<T> => ({
  get: (key) => read().find(({ metadata }) => keyOf(metadata) === key),
  list: read,
  all: () => [
    ...read().map((object) => ({ is: 'object' as const, key: keyOf(object.metadata), meta: object.metadata, object })),
    ...odd.map((meta) => ({ is: 'unparsable' as const, key: keyOf(meta), meta, message: 'spec: it is odd', raw: { metadata: meta } })),
  ],
});
