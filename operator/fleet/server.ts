import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { slots } from '#crds/kit/slots.ts';
import { maxFrameBytes } from '#crds/wire/messages.ts';
import type { AgentIdentity } from './auth.ts';
import { type Certificate, followCertificate } from './certificate.ts';
import { converse, talkLimits } from './converse.ts';
import type { SessionHouse } from './session.ts';

/** What the server of `/agent/ws` needs. `tls` reads the certificate anew. A follower does not lead: agents then look elsewhere (503). */
export type ServerHouse = SessionHouse & { tls: () => Promise<Certificate> };

/**
 * What the door grants.
 *
 *   strangers      connections that have not shown who they are, at a time
 *   admissionMs    until one of them must have
 *   reviewsAtOnce  TokenReviews of strangers; the others wait for as long as they are admitted
 *   perNode        connections of one node; a newer one ends the oldest
 *   partingMs      for agents to close by themselves at the end
 *   certificateMs  between two looks whether the certificate was renewed
 *   saidMs         between two log lines about refusals of one kind
 *   talk           what one connection may say
 */
export const doorLimits = { strangers: 2_048, admissionMs: 15_000, reviewsAtOnce: 8, perNode: 4, partingMs: 500, certificateMs: 30_000, saidMs: 10_000, talk: talkLimits };

// A refused one gets so long to read why.
const lingerMs = 1_000;

/**
 * Serves agents on `/agent/ws` over TLS. Who has no valid credential gets 401 before the upgrade, an unreachable TokenReview
 * is 503. Nobody keeps it from ending, and no stranger from serving those that it knows.
 */
export const serveAgents = async (house: ServerHouse, listen: { host: string; port: number }, limits = doorLimits): Promise<AsyncDisposable & { port: number }> => {
  const certificate = await house.tls();
  const common = { minVersion: 'TLSv1.2' } as const;
  const server = createServer({ ...certificate, ...common, handshakeTimeout: limits.admissionMs }, (_, response) => { response.writeHead(404).end(); });
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, autoPong: false, maxPayload: maxFrameBytes });
  const connections = new Set<Socket>();
  const deadlines = new WeakMap<Duplex, NodeJS.Timeout>();
  const ofNode = new Map<string, Set<WebSocket>>();
  const turn = slots(limits.reviewsAtOnce);
  const sayRefused = refusals(house, limits.saidMs);

  const endIn = (socket: Duplex, forMs: number): void => {
    clearTimeout(deadlines.get(socket));
    deadlines.set(socket, setTimeout(() => socket.destroy(), forMs));
  };
  server.on('connection', (socket: Socket) => {
    if (connections.size - sockets.clients.size >= limits.strangers) {
      socket.destroy();
      return;
    }
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  server.on('secureConnection', (socket) => {
    endIn(socket, limits.admissionMs);
    socket.once('close', () => clearTimeout(deadlines.get(socket)));
  });

  const admitted = (identity: AgentIdentity, socket: Duplex, webSocket: WebSocket): void => {
    clearTimeout(deadlines.get(socket));
    const peers = ofNode.get(identity.node) ?? new Set();
    ofNode.set(identity.node, peers.add(webSocket));
    webSocket.once('close', () => {
      peers.delete(webSocket);
      if (peers.size === 0 && ofNode.get(identity.node) === peers) ofNode.delete(identity.node);
    });
    const [oldest] = peers;
    if (peers.size > limits.perNode) oldest?.terminate();
    converse(house, identity, webSocket, limits.talk);
  };
  const turnAway = (socket: Duplex, thrown: unknown): void => {
    const code = thrown instanceof Fault ? thrown.code : 'Unknown';
    sayRefused(code, messageOf(thrown));
    const challenge = code === 'Unauthenticated' ? 'WWW-Authenticate: Bearer\r\n' : 'Retry-After: 5\r\n';
    // What it still sends is thrown away: a close with unread bytes is a reset, and the answer would be lost with it.
    socket.resume();
    socket.end(`HTTP/1.1 ${answers[code] ?? '503 Service Unavailable'}\r\n${challenge}Connection: close\r\nContent-Length: 0\r\n\r\n`);
    endIn(socket, lingerMs);
  };
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const left = new AbortController();
    socket.on('error', () => socket.destroy());
    socket.once('close', () => left.abort(new Fault('Left', 'the agent has left')));
    void admit(house, request, (token) => turn(() => house.reviewToken(token, left.signal), left.signal)).then(
      (identity) => sockets.handleUpgrade(request, socket, head, (webSocket) => admitted(identity, socket, webSocket)),
      (thrown: unknown) => { if (!left.signal.aborted) turnAway(socket, thrown); },
    );
  });
  await new Promise<void>((resolve, fail) => {
    server.once('error', fail);
    server.listen(listen.port, listen.host, resolve);
  });
  const following = followCertificate({
    shown: certificate, read: house.tls, use: (fresh) => server.setSecureContext({ ...fresh, ...common }), everyMs: limits.certificateMs, log: house.log,
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : listen.port,
    [Symbol.asyncDispose]: async () => {
      following[Symbol.dispose]();
      const closed = new Promise<void>((resolve) => { server.close(() => resolve()); });
      for (const client of sockets.clients) client.close(1001, 'the operator ends');
      // `close` waits for every connection, and some never go by themselves.
      const parting = setTimeout(() => { for (const each of connections) each.destroy(); }, limits.partingMs);
      await closed;
      clearTimeout(parting);
    },
  };
};

const admit = async (house: ServerHouse, request: IncomingMessage, review: (token: string) => Promise<AgentIdentity>): Promise<AgentIdentity> => {
  if (request.url !== '/agent/ws') throw new Fault('NotFound', 'agents connect to /agent/ws', { retry: 'never' });
  if (!house.leads()) throw new Fault('NotLeader', 'another operator leads', { retry: 'later' });
  const token = /^Bearer ([\w.~+/=-]{1,16384})$/.exec(request.headers.authorization ?? '')?.[1];
  if (token === undefined) throw new Fault('Unauthenticated', 'no bearer token', { retry: 'never' });
  return review(token);
};

const answers: Readonly<Record<string, string>> = { NotFound: '404 Not Found', Unauthenticated: '401 Unauthorized' };

/** Tells of refusals: the first of a kind at once, later ones by their number, so that no stranger fills the log. */
const refusals = ({ log, monotonicMs }: Pick<ServerHouse, 'log' | 'monotonicMs'>, everyMs: number) => {
  const kinds = new Map<string, { atMs: number; unsaid: number }>();
  return (code: string, why: string): void => {
    const kind = kinds.get(code) ?? { atMs: Number.NEGATIVE_INFINITY, unsaid: 0 };
    kinds.set(code, kind);
    kind.unsaid += 1;
    if (monotonicMs() - kind.atMs < everyMs) return;
    log.warn({ code, why, times: kind.unsaid }, 'agent connection refused');
    kind.atMs = monotonicMs();
    kind.unsaid = 0;
  };
};
