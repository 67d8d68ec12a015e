import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { parseFrame, writeFrame } from '#crds/wire/frame.ts';
import { holdingDigest } from '#crds/wire/judge.ts';
import { compareSeconds, firstMaxFrameBytes, type Held, maxHeld, protocolRange, silenceSeconds, type ToAgent, toOperator, type ToOperator } from '#crds/wire/messages.ts';
import { afterEnd, afterFrame, afterSend, joining, negotiate, planSync } from '#crds/wire/sync.ts';
import type { AgentIdentity } from './auth.ts';
import { type Fleet, type Member, oversize } from './fleet.ts';

/** The part of a WebSocket that a session needs. `bufferedBytes`: what was sent and has not left this process. */
export type Wire = { send: (text: string) => void; bufferedBytes: () => number; close: (code: number, reason: string) => void };

/** What a session needs from its house. Only `admit` and `reviewToken` may take time. */
export type SessionHouse = {
  fleet: Fleet;
  monotonicMs: () => number;
  now: () => Date;
  log: Pick<Log, 'info' | 'warn'>;
  /**
   * Checks the agent's identity against its HypervisorNode, creating that when it is new. Returns the leaderEpoch that the agent is
   * commanded under (see `epochFor`), or why it is refused.
   */
  admit: (hello: Extract<ToOperator, { type: 'hello' }>, node: string) => Promise<{ leaderEpoch: number } | { refused: 'IdentityConflict' | 'NotLeader'; message: string }>;
  /** Whether we lead in this moment: nothing is commanded otherwise. */
  leads: () => boolean;
  /** Faults: Unauthenticated; anything else means that it could not be reviewed now. */
  reviewToken: (token: string, signal?: AbortSignal) => Promise<AgentIdentity>;
  /** The agent is alive: its Lease is renewed (at most each 10 s). */
  heard: (node: string) => void;
};

/** So many bytes may wait in a socket before the next object waits here; `drained` goes on. */
const pauseBytes = 8 * 1024 * 1024;

let sessions = 0;
const reviewAgainMs = 5_000;

/**
 * One connection of one agent. `receive` takes each text frame in its order, `tick` is called each second, `drained` when something was
 * sent, `ended` when the socket has closed.
 *
 *   greeting -> hello -> listing -> holding, last -> joined -> closed
 */
export const makeSession = (house: SessionHouse, identity: AgentIdentity, wire: Wire) => {
  const { fleet, log } = house;
  const { node } = identity;
  const id = ++sessions;
  let expiresAt = identity.expiresAt;
  let welcomed = false;
  let pending: readonly Held[] = [];
  let lastCompareMs = house.monotonicMs();
  let lastFrameMs = house.monotonicMs();
  let unreviewed: { token: string; afterMs: number } | undefined;
  let closed = false;
  let paused = false;

  const member = (): Member => fleet.member(node);
  const mine = () => !closed && member().session?.id === id;
  const say = (message: ToAgent) => { if (!closed) wire.send(writeFrame(message)); };
  const close = (code: number, why: string) => {
    if (closed) return;
    closed = true;
    wire.close(code, why.slice(0, 120));
  };
  const refuse = (reason: Extract<ToAgent, { type: 'refused' }>['reason'], message: string) => {
    log.warn({ node, reason }, message);
    say({ type: 'refused', reason, message });
    close(4000, reason);
  };

  /** The next place in the order of commands; undefined when nothing may be commanded. */
  const order = (): { leaderEpoch: number; revision: number } | undefined => {
    const it = member();
    if (!house.leads() || it.spoke === undefined) return undefined;
    it.revision += 1;
    return { leaderEpoch: it.spoke.leaderEpoch, revision: it.revision };
  };

  const sync = () => {
    if (!mine() || !welcomed) return;
    const it = member();
    const objects = new Map([...it.wanted].map(([uid, { held }]) => [uid, held]));
    const plan = planSync({ objects, doomed: it.doomed }, it.view);
    for (const uid of plan.send) {
      // Said once, and the agent has answered that the uid has ended for ever: it is not said over and over.
      const wanted = it.endedForEver.has(uid) ? undefined : it.wanted.get(uid);
      // What the agent would close the connection for is not sent: its status says so, and the others go on.
      if (!wanted || oversize(wanted, it)) continue;
      paused = wire.bufferedBytes() > pauseBytes;
      if (paused) return;
      const at = order();
      if (!at) continue;
      say({ type: 'desire', ...at, object: wanted.object });
      it.view = afterSend(it.view, wanted.held);
    }
    for (const { uid, kind } of plan.end) {
      const at = it.view.told.get(uid)?.ending ? undefined : order();
      if (!at) continue;
      say({ type: 'tombstone', ...at, uid, kind });
      it.view = afterEnd(it.view, uid);
    }
  };

  /** Tombstones are repeated with each comparison until the agent says absent. */
  const repeatTombstones = () => {
    const it = member();
    if (it.view.is !== 'joined') return;
    for (const [uid, kind] of it.doomed) {
      const at = order();
      if (at) say({ type: 'tombstone', ...at, uid, kind });
    }
  };

  const hello = async (message: Extract<ToOperator, { type: 'hello' }>) => {
    const protocol = negotiate(protocolRange, message.protocol);
    if (protocol === undefined) return refuse('ProtocolMismatch', `we speak ${protocolRange.min}-${protocolRange.max}, the agent ${message.protocol.min}-${message.protocol.max}`);
    const admitted = await house.admit(message, node);
    if (closed) return;
    if ('refused' in admitted) {
      if (admitted.refused === 'IdentityConflict') {
        member().rival = { agentId: message.agentId, message: admitted.message, atMs: house.monotonicMs() };
        fleet.tellListeners((listener) => listener.node(node));
      }
      return refuse(admitted.refused, admitted.message);
    }
    const it = member();
    it.session?.close('a newer session of this node');
    // What the last agent of the node said is no word of this one.
    const known = it.agentId === message.agentId;
    if (!known) for (const each of [it.vms, it.images, it.endedForEver]) each.clear();
    Object.assign(it, {
      agentId: message.agentId, facts: message.facts, protocol, maxFrameBytes: message.maxFrameBytes ?? firstMaxFrameBytes,
      view: known ? { is: 'joining', told: it.view.told } : joining, session: { id, wake: sync, close: (why: string) => close(4001, why) },
    });
    it.spoke = { agentId: message.agentId, leaderEpoch: admitted.leaderEpoch };
    welcomed = true;
    pending = [];
    log.info({ node, protocol }, 'agent connected');
    say({ type: 'welcome', protocol, leaderEpoch: admitted.leaderEpoch, node });
    fleet.tellListeners((listener) => listener.node(node));
  };

  /** Whether it is for this node to say anything of a uid: it holds it, or it was told of it. */
  const concerns = (it: Member, uid: string): boolean => it.view.told.has(uid) || it.wanted.has(uid) || it.doomed.has(uid);

  /** A list is complete. A later one may be older than what was said meanwhile: what is gone is told by the first one of a connection alone. */
  const listed = (first: boolean) => {
    const it = member();
    const holds = it.view.told;
    for (const reports of [it.vms, it.images]) {
      for (const uid of reports.keys()) if (first ? !holds.has(uid) : !concerns(it, uid)) reports.delete(uid);
    }
    if (first) for (const [uid, kind] of it.doomed) if (!holds.has(uid)) ended(it, uid, kind);
    sync();
    fleet.tellListeners((listener) => {
      listener.node(node);
      for (const held of holds.values()) if (held.kind === 'vm') listener.vm(held);
      for (const uid of it.wanted.keys()) listener.vm({ uid });
    });
  };

  const ended = (it: Member, uid: string, kind: Held['kind']) => {
    it.doomed.delete(uid);
    it.absent.add(uid);
    it.vms.delete(uid);
    it.images.delete(uid);
    tellOfEnd(uid, kind);
  };

  /** What waited for its name or its room may go on. */
  const tellOfEnd = (uid: string, kind: Held['kind']) => fleet.tellListeners((listener) => {
    if (kind === 'vm') listener.vm({ uid });
    else listener.image(uid);
    listener.node(node);
  });

  /** A token that nobody can review now changes nothing: it is reviewed again later, and the old one holds until it expires. */
  const renew = async (token: string) => {
    unreviewed = undefined;
    try {
      const renewed = await house.reviewToken(token);
      if (renewed.node !== node || renewed.nodeUid !== identity.nodeUid) return refuse('TokenRefused', 'the renewed token is of another node');
      expiresAt = renewed.expiresAt;
      say({ type: 'renewed', expiresAt: expiresAt.toISOString() });
    } catch (thrown) {
      const { code, message } = asFault(thrown, 'Unreviewed', 'review the renewed token');
      if (code === 'Unauthenticated') return refuse('TokenRefused', message);
      log.warn({ node, code, why: message }, 'the renewed token can not be reviewed now');
      unreviewed = { token, afterMs: house.monotonicMs() + reviewAgainMs };
    }
  };

  const hear = async (message: ToOperator) => {
    if (message.type === 'hello') return hello(message);
    if (!mine()) return refuse('BadFrame', `${message.type} before hello`);
    const it = member();
    const first = it.view.is === 'joining';
    if (message.type === 'holding' && pending.length + message.held.length > maxHeld) return refuse('BadFrame', `a node holds at most ${maxHeld} objects; the agent lists more`);
    if (message.type === 'absent' && !concerns(it, message.uid)) return;
    if (message.type === 'report' && !concerns(it, message.observed.uid)) return;
    const next = afterFrame(it.view, pending, message);
    it.view = next.view;
    pending = next.pending;
    switch (message.type) {
      case 'holding':
        if (message.last) listed(first);
        return;
      case 'report': {
        const { observed } = message;
        if (observed.kind === 'vm') {
          it.vms.set(observed.uid, observed);
          fleet.tellListeners((listener) => listener.vm(it.view.told.get(observed.uid) ?? { uid: observed.uid }));
        } else {
          it.images.set(observed.uid, observed);
          fleet.tellListeners((listener) => listener.image(observed.uid));
        }
        return;
      }
      case 'absent':
        if (it.doomed.has(message.uid)) ended(it, message.uid, message.kind);
        else {
          if (it.wanted.has(message.uid)) it.endedForEver.add(message.uid);
          tellOfEnd(message.uid, message.kind);
        }
        return;
      case 'facts':
        it.facts = message.facts;
        fleet.tellListeners((listener) => listener.node(node));
        return;
      case 'heartbeat':
        say({ type: 'alive' });
        return;
      case 'renew':
        return renew(message.token);
    }
  };

  return {
    node,
    receive: async (text: string): Promise<void> => {
      if (closed) return;
      lastFrameMs = house.monotonicMs();
      const parsed = parseFrame<ToOperator>(toOperator, text);
      if (parsed.is === 'unknown') return log.info({ node, type: parsed.type }, 'unknown frame ignored');
      if (parsed.is === 'bad') return refuse('BadFrame', parsed.why);
      if (mine()) {
        const it = member();
        const wasSilent = fleet.link(node) === 'silent';
        it.lastHeardMs = lastFrameMs;
        house.heard(node);
        if (wasSilent) fleet.tellListeners((listener) => listener.node(node));
      } else if (parsed.message.type === 'hello') {
        member().lastHeardMs = lastFrameMs;
      }
      await hear(parsed.message);
    },
    tick: () => {
      if (closed) return;
      const nowMs = house.monotonicMs();
      if (house.now() >= expiresAt) return refuse('TokenRefused', 'the token expired and was not renewed');
      if (nowMs - lastFrameMs > silenceSeconds * 1000) return close(4002, 'silent');
      if (unreviewed && nowMs >= unreviewed.afterMs) void renew(unreviewed.token);
      const { spoke, view } = member();
      if (mine() && house.leads() && spoke && view.is === 'joined' && nowMs - lastCompareMs >= compareSeconds * 1000) {
        lastCompareMs = nowMs;
        repeatTombstones();
        say({ type: 'compare', leaderEpoch: spoke.leaderEpoch, digest: holdingDigest(member().view.told.values()) });
      }
    },
    /** Something has left the socket: what waited for that is sent. */
    drained: () => {
      if (paused && wire.bufferedBytes() <= pauseBytes) sync();
    },
    ended: () => {
      closed = true;
      const it = member();
      if (it.session?.id !== id) return;
      delete it.session;
      it.view = { is: 'joining', told: it.view.told };
      log.info({ node }, 'agent disconnected');
      fleet.tellListeners((listener) => listener.node(node));
    },
  };
};
