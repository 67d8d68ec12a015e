import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { Held } from '#crds/wire/messages.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import { type Cache, onceFor } from '../cache.ts';
import type { Fleet, Member } from '../fleet/fleet.ts';
import { orphansOf } from '../fleet/orphans.ts';
import { belongs, type Machine, machinesOf } from './machines.ts';
import { skillsOf } from './needs.ts';
import { extraMiB, grantedTo, memoryOnNodeMiB } from './overhead.ts';
import type { Candidate } from './place.ts';

/** Where the facts about nodes come from. */
export type NodeSources = { vms: Cache<VirtualMachine>; nodes: Cache<HypervisorNode>; fleet: Fleet };

type Taken = Candidate['taken'] & { ports: ReadonlyMap<string, string>; count: number };

/** What the VMs that are bound to one node take, and which ports they forward. */
export const takenOn = (node: string, vms: readonly VirtualMachine[], member: Member | undefined): Taken => {
  const accelerator = member?.facts?.accelerators[0] ?? 'tcg';
  const { bound, counted } = countOf(vms);
  const key = `${accelerator} ${node}`;
  const taken = counted.get(key) ?? sum(bound.get(node) ?? [], accelerator);
  counted.set(key, taken);
  return taken;
};

// Every VM that waits for a node looks at all nodes: what they have is counted once for all of them.
const countOf = onceFor((vms: readonly VirtualMachine[]) => ({ bound: Map.groupBy(vms, ({ status }) => status.nodeName), counted: new Map<string, Taken>() }));

const sum = (bound: readonly VirtualMachine[], accelerator: Candidate['accelerator']): Taken => {
  const ports = new Map<string, string>();
  let cpus = 0;
  let memoryMiB = 0;
  for (const vm of bound) {
    const { metadata, spec } = vm;
    const reserved = grantedTo(vm);
    cpus += reserved.cpus;
    memoryMiB += memoryOnNodeMiB(reserved.memoryMiB, reserved.cpus, accelerator) + extraMiB(spec);
    for (const { user } of spec.interfaces ?? []) {
      for (const { hostPort, protocol } of user.forwards ?? []) ports.set(`${protocol ?? 'TCP'}/${hostPort}`, `${metadata.namespace}/${metadata.name}`);
    }
  }
  return { cpus, memoryMiB, ports, count: bound.length };
};

const candidateOf = (node: HypervisorNode, machines: ReadonlyMap<string, Machine>, sources: NodeSources): Candidate => {
  const { fleet } = sources;
  const { name } = node.metadata;
  const member = fleet.members().find((each) => each.node === name);
  const facts = member?.facts;
  if (!facts) {
    return {
      name, connected: false, schedulable: node.spec.schedulable, accelerator: 'tcg', skills: { features: new Set(), cpuModels: {} }, capacity: { cpus: 0, memoryMiB: 0 },
      taken: { cpus: 0, memoryMiB: 0 }, ports: { min: 0, max: 0, used: new Map() },
    };
  }
  const taken = takenOn(name, sources.vms.list(), member);
  const orphans = orphansOf(member, (uid) => belongs(uid, name, machines, sources)) ?? [];
  const unread = [...member.view.told.values()].filter(({ uid }) => machines.get(uid)?.readable === false);
  return {
    name,
    connected: fleet.link(name) === 'connected',
    schedulable: node.spec.schedulable,
    ...troubleOf(facts, orphans.length, unread),
    accelerator: facts.accelerators[0] ?? 'tcg',
    skills: skillsOf(facts),
    capacity: { cpus: facts.capacity.cpus, memoryMiB: facts.capacity.memoryMiB },
    taken,
    ports: { min: facts.forwards.minPort, max: facts.forwards.maxPort, used: taken.ports },
  };
};

/** What is of unknown size keeps new VMs away: a ledger that can't be read hides some; so do an orphan, and a VM whose object can't be read. */
const troubleOf = ({ troubles: [trouble] }: NodeFacts, orphans: number, unread: readonly Held[]): Pick<Candidate, 'trouble'> => {
  if (trouble) return { trouble: `${trouble.reason}: ${trouble.message}` };
  if (orphans > 0) return { trouble: `holds ${orphans} orphans of unknown size; discard them first` };
  return unread.length > 0 ? { trouble: `holds VM ${unread.map(({ namespace, name }) => `${namespace}/${name}`).slice(0, 3).join(', ')} of unknown size: its object can not be read` } : {};
};

/** Every node as placement sees it. */
export const candidates = (sources: NodeSources): Candidate[] => {
  const machines = machinesOf(sources.vms);
  return sources.nodes.list().map((node) => candidateOf(node, machines, sources));
};

