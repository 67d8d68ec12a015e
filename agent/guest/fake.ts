import type { GuestRun, Guests, GuestSight } from './driver.ts';

/** Pretend guests; a test says what is seen in them. */
export type FakeGuests = Guests & {
  followed: Map<string, GuestRun>;
  /** Lets something be seen in the run that is followed. */
  show: (uid: string, sight: Omit<GuestSight, 'startId'>) => void;
};

/** Guests in memory. `changed` is called as by the real ones. */
export const makeFakeGuests = (changed: (uid: string) => void = () => {}): FakeGuests => {
  const followed = new Map<string, GuestRun>();
  const seen = new Map<string, GuestSight>();
  return {
    followed,
    follow: (run) => {
      if (followed.get(run.uid)?.startId !== run.startId) seen.delete(run.uid);
      followed.set(run.uid, run);
    },
    leave: (uid) => {
      followed.delete(uid);
      seen.delete(uid);
    },
    observe: (uid) => seen.get(uid),
    show: (uid, sight) => {
      const run = followed.get(uid);
      if (!run) throw new Error(`nobody follows ${uid}`);
      seen.set(uid, { startId: run.startId, ...sight });
      changed(uid);
    },
  };
};
