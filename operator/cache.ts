/** A synced view of all objects of one kind. Keys are `namespace/name`, or `name` for a cluster-scoped kind. */
export type Cache<T> = { get: (key: string) => T | undefined; list: () => readonly T[] };
