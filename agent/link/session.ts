import { messageOf } from '#crds/kit/fault.ts';
import { parseFrame } from '#crds/wire/frame.ts';
import type { Desire, Tombstone } from '#crds/wire/judge.ts';
import { toAgent, type ToAgent, type ToOperator } from '#crds/wire/messages.ts';
import type { Socket } from './dial.ts';
import type { LinkHouse, LinkTimes } from './link.ts';
import { holdingFrames, keyOf, makeOutbox } from './outbox.ts';

/** One connection, from hello to its end. */
export type Session = {
  receive: (text: string) => void;
  closed: (why: string) => void;
  /** Says something if the operator has welcomed us. */
  say: (key: string, message: ToOperator) => void;
  joined: () => boolean;
  /** Says anew what is held. */
  relist: () => void;
};

/** What a session works with. `ended` is called once; `patient`: an administrator has to act first. */
export type SessionParts = {
  house: LinkHouse;
  times: LinkTimes;
  token: string;
  underWay: Set<Promise<void>>;
  socket: Socket;
  stop: AbortSignal;
  ended: (end: { joined: boolean; patient: boolean }) => void;
};

/** Opens a session over a socket: says hello, answers, beats, and ends when the peer closes, falls silent or talks nonsense. */
export const openSession = ({ house, times, token, underWay, socket, stop, ended }: SessionParts): Session => {
  const { clock, log } = house;
  const outbox = makeOutbox(socket);
  const over = new AbortController();
  let welcomed = false;
  let joined = false;
  let patient = false;
  let given = token;
  let heardMs = clock.monotonicMs();
  const openedMs = heardMs;
  let beatMs = heardMs;

  const end = (why: string, code?: number): void => {
    if (over.signal.aborted) return;
    over.abort();
    stop.removeEventListener('abort', goodBye);
    if (code !== undefined) socket.close(code, why);
    if (joined) log.info({ why }, 'session with the operator ended');
    else if (!stop.aborted) log.warn({ why }, 'session with the operator did not begin');
    ended({ joined, patient });
  };
  const goodBye = () => end('the agent ends', 1001);
  const put = (message: ToOperator) => outbox.put(keyOf(message), message);

  let lists = 0;
  const sayHolding = async (): Promise<void> => {
    await Promise.allSettled(underWay);
    if (over.signal.aborted) return;
    for (const frame of holdingFrames(house.held())) outbox.put(`holding ${(lists += 1)}`, frame);
  };
  const hear = (command: Desire | Tombstone): void => {
    const job = house.hear(command);
    underWay.add(job);
    void job.finally(() => underWay.delete(job));
  };

  const handle = async (message: ToAgent): Promise<void> => {
    switch (message.type) {
      case 'welcome':
        // What follows may wait for a disk that hangs; the operator knows us from here on, and has to hear that we live.
        welcomed = true;
        await house.welcomed(message.leaderEpoch);
        await sayHolding();
        if (over.signal.aborted) return;
        joined = true;
        for (const each of house.snapshot()) put(each);
        log.info({ node: message.node, leaderEpoch: message.leaderEpoch, protocol: message.protocol }, 'joined the operator');
        return;
      case 'refused':
        patient = message.reason === 'IdentityConflict' || message.reason === 'ProtocolMismatch';
        log.error({ reason: message.reason, message: message.message }, 'the operator refuses this agent');
        return end(`refused: ${message.reason}`, 1000);
      case 'desire':
      case 'tombstone':
        if (joined) return hear(message);
        return end(`${message.type} before welcome`, 1002);
      case 'compare':
        await Promise.allSettled(underWay);
        if (house.heldDigest() !== message.digest) await sayHolding();
        return;
      case 'renewed':
        log.debug({ expiresAt: message.expiresAt }, 'credential renewed');
        return;
      case 'alive':
        return;
    }
  };

  // One pump: a frame is handled after the one before it, also when that one had to wait.
  let pump: Promise<void> = Promise.resolve();
  const receive = (text: string): void => {
    if (over.signal.aborted) return;
    heardMs = clock.monotonicMs();
    const parsed = parseFrame<ToAgent>(toAgent, text);
    if (parsed.is === 'unknown') return log.debug({ type: parsed.type }, 'unknown frame ignored');
    if (parsed.is === 'bad' && parsed.about !== undefined && joined) {
      log.error({ uid: parsed.about, why: parsed.why }, 'a desire can not be read: the operator is newer');
      return house.misunderstood(parsed.about, parsed.why);
    }
    if (parsed.is === 'bad') {
      log.error({ why: parsed.why }, 'the operator sent a bad frame');
      return end('bad frame', 1002);
    }
    pump = pump.then(() => (over.signal.aborted ? undefined : handle(parsed.message))).catch((thrown: unknown) => {
      log.error({ err: messageOf(thrown) }, 'a frame could not be handled');
      end('a frame could not be handled', 1011);
    });
  };

  const renew = async (): Promise<void> => {
    const now = await house.token();
    if (now === given || over.signal.aborted) return;
    given = now;
    put({ type: 'renew', token: now });
  };
  let renewing: Promise<void> | undefined;
  const tick = async (): Promise<void> => {
    while (!over.signal.aborted) {
      await clock.sleep(times.tickMs, over.signal).catch(() => {});
      if (over.signal.aborted) return;
      const nowMs = clock.monotonicMs();
      if (nowMs - heardMs > times.silenceMs) return end('the operator is silent', 4002);
      if (!welcomed && nowMs - openedMs > times.welcomeMs) return end('no welcome came', 4002);
      if (!welcomed || nowMs - beatMs < times.heartbeatMs) continue;
      beatMs = nowMs;
      put({ type: 'heartbeat' });
      house.beat();
      // Not awaited: while the disk hangs the heartbeats must go on.
      renewing ??= renew().catch((thrown: unknown) => log.warn({ err: messageOf(thrown) }, 'the credential can not be read')).finally(() => { renewing = undefined; });
    }
  };

  stop.addEventListener('abort', goodBye, { once: true });
  if (stop.aborted) goodBye();
  else {
    put(house.hello());
    void tick();
  }
  return {
    receive,
    closed: (why) => end(why),
    say: (key, message) => { if (joined && !over.signal.aborted) outbox.put(key, message); },
    joined: () => joined && !over.signal.aborted,
    relist: () => { if (joined) void sayHolding(); },
  };
};
