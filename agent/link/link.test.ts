import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type WebSocket, WebSocketServer } from 'ws';
import { systemClock } from '#crds/kit/clock.ts';
import { quiet } from '#crds/kit/log.ts';
import { until } from '#hack/bed/until.ts';
import type { Held, ToAgent, ToOperator } from '#crds/wire/messages.ts';
import { toOperator } from '#crds/wire/messages.ts';
import { someVm, uidOf } from '../vm/bed.ts';
import { doorOf, makeDial } from './dial.ts';
import { type LinkHouse, type LinkTimes, makeLink } from './link.ts';
import { holdingFrames, makeOutbox } from './outbox.ts';

const quick: LinkTimes = { tickMs: 5, heartbeatMs: 20, silenceMs: 60_000, welcomeMs: 60_000, reconnect: { baseMs: 5, maxMs: 20 } };
const closers: (() => void)[] = [];
afterEach(() => { for (const close of closers.splice(0)) close(); });

/** An operator's door in this process: keeps what it hears, per connection. */
const door = async (gate: (request: IncomingMessage) => number | undefined = () => undefined) => {
  const server: Server = createServer();
  const sockets = new WebSocketServer({ noServer: true });
  const talks: { socket: WebSocket; token: string; heard: ToOperator[]; say: (message: ToAgent | { type: string }) => void }[] = [];
  server.on('upgrade', (request, raw, head) => {
    const status = gate(request);
    if (status !== undefined) { raw.end(`HTTP/1.1 ${status} No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`); return; }
    sockets.handleUpgrade(request, raw, head, (socket) => {
      const talk = { socket, token: request.headers.authorization ?? '', heard: [] as ToOperator[], say: (message: object) => socket.send(JSON.stringify(message)) };
      socket.on('message', (data: Buffer) => { talk.heard.push(toOperator.parse(JSON.parse(data.toString('utf8')))); });
      talks.push(talk);
    });
  });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  closers.push(() => { server.closeAllConnections(); server.close(); for (const client of sockets.clients) client.terminate(); });
  const { port } = server.address() as AddressInfo;
  return { url: `ws://127.0.0.1:${port}`, talks };
};

const nodeFacts = {
  agentVersion: '0', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64' as const, accelerators: [], networkMode: 'user' as const, bootId: 'b',
  capacity: { cpus: 1, memoryMiB: 1, storageMiB: 1 }, forwards: { address: '127.0.0.1', minPort: 1, maxPort: 2 }, troubles: [],
};
const held = (n: number): Held => ({ kind: 'vm', uid: uidOf(n), namespace: 'default', name: `vm${n}`, generation: 1, epoch: 1, digest: 'd', ending: false });

const agent = async (url: string, over: Partial<LinkHouse> = {}, times: LinkTimes = quick) => {
  const stop = new AbortController();
  const commands: string[] = [];
  const epochs: number[] = [];
  const link = makeLink({
    dial: makeDial({ url }), token: async () => 'secret', clock: systemClock, chance: () => 0.5, log: quiet,
    hello: () => ({ type: 'hello', protocol: { min: 1, max: 1 }, capabilities: [], agentId: 'a', leaderEpochSeen: 0, facts: nodeFacts }),
    held: () => [held(1)], heldDigest: () => 'same', snapshot: () => [{ type: 'facts', facts: nodeFacts }],
    welcomed: async (leaderEpoch) => void epochs.push(leaderEpoch), hear: async (command) => void commands.push(command.type), beat: () => {}, misunderstood: () => {}, ...over,
  }, times);
  const done = link.run(stop.signal);
  closers.push(() => stop.abort());
  return { link, stop, done, commands, epochs };
};

const welcome: ToAgent = { type: 'welcome', protocol: 1, leaderEpoch: 4, node: 'n' };
const types = (talk: { heard: ToOperator[] } | undefined) => talk?.heard.map(({ type }) => type).filter((type) => type !== 'heartbeat') ?? [];
const heard = (talks: { heard: ToOperator[] }[], at: number, type: string) => until(`${type} on connection ${at}`, () => talks[at]?.heard.find((each) => each.type === type), 5_000);

describe('a link', () => {
  test('says hello with its credential, and after the welcome all that it holds, then all that it knows', async () => {
    const { url, talks } = await door();
    const { epochs } = await agent(url);
    await heard(talks, 0, 'hello');
    expect(talks[0]?.token).toBe('Bearer secret');
    expect(types(talks[0])).toEqual(['hello']);
    talks[0]?.say(welcome);
    await heard(talks, 0, 'facts');
    expect(types(talks[0])).toEqual(['hello', 'holding', 'facts']);
    expect(epochs).toEqual([4]);
    await heard(talks, 0, 'heartbeat');
  });

  test('lists what it holds only when every command before is dealt with', async () => {
    const { url, talks } = await door();
    const { promise: written, resolve: write } = Promise.withResolvers<void>();
    const holds: Held[] = [];
    await agent(url, { held: () => holds, heldDigest: () => String(holds.length), hear: async () => { await written; holds.push(held(7)); } });
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await heard(talks, 0, 'facts');
    talks[0]?.say({ type: 'desire', leaderEpoch: 4, revision: 1, object: someVm() });
    talks[0]?.say({ type: 'compare', leaderEpoch: 4, digest: '0' });
    talks[0]?.say({ type: 'compare', leaderEpoch: 4, digest: 'other' });
    write();
    await until('two more lists', () => types(talks[0]).filter((type) => type === 'holding').length === 3, 5_000);
    expect(talks[0]?.heard.findLast((each) => each.type === 'holding')).toMatchObject({ held: [{ uid: uidOf(7) }], last: true });
  });

  test('comes back after a cut, and the late end of an old connection does not end the new one', async () => {
    const { url, talks } = await door();
    const late: (() => void)[] = [];
    const real = makeDial({ url });
    const { link } = await agent(url, {
      dial: async (token, ears, signal) => real(token, { ...ears, closed: (why) => { ears.closed(why); late.push(() => ears.closed('much later')); } }, signal),
    });
    await heard(talks, 0, 'hello');
    talks[0]?.socket.terminate();
    await heard(talks, 1, 'hello');
    talks[1]?.say(welcome);
    await until('joined', () => link.joined(), 5_000);
    for (const again of late) again();
    expect(link.joined()).toBe(true);
  });

  test('says anew what it holds when it is told to', async () => {
    const { url, talks } = await door();
    const { link } = await agent(url);
    link.relist();
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await heard(talks, 0, 'facts');
    link.relist();
    await until('another list', () => types(talks[0]).filter((type) => type === 'holding').length === 2, 5_000);
  });

  test('beats on while its credential can not be read for a disk that hangs', async () => {
    const { url, talks } = await door();
    let reads = 0;
    await agent(url, { token: () => ((reads += 1) === 1 ? Promise.resolve('first') : new Promise(() => {})) });
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await until('heartbeats', () => (talks[0]?.heard.filter(({ type }) => type === 'heartbeat').length ?? 0) > 3, 5_000);
    expect(reads).toBe(2);
  });

  test('stays with an operator that came back while a command is being written to a disk that hangs, and lists what it holds when that is done', async () => {
    const { url, talks } = await door();
    const { promise: written, resolve: write } = Promise.withResolvers<void>();
    await agent(url, { hear: () => written }, { ...quick, welcomeMs: 200 });
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await heard(talks, 0, 'facts');
    talks[0]?.say({ type: 'desire', leaderEpoch: 4, revision: 1, object: someVm() });
    talks[0]?.say({ type: 'compare', leaderEpoch: 4, digest: 'other' });
    await heard(talks, 0, 'heartbeat');
    talks[0]?.socket.terminate();
    await heard(talks, 1, 'hello');
    talks[1]?.say(welcome);
    await until('heartbeats for longer than a welcome may take', () => (talks[1]?.heard.filter(({ type }) => type === 'heartbeat').length ?? 0) > 20, 20_000);
    expect([talks.length, types(talks[1])]).toEqual([2, ['hello']]);
    write();
    await heard(talks, 1, 'facts');
    expect(types(talks[1])).toEqual(['hello', 'holding', 'facts']);
  }, 60_000);

  test('a desire that it can not read costs that VM alone; nonsense ends the session', async () => {
    const { url, talks } = await door();
    const unread: string[] = [];
    const { commands } = await agent(url, { misunderstood: (of, why) => void unread.push(`${of} ${why}`) });
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await heard(talks, 0, 'facts');
    const desire = { type: 'desire', leaderEpoch: 4, revision: 1 };
    talks[0]?.say({ ...desire, object: { ...someVm({ uid: uidOf(5) }), colour: 'red' } } as { type: string });
    talks[0]?.say({ ...desire, object: someVm() } as ToAgent);
    await until('the good one', () => commands.length === 1, 5_000);
    expect(unread).toEqual([expect.stringMatching(new RegExp(`^${uidOf(5)} desire: .*colour`))]);
    talks[0]?.say({ ...desire, object: { kind: 'vm', uid: '../../x' } } as { type: string });
    await heard(talks, 1, 'hello');
  });

  test('gives up a silent operator', async () => {
    const { url, talks } = await door();
    await agent(url, {}, { ...quick, silenceMs: 50 });
    await heard(talks, 0, 'hello');
    await heard(talks, 1, 'hello');
  });

  test('hands over a renewed credential in its session', async () => {
    const { url, talks } = await door();
    let token = 'first';
    await agent(url, { token: async () => token });
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await heard(talks, 0, 'heartbeat');
    token = 'second';
    expect(await heard(talks, 0, 'renew')).toEqual({ type: 'renew', token: 'second' });
    await until('another heartbeat', () => (talks[0]?.heard.filter(({ type }) => type === 'heartbeat').length ?? 0) > 3, 5_000);
    expect(types(talks[0]).filter((type) => type === 'renew')).toHaveLength(1);
  });

  test('ignores a frame that it does not know, and ends on a broken one', async () => {
    const { url, talks } = await door();
    const { commands } = await agent(url);
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    talks[0]?.say({ type: 'song' });
    talks[0]?.say({ type: 'tombstone', leaderEpoch: 4, revision: 1, kind: 'vm', uid: uidOf(1) });
    await until('the tombstone', () => commands.length === 1, 5_000);
    talks[0]?.say({ type: 'tombstone', leaderEpoch: 4, revision: 1, kind: 'vm', uid: '../../etc' } as ToAgent);
    await heard(talks, 1, 'hello');
    expect(commands).toEqual(['tombstone']);
  });

  test.each([[401], [503]])('answered %i it tries again', async (status) => {
    let asked = 0;
    const { url, talks } = await door(() => ((asked += 1) < 3 ? status : undefined));
    await agent(url);
    await heard(talks, 0, 'hello');
    expect(asked).toBe(3);
  });

  test('says good-bye when the agent ends, and does not come back', async () => {
    const { url, talks } = await door();
    const { stop, done, link } = await agent(url);
    await heard(talks, 0, 'hello');
    talks[0]?.say(welcome);
    await until('joined', () => link.joined(), 5_000);
    const closed = new Promise<number>((resolve) => { talks[0]?.socket.once('close', resolve); });
    stop.abort();
    await done;
    expect([await closed, talks.length]).toEqual([1001, 1]);
  });
});

describe('the outbox', () => {
  test('keeps only the latest of each matter while the socket is full', () => {
    let full = true;
    const sent: string[] = [];
    const box = makeOutbox({ send: (text) => void sent.push(text), bufferedBytes: () => (full ? 2 ** 30 : 0), close: () => {} });
    for (let generation = 1; generation <= 1000; generation += 1) box.put('a', { type: 'heartbeat' });
    box.put('b', { type: 'renew', token: 't' });
    expect([sent.length, box.waiting()]).toEqual([0, 2]);
    full = false;
    box.flush();
    expect(sent.map((text) => JSON.parse(text).type)).toEqual(['heartbeat', 'renew']);
  });

  test('splits a long list into frames that fit; only the last one closes it', () => {
    const frames = holdingFrames(Array.from({ length: 4_500 }, (_, n) => ({ ...held(n), name: 'n'.repeat(253) })));
    expect(frames.flatMap((frame) => frame.held)).toHaveLength(4_500);
    for (const frame of frames) expect(Buffer.byteLength(JSON.stringify(frame))).toBeLessThan(1024 * 1024);
    expect(frames.map(({ last }) => last)).toEqual([...frames.slice(1).map(() => false), true]);
    expect(holdingFrames([])).toEqual([{ type: 'holding', held: [], last: true }]);
  });

  test.each([['https://op:8443', 'wss://op:8443/agent/ws'], ['wss://op/', 'wss://op/agent/ws'], ['https://op/strato/', 'wss://op/strato/agent/ws']])('the door of %s is %s', (url, at) => {
    expect(doorOf(url)).toBe(at);
  });
});
