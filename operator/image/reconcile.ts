import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { ImageStatus, VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { decide, type ImageFacts } from './decide.ts';

/** What an image's reconciler may do. */
export type ImageHands = {
  images: Cache<VirtualMachineImage>;
  vms: Cache<VirtualMachine>;
  fleet: Fleet;
  writeStatus: (image: VirtualMachineImage, status: ImageStatus) => Promise<void>;
  now: () => Date;
};

/** Reads everything that a decision about an image needs. */
export const observe = (image: VirtualMachineImage, { vms, fleet }: Pick<ImageHands, 'vms' | 'fleet'>): ImageFacts => {
  const { uid, name, namespace } = image.metadata;
  const refers = ({ metadata, spec }: VirtualMachine) => metadata.namespace === namespace && spec.disks.some((disk) => disk.image?.name === name);
  const users = vms.list().filter(refers).flatMap(({ status }) => status.nodeName ?? []);
  const members = fleet.members();
  return {
    image,
    users: [...new Set(users)],
    connected: members.filter(({ node }) => fleet.link(node) === 'connected').map(({ node }) => node),
    reports: new Map(members.flatMap(({ node, images }) => { const report = images.get(uid); return report ? [[node, report] as const] : []; })),
    holders: members.filter(({ view }) => view.told.has(uid)).map(({ node }) => node),
  };
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
