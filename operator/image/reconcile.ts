import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import type { ImageStatus, VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import { decide } from './decide.ts';
import { type ImageSources, observe } from './observe.ts';

/** What an image's reconciler may do. */
export type ImageHands = ImageSources & {
  images: Cache<VirtualMachineImage>;
  writeStatus: (image: VirtualMachineImage, status: ImageStatus) => Promise<void>;
  now: () => Date;
};

/** Makes the function that has images imported where they are needed and says how that goes. */
export const makeImageReconciler = (hands: ImageHands) => async (key: string): Promise<Outcome> => {
  const image = hands.images.get(key);
  if (!image) return settled;
  const { status, tell, drop } = decide(observe(image, hands), hands.now());
  for (const [node, desire] of tell) hands.fleet.want(node, desire);
  for (const node of drop) hands.fleet.doom(node, image.metadata.uid, 'image');
  if (status && canonical(status) !== canonical(image.status)) await hands.writeStatus(image, status);
  return status?.phase === 'Ready' ? settled : waiting('the import', 30_000);
};
