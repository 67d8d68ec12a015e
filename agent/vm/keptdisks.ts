import type { Clock } from '#crds/kit/clock.ts';
import type { Log } from '#crds/kit/log.ts';
import type { Storage } from '../storage/driver.ts';
import type { Ledger } from './ledger.ts';
import { persist } from './persist.ts';

/** What the keeper of disks that have outlived their VMs needs. `absent`: nothing of one is here any more. */
export type DiskHouse = { ledger: Ledger; storage: Pick<Storage, 'removeKept'>; clock: Clock; log: Log; chance: () => number; absent: (uid: string) => void };

/** Removes the kept disks that a tombstone has ended. */
export type DiskKeeper = {
  /** The ledger's entry of this disk is new: its files are removed when it is ending. */
  take: (uid: string) => void;
  /** Resolves when no removal is under way any more. */
  done: () => Promise<void>;
};

const removeMs = 30_000;

/** A keeper of disks that have outlived their VMs. A removal that fails is tried again until it succeeds or `stop` aborts. */
export const makeDiskKeeper = (house: DiskHouse, stop: AbortSignal): DiskKeeper => {
  const { ledger, storage, log } = house;
  const removing = new Map<string, Promise<void>>();
  const remove = async (uid: string): Promise<void> => {
    const removed = await persist(house, `removing kept disk ${uid}`, removeMs, async (signal) => {
      await storage.removeKept(uid, signal);
      await ledger.end(uid);
    }, stop);
    if (!removed) return;
    log.info({ uid }, 'kept disk removed');
    house.absent(uid);
  };
  return {
    take: (uid) => {
      const entry = ledger.entries().get(uid);
      if (entry?.kind !== 'disk' || !entry.ending || removing.has(uid)) return;
      removing.set(uid, remove(uid).finally(() => removing.delete(uid)));
    },
    done: async () => void (await Promise.all(removing.values())),
  };
};
