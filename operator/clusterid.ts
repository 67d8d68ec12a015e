import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { isAlreadyExists, isNotFound, type Kube } from './kube/kube.ts';

const configMap = z.object({ data: z.record(z.string(), z.string()).default({}) });
const clusterId = z.string().min(1).max(253);

/**
 * The cluster's id: `data.clusterId` of ConfigMap `strato` in the operator's namespace, made once with a random value. UUIDs
 * and MAC addresses derive from it, so an administrator who moves to another cluster may set it before the first start.
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
  const fresh = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'strato', namespace }, data: { clusterId: randomUUID() } };
  try {
    await kube.request('POST', collection, { body: fresh, signal });
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
  // Another operator may have made it in between: what is stored counts.
  return read();
};
