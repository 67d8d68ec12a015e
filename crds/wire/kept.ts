import { z } from 'zod';
import { deviceName, objectName, uid } from './desired.ts';

/** Most disks that one agent keeps after their VMs; so many fit into a frame. */
export const maxKeptDisks = 384;

/** Which disk it was, of which VM, in which namespace: only a VM of that namespace and name gets it back, under that name. `vmUid`: the machine that had it last. */
export const diskOwner = z.strictObject({ namespace: objectName, namespaceUid: uid, vm: objectName, vmUid: uid, disk: deviceName });

/** A disk that has outlived its VM, or its place in it, as its agent tells it. It has a uid of its own, new each time it is kept. */
export const keptDisk = z.object({ uid, owner: z.object(diskOwner.shape), sizeMiB: z.int().min(0) });

/** Disks that outlive the VM which a tombstone ends, beside those that the agent knows of. */
export const keepOrder = z.object({ namespace: objectName, namespaceUid: uid, vm: objectName, disks: z.array(deviceName).min(1).max(64) });

/** Which disk it was, and of which VM. */
export type DiskOwner = z.output<typeof diskOwner>;
/** A disk that has outlived its VM. */
export type KeptDisk = z.output<typeof keptDisk>;
/** Disks that outlive a VM. */
export type KeepOrder = z.output<typeof keepOrder>;
