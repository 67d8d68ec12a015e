import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { WebSocket } from 'ws';
import { Fault } from '#crds/kit/fault.ts';
import { writeFrame } from '#crds/wire/frame.ts';
import { protocolRange, toAgent, type ToAgent, type ToOperator } from '#crds/wire/messages.ts';
import { until } from '#hack/bed/until.ts';
import { ensureKeys, type Pair, pairOf } from '#hack/stack/keys.ts';
import type { AgentIdentity } from './auth.ts';
import { makeFleet } from './fleet.ts';
import { doorLimits, serveAgents, type ServerHouse } from './server.ts';

const ms = () => performance.now();
// Each of it is over in a moment; the machine may be busy.
const waitMs = 60_000;

/** What strangers and slow agents can do to the door itself: real sockets, no API server. */
describe('the agents\' door', () => {
  let dir: string;
  let pair: Pair;
  const undo: (() => Promise<void>)[] = [];
  const names = ['IP:127.0.0.1', 'DNS:localhost'];
  const makeKeys = () => ensureKeys(dir, [{ name: 'ca', certs: [{ name: 'one', subject: '/CN=one', names, use: 'server' }, { name: 'two', subject: '/CN=two', names, use: 'server' }] }], AbortSignal.timeout(60_000));

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'door-'));
    await makeKeys();
  }, 120_000);
  afterAll(async () => { await rm(dir, { recursive: true, force: true }); });
  afterEach(async () => { for (const each of undo.splice(0).reverse()) await each(); });

  const read = async ({ cert, key }: Pair) => ({ cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') });
  const identity = (token: string): AgentIdentity => ({ node: token, nodeUid: token, expiresAt: new Date(Date.now() + 3_600_000) });

  const open = async (over: Partial<ServerHouse> = {}, limits: Partial<typeof doorLimits> = {}) => {
    pair = pairOf(dir, 'served');
    for (const part of ['cert', 'key'] as const) await cp(pairOf(dir, 'one')[part], pair[part]);
    const said: string[] = [];
    const log = { info: (_: object, text: string) => void said.push(text), warn: (_: object, text: string) => void said.push(text) };
    const house: ServerHouse = {
      fleet: makeFleet(ms), monotonicMs: ms, now: () => new Date(), log, tls: () => read(pair), leads: () => true, heard: () => {},
      admit: async () => ({ leaderEpoch: 1 }),
      reviewToken: async (token) => { if (token === 'wrong') throw new Fault('Unauthenticated', 'no', { retry: 'never' }); return identity(token); },
      ...over,
    };
    const server = await serveAgents(house, { host: '127.0.0.1', port: 0 }, { ...doorLimits, ...limits });
    undo.push(async () => server[Symbol.asyncDispose]());
    return { server, house, said };
  };

  /** A connection that says what it is told and never closes its own end. It is gone when the other end is, not when that has only said all. */
  const stranger = async (port: number, text: string) => {
    const heard = { text: '', ended: false, closed: false };
    const socket = connect({ socket: connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true }), rejectUnauthorized: false });
    socket.on('data', (chunk: Buffer) => { heard.text += chunk.toString(); });
    socket.on('error', () => {});
    socket.on('end', () => { heard.ended = true; });
    socket.on('close', () => { Object.assign(heard, { ended: true, closed: true }); });
    undo.push(async () => void socket.destroy());
    await new Promise<void>((resolve) => { for (const event of ['secureConnect', 'close']) socket.once(event, () => resolve()); });
    if (text !== '') socket.write(text);
    const gone = () => {
      // A byte to an end that is closed comes back as a reset.
      socket.write(' ');
      return heard.closed;
    };
    return { heard, gone };
  };
  const upgrade = (token?: string) => [
    'GET /agent/ws HTTP/1.1', 'Host: x', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...(token === undefined ? [] : [`Authorization: Bearer ${token}`]), '', '',
  ].join('\r\n');

  const agent = async (port: number, token: string) => {
    const socket = new WebSocket(`wss://127.0.0.1:${port}/agent/ws`, { rejectUnauthorized: false, headers: { authorization: `Bearer ${token}` } });
    const heard: ToAgent[] = [];
    let closed = false;
    socket.on('message', (data: Buffer) => { heard.push(toAgent.parse(JSON.parse(data.toString('utf8')))); });
    socket.on('error', () => {});
    socket.on('close', () => { closed = true; });
    undo.push(async () => socket.terminate());
    await new Promise<void>((resolve) => { for (const event of ['open', 'close']) socket.once(event, () => resolve()); });
    return { socket, heard, closed: () => closed, say: (message: ToOperator) => socket.send(writeFrame(message)) };
  };
  const hello: ToOperator = {
    type: 'hello', protocol: protocolRange, capabilities: [], agentId: 'a', leaderEpochSeen: 0,
    facts: {
      agentVersion: '1', qemuVersion: '7.2', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
      capacity: { cpus: 2, memoryMiB: 1024, storageMiB: 1024 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
    },
  };

  test('closes on who was refused, also when that one keeps its own end open', async () => {
    const { server } = await open({}, { admissionMs: 600_000 });
    const refused = await stranger(server.port, upgrade('wrong'));
    await until('the answer', () => refused.heard.text.startsWith('HTTP/1.1 401'), waitMs);
    await until('the end of the connection', refused.gone, waitMs);
  });

  test.each([
    ['says nothing', ''],
    ['never ends its request', 'GET /agent/ws HTTP/1.1\r\nHost: x\r\n'],
    ['waits for a review that takes for ever', upgrade('slow')],
    ['asks for a page and stays', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'],
  ])('closes on who %s', async (_, text) => {
    const { server } = await open({ reviewToken: () => new Promise(() => {}) }, { admissionMs: 300 });
    const idle = await stranger(server.port, text);
    // Before Node's own deadline for idle connections (5 s) ends it.
    await until('the end of the connection', () => idle.heard.ended, 4_000);
  });

  test('ends at once, whoever is connected and does not go', async () => {
    // Nobody is sent away before: the end alone does it.
    const { server } = await open({}, { partingMs: 200, admissionMs: 600_000 });
    const refused = await stranger(server.port, upgrade('wrong'));
    await until('the answer', () => refused.heard.text !== '', waitMs);
    await stranger(server.port, '');
    await stranger(server.port, upgrade('node-1'));
    await server[Symbol.asyncDispose]();
  });

  test('lets only so many strangers wait, who do not count any more once they are known', async () => {
    const { server } = await open({}, { strangers: 3, admissionMs: 60_000 });
    for (const node of ['node-1', 'node-2', 'node-3', 'node-4', 'node-5']) (await agent(server.port, node)).say(hello);
    const idle = [await stranger(server.port, ''), await stranger(server.port, ''), await stranger(server.port, '')];
    const one = await stranger(server.port, '');
    await until('the one too many to go', () => one.heard.ended, waitMs);
    expect(idle.map(({ heard }) => heard.ended)).toEqual([false, false, false]);
  });

  test('reviews only so many tokens of strangers at once; the others wait, and are reviewed', async () => {
    let asked = 0;
    let now = 0;
    let most = 0;
    const gate = Promise.withResolvers<void>();
    const { server } = await open({
      leads: () => { asked += 1; return true; },
      reviewToken: async (token) => {
        most = Math.max(most, (now += 1));
        await gate.promise;
        now -= 1;
        return identity(token);
      },
    }, { reviewsAtOnce: 4 });
    const agents = Promise.all(Array.from({ length: 20 }, (_, at) => agent(server.port, `node-${at}`)));
    await until('all to have asked', () => asked >= 20, waitMs);
    gate.resolve();
    expect([(await agents).filter(({ socket }) => socket.readyState === WebSocket.OPEN).length, most]).toEqual([20, 4]);
  });

  test('keeps a few connections of one node, the latest', async () => {
    const { server } = await open();
    const agents: Awaited<ReturnType<typeof agent>>[] = [];
    for (let count = 0; count < 6; count += 1) agents.push(await agent(server.port, 'node-1'));
    await until('the oldest to go', () => agents.filter(({ closed }) => closed()).length === 2, waitMs);
    expect(agents.map(({ closed }) => closed())).toEqual([true, true, false, false, false, false]);
  });

  test('tells of refusals without filling the log', async () => {
    const { server, said } = await open();
    for (let count = 0; count < 20; count += 1) {
      const refused = await stranger(server.port, upgrade('wrong'));
      await until('the answer', () => refused.heard.text !== '', waitMs);
    }
    expect(said.filter((text) => text === 'agent connection refused')).toHaveLength(1);
  });

  test('takes no more frames from an agent while one of them waits, and then all of them', async () => {
    const admitted = Promise.withResolvers<{ leaderEpoch: number }>();
    const { server } = await open({ admit: () => admitted.promise });
    const talkative = await agent(server.port, 'node-1');
    talkative.say(hello);
    const padding = 'x'.repeat(256 * 1024);
    const count = 300;
    let taken = 0;
    const talk = async () => {
      for (; taken < count; taken += 1) await new Promise<void>((sent) => { talkative.socket.send(JSON.stringify({ type: 'from-the-future', padding }), () => sent()); });
      talkative.say({ type: 'heartbeat' });
    };
    const talked = talk();
    // What the operator does not take stays with the agent.
    const seen: number[] = [];
    await until('nothing more to be taken', () => {
      seen.push(taken);
      return seen.length > 20 && new Set(seen.slice(-20)).size === 1;
    }, waitMs);
    expect(taken).toBeLessThan(count / 2);
    admitted.resolve({ leaderEpoch: 1 });
    await talked;
    await until('the last frame to be answered', () => talkative.heard.at(-1)?.type === 'alive', waitMs);
    expect([talkative.heard.map(({ type }) => type), talkative.closed()]).toEqual([['welcome', 'alive'], false]);
  });

  const slowly = { perSecond: 50, atOnce: 20 };
  const freely = { perSecond: 1e9, atOnce: 1e9 };
  const talkLong = async ({ socket }: Awaited<ReturnType<typeof agent>>) => {
    await new Promise<void>((sent) => { socket.send(JSON.stringify({ type: 'from-the-future', padding: 'x'.repeat(64 * 1024) }), () => sent()); });
  };
  test.each([
    ['frames', { frames: slowly, bytes: freely }, talkLong],
    ['bytes', { frames: freely, bytes: { perSecond: 50 * 64 * 1024, atOnce: 20 * 64 * 1024 } }, talkLong],
    ['pings', { frames: slowly, bytes: freely }, async ({ socket }: Awaited<ReturnType<typeof agent>>) => {
      socket.ping('x');
      await once(socket, 'pong');
    }],
  ])('takes no more %s of one agent than its share, and loses none', async (_, talk, say) => {
    const { server } = await open({}, { talk });
    const talkative = await agent(server.port, 'node-1');
    talkative.say(hello);
    await until('the welcome', () => talkative.heard.length > 0, waitMs);
    const beganMs = ms();
    for (let count = 0; count < 70; count += 1) await say(talkative);
    talkative.say({ type: 'heartbeat' });
    await until('the last frame to be answered', () => talkative.heard.at(-1)?.type === 'alive', waitMs);
    expect(ms() - beganMs).toBeGreaterThan(900);
    expect(talkative.closed()).toBe(false);
  });

  test('shows a renewed certificate to who comes, keeps who is there, and is not led astray by a half-written one', async () => {
    const { server, said } = await open({}, { certificateMs: 20 });
    const shown = async () => {
      const socket = connect({ port: server.port, host: '127.0.0.1', rejectUnauthorized: false });
      await once(socket, 'secureConnect');
      const { CN } = socket.getPeerCertificate().subject;
      socket.destroy();
      return CN;
    };
    const there = await agent(server.port, 'node-1');
    there.say(hello);
    await until('the welcome', () => there.heard.length > 0, waitMs);
    expect(await shown()).toBe('one');
    await cp(pairOf(dir, 'two').cert, pair.cert);
    await until('the refusal of a certificate without its key', () => said.includes('the renewed certificate can not be used; the old one stays'), waitMs);
    expect(await shown()).toBe('one');
    await cp(pairOf(dir, 'two').key, pair.key);
    await until('the new certificate', async () => (await shown()) === 'two', waitMs);
    there.say({ type: 'heartbeat' });
    await until('an answer to who was there', () => there.heard.at(-1)?.type === 'alive', waitMs);
  });
});
