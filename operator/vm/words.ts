import { canonical } from '#crds/kit/digest.ts';
import type { VmStatus } from '#crds/v1alpha1/virtualmachine.ts';

/** How many changes of a guest's word are written at once, and how often further ones. */
const mostAtOnce = 5;
const eachMs = 30_000;

const ofGuest = new Set(['GuestReady', 'CpusOffline']);

/** A status without what the guest alone may change as often as it likes: what it says of itself, and whether it is ready now. */
const withoutWords = (status: VmStatus): object => {
  const { guest: _, interfaces, conditions, ...rest } = status;
  const cards = interfaces?.map((nic) => {
    const { addresses: __, ...card } = nic;
    return card;
  });
  return { ...rest, interfaces: cards, conditions: conditions?.filter(({ type }) => !ofGuest.has(type)) };
};

/** Whether two statuses differ only in the guest's word. Its first of a run is more than that, as is the first time that it is ready. Pure. */
export const onlyWords = (before: VmStatus, after: VmStatus): boolean =>
  (before.guest !== undefined || after.guest === undefined) && canonical(withoutWords(before)) === canonical(withoutWords(after));

/**
 * Bounds how often the word of each guest is written: a few changes at once, then one in 30 s, so that no guest makes writes for
 * ever. What is known of it is lost with the process, which costs a few writes.
 */
export const makeWords = (monotonicMs: () => number) => {
  // When all that was written would have come at the slow pace.
  const paidAt = new Map<string, number>();
  return {
    /** How long the next change of this guest's word waits, in milliseconds. */
    waitMs: (uid: string): number => Math.max(0, (paidAt.get(uid) ?? 0) - (mostAtOnce - 1) * eachMs - monotonicMs()),
    /** One was written. */
    written: (uid: string): void => { paidAt.set(uid, Math.max(paidAt.get(uid) ?? 0, monotonicMs()) + eachMs); },
    forget: (uid: string): void => { paidAt.delete(uid); },
  };
};
