import { jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault } from '#crds/kit/fault.ts';
import type { ImageStore } from '../image/store.ts';
import type { Entry } from './entry.ts';
import type { Log } from './hands.ts';
import type { Ledger } from './ledger.ts';
import { within } from './within.ts';

/** What the keeper of images needs. `changed`: something is to be told of an image; `absent`: no copy of it is here any more. */
export type ImageHouse = {
  ledger: Ledger;
  images: ImageStore;
  clock: Clock;
  log: Log;
  chance: () => number;
  changed: (uid: string) => void;
  absent: (uid: string) => void;
};

/** Brings the image store in line with the ledger. */
export type ImageKeeper = Disposable & {
  /** The ledger's entry of this image is new: has it imported, or removed when it is ending. */
  take: (uid: string) => void;
  /** Resolves when no removal is under way any more. */
  done: () => Promise<void>;
};

const removeMs = 30_000;
const again = { baseMs: 1_000, maxMs: 60_000 };

/** A keeper of images. A removal that fails is tried again until it succeeds or `stop` aborts. */
export const makeImageKeeper = (house: ImageHouse, stop: AbortSignal): ImageKeeper => {
  const { ledger, images, clock, log } = house;
  const removing = new Map<string, Promise<void>>();
  const watching = images.watch(house.changed);
  images.protect(() => imagesInUse(ledger.entries().values()));

  const remove = async (uid: string): Promise<void> => {
    for (let attempt = 0; !stop.aborted; attempt += 1) {
      try {
        await within(removeMs, stop, `removing image ${uid}`, (signal) => images.remove(uid, signal));
        await ledger.end(uid);
        log.info({ uid }, 'image removed');
        return house.absent(uid);
      } catch (thrown) {
        if (stop.aborted) return;
        const { code, message } = asFault(thrown, 'ImageRemoveFailed', `removing image ${uid}`);
        log.warn({ uid, code, err: message }, 'an image could not be removed');
        await clock.sleep(jittered(again, attempt, house.chance()), stop).catch(() => {});
      }
    }
  };

  return {
    take: (uid) => {
      const entry = ledger.entries().get(uid);
      if (entry?.kind !== 'image') return;
      if (!entry.ending) {
        images.want(entry.desired);
        return house.changed(uid);
      }
      if (removing.has(uid)) return;
      removing.set(uid, remove(uid).finally(() => removing.delete(uid)));
    },
    done: async () => void (await Promise.all(removing.values())),
    [Symbol.dispose]: () => watching[Symbol.dispose](),
  };
};

/** The images that VMs of the node start from, whether they run or not. Pure. */
export const imagesInUse = (entries: Iterable<Entry>): ReadonlySet<string> =>
  new Set([...entries].flatMap((entry) => (entry.kind === 'vm' ? (entry.desired?.disks ?? []) : [])).flatMap(({ imageUid }) => imageUid ?? []));
