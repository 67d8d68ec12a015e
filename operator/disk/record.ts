import type { KeptDisk } from '#crds/wire/kept.ts';
import { fromMiB } from '#crds/kit/quantity.ts';
import { apiVersion } from '#crds/v1alpha1/meta.ts';
import { diskFinalizer } from '#crds/v1alpha1/names.ts';
import { type DiskStatus, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { isAlreadyExists, type Kube } from '../kube/kube.ts';
import { patchStatus, type Written } from '../kube/patch.ts';
import { pathOf, type Resource } from '../kube/resource.ts';

/**
 * For whom a disk is kept, by the operator's own knowledge, and on which node; `architecture`: of the guest that had it, where that is known. Nothing of it
 * is what a node claims.
 */
export type KeptFor = { namespace: string; namespaceUid: string; vm: string; node: string; architecture?: DiskStatus['architecture'] };

/** The name of the object of a kept disk: for people, and the same for the same disk. Pure. */
export const diskObjectName = (vm: string, { uid, owner }: Pick<KeptDisk, 'uid' | 'owner'>): string => `${`${vm}-${owner.disk}`.slice(0, 230).replace(/[-.]+$/, '')}-${uid.slice(0, 8)}`;

/** What is first said of a kept disk: where it is, and for whom. Pure. */
export const recordedStatus = ({ uid, owner, sizeMiB }: KeptDisk, { namespaceUid, vm, node, architecture }: KeptFor): DiskStatus => ({
  observedGeneration: -1, uid, nodeName: node, vmName: vm, diskName: owner.disk, namespaceUid, ...(architecture === undefined ? {} : { architecture }), size: fromMiB(sizeMiB), format: 'qcow2', state: 'Kept',
});

/** What recording needs. */
export type RecordHands = { kube: Kube; resource: Resource; signal: AbortSignal };

/**
 * Makes the VirtualDisk of a kept disk: the object with its finalizer, then its status. Safe to do twice. Resolves to the object as it is then; rejects
 * with the KubeFault of the API server, Forbidden when the namespace is being deleted.
 */
export const recordDisk = async ({ kube, resource, signal }: RecordHands, disk: KeptDisk, keptFor: KeptFor): Promise<Written> => {
  const name = diskObjectName(keptFor.vm, disk);
  const { namespace } = keptFor;
  const made = await kube.request('POST', pathOf(resource, { namespace }), {
    body: { apiVersion, kind: 'VirtualDisk', metadata: { name, namespace, finalizers: [diskFinalizer] }, spec: {} }, signal,
  }).catch((thrown: unknown) => {
    if (!isAlreadyExists(thrown)) throw thrown;
    return kube.request('GET', pathOf(resource, { namespace, name }), { signal });
  });
  const object = virtualDisk.parse(made);
  return object.status.uid === undefined ? patchStatus(kube, resource, object, recordedStatus(disk, keptFor), signal) : { is: 'written', object: made };
};
