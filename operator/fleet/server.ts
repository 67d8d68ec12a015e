import { createServer } from 'node:https';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { maxFrameBytes } from '#crds/wire/messages.ts';
import type { AgentIdentity } from './auth.ts';
import { makeSession, type SessionHouse } from './session.ts';

/** What the server of `/agent/ws` needs. A follower does not lead: agents then look elsewhere (503). */
export type ServerHouse = SessionHouse & { tls: { cert: string; key: string } };

/** Most bytes that may wait for a slow agent before its session is closed; it says everything again when it returns. */
const maxBufferedBytes = 64 * 1024 * 1024;

/**
 * Serves agents on `/agent/ws` over TLS. Who has no valid credential gets 401 before the upgrade, an unreachable TokenReview
 * is 503. Each connection's frames are handled strictly in their order.
 */
export const serveAgents = async (house: ServerHouse, listen: { host: string; port: number }): Promise<AsyncDisposable & { port: number }> => {
  const server = createServer({ ...house.tls, minVersion: 'TLSv1.2' }, (_, response) => { response.writeHead(404).end(); });
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: maxFrameBytes });
  server.headersTimeout = 10_000;

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    void admit(house, request).then(
      (identity) => sockets.handleUpgrade(request, socket, head, (webSocket) => converse(house, identity, webSocket)),
      (error: unknown) => reject(socket, error, house),
    );
  });
  await new Promise<void>((resolve, fail) => {
    server.once('error', fail);
    server.listen(listen.port, listen.host, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : listen.port,
    [Symbol.asyncDispose]: async () => {
      for (const client of sockets.clients) client.close(1001, 'the operator ends');
      server.closeAllConnections();
      await new Promise<void>((resolve) => { server.close(() => resolve()); });
      for (const client of sockets.clients) client.terminate();
    },
  };
};

const admit = async (house: ServerHouse, request: IncomingMessage): Promise<AgentIdentity> => {
  if (request.url !== '/agent/ws') throw new Fault('NotFound', 'agents connect to /agent/ws', { retry: 'never' });
  if (!house.leads()) throw new Fault('NotLeader', 'another operator leads', { retry: 'later' });
  const token = /^Bearer ([\w.~+/=-]{1,16384})$/.exec(request.headers.authorization ?? '')?.[1];
  if (token === undefined) throw new Fault('Unauthenticated', 'no bearer token', { retry: 'never' });
  return house.reviewToken(token);
};

const answers: Readonly<Record<string, string>> = { NotFound: '404 Not Found', Unauthenticated: '401 Unauthorized' };

const reject = (socket: Duplex, error: unknown, house: ServerHouse) => {
  const code = error instanceof Fault ? error.code : 'Unknown';
  house.log.warn({ code, why: messageOf(error) }, 'agent connection refused');
  const challenge = code === 'Unauthenticated' ? 'WWW-Authenticate: Bearer\r\n' : 'Retry-After: 5\r\n';
  socket.end(`HTTP/1.1 ${answers[code] ?? '503 Service Unavailable'}\r\n${challenge}Connection: close\r\nContent-Length: 0\r\n\r\n`);
};

const converse = (house: ServerHouse, identity: AgentIdentity, webSocket: WebSocket) => {
  const session = makeSession(house, identity, {
    send: (text) => {
      if (webSocket.bufferedAmount > maxBufferedBytes) webSocket.terminate();
      else webSocket.send(text, () => session.drained());
    },
    bufferedBytes: () => webSocket.bufferedAmount,
    close: (code, reason) => webSocket.close(code, reason),
  });
  const timer = setInterval(session.tick, 1_000);
  // One pump a connection: a frame is handled after the one before it, also when that one had to wait.
  let pump: Promise<void> = Promise.resolve();
  webSocket.on('message', (data: Buffer, isBinary: boolean) => {
    pump = pump.then(async () => {
      if (isBinary) return webSocket.close(1003, 'frames are text');
      return session.receive(data.toString('utf8'));
    }).catch((error: unknown) => {
      house.log.warn({ node: identity.node, why: messageOf(error) }, 'session ended by a fault');
      webSocket.close(1011, 'fault');
    });
  });
  webSocket.on('error', () => webSocket.terminate());
  webSocket.on('close', () => {
    clearInterval(timer);
    session.ended();
  });
};
