import { imageOf } from '#crds/v1alpha1/disks.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { ImageFacts } from './decide.ts';

/** Where the facts about images come from. */
export type ImageSources = { vms: Cache<VirtualMachine>; fleet: Fleet };

/** Reads everything that a decision about an image needs. */
export const observe = (image: VirtualMachineImage, { vms, fleet }: ImageSources): ImageFacts => {
  const { uid, name, namespace } = image.metadata;
  const refers = ({ metadata, spec }: VirtualMachine) => metadata.namespace === namespace && spec.disks.some((disk) => imageOf(disk) === name);
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
