import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { imageFinalizer } from '#crds/v1alpha1/names.ts';
import type { ImageStatus, VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import { decide } from './decide.ts';
import type { Versioned } from '../kube/patch.ts';
import type { Unparsable } from '../unparsable.ts';
import { type ImageSources, observe, usersOf } from './observe.ts';

/** What an image's reconciler may do. */
export type ImageHands = ImageSources & {
  images: Cache<VirtualMachineImage>;
  writeFinalizers: (image: Versioned, finalizers: readonly string[]) => Promise<void>;
  writeStatus: (image: VirtualMachineImage, status: ImageStatus) => Promise<void>;
  now: () => Date;
};

/** Makes the function that has images imported where they are needed, says how that goes, and keeps those that are in use. */
export const makeImageReconciler = (hands: ImageHands) => async (key: string): Promise<Outcome> => {
  const image = hands.images.get(key);
  if (!image) return settled;
  const { status, finalizer, tell, drop } = decide(observe(image, hands), hands.now());
  for (const [node, desire] of tell) hands.fleet.want(node, desire);
  for (const node of drop) hands.fleet.doom(node, image.metadata.uid, 'image');
  if (finalizer) {
    await hands.writeFinalizers(image, finalizer === 'add' ? [...image.metadata.finalizers, imageFinalizer] : without(image.metadata.finalizers));
    return finalizer === 'add' ? waiting('its finalizer to be seen', 1_000) : settled;
  }
  if (status && canonical(status) !== canonical(image.status)) await hands.writeStatus(image, status);
  if (image.metadata.deletionTimestamp !== undefined) return waiting('its VMs to go', 10_000);
  return status?.phase === 'Ready' ? settled : waiting('the import', 30_000);
};

/** Lets a deleted image go that can't be parsed, once no VM uses it. Whether it did. */
export const letGoUnparsable = async ({ meta }: Unparsable, { vms, writeFinalizers }: Pick<ImageHands, 'vms' | 'writeFinalizers'>): Promise<boolean> => {
  const { name, namespace = '', uid, deletionTimestamp, finalizers } = meta;
  if (deletionTimestamp === undefined || !finalizers.includes(imageFinalizer) || usersOf({ name, namespace, uid, deleting: true }, vms).length > 0) return false;
  await writeFinalizers({ metadata: meta }, without(finalizers));
  return true;
};

const without = (finalizers: readonly string[]): string[] => finalizers.filter((each) => each !== imageFinalizer);
