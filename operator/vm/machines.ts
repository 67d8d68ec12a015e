import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { Cache } from '../cache.ts';
import { machineUidIn } from '../unparsable.ts';
import { machineUidOf } from './identity.ts';

/** The uids under which nodes know the machines of all VM objects, also of those that can't be parsed. */
export const machineUids = ({ all }: Pick<Cache<VirtualMachine>, 'all'>): ReadonlySet<string> =>
  new Set(all().map((held) => (held.is === 'object' ? machineUidOf(held.object) : machineUidIn(held))));
