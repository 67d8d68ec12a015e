import { holdingDigest } from '#crds/wire/judge.ts';
import type { Doomed, ToAgent } from '#crds/wire/messages.ts';
import { afterEnd, afterSend, planSync } from '#crds/wire/sync.ts';
import { type Member, oversize } from './fleet.ts';

/** What commands need of their connection. `open`: it speaks for its node, and the agent is welcomed. `bufferedBytes`: what has not left the socket. */
export type CommandWire = { member: () => Member; open: () => boolean; leads: () => boolean; say: (message: ToAgent) => void; bufferedBytes: () => number };

/** What is commanded over one connection. */
export type Commands = {
  /** Says everything that is wanted of the node and that its agent does not hold yet. */
  sync: () => void;
  /** Something has left the socket: what waited for that is said. */
  drained: () => void;
  /** Says what was not said yet, each tombstone again whose end was not told, and the digest of what the agent should hold. */
  compare: () => void;
};

/** So many bytes may wait in a socket before the next object waits here. */
const pauseBytes = 8 * 1024 * 1024;

/** The commands of one connection. Each takes the next place in the order of its leader; without the lead there is none. */
export const makeCommands = ({ member, open, leads, say, bufferedBytes }: CommandWire): Commands => {
  let paused = false;

  /** The next place in the order of commands; undefined when nothing may be commanded. */
  const order = (): { leaderEpoch: number; revision: number } | undefined => {
    const it = member();
    if (!leads() || it.spoke === undefined) return undefined;
    it.revision += 1;
    return { leaderEpoch: it.spoke.leaderEpoch, revision: it.revision };
  };

  /** The tombstone of a uid; undefined when it would destroy what an agent of an older build can not keep, or is about what that does not know, or nothing may be commanded. */
  const tombstone = (uid: string, kind: Doomed): ToAgent | undefined => {
    const { keep, facts } = member();
    const kept = keep.get(uid);
    if ((kept || kind === 'disk') && facts?.keptDisks === undefined) return undefined;
    const at = order();
    return at && { type: 'tombstone', ...at, uid, kind, ...(kept ? { keep: kept } : {}) };
  };

  const sync = (): void => {
    if (!open()) return;
    const it = member();
    const objects = new Map([...it.wanted].map(([uid, { held }]) => [uid, held]));
    const plan = planSync({ objects, doomed: it.doomed }, it.view);
    for (const uid of plan.send) {
      // The agent has answered that this uid has ended for ever, so it is not told again.
      const wanted = it.endedForEver.has(uid) ? undefined : it.wanted.get(uid);
      // A frame above the agent's limit would make it close the connection: it is not sent, and the status of that object says so.
      if (!wanted || oversize(wanted, it)) continue;
      paused = bufferedBytes() > pauseBytes;
      if (paused) return;
      const at = order();
      if (!at) continue;
      say({ type: 'desire', ...at, object: wanted.object, ...(wanted.made.length > 0 ? { made: [...wanted.made] } : {}) });
      it.view = afterSend(it.view, wanted.held);
    }
    for (const { uid, kind } of plan.end) {
      const message = it.view.told.get(uid)?.ending ? undefined : tombstone(uid, kind);
      if (!message) continue;
      say(message);
      it.view = afterEnd(it.view, uid);
    }
  };

  return {
    sync,
    drained: () => {
      if (paused && bufferedBytes() <= pauseBytes) sync();
    },
    compare: () => {
      const said = [...member().doomed].filter(([uid]) => member().view.told.get(uid)?.ending);
      // What could not be said when it was wanted: no wake-up has to arrive.
      sync();
      const { spoke, view } = member();
      if (!open() || !leads() || !spoke || view.is !== 'joined') return;
      for (const [uid, kind] of said) {
        const message = tombstone(uid, kind);
        if (message) say(message);
      }
      say({ type: 'compare', leaderEpoch: spoke.leaderEpoch, digest: holdingDigest(view.told.values()) });
    },
  };
};
