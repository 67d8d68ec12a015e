import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { adoptOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import { isReason, type Reason } from '#crds/v1alpha1/reasons.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { Cache } from '../cache.ts';
import type { Fleet, Member } from '../fleet/fleet.ts';
import type { ImageFact, VmFacts } from './facts.ts';
import { machineUidOf } from './identity.ts';
import { memoryOnNodeMiB, reservedFor } from './overhead.ts';
import type { Candidate } from './place.ts';

/** Where the facts about VMs come from. */
export type VmSources = {
  clusterId: string;
  vms: Cache<VirtualMachine>;
  images: Cache<VirtualMachineImage>;
  nodes: Cache<HypervisorNode>;
  fleet: Fleet;
};

/** What the VMs that are bound to one node take, and which ports they forward. */
export const takenOn = (node: string, vms: readonly VirtualMachine[], member: Member | undefined): Candidate['taken'] & { ports: Map<string, string>; count: number } => {
  const accelerator = member?.facts?.accelerators[0] ?? 'tcg';
  const bound = vms.filter(({ status }) => status.nodeName === node);
  const ports = new Map<string, string>();
  let cpus = 0;
  let memoryMiB = 0;
  for (const { metadata, spec } of bound) {
    const reserved = reservedFor(spec);
    cpus += reserved.cpus;
    memoryMiB += memoryOnNodeMiB(reserved.memoryMiB, reserved.cpus, accelerator);
    for (const { user } of spec.interfaces ?? []) {
      for (const { hostPort, protocol } of user.forwards ?? []) ports.set(`${protocol ?? 'TCP'}/${hostPort}`, `${metadata.namespace}/${metadata.name}`);
    }
  }
  return { cpus, memoryMiB, ports, count: bound.length };
};

const candidateOf = (node: HypervisorNode, vms: readonly VirtualMachine[], { fleet }: VmSources): Candidate => {
  const { name } = node.metadata;
  const member = fleet.members().find((each) => each.node === name);
  const facts = member?.facts;
  if (!facts) {
    return {
      name, connected: false, schedulable: node.spec.schedulable, accelerator: 'tcg', capacity: { cpus: 0, memoryMiB: 0 },
      taken: { cpus: 0, memoryMiB: 0 }, ports: { min: 0, max: 0, used: new Map() },
    };
  }
  const taken = takenOn(name, vms, member);
  // An orphan's size is not known; a ledger that can't be read hides VMs: both keep new ones away.
  const known = new Set(vms.map(machineUidOf));
  const orphans = [...member.view.told.values()].filter(({ kind, uid }) => kind === 'vm' && !known.has(uid)).length;
  const [trouble] = facts.troubles;
  return {
    name,
    connected: fleet.link(name) === 'connected',
    schedulable: node.spec.schedulable,
    ...(trouble ? { trouble: `${trouble.reason}: ${trouble.message}` } : orphans > 0 ? { trouble: `holds ${orphans} orphans of unknown size; discard them first` } : {}),
    accelerator: facts.accelerators[0] ?? 'tcg',
    capacity: { cpus: facts.capacity.cpus, memoryMiB: facts.capacity.memoryMiB },
    taken,
    ports: { min: facts.forwards.minPort, max: facts.forwards.maxPort, used: taken.ports },
  };
};

const imageFact = ({ metadata, status }: VirtualMachineImage): ImageFact => {
  const stalled = conditionOf(status.conditions, 'Stalled');
  return {
    name: metadata.name,
    uid: metadata.uid,
    ...(status.digest === undefined ? {} : { digest: status.digest }),
    ...(stalled?.status === 'True' ? { failed: stalled.message } : {}),
  };
};

const refusing = new Set<Reason>(['LedgerFull', 'LedgerReadOnly', 'LedgerFailed', 'StorageHung']);

/** Whether one of a node's troubles keeps it from taking new intents. */
const refusalOf = (troubles: NodeFacts['troubles']): Pick<VmFacts, 'refuses'> => {
  for (const { reason, message } of troubles) if (isReason(reason) && refusing.has(reason)) return { refuses: { reason, message } };
  return {};
};

/** The machine of this VM's name that stands in its way, or that it shall take over. */
const elderOf = ({ metadata }: VirtualMachine, { fleet, nodes }: VmSources): VmFacts['elder'] => {
  const [elder, ...more] = fleet.eldersOf(metadata);
  if (!elder) return undefined;
  const wanted = uidsIn(nodes.get(elder.node)?.metadata.annotations, adoptOrphanAnnotation).includes(elder.uid);
  return { ...elder, adopt: wanted && more.length === 0 && !elder.ending && fleet.link(elder.node) === 'connected' };
};

/** Reads everything that one decision needs. */
export const observe = (vm: VirtualMachine, sources: VmSources): VmFacts => {
  const { fleet, images, nodes, vms } = sources;
  const { namespace } = vm.metadata;
  const { nodeName } = vm.status;
  const uid = machineUidOf(vm);
  const report = nodeName === undefined ? undefined : fleet.report(nodeName, uid);
  const oversize = nodeName === undefined ? undefined : fleet.oversize(nodeName, uid);
  const heldBy = nodeName === undefined ? fleet.holderOf(uid) : undefined;
  const elder = nodeName === undefined ? elderOf(vm, sources) : undefined;
  const all = nodeName === undefined ? vms.list() : [];
  const wanted = vm.spec.disks.flatMap(({ image }) => (image ? images.get(`${namespace}/${image.name}`) ?? [] : []));
  return {
    vm,
    clusterId: sources.clusterId,
    candidates: nodeName === undefined ? nodes.list().map((node) => candidateOf(node, all, sources)) : [],
    link: nodeName === undefined ? 'joining' : fleet.link(nodeName),
    ...(nodeName === undefined ? {} : refusalOf(fleet.troubles(nodeName))),
    ...(oversize ? { oversize } : {}),
    ...(report ? { report } : {}),
    absent: nodeName !== undefined && fleet.isAbsent(nodeName, uid),
    dead: nodeName !== undefined && fleet.isDead(nodeName, uid),
    images: new Map(wanted.map((image) => [image.metadata.name, imageFact(image)])),
    ...(heldBy ? { heldBy } : {}),
    ...(elder ? { elder } : {}),
    everyNodeReported: nodes.list().every(({ metadata }) => fleet.link(metadata.name) === 'connected'),
  };
};
