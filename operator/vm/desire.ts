import { imageOf } from '#crds/v1alpha1/disks.ts';
import { toMiB } from '#crds/kit/quantity.ts';
import type { Reason } from '#crds/v1alpha1/reasons.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { claimTrouble } from '../disk/claims.ts';
import { desiredDisk, removedDisks, retainedDisks } from './disks.ts';
import type { VmFacts } from './facts.ts';
import { probeOf } from './guest.ts';
import { interfaceMac, machineUidOf, machineUuid } from './identity.ts';
import { disksToMake, resolveImages } from './images.ts';
import { architectureTold, boardOf } from './needs.ts';
import { cloudInitOf } from './secrets.ts';

/** Why there is no desire yet: something that the spec refers to is not there. */
export type Missing = { missing: Reason; message: string };

/** The whole desire for the bound node, or what it waits for. */
export const desireOf = (facts: Pick<VmFacts, 'vm' | 'clusterId' | 'images' | 'report' | 'secrets' | 'toldDisks' | 'claims' | 'namespace'>): DesiredVm | Missing => {
  const { vm, clusterId } = facts;
  const { metadata: { namespace, name, generation }, spec, status } = vm;
  const resolved = resolveImages(facts);
  const isUnknown = ({ name: disk }: { name: string }): boolean => resolved.get(disk)?.uid === undefined;
  const missing = disksToMake(facts).filter(isUnknown).flatMap((disk) => imageOf(disk) ?? []);
  if (missing.length > 0) return { missing: 'ImageNotFound', message: `image ${[...new Set(missing)].join(', ')} does not exist or is being deleted` };
  const trouble = claimTrouble(facts.claims, namespace, status.nodeName);
  if (trouble !== undefined) return { missing: 'WaitingForDisk', message: trouble };
  const keeps = facts.claims.length > 0 || retainedDisks(spec).length > 0;
  if (keeps && !facts.namespace) return { missing: 'WaitingForDisk', message: `namespace ${namespace} is not known yet` };
  const refused = refusedImage(facts);
  if (refused !== undefined) return { missing: 'DigestMismatch', message: `no disk is made of other content: ${refused}; look at the agent of the node` };
  const removed = removedDisks(facts);
  const seed = cloudInitOf(name, spec, facts.secrets);
  if (seed.is !== 'ready') return seed.is === 'waits' ? { missing: seed.reason, message: seed.message } : { missing: 'SecretNotFound', message: 'cloudInit: its Secrets are not read yet' };
  const known = architectureTold(facts);
  if (known.is === 'missing' && spec.disks.slice(0, 1).some(isUnknown)) return { missing: 'ImageNotFound', message: unknownArchitecture(known.name) };
  const wrong = known.is === 'known' && known.of !== undefined && spec.architecture !== undefined && known.of !== spec.architecture;
  if (wrong) return { missing: 'ArchitectureMismatch', message: `the VM is for ${spec.architecture} and its image for ${known.of}` };
  const { architecture, firmware, cpuModel } = boardOf(spec, known.is === 'known' ? known.of : undefined);
  const probe = probeOf(spec);
  return {
    kind: 'vm', uid: machineUidOf(vm), namespace, name, generation,
    epoch: status.epoch ?? 1,
    uuid: machineUuid(clusterId, namespace, name),
    ...(keeps && facts.namespace ? { namespaceUid: facts.namespace.uid } : {}),
    powerState: spec.powerState,
    restartPolicy: spec.restartPolicy,
    ...(spec.restartToken === undefined ? {} : { restartToken: spec.restartToken }),
    ...(probe ? { probe } : {}),
    cpus: spec.cpu.cores,
    ...(spec.cpu.max === undefined ? {} : { maxCpus: spec.cpu.max }),
    memoryMiB: toMiB(spec.memory.size),
    ...(spec.memory.max === undefined ? {} : { maxMemoryMiB: toMiB(spec.memory.max) }),
    architecture, firmware, ...(cpuModel === undefined ? {} : { cpuModel }), devices: spec.devices,
    disks: spec.disks.map((disk) => desiredDisk(disk, resolved.get(disk.name)?.uid, facts.claims.find((claim) => claim.disk === disk.name)?.kept)),
    interfaces: (spec.interfaces ?? []).map(({ name: nic, user }) => ({
      name: nic,
      mac: interfaceMac(clusterId, namespace, name, nic),
      user: { forwards: (user.forwards ?? []).map((forward) => ({ ...forward, protocol: forward.protocol ?? ('TCP' as const) })) },
    })),
    ...(removed.length === 0 ? {} : { removedDisks: removed }),
    cloudInit: seed.cloudInit,
    stop: spec.stop,
  };
};

/** Why a disk that is still to be made, or a drive, can not have its image from the bound node. A kept disk that comes back was made before. */
const refusedImage = (facts: Pick<VmFacts, 'vm' | 'images' | 'report' | 'claims'>): string | undefined =>
  disksToMake(facts).flatMap((disk) => facts.images.get(imageOf(disk) ?? '')?.refused ?? [])[0];

/** What is said of a VM whose architecture only an image could tell that is not there. */
export const unknownArchitecture = (image: string): string => `image ${image} does not exist; it tells the architecture of the guest, unless spec.architecture does`;
