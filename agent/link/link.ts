import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import type { Desire, Tombstone } from '#crds/wire/judge.ts';
import { type Held, heartbeatSeconds, silenceSeconds, type ToOperator } from '#crds/wire/messages.ts';
import type { Dial } from './dial.ts';
import { keyOf } from './outbox.ts';
import { openSession, type Session } from './session.ts';

/** What a link needs from its house. */
export type LinkHouse = {
  dial: Dial;
  /** The credential, read anew for each connection. */
  token: () => Promise<string>;
  clock: Clock;
  /** A number in [0, 1). */
  chance: () => number;
  log: Log;
  hello: () => Extract<ToOperator, { type: 'hello' }>;
  /** All that is held, for the list after a welcome. */
  held: () => Held[];
  /** Digest of what is held, for comparisons. */
  heldDigest: () => string;
  /** Everything that is to be told anew after a welcome: facts and the latest report of each object. */
  snapshot: () => Iterable<ToOperator>;
  /** A leader has welcomed us; resolves when its epoch is on disk. */
  welcomed: (leaderEpoch: number) => Promise<void>;
  /** A command; resolves when it is judged and, if accepted, on disk. Never rejects. */
  hear: (command: Desire | Tombstone) => Promise<void>;
  /** The desire for one VM could not be read: it holds what this build does not know. */
  misunderstood: (uid: string, why: string) => void;
  /** Called at each heartbeat; for what is looked at now and then. */
  beat: () => void;
};

/** Times of a link, in milliseconds. */
export type LinkTimes = { tickMs: number; heartbeatMs: number; silenceMs: number; welcomeMs: number; reconnect: Backoff };

/** The times of the protocol. */
export const linkTimes: LinkTimes = {
  tickMs: 1_000, heartbeatMs: heartbeatSeconds * 1000, silenceMs: silenceSeconds * 1000, welcomeMs: 20_000, reconnect: { baseMs: 1_000, maxMs: 30_000 },
};

/** A connection to the operator that comes back by itself. */
export type Link = {
  /** Says something now when connected; else it is part of the next snapshot, or is asked for again. */
  say: (message: Extract<ToOperator, { type: 'report' | 'absent' | 'facts' }>) => void;
  joined: () => boolean;
  /** Says anew what is held when connected: whatever is missing in it is then asked for again. */
  relist: () => void;
  /** Connects and reconnects until `stop` aborts. Never rejects. */
  run: (stop: AbortSignal) => Promise<void>;
};

/**
 * Keeps one session with the operator.
 *
 *   dialling -> greeting -> joined -> closed -> (1-30 s) -> dialling
 */
export const makeLink = (house: LinkHouse, times: LinkTimes = linkTimes): Link => {
  const { clock, log } = house;
  let session: Session | undefined;
  // Shared by all sessions: a list of what is held is made only when every command that was heard before is dealt with.
  const underWay = new Set<Promise<void>>();
  let lastWhy = '';

  const converse = async (stop: AbortSignal): Promise<{ joined: boolean; patient: boolean }> => {
    const { promise: over, resolve: end } = Promise.withResolvers<{ joined: boolean; patient: boolean }>();
    let mine: Session | undefined;
    try {
      const token = await house.token();
      const early: string[] = [];
      let lost: string | undefined;
      const socket = await house.dial(token, {
        message: (text) => (mine ? mine.receive(text) : early.push(text)),
        // A close that comes late concerns the session it belonged to and no other.
        closed: (why) => (mine ? mine.closed(why) : (lost = why)),
      }, AbortSignal.any([stop, AbortSignal.timeout(times.welcomeMs)]));
      mine = openSession({ house, times, token, underWay, socket, stop, ended: end });
      session = mine;
      for (const text of early) mine.receive(text);
      if (lost !== undefined) mine.closed(lost);
      const ending = await over;
      lastWhy = '';
      return ending;
    } catch (thrown) {
      const { code, message } = asFault(thrown, 'DialFailed', 'connecting to the operator');
      if (!stop.aborted && message !== lastWhy) log.warn({ code, err: message }, 'the operator can not be reached');
      lastWhy = message;
      return { joined: false, patient: false };
    } finally {
      if (session === mine) session = undefined;
    }
  };

  return {
    say: (message) => session?.say(keyOf(message), message),
    joined: () => session?.joined() ?? false,
    relist: () => session?.relist(),
    run: async (stop) => {
      for (let attempt = 1; !stop.aborted; attempt += 1) {
        const { joined, patient } = await converse(stop);
        if (joined) attempt = 1;
        const waitMs = patient ? times.reconnect.maxMs : jittered(times.reconnect, attempt, house.chance());
        await clock.sleep(waitMs, stop).catch(() => {});
      }
    },
  };
};
