import { type FSWatcher, watch } from 'node:fs';
import type { Log } from '#crds/kit/log.ts';

/** Sees what happens in the directories of runs: QEMU writes its events there, the supervisor how it ended. */
export type Watcher = Disposable & {
  /** Begins to look at a machine's run; twice is fine. */
  add: (uid: string, directory: string) => void;
  remove: (uid: string) => void;
  /** Calls `changed` for whatever happens from now on. */
  listen: (changed: (uid: string) => void) => Disposable;
};

// A guest can have QEMU write events without end; nobody has to hear of each.
const quietMs = 200;
// The file `stderr` is not among them: nothing is decided by it.
const telling: ReadonlySet<string | null> = new Set(['events', 'exit', null]);

type Watched = { directory: string; watcher: FSWatcher; again: boolean; rest?: NodeJS.Timeout };

/** A watcher of runs, by inotify(7) or what the platform has. The first change is told at once, those that follow it soon after. What it misses is found by the next look. */
export const makeWatcher = (log: Log): Watcher => {
  const watched = new Map<string, Watched>();
  const listeners = new Set<(uid: string) => void>();
  const remove = (uid: string): void => {
    const it = watched.get(uid);
    it?.watcher.close();
    clearTimeout(it?.rest);
    watched.delete(uid);
  };
  const happened = (uid: string): void => {
    const it = watched.get(uid);
    if (!it) return;
    if (it.rest) {
      it.again = true;
      return;
    }
    it.rest = setTimeout(() => {
      delete it.rest;
      if (!it.again) return;
      it.again = false;
      happened(uid);
    }, quietMs).unref();
    for (const changed of listeners) changed(uid);
  };
  return {
    add: (uid, directory) => {
      if (watched.get(uid)?.directory === directory) return;
      remove(uid);
      try {
        const watcher = watch(directory, { persistent: false }, (_, name) => { if (telling.has(name)) happened(uid); });
        watcher.on('error', () => remove(uid));
        watched.set(uid, { directory, watcher, again: false });
      } catch (thrown) {
        log.warn({ uid, err: thrown }, 'the events of a machine can not be watched; it is looked at from time to time');
      }
    },
    remove,
    listen: (changed) => {
      listeners.add(changed);
      return { [Symbol.dispose]: () => void listeners.delete(changed) };
    },
    [Symbol.dispose]: () => {
      for (const uid of watched.keys()) remove(uid);
    },
  };
};
