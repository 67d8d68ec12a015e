import type { ToOperator } from '#crds/wire/messages.ts';

/** What this operator last commanded a node under: the epoch, and which agent it spoke to. */
export type Spoken = { agentId: string; leaderEpoch: number };

/**
 * The epoch that ours must be raised above before an agent is commanded; undefined when ours will do. An epoch that the agent has seen
 * will do only if it saw it from us: its revisions go on then. A restored etcd or a deleted Lease makes somebody else's epoch equal to ours.
 */
export const mustRaise = (spoke: Spoken | undefined, hello: Pick<Extract<ToOperator, { type: 'hello' }>, 'agentId' | 'leaderEpochSeen'>, ours: number): number | undefined => {
  const { agentId, leaderEpochSeen } = hello;
  if (leaderEpochSeen < ours) return undefined;
  const fromUs = leaderEpochSeen === ours && spoke?.agentId === agentId && spoke.leaderEpoch === ours;
  return fromUs ? undefined : leaderEpochSeen;
};
