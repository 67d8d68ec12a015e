import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';

/** A Kubernetes uid. Paths on a node derive from it, so its form is strict. */
export const uid = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);

/** A name of an object of Kubernetes, as a DNS subdomain. */
export const objectName = z.string().regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/).max(253);
/** A name within one VM. */
export const deviceName = z.string().regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/).max(20);

/** An open way into a guest, as it is wanted. */
const desiredForward = z.strictObject({
  name: deviceName,
  hostPort: z.int().min(1).max(65535),
  port: z.int().min(1).max(65535),
  protocol: z.enum(['TCP', 'UDP']),
});

/**
 * One disk, as it is wanted. `imageUid` names a desired image; without it the disk starts empty. Sizes in MiB. Absent: bus virtio, cache
 * writeback, writable, without limits. `cdrom`: a drive, with the image as its medium or empty, on scsi when `bus` is absent. The disks with a `bootOrder` are tried in that order; the first of the list when none has one.
 */
export const desiredDisk = z.strictObject({
  name: deviceName,
  imageUid: uid.optional(),
  cdrom: z.literal(true).optional(),
  sizeMiB: z.int().min(1).optional(),
  bus: z.enum(['virtio', 'scsi', 'sata', 'nvme']).optional(),
  cache: z.enum(['writeback', 'none', 'writethrough']).optional(),
  readOnly: z.literal(true).optional(),
  bootOrder: z.int().min(1).max(64).optional(),
  limits: z.strictObject({ iops: z.int().min(1).optional(), mibPerSecond: z.int().min(1).optional() }).optional(),
  /** It outlives its VM, and its place in the list; the VM says its `namespaceUid` then. */
  retain: z.literal(true).optional(),
  /** The kept disk that it is while it was never made here: that one is taken back, and no other is made for it. */
  kept: uid.optional(),
});

/** One network card, as it is wanted. */
const desiredInterface = z.strictObject({
  name: deviceName.max(15),
  mac: z.string().regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/),
  user: z.strictObject({ forwards: z.array(desiredForward).max(32) }),
});

/**
 * The hardware of a VM: what one run is made from, and what an edit changes live or at the next power cycle. Members that
 * came after the first version are optional; what their absence means is said beside each.
 */
const hardwareShape = {
  cpus: z.int().min(1).max(128),
  /** Most CPUs that can be plugged while the guest runs; absent: `cpus`. */
  maxCpus: z.int().min(1).max(128).optional(),
  memoryMiB: z.int().min(16),
  /** Most memory that can be plugged while the guest runs; absent: `memoryMiB`. */
  maxMemoryMiB: z.int().min(16).optional(),
  /** Absent: amd64. */
  architecture: z.enum(['amd64', 'arm64']).optional(),
  /** QEMU CPU model; absent: the best of the node. */
  cpuModel: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).optional(),
  /** Absent: a BIOS without a TPM. */
  firmware: z.strictObject({ type: z.enum(['bios', 'uefi']), secureBoot: z.boolean(), tpm: z.boolean() }).optional(),
  /** Absent: rng, panic and guestAgent. */
  devices: z.strictObject({ watchdog: z.boolean(), rng: z.boolean(), panic: z.boolean(), graphics: z.boolean(), vsock: z.boolean(), guestAgent: z.boolean() }).optional(),
  disks: z.array(desiredDisk).min(1).max(8),
  interfaces: z.array(desiredInterface).max(7),
};

/** The hardware that a run has, and the generation of the spec that it comes from. What is on its way out is in it beside what came. */
export const hardware = z.strictObject({ generation: z.int(), ...hardwareShape, disks: z.array(desiredDisk).max(32), interfaces: z.array(desiredInterface).max(32) });

/** Everything that an agent needs to run one VM with nobody to ask. Always whole, never a patch. */
export const desiredVm = z.strictObject({
  kind: z.literal('vm'),
  uid,
  namespace: objectName,
  name: objectName,
  generation: z.int(),
  /** Counts the placements of this uid; an older one is refused. */
  epoch: z.int().min(1),
  uuid: uid,
  /** There when a disk is retained or kept: a namespace of that name that comes later is another one. */
  namespaceUid: uid.optional(),
  powerState: z.enum(['Running', 'Stopped', 'Paused']),
  /** What happens when the guest ends by itself; absent: nothing. */
  restartPolicy: z.enum(['Always', 'OnFailure', 'Never']).optional(),
  /** Another one than the node has honoured restarts the guest once. */
  restartToken: z.string().max(63).optional(),
  /** When the guest counts as ready; absent: nobody asks. */
  probe: z.discriminatedUnion('is', [
    z.strictObject({ is: z.literal('serialPattern'), pattern: z.string().min(1).max(512) }),
    z.strictObject({ is: z.literal('guestAgent') }),
    z.strictObject({ is: z.literal('tcp'), port: z.int().min(1).max(65535) }),
    z.strictObject({ is: z.literal('cloudInitDone') }),
  ]).optional(),
  ...hardwareShape,
  /**
   * Disks that an edit took away: the guest releases them, then their files go. A disk that is in neither list is kept: an
   * omission is no order, and a restored cluster knows less than the node.
   */
  removedDisks: z.array(z.strictObject({ name: deviceName })).max(24).optional(),
  cloudInit: z.strictObject({
    hostname: objectName,
    userData: z.string().optional(),
    networkData: z.string().optional(),
    sshAuthorizedKeys: z.array(z.string()),
  }),
  stop: z.strictObject({ mode: z.enum(['Graceful', 'Force']), gracePeriodSeconds: z.int().min(0) }),
});

/** One image that a node shall have. `digest` is set once the first import has fixed the content. */
export const desiredImage = z.strictObject({
  kind: z.literal('image'),
  uid,
  namespace: objectName,
  name: objectName,
  generation: z.int(),
  url: z.string().max(2048),
  /** Further URLs of the same bytes, in the order in which they are tried. */
  mirrors: z.array(z.string().max(2048)).max(8).optional(),
  checksum: z.string().max(140).optional(),
  /** Of a list of checksums; only one of the two is there. */
  checksumUrl: z.string().max(2048).optional(),
  digest: z.string().max(80).optional(),
  format: z.enum(['qcow2', 'raw']),
});

/** Anything that the operator wants of a node, told apart by `kind`. */
export const desired = z.discriminatedUnion('kind', [desiredVm, desiredImage]);

/** The hardware that a run has or shall have, and the generation of the spec that it comes from. */
export type Hardware = z.output<typeof hardware>;
/** Everything that an agent needs to run one VM. */
export type DesiredVm = z.output<typeof desiredVm>;
/** One image that a node shall have. */
export type DesiredImage = z.output<typeof desiredImage>;
/** Anything that the operator wants of a node. */
export type Desired = z.output<typeof desired>;
/** An open way into a guest, as it is wanted. */
export type DesiredForward = z.output<typeof desiredForward>;

/** What two sides compare: equal digests mean the same desire, of the same generation: any edit is told, and a report says which one it reflects. */
export const desireDigest = (object: Desired): string => digestOf(object);
