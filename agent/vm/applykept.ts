import { Fault } from '#crds/kit/fault.ts';
import { type DiskEntry, type VmEntry, writeEntry } from './entry.ts';
import type { Hands, Scratch } from './hands.ts';
import { movingOf, ownerOf } from './retain.ts';

/**
 * Puts a disk aside that no machine has, so that it outlives the VM. It is remembered before its files move, and is the VM's until they have
 * moved; without effect when there is no such disk. Faults: KeptDisksFull, DiskConflict, StorageFailed.
 */
export const keepDisk = async (hands: Hands, scratch: Scratch, entry: VmEntry, name: string, signal: AbortSignal): Promise<void> => {
  const { ledger, storage } = hands;
  const { uid } = entry;
  const begun = await beginKeeping(hands, entry, name, signal);
  const now = begun && (await storage.keep({ uid, name, kept: begun.uid, record: writeEntry({ ...begun, moving: null }) }, signal));
  scratch.places.delete(name);
  await ledger.change(uid, (mine) => (mine.disks.includes(name) ? { ...mine, disks: mine.disks.filter((each) => each !== name) } : mine));
  if (!begun) return;
  if (now?.is === 'kept') await ledger.changeDisk(begun.uid, (mine) => ({ ...mine, sizeMiB: now.sizeMiB ?? mine.sizeMiB, moving: null }));
  else await ledger.end(begun.uid);
  hands.keptChanged();
};

/** The record of a disk that is being kept; undefined when the VM has no such disk. */
const beginKeeping = async ({ ledger, storage, newId }: Hands, entry: VmEntry, name: string, signal: AbortSignal): Promise<DiskEntry | undefined> => {
  const begun = movingOf(ledger.disks(), entry.uid, name);
  if (begun) {
    await ledger.changeDisk(begun.uid, (mine) => (mine.moving?.is === 'taking' ? { ...mine, moving: { ...mine.moving, is: 'keeping' } } : mine));
    return begun;
  }
  // A damaged disk is kept like any other.
  const seen = await storage.observe(entry.uid, name, signal).catch((thrown: unknown) => {
    if (thrown instanceof Fault && (thrown.code === 'DiskDamaged' || thrown.code === 'DiskMissing')) return { is: 'ready' as const, sizeMiB: 0 };
    throw thrown;
  });
  if (seen.is === 'absent') return undefined;
  const owner = ownerOf(entry, name);
  if (!owner) throw new Fault('StorageFailed', `disk ${name} of VM ${entry.uid} can not be kept: nobody has said in which namespace the VM is`, { retry: 'later' });
  const fresh: DiskEntry = { kind: 'disk', uid: newId(), owner, order: entry.order, ending: false, sizeMiB: seen.sizeMiB, moving: { is: 'keeping', vmUid: entry.uid } };
  await ledger.putDisk(fresh);
  return fresh;
};

/**
 * Gives a kept disk back to its VM. From the first moment on it is no other's; its record goes when the VM has it. Faults: ChangeRefused (somebody
 * else has it by now), DiskMissing, DiskConflict, StorageFailed.
 */
export const takeDisk = async (hands: Hands, scratch: Scratch, { uid, unixId }: VmEntry, name: string, kept: string, signal: AbortSignal): Promise<void> => {
  const { ledger, storage } = hands;
  if (unixId === null) throw new Fault('NoUnixId', `VM ${uid} has no Unix id yet`);
  const claimed = await ledger.changeDisk(kept, (mine) =>
    (mine.ending || (mine.moving && mine.moving.vmUid !== uid) || mine.moving?.is === 'taking' ? mine : { ...mine, moving: { is: 'taking', vmUid: uid } }));
  if (claimed?.moving?.vmUid !== uid || claimed.ending) throw new Fault('ChangeRefused', `disk ${name}: the kept disk ${kept} went to somebody else meanwhile`);
  scratch.places.set(name, await storage.takeBack({ uid, name, kept, unixId }, signal));
  await ledger.change(uid, (mine) => (mine.disks.includes(name) ? mine : { ...mine, disks: [...mine.disks, name] }));
  await ledger.end(kept);
  hands.keptChanged();
};
