import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { type Cache, onceFor } from '../cache.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { boundIn, machineUidIn } from '../unparsable.ts';
import type { Held } from '../kube/frame.ts';
import { holdersOf } from './holders.ts';
import { machineUidOf } from './identity.ts';

/** What an object says of its machine: the node that it is bound to, and whether our schema understands the object. */
export type Machine = { node: string | undefined; readable: boolean };

/** The machines of all VM objects, also of those that can't be parsed, by the uid under which nodes know them. */
export const machinesOf = ({ all }: Pick<Cache<VirtualMachine>, 'all'>): ReadonlyMap<string, Machine> => machinesIn(all());

// Every VM that waits for a node asks for them, and each time they are those of all VMs.
const machinesIn = onceFor((all: readonly Held<VirtualMachine>[]): ReadonlyMap<string, Machine> =>
  new Map(all.map((held): [string, Machine] => (held.is === 'object'
    ? [machineUidOf(held.object), { node: held.object.status.nodeName, readable: true }]
    : [machineUidIn(held), { node: boundIn(held), readable: false }]))));

/**
 * Whether a machine that a node holds belongs there: its object is bound to that node, or to none, and no other node holds it: then it will be.
 */
export const belongs = (uid: string, node: string, machines: ReadonlyMap<string, Machine>, sources: { nodes: Cache<HypervisorNode>; fleet: Fleet }): boolean => {
  const machine = machines.get(uid);
  if (!machine) return false;
  return machine.node === undefined ? holdersOf(uid, sources).length < 2 : machine.node === node;
};
