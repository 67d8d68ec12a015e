import { z } from 'zod';
import { apiVersion, objectMeta } from '#crds/v1alpha1/meta.ts';
import { acceptAgentAnnotation } from '#crds/v1alpha1/names.ts';
import { isAlreadyExists, isNotFound, type Kube } from '../kube/kube.ts';

const collection = `/apis/${apiVersion}/hypervisornodes`;

/** The part of a HypervisorNode that tells who may speak for it. The rest may be of another version: its VMs are no worse off by that. */
const identity = z.object({ metadata: objectMeta, status: z.object({ agentId: z.string().optional() }).prefault({}) });

/** Who may speak for a node. */
export type NodeIdentity = z.output<typeof identity>;

/** Whether an agent may speak for its node, as the node's object says. */
export type Admission = { is: 'welcome' } | { is: 'conflict'; message: string };

/**
 * Judges an agent's identity. The first agent of a node is recorded in its status; another one under the same name is
 * refused until an administrator names it in the annotation strato.dev/accept-agent.
 */
export const judgeIdentity = (node: NodeIdentity, agentId: string): Admission => {
  const { name, annotations } = node.metadata;
  const recorded = node.status.agentId;
  if (recorded === undefined || recorded === agentId || annotations[acceptAgentAnnotation] === agentId) return { is: 'welcome' };
  return {
    is: 'conflict',
    message: `node ${name} belongs to agent ${recorded}; to accept this one: kubectl annotate hvn ${name} --overwrite ${acceptAgentAnnotation}=${agentId}`,
  };
};

/** Reads who may speak for the node of an agent that has authenticated; makes it when the node is new. */
export const ensureNode = async (kube: Kube, name: string, signal?: AbortSignal): Promise<NodeIdentity> => {
  try {
    return identity.parse(await kube.request('GET', `${collection}/${encodeURIComponent(name)}`, { signal }));
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    const body = { apiVersion, kind: 'HypervisorNode', metadata: { name }, spec: {} };
    return identity.parse(await kube.request('POST', collection, { body, signal }));
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    return identity.parse(await kube.request('GET', `${collection}/${encodeURIComponent(name)}`, { signal }));
  }
};
