import type { Log } from '#crds/kit/log.ts';
import { parseFrame, writeFrame } from '#crds/wire/frame.ts';
import { compareSeconds, firstMaxFrameBytes, type Held, maxHeld, protocolRange, silenceSeconds, type ToAgent, toOperator, type ToOperator } from '#crds/wire/messages.ts';
import { afterFrame, joining, negotiate } from '#crds/wire/sync.ts';
import type { AgentIdentity } from './auth.ts';
import { makeCommands } from './commands.ts';
import type { Fleet, Member } from './fleet.ts';
import { makeHearing } from './hearing.ts';
import { makeRenewal } from './renewal.ts';

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

/**
 * One connection of one agent. `receive` takes each text frame in its order, `tick` is called each second, `drained` when something was
 * sent, `ended` when the socket has closed.
 *
 *   greeting -> hello -> listing -> holding, last -> joined -> closed
 */
export const makeSession = (house: SessionHouse, identity: AgentIdentity, wire: Wire) => {
  const { fleet, log } = house;
  const { node } = identity;
  const id = Symbol(node);
  let welcomed = false;
  let pending: readonly Held[] = [];
  let lastCompareMs = house.monotonicMs();
  let lastFrameMs = house.monotonicMs();
  let closed = false;

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
  const hearing = makeHearing(fleet, node);
  const commands = makeCommands({ member, open: () => mine() && welcomed, leads: house.leads, say, bufferedBytes: wire.bufferedBytes });
  const credential = makeRenewal({
    reviewToken: house.reviewToken, monotonicMs: house.monotonicMs, log,
    renewed: (expiresAt) => say({ type: 'renewed', expiresAt: expiresAt.toISOString() }),
    refused: (why) => refuse('TokenRefused', why),
  }, identity);

  const hello = async (message: Extract<ToOperator, { type: 'hello' }>) => {
    const protocol = negotiate(protocolRange, message.protocol);
    if (protocol === undefined) return refuse('ProtocolMismatch', `we speak ${protocolRange.min}-${protocolRange.max}, the agent ${message.protocol.min}-${message.protocol.max}`);
    const turn = (member().hellos += 1);
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
    // An admission may take longer than one that began later: the agent has given this connection up by then.
    if (it.session && it.session.hello > turn) return close(4001, 'a newer session of this node');
    it.session?.close('a newer session of this node');
    // Another agent speaks for the node now: what the last one said does not count.
    const known = it.agentId === message.agentId;
    if (!known) for (const each of [it.vms, it.images, it.endedForEver]) each.clear();
    it.keptOf.clear();
    Object.assign(it, {
      agentId: message.agentId, lastHeardMs: lastFrameMs, facts: message.facts, protocol, listed: known && it.listed === true, maxFrameBytes: message.maxFrameBytes ?? firstMaxFrameBytes,
      view: known ? { is: 'joining', told: it.view.told } : joining, session: { id, hello: turn, wake: commands.sync, close: (why: string) => close(4001, why) },
    });
    it.spoke = { agentId: message.agentId, leaderEpoch: admitted.leaderEpoch };
    welcomed = true;
    pending = [];
    log.info({ node, protocol }, 'agent connected');
    say({ type: 'welcome', protocol, leaderEpoch: admitted.leaderEpoch, node });
    fleet.tellListeners((listener) => listener.node(node));
  };

  const hear = async (message: ToOperator) => {
    if (message.type === 'hello') return hello(message);
    if (!mine()) return refuse('BadFrame', `${message.type} before hello`);
    const it = member();
    const before = it.view;
    if (message.type === 'holding' && pending.length + message.held.length > maxHeld) return refuse('BadFrame', `a node holds at most ${maxHeld} objects; the agent lists more`);
    if (message.type === 'absent' && !hearing.concerns(message.uid)) return;
    if (message.type === 'report' && !hearing.concerns(message.observed.uid)) return;
    const next = afterFrame(it.view, pending, message);
    it.view = next.view;
    pending = next.pending;
    switch (message.type) {
      case 'holding':
        return message.last ? hearing.listed(before.is === 'joining', before.told) : undefined;
      case 'report':
        return hearing.report(message.observed);
      case 'absent':
        return hearing.absent(message.uid, message.kind, message.kept);
      case 'facts':
        return hearing.facts(message.facts);
      case 'heartbeat':
        return say({ type: 'alive' });
      case 'renew':
        return credential.renew(message.token);
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
      } else if (parsed.message.type === 'hello' && parsed.message.agentId === member().agentId) {
        // Also while it takes long to admit it. Another agent than that of the node, which is perhaps refused, is no sign of its life.
        member().lastHeardMs = lastFrameMs;
      }
      await hear(parsed.message);
    },
    tick: () => {
      if (closed) return;
      const nowMs = house.monotonicMs();
      if (house.now() >= credential.expiresAt()) return refuse('TokenRefused', 'the token expired and was not renewed');
      if (nowMs - lastFrameMs > silenceSeconds * 1000) return close(4002, 'silent');
      credential.tick();
      if (member().view.is !== 'joined' || nowMs - lastCompareMs < compareSeconds * 1000) return;
      lastCompareMs = nowMs;
      commands.compare();
    },
    drained: commands.drained,
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
