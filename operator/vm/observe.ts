import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { adoptOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import { isReason, type Reason } from '#crds/v1alpha1/reasons.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { Cache } from '../cache.ts';
import { candidates, type NodeSources } from './candidates.ts';
import type { ImageFact, VmFacts } from './facts.ts';
import { machineUidOf } from './identity.ts';

/** Where the facts about VMs come from. */
export type VmSources = NodeSources & { clusterId: string; images: Cache<VirtualMachineImage> };

const imageFact = ({ metadata, spec, status }: VirtualMachineImage): ImageFact => {
  const stalled = conditionOf(status.conditions, 'Stalled');
  return {
    name: metadata.name,
    uid: metadata.uid,
    ...(spec.architecture === undefined ? {} : { architecture: spec.architecture }),
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
  const { fleet, images, nodes } = sources;
  const { namespace } = vm.metadata;
  const { nodeName } = vm.status;
  const uid = machineUidOf(vm);
  const report = nodeName === undefined ? undefined : fleet.report(nodeName, uid);
  const oversize = nodeName === undefined ? undefined : fleet.oversize(nodeName, uid);
  const heldBy = nodeName === undefined ? fleet.holderOf(uid) : undefined;
  const elder = nodeName === undefined ? elderOf(vm, sources) : undefined;
  const wanted = vm.spec.disks.flatMap(({ image }) => (image ? images.get(`${namespace}/${image.name}`) ?? [] : []));
  return {
    vm,
    clusterId: sources.clusterId,
    candidates: nodeName === undefined ? candidates(sources) : [],
    link: nodeName === undefined ? 'joining' : fleet.link(nodeName),
    ...(nodeName === undefined ? {} : refusalOf(fleet.troubles(nodeName))),
    ...(oversize ? { oversize } : {}),
    ...(report ? { report } : {}),
    ...(nodeName === undefined ? {} : { toldDisks: fleet.toldDisks(nodeName, uid) }),
    absent: nodeName !== undefined && fleet.isAbsent(nodeName, uid),
    endedForEver: nodeName !== undefined && fleet.isEndedForEver(nodeName, uid),
    images: new Map(wanted.map((image) => [image.metadata.name, imageFact(image)])),
    ...(heldBy ? { heldBy } : {}),
    ...(elder ? { elder } : {}),
    everyNodeReported: nodes.all().every(({ meta }) => fleet.link(meta.name) === 'connected'),
  };
};
