import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import { z } from 'zod';
import type { Desired } from '#crds/wire/desired.ts';
import { parseFrame, writeFrame } from '#crds/wire/frame.ts';
import { type ToAgent, toOperator, type ToOperator } from '#crds/wire/messages.ts';
import type { ObservedImage, ObservedVm } from '#crds/wire/observed.ts';
import { ensureKeys, pairOf } from '../stack/keys.ts';
import { until } from './until.ts';

/**
 * An operator without a cluster, for tests of one agent: it tells every agent that dials whatever the test wants, in the order of
 * the test's words, and keeps what it hears. No rule of placement stands between the test and the agent.
 */
export type PlainOperator = AsyncDisposable & {
  url: string;
  /** File of the CA of its certificate. */
  authority: string;
  token: () => Promise<string>;
  want: (object: Desired) => void;
  end: (kind: 'vm' | 'image', uid: string) => void;
  vm: (uid: string) => ObservedVm | undefined;
  image: (uid: string) => ObservedImage | undefined;
  /** Resolves when the agent has said that a uid is gone for ever. */
  gone: (uid: string, ms: number) => Promise<unknown>;
};

const address = z.object({ port: z.int() });

/** Starts an operator of few words. */
export const startPlainOperator = async (): Promise<PlainOperator> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-plain-'));
  await ensureKeys(folder, [{ name: 'ca', certs: [{ name: 'operator', subject: '/CN=operator', names: ['IP:127.0.0.1'], use: 'server' }] }], AbortSignal.timeout(60_000));
  const { cert, key } = pairOf(folder, 'operator');
  const server = createServer({ cert: await readFile(cert), key: await readFile(key) });
  const sockets = new WebSocketServer({ server, path: '/agent/ws' });
  const commands = new Map<string, () => ToAgent>();
  const observed = new Map<string, ObservedVm | ObservedImage>();
  const absent = new Set<string>();
  let leaderEpoch = 0;
  let revision = 0;
  let joined: WebSocket | undefined;

  const order = () => ({ leaderEpoch, revision: (revision += 1) });
  const say = (message: ToAgent): void => joined?.send(writeFrame(message));
  const hear = (socket: WebSocket, message: ToOperator): void => {
    switch (message.type) {
      case 'hello':
        leaderEpoch = Math.max(leaderEpoch, message.leaderEpochSeen) + 1;
        joined = socket;
        return say({ type: 'welcome', protocol: 1, leaderEpoch, node: 'node-1' });
      case 'holding':
        if (message.last) for (const command of commands.values()) say(command());
        return;
      case 'report':
        observed.set(message.observed.uid, message.observed);
        return;
      case 'absent':
        observed.delete(message.uid);
        commands.delete(message.uid);
        absent.add(message.uid);
        return;
      case 'heartbeat':
        return say({ type: 'alive' });
      case 'facts':
      case 'renew':
        return;
    }
  };
  sockets.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => {
      const parsed = parseFrame<ToOperator>(toOperator, data.toString('utf8'));
      if (parsed.is === 'message') hear(socket, parsed.message);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const of = <T extends 'vm' | 'image'>(kind: T, uid: string) => {
    const found = observed.get(uid);
    return found?.kind === kind ? found : undefined;
  };
  const command = (uid: string, make: () => ToAgent): void => {
    commands.set(uid, make);
    if (leaderEpoch > 0) say(make());
  };
  return {
    url: `https://127.0.0.1:${address.parse(server.address()).port}`,
    authority: pairOf(folder, 'ca').cert,
    token: async () => 'aaa.bbb.ccc',
    want: (object) => command(object.uid, () => ({ type: 'desire', ...order(), object })),
    end: (kind, uid) => command(uid, () => ({ type: 'tombstone', ...order(), kind, uid })),
    vm: (uid) => { const found = of('vm', uid); return found?.kind === 'vm' ? found : undefined; },
    image: (uid) => { const found = of('image', uid); return found?.kind === 'image' ? found : undefined; },
    gone: (uid, ms) => until(`${uid} to be gone`, () => absent.has(uid), ms),
    [Symbol.asyncDispose]: async () => {
      for (const client of sockets.clients) client.terminate();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
      await rm(folder, { recursive: true, force: true });
    },
  };
};
