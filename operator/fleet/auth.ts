import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import { agentAudience, agentServiceAccount } from '#crds/v1alpha1/names.ts';
import type { Kube } from '../kube/kube.ts';

/** Who an agent is: the node that its token is bound to, and until when the token holds. */
export type AgentIdentity = { node: string; nodeUid: string; expiresAt: Date };

const review = z.object({
  status: z.object({
    authenticated: z.boolean().default(false),
    audiences: z.array(z.string()).default([]),
    user: z.object({ username: z.string().default(''), extra: z.record(z.string(), z.array(z.string())).default({}) }).prefault({}),
  }).prefault({}),
});

const nodeName = 'authentication.kubernetes.io/node-name';
const nodeUid = 'authentication.kubernetes.io/node-uid';

/**
 * Asks the API server whose token this is. Everything must hold: authenticated, for our audience, exactly the agent's
 * ServiceAccount of our namespace, exactly one node name and node uid. Faults: Unauthenticated (an answer: no), or the
 * KubeFault of the request (no answer). Source: KEP-4193 (node claims), TokenReview v1.
 */
export const authenticate = async (kube: Kube, namespace: string, token: string, signal?: AbortSignal): Promise<AgentIdentity> => {
  const answer = await kube.request('POST', '/apis/authentication.k8s.io/v1/tokenreviews', {
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [agentAudience] } },
    deadlineMs: 10_000,
    signal,
  });
  const { status } = review.parse(answer);
  const why = refusal(status, `system:serviceaccount:${namespace}:${agentServiceAccount}`);
  const [node = ''] = status.user.extra[nodeName] ?? [];
  const [uid = ''] = status.user.extra[nodeUid] ?? [];
  const expiresAt = why === undefined ? expiryOf(token) : undefined;
  if (why !== undefined || expiresAt === undefined) {
    throw new Fault('Unauthenticated', `the agent's token is refused: ${why ?? 'it has no expiry'}`, { retry: 'never' });
  }
  return { node, nodeUid: uid, expiresAt };
};

const refusal = ({ authenticated, audiences, user }: z.output<typeof review>['status'], username: string): string | undefined => {
  if (!authenticated) return 'it is not valid';
  if (!audiences.includes(agentAudience)) return `its audience is not ${agentAudience}`;
  if (user.username !== username) return `its user is not ${username}`;
  if (user.extra[nodeName]?.length !== 1 || user.extra[nodeUid]?.length !== 1) return 'it is not bound to a node';
  return undefined;
};

const claims = z.object({ exp: z.number() });

/** `exp` of a token that the API server has vouched for. Source: RFC 7519. */
const expiryOf = (token: string): Date | undefined => {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return new Date(claims.parse(payload).exp * 1000);
  } catch {
    return undefined;
  }
};
