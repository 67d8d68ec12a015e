import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { Cache } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { type ImageRef, usesImage } from '../vm/images.ts';
import { refusalOf } from '../vm/observe.ts';
import type { ImageFacts } from './decide.ts';

/** Where the facts about images come from. */
export type ImageSources = { vms: Cache<VirtualMachine>; fleet: Fleet };

/** Reads everything that a decision about an image needs. */
export const observe = (image: VirtualMachineImage, { vms, fleet }: ImageSources): ImageFacts => {
  const { uid, name, namespace, deletionTimestamp } = image.metadata;
  const ref = { namespace, name, uid, deleting: deletionTimestamp !== undefined };
  const users = vms.list().filter((vm) => usesImage(vm, ref)).flatMap(({ status }) => status.nodeName ?? []);
  const members = fleet.members();
  const connected = members.filter(({ node }) => fleet.link(node) === 'connected').map(({ node }) => node);
  return {
    image,
    users: [...new Set(users)],
    usedBy: usersOf(ref, vms),
    connected,
    refusing: connected.filter((node) => refusalOf(fleet.troubles(node)) !== undefined),
    reports: new Map(members.flatMap(({ node, images }) => { const report = images.get(uid); return report ? [[node, report] as const] : []; })),
    holders: members.filter(({ view }) => view.told.has(uid)).map(({ node }) => node),
  };
};

/** Names of the VMs that use an image. One that can't be read uses it if its name stands anywhere in there: unknown is not empty. */
export const usersOf = (image: ImageRef, vms: Cache<VirtualMachine>): string[] => vms.all().flatMap((held) => {
  const uses = held.is === 'object' ? usesImage(held.object, image) : held.meta.namespace === image.namespace && JSON.stringify(held.raw).includes(JSON.stringify(image.name));
  return uses ? [held.meta.name] : [];
}).toSorted();
