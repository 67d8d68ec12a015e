import type { Held } from './kube/frame.ts';

/**
 * A synced view of all objects of one kind. Keys are `namespace/name`, or `name` for a cluster-scoped kind. `all` is everything that is there,
 * also what our schema refuses: that is not in `get` and `list`, and yet it is not gone.
 */
export type Cache<T> = { get: (key: string) => T | undefined; list: () => readonly T[]; all: () => readonly Held<T>[] };
