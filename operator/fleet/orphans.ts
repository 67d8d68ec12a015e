import type { Held } from '#crds/wire/messages.ts';
import type { Member } from './fleet.ts';

/**
 * VMs that a node holds, by its own word, and that do not belong there; those that are ending too, as long as they are there. Undefined while nobody
 * knows what it holds. `belongs` tells of a uid whether its object has its machine there, also of an object that can't be parsed. Pure.
 */
export const orphansOf = ({ view }: Pick<Member, 'view'>, belongs: (uid: string) => boolean): readonly Held[] | undefined =>
  view.is === 'joined' ? [...view.told.values()].filter(({ kind, uid }) => kind === 'vm' && !belongs(uid)) : undefined;
