import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { type NodeSources, takenOn } from './candidates.ts';
import type { VmFacts } from './facts.ts';
import { cpuOvercommit, extraMiB, grantedTo, memoryOnNodeMiB, type Reserved, reservedFor } from './overhead.ts';
import { type Free, shortOf } from './place.ts';

/** Which of what is kept for a bound VM its spec asks more of. */
const growthOf = (vm: VirtualMachine): { cpus: boolean; memory: boolean } => {
  const [need, has] = [reservedFor(vm.spec), grantedTo(vm)];
  return { cpus: need.cpus > has.cpus, memory: need.memoryMiB > has.memoryMiB };
};

/** What the others leave a bound VM on its node; undefined before that node has spoken, and for one that asks for no more: all VMs would be summed up for nothing. */
export const roomOf = (vm: VirtualMachine, node: string, { vms, fleet }: Pick<NodeSources, 'vms' | 'fleet'>): Free | undefined => {
  const { cpus, memory } = growthOf(vm);
  if (!cpus && !memory) return undefined;
  const member = fleet.members().find((each) => each.node === node);
  const facts = member?.facts;
  if (!facts) return undefined;
  const accelerator = facts.accelerators[0] ?? 'tcg';
  const taken = takenOn(node, vms.list(), member);
  const own = grantedTo(vm);
  return {
    accelerator,
    cpus: facts.capacity.cpus * cpuOvercommit - taken.cpus + own.cpus,
    memoryMiB: facts.capacity.memoryMiB - taken.memoryMiB + memoryOnNodeMiB(own.memoryMiB, own.cpus, accelerator) + extraMiB(vm.spec),
  };
};

/**
 * Why an edit of a bound VM waits: it asks for more than its node has kept for it, and the others of that node leave no room for that. Undefined when there
 * is room, when the node holds the edit already, and when it asks for no more: what has shrunk beneath a VM takes nothing from it. Pure.
 */
const outgrown = ({ vm, room, report }: Pick<VmFacts, 'vm' | 'room' | 'report'>): string | undefined => {
  const grows = growthOf(vm);
  // A stop is always told, and is no word about room.
  const isHeld = report?.generation === vm.metadata.generation && vm.spec.powerState !== 'Stopped';
  if ((!grows.cpus && !grows.memory) || isHeld) return undefined;
  const node = vm.status.nodeName ?? '';
  if (!room) return `node ${node} has not said yet what it has`;
  const short = shortOf({ ...reservedFor(vm.spec), extraMiB: extraMiB(vm.spec) }, room).filter(({ of }) => grows[of]);
  return short.length === 0 ? undefined : `node ${node} has no room for the latest edit, which ${short.map(({ text }) => text).join('; ')}: ask for less, or delete the VM and apply it anew to have it on a node with room`;
};

/** As `outgrown`, of a VM that shall take what it asks for: one that shall be off is told so whatever else its edit says. Pure. */
export const waitsForRoom = (facts: Pick<VmFacts, 'vm' | 'room' | 'report'>): string | undefined => (facts.vm.spec.powerState === 'Stopped' ? undefined : outgrown(facts));

/** What is recorded as kept for a VM. Pure. */
export const reservedOf = (facts: Pick<VmFacts, 'vm' | 'room' | 'report'>, binds: boolean): Reserved =>
  (binds || outgrown(facts) === undefined ? reservedFor(facts.vm.spec) : grantedTo(facts.vm));
