import { type FSWatcher, watch } from 'node:fs';
import type { Log } from '../../vm/hands.ts';

/** Sees what happens in the directories of runs: QEMU writes its events there, the supervisor how it ended. */
export type Watcher = Disposable & {
  /** Begins to look at a machine's run; twice is fine. */
  add: (uid: string, directory: string) => void;
  remove: (uid: string) => void;
  /** Uids that are looked at, and the directories of their runs. */
  runs: () => [uid: string, directory: string][];
  /** Calls `changed` for whatever happens from now on. */
  listen: (changed: (uid: string) => void) => Disposable;
};

/** A watcher of runs, by inotify(7) or what the platform has. What it misses is found by the next look. */
export const makeWatcher = (log: Log): Watcher => {
  const watched = new Map<string, { directory: string; watcher: FSWatcher }>();
  const listeners = new Set<(uid: string) => void>();
  const remove = (uid: string): void => {
    watched.get(uid)?.watcher.close();
    watched.delete(uid);
  };
  return {
    add: (uid, directory) => {
      if (watched.get(uid)?.directory === directory) return;
      remove(uid);
      try {
        const watcher = watch(directory, { persistent: false }, () => listeners.forEach((changed) => changed(uid)));
        watcher.on('error', () => remove(uid));
        watched.set(uid, { directory, watcher });
      } catch (thrown) {
        log.warn({ uid, err: thrown }, 'the events of a machine can not be watched; it is looked at from time to time');
      }
    },
    remove,
    runs: () => [...watched].map(([uid, { directory }]) => [uid, directory]),
    listen: (changed) => {
      listeners.add(changed);
      return { [Symbol.dispose]: () => void listeners.delete(changed) };
    },
    [Symbol.dispose]: () => {
      for (const uid of watched.keys()) remove(uid);
    },
  };
};
