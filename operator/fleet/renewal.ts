import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import type { AgentIdentity } from './auth.ts';

/** What a renewal needs. `renewed` and `refused` are told how it ended; neither is while nobody can review the token. */
export type RenewalHouse = {
  reviewToken: (token: string) => Promise<AgentIdentity>;
  monotonicMs: () => number;
  log: Pick<Log, 'warn'>;
  renewed: (expiresAt: Date) => void;
  refused: (why: string) => void;
};

/** The credential of one session. */
export type Renewal = {
  /** When the session ends unless its token is renewed. */
  expiresAt: () => Date;
  /** Has another token reviewed; it must be of the same node. */
  renew: (token: string) => Promise<void>;
  /** Called each second: a token that could not be reviewed is reviewed again after a while. */
  tick: () => void;
};

const reviewAgainMs = 5_000;

/** A token that nobody can review now changes nothing: the old one holds until it expires. */
export const makeRenewal = ({ reviewToken, monotonicMs, log, renewed, refused }: RenewalHouse, identity: AgentIdentity): Renewal => {
  const { node, nodeUid } = identity;
  let { expiresAt } = identity;
  let unreviewed: { token: string; afterMs: number } | undefined;
  // The review of an earlier one may end after that of a later one, and says nothing then.
  let latest: string | undefined;

  const renew = async (token: string): Promise<void> => {
    unreviewed = undefined;
    latest = token;
    try {
      const fresh = await reviewToken(token);
      if (latest !== token) return;
      if (fresh.node !== node || fresh.nodeUid !== nodeUid) return refused('the renewed token is of another node');
      expiresAt = fresh.expiresAt;
      renewed(expiresAt);
    } catch (thrown) {
      if (latest !== token) return;
      const { code, message } = asFault(thrown, 'Unreviewed', 'review the renewed token');
      if (code === 'Unauthenticated') return refused(message);
      log.warn({ node, code, why: message }, 'the renewed token can not be reviewed now');
      unreviewed = { token, afterMs: monotonicMs() + reviewAgainMs };
    }
  };
  return {
    expiresAt: () => expiresAt,
    renew,
    tick: () => {
      if (unreviewed && monotonicMs() >= unreviewed.afterMs) void renew(unreviewed.token);
    },
  };
};
