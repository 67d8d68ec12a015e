import { hypervisorNode, type HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { apiVersion } from '#crds/v1alpha1/meta.ts';
import { acceptAgentAnnotation } from '#crds/v1alpha1/names.ts';
import { isAlreadyExists, isNotFound, type Kube } from '../kube/kube.ts';

const collection = `/apis/${apiVersion}/hypervisornodes`;

/** Whether an agent may speak for its node, as the node's object says. */
export type Admission = { is: 'welcome' } | { is: 'conflict'; message: string };

/**
 * Judges an agent's identity. The first agent of a node is recorded in its status; another one under the same name is
 * refused until an administrator names it in the annotation strato.dev/accept-agent.
 */
export const judgeIdentity = (node: HypervisorNode, agentId: string): Admission => {
  const { name, annotations } = node.metadata;
  const recorded = node.status.agentId;
  if (recorded === undefined || recorded === agentId || annotations[acceptAgentAnnotation] === agentId) return { is: 'welcome' };
  return {
    is: 'conflict',
    message: `node ${name} belongs to agent ${recorded}; to accept this one: kubectl annotate hvn ${name} --overwrite ${acceptAgentAnnotation}=${agentId}`,
  };
};

/** Reads the HypervisorNode of an agent that has authenticated; makes it when the node is new. */
export const ensureNode = async (kube: Kube, name: string, signal?: AbortSignal): Promise<HypervisorNode> => {
  try {
    return hypervisorNode.parse(await kube.request('GET', `${collection}/${encodeURIComponent(name)}`, { signal }));
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    const body = { apiVersion, kind: 'HypervisorNode', metadata: { name }, spec: {} };
    return hypervisorNode.parse(await kube.request('POST', collection, { body, signal }));
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    return hypervisorNode.parse(await kube.request('GET', `${collection}/${encodeURIComponent(name)}`, { signal }));
  }
};
