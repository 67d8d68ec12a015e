import type { Held } from './kube/frame.ts';

/**
 * A synced view of all objects of one kind. Keys are `namespace/name`, or `name` for a cluster-scoped kind. `all` is everything that is there,
 * also what our schema refuses: that is not in `get` and `list`, and yet it is not gone.
 */
export type Cache<T> = { get: (key: string) => T | undefined; list: () => readonly T[]; all: () => readonly Held<T>[] };

/** What is made of a list, made once for as long as that list is the same array. `make` is pure. */
export const onceFor = <L extends object, R>(make: (list: L) => R): ((list: L) => R) => {
  const made = new WeakMap<L, { result: R }>();
  return (list) => {
    const known = made.get(list) ?? { result: make(list) };
    made.set(list, known);
    return known.result;
  };
};
