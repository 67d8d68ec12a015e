import type { Held } from '#crds/wire/messages.ts';
import type { Member } from './fleet.ts';

/**
 * VMs that a node holds, by its own word, and that no object is of; those that are ending too, as long as they are there. Undefined while nobody
 * knows what it holds. `known` has the uids of the machines of all objects, also of those that
 * can't be parsed. Pure.
 */
export const orphansOf = ({ view }: Pick<Member, 'view'>, known: ReadonlySet<string>): readonly Held[] | undefined =>
  view.is === 'joined' ? [...view.told.values()].filter(({ kind, uid }) => kind === 'vm' && !known.has(uid)) : undefined;
