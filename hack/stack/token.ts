import { z } from 'zod';

/** What a token has to say: whose it is, for whom, and (for the agent's) on which node. */
export type WantedToken = { serviceAccount: string; namespace: string; audience?: string; node?: { name: string; uid: string } };

const claims = z.object({
  sub: z.string(),
  aud: z.array(z.string()),
  iat: z.number(),
  exp: z.number(),
  'kubernetes.io': z.object({ node: z.object({ name: z.string(), uid: z.string() }).optional() }).default({}),
});

/** The claims of a ServiceAccount token (not verified: it is our own file); undefined when it is no such token. Source: RFC 7519. */
export const parseClaims = (token: string): z.output<typeof claims> | undefined => {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.trim().split('.')[1] ?? '', 'base64url').toString('utf8'));
    return claims.parse(payload);
  } catch {
    return undefined;
  }
};

/** Whether a new token is due: there is none, it is another's, or half of its life is over. */
export const isDue = (token: string | undefined, want: WantedToken, now: Date): boolean => {
  const held = token === undefined ? undefined : parseClaims(token);
  if (held === undefined || held.sub !== `system:serviceaccount:${want.namespace}:${want.serviceAccount}`) return true;
  if (want.audience !== undefined && !held.aud.includes(want.audience)) return true;
  const node = held['kubernetes.io'].node;
  if (want.node !== undefined && (node?.name !== want.node.name || node.uid !== want.node.uid)) return true;
  return now.getTime() / 1000 >= (held.iat + held.exp) / 2;
};

/** The body of the TokenRequest. Source: authentication.k8s.io/v1; KEP-4193 for tokens that are bound to a Node. */
export const tokenRequest = ({ audience, node }: WantedToken, lifeSeconds: number) => ({
  apiVersion: 'authentication.k8s.io/v1',
  kind: 'TokenRequest',
  spec: {
    ...(audience === undefined ? {} : { audiences: [audience] }),
    expirationSeconds: lifeSeconds,
    ...(node === undefined ? {} : { boundObjectRef: { apiVersion: 'v1', kind: 'Node', name: node.name, uid: node.uid } }),
  },
});
