import type { ReadyImage } from '../image/store.ts';

/** One disk of one VM, as it is wanted. `image` is the base; without it the disk starts empty and needs a size. */
export type DiskSpec = { uid: string; name: string; image?: ReadyImage; sizeMiB?: number; unixId: number };

/** The medium of a CD drive of one VM. */
export type DriveMedium = { uid: string; name: string; imageUid: string; image: ReadyImage; unixId: number };

/** A disk on its way between its VM and its place of its own: the uid of the VM, the name of the disk, the uid that it is kept under. */
export type KeptPlace = { uid: string; name: string; kept: string };

/** Where a disk lies, relative to the directory of its VM. `base` is the file, qcow2, that it is an overlay on. */
export type DiskPlace = { file: string; format: 'qcow2'; base?: string };

/** A disk that is there, whole. */
export type ReadyDisk = { is: 'ready'; sizeMiB: number } & DiskPlace;

/** What is there of one disk. */
export type DiskSight = ReadyDisk | { is: 'absent' };

/** What is there of a CD drive: the medium that was asked for, and whether others lie beside it. */
export type DriveSight = { medium: DiskSight; stale: boolean };

/** What the guest's first boot is told by cloud-init NoCloud. */
export type Seed = { instanceId: string; hostname: string; userData?: string | undefined; networkData?: string | undefined; sshAuthorizedKeys: readonly string[] };

/**
 * Keeps the disks of VMs, each in its VM's own directory `vms/<uid>/`. Every verb is safe to do twice.
 */
export type Storage = {
  observe: (uid: string, name: string, signal: AbortSignal) => Promise<DiskSight>;
  /** Makes a disk that was never made: a hard link to the base and an overlay, or an empty qcow2. Never replaces one, whoever made it meanwhile. Faults: DiskTooSmall, NoSpace, StorageFailed. */
  create: (disk: DiskSpec, signal: AbortSignal) => Promise<DiskSight>;
  /**
   * Makes a disk that no process has larger, up to a size; one that is at least as large stays. Returns the disk.
   * Faults: DiskMissing, NoSpace, StorageFailed.
   */
  grow: (uid: string, name: string, sizeMiB: number, signal: AbortSignal) => Promise<ReadyDisk>;
  /** Looks at a CD drive whose medium, if it has one, is the image of this uid. */
  drive: (uid: string, name: string, imageUid: string | undefined, signal: AbortSignal) => Promise<DriveSight>;
  /** Gives a drive its medium: a hard link to the image. */
  insert: (medium: DriveMedium, signal: AbortSignal) => Promise<ReadyDisk>;
  /** Removes the media of a drive but this one. */
  tidy: (uid: string, name: string, imageUid: string | undefined, signal: AbortSignal) => Promise<void>;
  /** Removes the files of one disk or drive that no process has, but for this medium. */
  drop: (uid: string, name: string, medium: string | undefined, signal: AbortSignal) => Promise<void>;
  /**
   * Puts a disk that no process has aside under a uid of its own, out of the directory of its VM; its base goes with it. Says what is there
   * now; `sizeMiB` is undefined when its header can not be read. `record` tells whose it is, and is kept beside it. Faults: DiskConflict (both
   * places have one), StorageFailed.
   */
  keep: (place: KeptPlace & { record: string }, signal: AbortSignal) => Promise<{ is: 'kept'; sizeMiB: number | undefined } | { is: 'absent' }>;
  /** Gives a disk that was put aside to a VM. Faults: DiskMissing (it is in neither place), DiskConflict, StorageFailed. */
  takeBack: (place: KeptPlace & { unixId: number }, signal: AbortSignal) => Promise<ReadyDisk>;
  /** Removes a disk that was put aside. */
  removeKept: (kept: string, signal: AbortSignal) => Promise<void>;
  /** Writes the seed disk (`seed.img`, raw, read only). Replaces an older one. */
  seed: (uid: string, seed: Seed, unixId: number, signal: AbortSignal) => Promise<void>;
  /** Removes every file of the VM. Only after the hypervisor has said `gone`. */
  remove: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Size and free space of the file system that holds the VMs, in MiB. */
  space: () => Promise<{ sizeMiB: number; freeMiB: number }>;
};
