import type { KeptDisk } from '#crds/wire/kept.ts';
import { Fault } from '#crds/kit/fault.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { apiVersion } from '#crds/v1alpha1/meta.ts';
import { diskFinalizer } from '#crds/v1alpha1/names.ts';
import { type DiskStatus, type VirtualDisk, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { isAlreadyExists, type Kube } from '../kube/kube.ts';
import { patchStatus, type Written } from '../kube/patch.ts';
import { pathOf, type Resource } from '../kube/resource.ts';

/**
 * For whom a disk is kept, by the operator's own knowledge, and on which node; `architecture`: of the guest that had it, where that is known. Nothing of it
 * is what a node claims.
 */
export type KeptFor = { namespace: string; namespaceUid: string; vm: string; node: string; architecture?: DiskStatus['architecture'] };

/** Names for the object of a kept disk, the same for the same disk: one for people, and one with its whole uid should that be another disk's. Pure. */
export const diskObjectNames = (vm: string, { uid, owner }: Pick<KeptDisk, 'uid' | 'owner'>): [string, string] => {
  const name = (end: string) => `${`${vm}-${owner.disk}`.slice(0, 252 - end.length).replace(/[-.]+$/, '')}-${end}`;
  return [name(uid.slice(0, 8)), name(uid)];
};

/** What is first said of a kept disk: where it is, and for whom. Pure. */
export const recordedStatus = ({ uid, owner, sizeMiB }: KeptDisk, { namespaceUid, vm, node, architecture }: KeptFor): DiskStatus => ({
  observedGeneration: -1, uid, nodeName: node, vmName: vm, diskName: owner.disk, namespaceUid, ...(architecture === undefined ? {} : { architecture }), size: fromMiB(sizeMiB), format: 'qcow2', state: 'Kept',
});

/** What recording needs. */
export type RecordHands = { kube: Kube; resource: Resource; signal: AbortSignal };

/** The object of a name, which is made when there is none. */
const ensureObject = async ({ kube, resource, signal }: RecordHands, namespace: string, name: string): Promise<unknown> =>
  await kube.request('POST', pathOf(resource, { namespace }), {
    body: { apiVersion, kind: 'VirtualDisk', metadata: { name, namespace, finalizers: [diskFinalizer] }, spec: {} }, signal,
  }).catch((thrown: unknown) => {
    if (!isAlreadyExists(thrown)) throw thrown;
    return kube.request('GET', pathOf(resource, { namespace, name }), { signal });
  });

/** Whether an object stands for a disk, or may: one that is being deleted would take a disk that is recorded in it along. Pure. */
const isFor = ({ metadata, status }: VirtualDisk, { uid }: KeptDisk): boolean => (status.uid === undefined ? metadata.deletionTimestamp === undefined : status.uid === uid);

/**
 * Makes the VirtualDisk of a kept disk: the object with its finalizer, then its status. Safe to do twice. Resolves to the object as it is then; rejects
 * with the KubeFault of the API server, Forbidden when the namespace is being deleted, and with DiskNameTaken when both of its names are others'.
 */
export const recordDisk = async (hands: RecordHands, disk: KeptDisk, keptFor: KeptFor): Promise<Written> => {
  const { kube, resource, signal } = hands;
  const names = diskObjectNames(keptFor.vm, disk);
  for (const name of names) {
    const made = await ensureObject(hands, keptFor.namespace, name);
    const object = virtualDisk.parse(made);
    if (!isFor(object, disk)) continue;
    return object.status.uid === undefined ? patchStatus(kube, resource, object, recordedStatus(disk, keptFor), signal) : { is: 'written', object: made };
  }
  throw new Fault('DiskNameTaken', `the kept disk ${disk.uid} on node ${keptFor.node} gets no VirtualDisk: ${names.join(' and ')} are there and stand for something else; delete the one that nobody needs`);
};
