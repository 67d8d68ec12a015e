import { imageOf } from '#crds/v1alpha1/disks.ts';
import type { ObjectMeta } from '#crds/v1alpha1/meta.ts';
import type { VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { isReason, type Reason } from '#crds/v1alpha1/reasons.ts';
import type { NodeFacts, ObservedImage } from '#crds/wire/observed.ts';
import type { Cache } from '../cache.ts';
import { type Claim, claimsOf } from '../disk/claims.ts';
import { orphanedFor } from '../disk/orphaned.ts';
import { standsFor, unrecordedOf } from '../disk/unrecorded.ts';
import { copyRefused } from '../image/copies.ts';
import { candidates, type NodeSources } from './candidates.ts';
import type { ImageFact, VmFacts } from './facts.ts';
import { elderOf, holdersOf } from './holders.ts';
import { machineUidOf } from './identity.ts';
import { disksToMake, usesImage } from './images.ts';
import type { Candidate } from './place.ts';
import { roomOf } from './room.ts';

/** Where the facts about VMs come from. */
export type VmSources = NodeSources & {
  clusterId: string;
  images: Cache<VirtualMachineImage>;
  disks: Cache<VirtualDisk>;
  namespaces: Cache<{ metadata: ObjectMeta }>;
  /** Whether the VM was there when this operator began to decide: a history that is no more may have given it to a node. */
  inherited: (uid: string) => boolean;
  /** Whether it is known that there was such a history. */
  historyWentBack: () => boolean;
};

const imageFact = ({ metadata, spec, status }: VirtualMachineImage, copy: ObservedImage | undefined, node: string | undefined): ImageFact => {
  const claim = copy?.state === 'ready' ? copy.content?.digest : undefined;
  const stalled = conditionOf(status.conditions, 'Stalled');
  return {
    name: metadata.name,
    uid: metadata.uid,
    ...(spec.architecture === undefined ? {} : { architecture: spec.architecture }),
    ...(status.digest === undefined ? {} : { digest: status.digest }),
    ...(stalled?.status === 'True' ? { failed: stalled.message } : {}),
    ...(claim !== undefined && status.digest !== undefined && claim !== status.digest ? { refused: `node ${node} reports ${claim} as image ${metadata.name}, which is ${status.digest}` } : {}),
  };
};

const refusing = new Set<Reason>(['LedgerFull', 'LedgerReadOnly', 'LedgerFailed', 'StorageHung']);

/** Whether one of a node's troubles keeps it from taking new intents. */
export const refusalOf = (troubles: NodeFacts['troubles']): VmFacts['refuses'] => {
  for (const { reason, message } of troubles) if (isReason(reason) && refusing.has(reason)) return { reason, message };
  return undefined;
};

/**
 * The node that a VM which was there before this operator has to wait for. In a history that is known to be no more it may have been given to any node;
 * else only a node that is about to speak is waited for: time is no evidence that a node is dead, but without any sign of a lost history none holds it.
 */
const unheardOf = (names: readonly string[], { fleet, historyWentBack }: VmSources): Pick<VmFacts, 'unheard'> => {
  const forLong = fleet.hasSettled();
  const node = forLong && !historyWentBack() ? undefined : names.find((name) => !fleet.hasListed(name));
  return node === undefined ? {} : { unheard: { node, forLong } };
};

/** A node whose copy of an image is not used takes no VM that needs it. */
const refusedCopy = (node: string, toFetch: readonly VirtualMachineImage[], { fleet }: Pick<VmSources, 'fleet'>): Pick<Candidate, 'refuses'> => {
  for (const image of toFetch) {
    const refused = copyRefused(image, fleet.imageReport(node, image.metadata.uid));
    if (refused) return { refuses: { reason: refused.reason, message: `its copy of an image is not used: ${refused.message}; look at its agent` } };
  }
  return {};
};

/** What can not be read is not nothing: a VM without a node waits for it. */
const unreadClaims = (namespace: string, name: string, { all }: VmSources['disks']): Claim[] => all().flatMap((held): Claim[] => {
  const { vmName = name } = standsFor(held);
  if (held.is === 'object' || held.meta.namespace !== namespace || vmName !== name) return [];
  return [{ disk: 'unknown', object: held.meta.name, kept: '', node: '', deleting: false, at: 'unread' }];
});

/** Disks that outlive the VM, or an earlier one of its name. Whose a disk is, is read from the VM and its namespace, never from what a node says. */
const keptFacts = (vm: VirtualMachine, sources: VmSources): Pick<VmFacts, 'namespace' | 'claims' | 'unrecorded' | 'keepsDisks'> => {
  const { metadata: { namespace, name }, spec, status: { nodeName, disks: known = [] } } = vm;
  const { fleet, disks, namespaces } = sources;
  const uid = machineUidOf(vm);
  const owner = namespaces.get(namespace)?.metadata;
  const has = new Set((nodeName === undefined ? [] : (fleet.report(nodeName, uid)?.disks ?? known)).map((disk) => disk.name));
  const keeps = nodeName === undefined ? undefined : fleet.keepsDisks(nodeName);
  const me = { namespace, namespaceUid: owner?.uid, name, disks: spec.disks };
  const claims = claimsOf(me, disks.list(), fleet).filter(({ disk }) => !has.has(disk));
  // Of a bound VM its node says itself what it has. What a VirtualDisk stands for outranks the word of a node.
  const unsure = nodeName === undefined ? [...unreadClaims(namespace, name, disks), ...orphanedFor(me, sources).filter(({ disk }) => !claims.some((each) => each.disk === disk))] : [];
  return {
    ...(owner ? { namespace: { uid: owner.uid, terminating: owner.deletionTimestamp !== undefined } } : {}),
    claims: [...claims, ...unsure],
    unrecorded: nodeName === undefined ? [] : unrecordedOf(nodeName, { namespace, name, uid }, { disks, fleet }),
    ...(keeps === undefined ? {} : { keepsDisks: keeps }),
  };
};

/** Whether a node is gone for good: somebody has deleted its HypervisorNode, and its agent is silent. */
export const isNodeGone = (node: string, { nodes, fleet }: Pick<VmSources, 'nodes' | 'fleet'>): boolean =>
  fleet.link(node) === 'silent' && !nodes.all().some(({ meta }) => meta.name === node);

/** Reads everything that one decision needs. */
export const observe = (vm: VirtualMachine, sources: VmSources): VmFacts => {
  const { fleet, images, nodes } = sources;
  const { namespace } = vm.metadata;
  const { nodeName } = vm.status;
  const uid = machineUidOf(vm);
  const report = nodeName === undefined ? undefined : fleet.report(nodeName, uid);
  const oversize = nodeName === undefined ? undefined : fleet.oversize(nodeName, uid);
  const refuses = nodeName === undefined ? undefined : refusalOf(fleet.troubles(nodeName));
  const room = nodeName === undefined ? undefined : roomOf(vm, nodeName, sources);
  const elder = nodeName === undefined ? elderOf(vm, sources) : undefined;
  const names = nodes.all().map(({ meta }) => meta.name);
  const unreported = names.find((name) => fleet.link(name) !== 'connected');
  const wanted = vm.spec.disks.flatMap((disk) => images.get(`${namespace}/${imageOf(disk)}`) ?? [])
    .filter(({ metadata: image }) => usesImage(vm, { ...image, deleting: image.deletionTimestamp !== undefined }));
  const kept = keptFacts(vm, sources);
  const needed = new Set(disksToMake({ vm, claims: kept.claims }).map(imageOf));
  const toFetch = wanted.filter(({ metadata: image }) => needed.has(image.name));
  return {
    vm,
    clusterId: sources.clusterId,
    candidates: nodeName === undefined ? candidates(sources).map((each) => ({ ...each, ...refusedCopy(each.name, toFetch, sources) })) : [],
    link: nodeName === undefined ? 'joining' : fleet.link(nodeName),
    nodeGone: nodeName !== undefined && isNodeGone(nodeName, sources),
    ...(room ? { room } : {}),
    ...(refuses ? { refuses } : {}),
    ...(oversize ? { oversize } : {}),
    held: nodeName !== undefined && fleet.claims(uid).some(({ node }) => node === nodeName),
    awaited: nodeName !== undefined && fleet.awaits(nodeName, uid),
    ...(report ? { report } : {}),
    ...(nodeName === undefined ? {} : { toldDisks: fleet.toldDisks(nodeName, uid) }),
    absent: nodeName !== undefined && fleet.isAbsent(nodeName, uid),
    endedForEver: nodeName !== undefined && fleet.isEndedForEver(nodeName, uid),
    images: new Map(wanted.map((image) => [image.metadata.name, imageFact(image, nodeName === undefined ? undefined : fleet.imageReport(nodeName, image.metadata.uid), nodeName)])),
    ...kept,
    holders: holdersOf(uid, sources).filter(({ node }) => node !== nodeName),
    ...(elder ? { elder } : {}),
    ...(nodeName === undefined && sources.inherited(vm.metadata.uid) ? unheardOf(names, sources) : {}),
    everyNodeReported: names.length > 0 && unreported === undefined,
    ...(unreported === undefined ? {} : { unreported }),
  };
};
