import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import { virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { isAlreadyExists, isNotFound, type Kube } from './kube/kube.ts';
import { pathOf, resourceOf } from './kube/resource.ts';

const configMap = z.object({ data: z.record(z.string(), z.string()).default({}) });
const clusterId = z.string().min(1).max(253);

/**
 * The cluster's id: `data.clusterId` of ConfigMap `strato` in the operator's namespace, made once with a random value. UUIDs
 * and MAC addresses derive from it, so an administrator who moves to another cluster may set it before the first start. Fault ClusterIdLost: it is
 * gone although VMs were given theirs by it; another one would change the hardware of them all.
 */
export const readClusterId = async (kube: Kube, namespace: string, signal?: AbortSignal): Promise<string> => {
  const collection = `/api/v1/namespaces/${namespace}/configmaps`;
  const read = async (): Promise<string> =>
    clusterId.parse(configMap.parse(await kube.request('GET', `${collection}/strato`, { signal })).data['clusterId']);
  try {
    return await read();
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  await assertUnused(kube, namespace, signal);
  const fresh = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'strato', namespace }, data: { clusterId: randomUUID() } };
  try {
    await kube.request('POST', collection, { body: fresh, signal });
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
  // Another operator may have made it in between: what is stored counts.
  return read();
};

const identified = z.object({ items: z.array(z.object({ metadata: z.object({ name: z.string(), namespace: z.string() }), status: z.object({ nodeName: z.string().optional() }).optional().catch(undefined) })).nullish() });

/** Throws when a VM has a node: it was given its UUID and its MAC addresses. */
const assertUnused = async (kube: Kube, namespace: string, signal: AbortSignal | undefined): Promise<void> => {
  // Without our CRDs there are no VMs.
  const answer = await kube.request('GET', pathOf(resourceOf(virtualMachineKind)), { signal }).catch((thrown: unknown) => {
    if (isNotFound(thrown)) return { items: [] };
    throw thrown;
  });
  const vm = identified.parse(answer).items?.find(({ status }) => status?.nodeName !== undefined);
  if (vm) throw new Fault('ClusterIdLost', `ConfigMap strato in namespace ${namespace} is gone, and VMs such as ${vm.metadata.namespace}/${vm.metadata.name} have UUIDs and MAC addresses by its clusterId: restore it from a backup; or, to have all of them changed: kubectl -n ${namespace} create configmap strato --from-literal=clusterId=$(uuidgen)`);
};
