import { imageOf } from '#crds/v1alpha1/disks.ts';
import type { VirtualMachine, VmSpec, VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { VmFacts } from './facts.ts';

/** What one disk starts from, as `status.resolved.images` has it. */
export type ResolvedImage = NonNullable<NonNullable<VmStatus['resolved']>['images']>[number];

/** What is recorded of the image of one disk. Records of the first version name no disk. */
const recordOf = ({ resolved }: VmStatus, disk: string, name: string): ResolvedImage | undefined => {
  const recorded = resolved?.images ?? [];
  return recorded.find((each) => each.disk === disk && each.name === name) ?? recorded.find((each) => each.disk === undefined && each.name === name);
};

/** Which image is meant; `deleting`: its object waits to go. */
export type ImageRef = { namespace: string; name: string; uid: string; deleting: boolean };

/**
 * Whether a VM uses an image: a disk or drive of it names that. One that is being deleted is used only by those that have it, by their status: it is
 * given to no other. Pure.
 */
export const usesImage = ({ metadata, spec, status }: VirtualMachine, image: ImageRef): boolean => metadata.namespace === image.namespace && spec.disks.some((disk) => {
  if (imageOf(disk) !== image.name) return false;
  const record = recordOf(status, disk.name, image.name);
  const has = record?.uid === undefined ? (status.disks ?? []).some(({ name }) => name === disk.name) : record.uid === image.uid;
  return has || !image.deleting;
});

/** Names of the disks that were made, or are kept for the VM: for these no image is needed any more. Pure. */
const madeOf = ({ vm: { status }, report, claims }: Pick<VmFacts, 'vm' | 'report' | 'claims'>): ReadonlySet<string> =>
  new Set([...[...(report?.disks ?? []), ...(status.disks ?? [])].map(({ name }) => name), ...claims.map(({ disk }) => disk)]);

/** The disks that start from an image which has yet to come to their node: those that are still to be made, and drives. Pure. */
export const disksToMake = (facts: Pick<VmFacts, 'vm' | 'report' | 'claims'>): VmSpec['disks'] => {
  const made = madeOf(facts);
  return facts.vm.spec.disks.filter((disk) => imageOf(disk) !== undefined && (disk.cdrom !== undefined || !made.has(disk.name)));
};

/**
 * What each disk with an image starts from; a disk is not in it when nobody knows. Pure. A disk that is there keeps the image that it was
 * made from, whatever has its name now; one that is still to be made, and a CD drive, takes the object of that name. An object that is gone is as it was.
 */
export const resolveImages = ({ vm: { spec, status }, images, report }: Pick<VmFacts, 'vm' | 'images' | 'report'>): ReadonlyMap<string, ResolvedImage> => {
  const made = new Set([...(report?.disks ?? []), ...(status.disks ?? [])].map(({ name }) => name));
  return new Map(spec.disks.flatMap((of) => {
    const { name: disk, cdrom } = of;
    const name = imageOf(of);
    if (name === undefined) return [];
    const live = images.get(name);
    const known = recordOf(status, disk, name);
    const isLive = live !== undefined && (known?.uid === undefined || known.uid === live.uid || !made.has(disk) || cdrom !== undefined);
    if (isLive) return [[disk, { disk, name, uid: live.uid, ...(live.digest === undefined ? {} : { digest: live.digest }) }]];
    return known ? [[disk, { ...known, disk }]] : [];
  }));
};
