import type { ToOperator } from '#crds/wire/messages.ts';

/** What this operator commands a node under: the epoch, and which agent it speaks to. */
export type Spoken = { agentId: string; leaderEpoch: number };

/**
 * The epoch that an agent is commanded under. An agent compares epochs with those that it has seen itself and with no others, so that what it
 * claims counts for it alone: nothing of it ever comes into the Lease. Ours will do when the agent has seen none as high, or saw it from us:
 * its revisions go on then. Else (a restored etcd or a deleted Lease made the count go back) it is the next one above what it has seen.
 * `fence`: that number is not unique to our lead, so that we must prove, after its hello, that nobody else leads. Pure.
 */
export const epochFor = (
  spoke: Spoken | undefined, hello: Pick<Extract<ToOperator, { type: 'hello' }>, 'agentId' | 'leaderEpochSeen'>, ours: number,
): { leaderEpoch: number; fence: boolean } => {
  const { agentId, leaderEpochSeen: seen } = hello;
  if (spoke?.agentId === agentId && spoke.leaderEpoch >= Math.max(ours, seen)) return { leaderEpoch: spoke.leaderEpoch, fence: false };
  return seen < ours ? { leaderEpoch: ours, fence: false } : { leaderEpoch: seen + 1, fence: true };
};
