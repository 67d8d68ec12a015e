import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled } from '#crds/kit/outcome.ts';
import { diskFinalizer } from '#crds/v1alpha1/names.ts';
import type { DiskStatus, VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { Cache } from '../cache.ts';
import { decide } from './decide.ts';
import { type DiskSources, observe } from './observe.ts';

/** What a VirtualDisk's reconciler may do. The writers put what the API server answered into the cache before they return. */
export type DiskHands = DiskSources & {
  disks: Cache<VirtualDisk>;
  writeStatus: (disk: VirtualDisk, status: DiskStatus) => Promise<void>;
  writeFinalizers: (disk: VirtualDisk, finalizers: readonly string[]) => Promise<void>;
  /** Deletes the object, if it is still of the version that was read. */
  remove: (disk: VirtualDisk) => Promise<void>;
  now: () => Date;
};

/** Makes the function that keeps one VirtualDisk true, and has its node remove the files when it is deleted. */
export const makeDiskReconciler = (hands: DiskHands) => async (key: string): Promise<Outcome> => {
  const disk = hands.disks.get(key);
  if (!disk) return settled;
  const { metadata: { finalizers }, status: { nodeName, uid } } = disk;
  const { status, finalizer, remove, end, outcome } = decide(observe(disk, hands), hands.now());
  if (end && nodeName !== undefined && uid !== undefined) hands.fleet.doom(nodeName, uid, 'disk');
  if (remove) await hands.remove(disk);
  if (finalizer) {
    const others = finalizers.filter((each) => each !== diskFinalizer);
    await hands.writeFinalizers(disk, finalizer === 'add' ? [...others, diskFinalizer] : others);
    if (finalizer === 'remove' && nodeName !== undefined && uid !== undefined) hands.fleet.release(nodeName, uid);
  }
  if (status && canonical(status) !== canonical(disk.status)) await hands.writeStatus(disk, status);
  return outcome;
};
