import type { Held } from './frame.ts';
import { compareVersions } from './resource.ts';

/** Named functions from an object to the words it is found by. */
export type Indexes<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

/** How a list differs from what a cache held. */
export type Difference<T> = { present: Held<T>[]; gone: Held<T>[] };

/** Objects by key, and by index. Pure memory: it decides nothing but which of two versions is newer. */
export type Cache<T> = {
  get: (key: string) => Held<T> | undefined;
  list: () => readonly Held<T>[];
  /** Those that our schema understands. The array is the same until something changes. */
  objects: () => readonly T[];
  by: (index: string, word: string) => Held<T>[];
  /** Puts the object unless the same or a newer version is held; says whether it did. */
  put: (held: Held<T>) => boolean;
  /** Removes the object unless a version newer than `asOf` is held; gives what was removed. */
  remove: (key: string, asOf: string) => Held<T> | undefined;
  /** Becomes what a list of `asOf` said, but keeps what is newer than the list. */
  replace: (items: ReadonlyMap<string, Held<T>>, asOf: string) => Difference<T>;
  /**
   * Whether the newest list, of version `asOf`, is of another history than the one that this cache has followed without a gap up to version `followed`.
   * It is when it has an object of a version up to `followed` that the cache does not hold in this version: we have seen it deleted or changed. Our own
   * writes that are younger than the list do not count. So a restored etcd is recognised even when its version counter has overtaken ours again.
   */
  isForked: (items: ReadonlyMap<string, Held<T>>, asOf: string, followed: string) => boolean;
  /** Forgets everything; gives what was held. */
  drop: () => Held<T>[];
};

/** An empty cache. */
export const makeCache = <T>(indexes: Indexes<T> = {}): Cache<T> => {
  const objects = new Map<string, Held<T>>();
  let all: readonly Held<T>[] | undefined;
  let understood: readonly T[] | undefined;
  const words = new Map(Object.keys(indexes).map((name) => [name, new Map<string, Set<string>>()]));

  const wordsOf = (held: Held<T>): [Map<string, Set<string>>, string][] =>
    held.is === 'unparsable'
      ? []
      : [...words].flatMap(([name, found]) => [...new Set(indexes[name]?.(held.object))].map((word): [Map<string, Set<string>>, string] => [found, word]));

  const erase = (held: Held<T>): void => {
    objects.delete(held.key);
    [all, understood] = [undefined, undefined];
    for (const [found, word] of wordsOf(held)) {
      const keys = found.get(word);
      keys?.delete(held.key);
      if (keys?.size === 0) found.delete(word);
    }
  };
  const write = (held: Held<T>): void => {
    const old = objects.get(held.key);
    if (old !== undefined) erase(old);
    objects.set(held.key, held);
    [all, understood] = [undefined, undefined];
    for (const [found, word] of wordsOf(held)) found.set(word, (found.get(word) ?? new Set()).add(held.key));
  };
  const newerThan = (held: Held<T>, version: string): boolean => compareVersions(held.meta.resourceVersion, version) > 0;

  return {
    get: (key) => objects.get(key),
    list: () => (all ??= [...objects.values()]),
    objects: () => (understood ??= [...objects.values()].flatMap((held) => (held.is === 'object' ? [held.object] : []))),
    by: (index, word) => [...(words.get(index)?.get(word) ?? [])].flatMap((key) => objects.get(key) ?? []),
    put: (held) => {
      const old = objects.get(held.key);
      if (old !== undefined && (old.meta.resourceVersion === held.meta.resourceVersion || newerThan(old, held.meta.resourceVersion))) return false;
      write(held);
      return true;
    },
    remove: (key, asOf) => {
      const old = objects.get(key);
      if (old === undefined || newerThan(old, asOf)) return undefined;
      erase(old);
      return old;
    },
    replace: (items, asOf) => {
      const gone = [...objects.values()].filter((old) => !items.has(old.key) && !newerThan(old, asOf));
      const present = [...items.values()].filter((held) => {
        const old = objects.get(held.key);
        return old === undefined || (old.meta.resourceVersion !== held.meta.resourceVersion && !newerThan(old, held.meta.resourceVersion));
      });
      for (const old of gone) erase(old);
      for (const held of present) write(held);
      return { present, gone };
    },
    isForked: (items, asOf, followed) =>
      [...items.values()].some(({ key, meta: { resourceVersion } }) => {
        if (compareVersions(resourceVersion, followed) > 0) return false;
        const mine = objects.get(key);
        return mine === undefined || (mine.meta.resourceVersion !== resourceVersion && !newerThan(mine, asOf));
      }),
    drop: () => {
      const dropped = [...objects.values()];
      for (const held of dropped) erase(held);
      return dropped;
    },
  };
};
