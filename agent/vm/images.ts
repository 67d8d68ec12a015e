import type { Clock } from '#crds/kit/clock.ts';
import type { Log } from '#crds/kit/log.ts';
import type { ImageStore } from '../image/store.ts';
import type { Entry } from './entry.ts';
import type { Ledger } from './ledger.ts';
import { persist } from './persist.ts';

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

/** A keeper of images. A removal that fails is tried again until it succeeds or `stop` aborts. */
export const makeImageKeeper = (house: ImageHouse, stop: AbortSignal): ImageKeeper => {
  const { ledger, images, log } = house;
  const removing = new Map<string, Promise<void>>();
  const watching = images.watch(house.changed);
  images.protect(() => imagesInUse(ledger.entries().values()));

  const remove = async (uid: string): Promise<void> => {
    const removed = await persist(house, `removing image ${uid}`, removeMs, async (signal) => {
      await images.remove(uid, signal);
      await ledger.end(uid);
    }, stop);
    if (!removed) return;
    log.info({ uid }, 'image removed');
    house.absent(uid);
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
