import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import type { DesiredImage, DesiredVm } from '#crds/wire/desired.ts';
import { type Held, maxHeld, type ToAgent, toAgent, type ToOperator } from '#crds/wire/messages.ts';
import type { NodeFacts, ObservedVm } from '#crds/wire/observed.ts';
import type { AgentIdentity } from './auth.ts';
import { makeFleet } from './fleet.ts';
import { makeSession, type SessionHouse } from './session.ts';

const uid = '11111111-2222-4333-8444-555555555555';
const identity: AgentIdentity = { node: 'node-1', nodeUid: 'n', expiresAt: new Date('2030-01-01T01:00:00Z') };

const facts: NodeFacts = {
  agentVersion: '1', qemuVersion: '7.2', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
  capacity: { cpus: 2, memoryMiB: 1024, storageMiB: 1024 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
};
const hello: ToOperator = { type: 'hello', protocol: { min: 1, max: 1 }, capabilities: [], agentId: 'a', leaderEpochSeen: 0, facts };
const holding = (...held: Held[]): ToOperator => ({ type: 'holding', held, last: true });
const image: DesiredImage = { kind: 'image', uid, namespace: 'default', name: 'i', generation: 1, url: 'http://h/i', format: 'raw' };
const vm: DesiredVm = {
  kind: 'vm', uid, namespace: 'default', name: 'v', generation: 1, epoch: 2, uuid: uid, powerState: 'Running', cpus: 1, memoryMiB: 64, disks: [{ name: 'root', sizeMiB: 1 }],
  interfaces: [], cloudInit: { hostname: 'v', sshAuthorizedKeys: [] }, stop: { mode: 'Graceful', gracePeriodSeconds: 90 },
};
const observed: ObservedVm = { kind: 'vm', uid, generation: 1, epoch: 2, digest: 'd', state: 'running', disks: [], forwards: [] };
const heldVm: Held = { kind: 'vm', uid, namespace: 'default', name: 'v', generation: 1, epoch: 2, digest: 'd', ending: false };

const lab = (over: Partial<SessionHouse> = {}) => {
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  const house: SessionHouse = {
    fleet, monotonicMs: () => time.ms, now: () => new Date(Date.UTC(2030, 0, 1) + time.ms),
    log: { info: () => undefined, warn: () => undefined },
    admit: async () => ({ leaderEpoch: 7 }),
    leads: () => true,
    reviewToken: async () => identity,
    heard: () => undefined,
    ...over,
  };
  const connect = () => {
    const heard: ToAgent[] = [];
    const closed: number[] = [];
    const buffer = { bytes: 0 };
    const session = makeSession(house, identity, {
      send: (text) => { heard.push(toAgent.parse(JSON.parse(text))); }, bufferedBytes: () => buffer.bytes, close: (code) => { closed.push(code); },
    });
    const say = async (...messages: ToOperator[]) => { for (const message of messages) await session.receive(JSON.stringify(message)); };
    return { heard, closed, session, say, buffer, types: () => heard.map(({ type }) => type) };
  };
  return { time, fleet, connect };
};

describe('a session', () => {
  test('says nothing of what is wanted before the agent has said all that it holds', async () => {
    const { fleet, connect } = lab();
    fleet.want('node-1', image);
    const { say, types } = connect();
    await say(hello, { type: 'holding', held: [], last: false });
    expect(types()).toEqual(['welcome']);
    await say(holding());
    expect(types()).toEqual(['welcome', 'desire']);
  });

  test('sends what is wanted later at once, each under a higher revision', async () => {
    const { fleet, connect } = lab();
    const { say, heard } = connect();
    await say(hello, holding());
    fleet.want('node-1', image);
    fleet.want('node-1', image);
    fleet.want('node-1', { ...image, generation: 2 });
    expect(heard.flatMap((message) => (message.type === 'desire' ? [[message.leaderEpoch, message.revision, message.object.generation]] : []))).toEqual([[7, 1, 1], [7, 2, 2]]);
  });

  test('tells with a desire which disks are known to be made, also those that became known later; that alone is no news', async () => {
    const { fleet, connect } = lab();
    fleet.want('node-1', image, []);
    fleet.want('node-1', image, ['root']);
    const first = connect();
    await first.say(hello, holding());
    fleet.want('node-1', image, ['root', 'data']);
    const second = connect();
    await second.say(hello, holding());
    const made = [first, second].map(({ heard }) => heard.flatMap((message) => (message.type === 'desire' ? [message.made] : [])));
    expect(made).toEqual([[['root']], [['root', 'data']]]);
  });

  test.each([[1_000, [2]], [undefined, [1, 2]]])('does not send an object that an agent of frames up to %s bytes can not read; the others are sent', async (maxFrameBytes, sent) => {
    const { fleet, connect } = lab();
    const { say, heard, closed } = connect();
    fleet.want('node-1', { ...image, url: `http://h/${'i'.repeat(900)}` });
    await say({ ...hello, ...(maxFrameBytes === undefined ? {} : { maxFrameBytes }) }, holding());
    fleet.want('node-1', { ...image, uid: heldVm.uid.replace('1', '2'), generation: 2 });
    expect(heard.flatMap((message) => (message.type === 'desire' ? [message.object.generation] : []))).toEqual(sent);
    expect([fleet.oversize('node-1', uid) !== undefined, closed]).toEqual([maxFrameBytes !== undefined, []]);
  });

  test('keeps the rest while the socket is full, and goes on when that has drained', async () => {
    const { fleet, connect } = lab();
    const { say, types, buffer, session } = connect();
    await say(hello, holding());
    buffer.bytes = 64 * 1024 * 1024;
    fleet.want('node-1', image);
    session.drained();
    expect(types()).toEqual(['welcome']);
    buffer.bytes = 0;
    session.drained();
    session.drained();
    expect(types()).toEqual(['welcome', 'desire']);
  });

  test('an image that the agent does not have any more is told anew: a copy is only a cache', async () => {
    const { fleet, connect } = lab();
    const { say, types } = connect();
    await say(hello, holding());
    fleet.want('node-1', image);
    await say({ type: 'absent', kind: 'image', uid });
    fleet.want('node-1', { ...image, generation: 2 });
    expect([fleet.isEndedForEver('node-1', uid), types().filter((type) => type === 'desire').length]).toEqual([false, 2]);
  });

  test('leaves a VM alone that nobody wants', async () => {
    const { connect } = lab();
    const { say, types } = connect();
    await say(hello, holding(heldVm));
    expect(types()).toEqual(['welcome']);
  });

  const kept = { uid: uid.replace('1', '3'), owner: { namespace: 'default', namespaceUid: uid, vm: 'v', vmUid: uid, disk: 'data' }, sizeMiB: 1 };
  const keep = { namespace: 'default', namespaceUid: uid, vm: 'v', disks: ['data'] };
  const keeper = (...keptDisks: (typeof kept)[]): ToOperator => ({ ...hello, facts: { ...facts, keptDisks } });

  test('does not doom a VM whose disks shall outlive it where the agent can not keep them', async () => {
    const { fleet, connect, time } = lab();
    fleet.doom('node-1', uid, 'vm', keep);
    const old = connect();
    await old.say(hello, holding(heldVm));
    time.ms = 20_000;
    await old.say({ type: 'heartbeat' });
    time.ms = 61_000 - 20_000;
    await old.say({ type: 'heartbeat' });
    time.ms = 61_000;
    old.session.tick();
    expect([old.heard.filter(({ type }) => type === 'tombstone'), fleet.keepsDisks('node-1')]).toEqual([[], false]);
    const updated = connect();
    await updated.say(keeper(), holding(heldVm));
    expect([updated.heard.filter(({ type }) => type === 'tombstone'), fleet.keepsDisks('node-1')]).toEqual([[expect.objectContaining({ uid, keep })], true]);
  });

  test('has the last word about what outlives a VM that is being ended, as long as its node has not ended it', async () => {
    const { fleet, connect } = lab();
    const { say, heard } = connect();
    fleet.doom('node-1', uid, 'vm');
    fleet.doom('node-1', uid, 'vm', keep);
    await say(keeper(), holding(heldVm));
    expect(heard.at(-1)).toMatchObject({ type: 'tombstone', uid, keep });
    // An agent that can keep none is told of the end as soon as none is to be kept.
    fleet.doom('node-1', uid, 'vm');
    expect(fleet.member('node-1').keep.size).toBe(0);
  });

  test('says nothing of kept disks to an agent that knows none: it would take that for a bad frame', async () => {
    const { fleet, connect } = lab();
    const { say, types } = connect();
    await say(hello, holding(heldVm));
    fleet.doom('node-1', kept.uid, 'disk');
    expect(types()).toEqual(['welcome']);
  });

  test('asks an agent that keeps disks for the end of a VM, and concludes it from no list: the answer says what has outlived it', async () => {
    const { fleet, connect } = lab();
    fleet.doom('node-1', uid, 'vm', keep);
    const { say, types } = connect();
    await say(keeper(), holding());
    expect([fleet.isAbsent('node-1', uid), types()]).toEqual([false, ['welcome', 'tombstone']]);
    await say({ type: 'absent', kind: 'vm', uid, kept: [kept] });
    expect([fleet.isAbsent('node-1', uid), fleet.keptDisks('node-1')]).toEqual([true, [kept]]);
    // What its facts say later counts: the disk was taken back.
    await say({ type: 'facts', facts: { ...facts, keptDisks: [] } });
    expect(fleet.keptDisks('node-1')).toEqual([]);
  });

  test('has a kept disk ended when the agent says so, and not before; what its facts said of it is no word any more', async () => {
    const { fleet, connect } = lab();
    fleet.doom('node-1', kept.uid, 'disk');
    const { say, heard } = connect();
    await say(keeper(kept), holding());
    expect([heard.at(-1), fleet.isAbsent('node-1', kept.uid)]).toEqual([expect.objectContaining({ type: 'tombstone', kind: 'disk', uid: kept.uid }), false]);
    await say({ type: 'absent', kind: 'disk', uid: kept.uid });
    expect([fleet.isAbsent('node-1', kept.uid), fleet.keptDisks('node-1')]).toEqual([true, []]);
  });

  test('repeats a tombstone with each comparison until the agent says absent', async () => {
    const { fleet, connect, time } = lab();
    const { say, heard, session } = connect();
    await say(hello, holding(heldVm));
    fleet.doom('node-1', uid, 'vm');
    time.ms = 20_000;
    await say({ type: 'heartbeat' });
    time.ms = 40_000;
    await say({ type: 'heartbeat' });
    time.ms = 61_000;
    session.tick();
    expect(heard.filter(({ type }) => type === 'tombstone')).toHaveLength(2);
    expect(fleet.isAbsent('node-1', uid)).toBe(false);
    await say({ type: 'absent', kind: 'vm', uid });
    expect(fleet.isAbsent('node-1', uid)).toBe(true);
    time.ms = 80_000;
    await say({ type: 'heartbeat' });
    time.ms = 122_000 - 21_000;
    await say({ type: 'heartbeat' });
    time.ms = 122_000;
    session.tick();
    expect(heard.filter(({ type }) => type === 'tombstone')).toHaveLength(2);
  });

  test('sends again what an agent lost, after a comparison that differed', async () => {
    const { fleet, connect } = lab();
    fleet.want('node-1', image);
    const { say, types } = connect();
    await say(hello, holding(), holding());
    expect(types()).toEqual(['welcome', 'desire', 'desire']);
  });

  test('takes a doomed VM for gone by the first list after a connection, not by one that was on its way when the VM was told of', async () => {
    const { fleet, connect } = lab();
    const first = connect();
    await first.say(hello, holding());
    fleet.want('node-1', vm);
    fleet.doom('node-1', uid, 'vm');
    await first.say(holding());
    expect([fleet.isAbsent('node-1', uid), first.types().at(-1)]).toEqual([false, 'tombstone']);
    await first.say(holding({ ...heldVm, ending: true }));
    expect(fleet.isAbsent('node-1', uid)).toBe(false);
    const second = connect();
    await second.say(hello, holding());
    expect(fleet.isAbsent('node-1', uid)).toBe(true);
  });

  test('keeps what was reported of a VM, also when a list is older than the VM; after a new connection only of what is held', async () => {
    const { fleet, connect } = lab();
    const first = connect();
    await first.say(hello, holding());
    fleet.want('node-1', vm);
    await first.say({ type: 'report', observed }, holding());
    expect(fleet.report('node-1', uid)).toEqual(observed);
    const second = connect();
    await second.say(hello, holding());
    expect(fleet.report('node-1', uid)).toBeUndefined();
  });

  test('knows what a node held until its new list is complete; another agent of the node begins with nothing', async () => {
    const { fleet, connect } = lab();
    const first = connect();
    await first.say(hello, holding(heldVm), { type: 'report', observed });
    const second = connect();
    await second.say(hello);
    expect([fleet.claims(uid)[0]?.node, fleet.report('node-1', uid), fleet.link('node-1')]).toEqual(['node-1', observed, 'joining']);
    const other = connect();
    await other.say({ ...hello, agentId: 'b' });
    expect([fleet.claims(uid), fleet.report('node-1', uid)]).toEqual([[], undefined]);
  });

  test('makes what was reported before it old: a VM that the agent holds is awaited until the agent has spoken of it anew', async () => {
    const { fleet, connect } = lab();
    const first = connect();
    await first.say(hello, holding(heldVm));
    const awaits = () => fleet.awaits('node-1', uid);
    expect(awaits()).toBe(true);
    await first.say({ type: 'report', observed }, holding(heldVm));
    expect(awaits()).toBe(false);
    first.session.ended();
    // It is back within seconds, or silent: until then its last word stands.
    expect(awaits()).toBe(false);
    const second = connect();
    await second.say(hello);
    expect(awaits()).toBe(true);
    await second.say(holding(heldVm));
    expect(awaits()).toBe(true);
    await second.say({ type: 'report', observed });
    expect(awaits()).toBe(false);
  });

  test('awaits nothing of a VM that is only told of, or that the agent does not hold any more', async () => {
    const { fleet, connect } = lab();
    const first = connect();
    await first.say(hello, holding());
    fleet.want('node-1', vm);
    expect(fleet.awaits('node-1', uid)).toBe(false);
    const second = connect();
    await second.say(hello, holding({ ...heldVm, ending: true }), { type: 'absent', kind: 'vm', uid });
    expect(fleet.awaits('node-1', uid)).toBe(false);
  });

  test.each([['while it joins', []], ['later', [holding()]]])('ends when the list of what an agent holds has no end, %s', async (_, before) => {
    const { connect } = lab();
    const { say, closed } = connect();
    const part = (frame: number): ToOperator => ({
      type: 'holding', last: false, held: Array.from({ length: 2_000 }, (__, at) => ({ ...heldVm, uid: `aaaaaaaa-aaaa-4aaa-8aaa-${String(frame * 2_000 + at).padStart(12, '0')}` })),
    });
    await say(hello, ...before, ...Array.from({ length: maxHeld / 2_000 }, (__, frame) => part(frame)));
    expect(closed).toEqual([]);
    await say(part(maxHeld / 2_000));
    expect(closed).toEqual([4000]);
  });

  test('keeps nothing that an agent says of uids that it neither holds nor was told of', async () => {
    const { fleet, connect } = lab();
    const { say, closed } = connect();
    const report = { ...observed, uid: heldVm.uid.replace('1', '2') };
    const copy: ToOperator = { type: 'report', observed: { kind: 'image', uid, generation: 1, digest: 'd', state: 'ready', progress: 100 } };
    await say(hello, holding(), { type: 'report', observed }, copy, { type: 'absent', kind: 'vm', uid });
    const { vms, images, endedForEver, absent } = fleet.member('node-1');
    expect([vms.size, images.size, endedForEver.size, absent.size, closed]).toEqual([0, 0, 0, 0, []]);
    // What it holds, what it is wanted to hold and what it shall end is its business.
    await say(holding(heldVm), { type: 'report', observed });
    fleet.want('node-1', { ...vm, uid: report.uid });
    await say({ type: 'report', observed: report });
    expect([...vms.keys()]).toEqual([uid, report.uid]);
  });

  test('is replaced by a newer one of the same node, and its late end changes nothing', async () => {
    const { fleet, connect } = lab();
    const old = connect();
    await old.say(hello, holding());
    const fresh = connect();
    await fresh.say(hello, holding());
    expect(old.closed).toEqual([4001]);
    old.session.ended();
    expect(fleet.link('node-1')).toBe('connected');
    fleet.want('node-1', image);
    expect(fresh.types()).toContain('desire');
    expect(old.types()).not.toContain('desire');
  });

  test('is not replaced by an older one whose hello took longer to admit', async () => {
    const admissions: PromiseWithResolvers<{ leaderEpoch: number }>[] = [];
    const { fleet, connect } = lab({ admit: () => { const admission = Promise.withResolvers<{ leaderEpoch: number }>(); admissions.push(admission); return admission.promise; } });
    const [old, fresh] = [connect(), connect()];
    const [oldHello, freshHello] = [old.say(hello), fresh.say(hello)];
    admissions[1]?.resolve({ leaderEpoch: 9 });
    await freshHello;
    admissions[0]?.resolve({ leaderEpoch: 8 });
    await oldHello;
    await fresh.say(holding());
    expect([old.closed, fresh.closed, fleet.link('node-1'), fleet.member('node-1').spoke?.leaderEpoch]).toEqual([[4001], [], 'connected', 9]);
  });

  test('makes its node silent 30 s after the last frame, not before', async () => {
    const { fleet, connect, time } = lab();
    const { say } = connect();
    await say(hello, holding());
    time.ms = 30_000;
    expect(fleet.link('node-1')).toBe('connected');
    time.ms = 30_001;
    expect(fleet.link('node-1')).toBe('silent');
    await say({ type: 'heartbeat' });
    expect(fleet.link('node-1')).toBe('connected');
  });

  test('of an agent that is refused is no sign of life of its node; one of its own agent is, from its hello on', async () => {
    const { fleet, connect, time } = lab({ admit: async ({ agentId }) => (agentId === 'a' ? { leaderEpoch: 7 } : { refused: 'IdentityConflict', message: 'no' }) });
    const mine = connect();
    await mine.say(hello, holding());
    mine.session.ended();
    time.ms = 20_000;
    await connect().say({ ...hello, agentId: 'b' });
    time.ms = 30_001;
    expect(fleet.link('node-1')).toBe('silent');
    const admitting = connect().say(hello);
    expect(fleet.link('node-1')).toBe('joining');
    await admitting;
    expect(fleet.link('node-1')).toBe('joining');
  });

  test('ends when its token expires, unless it was renewed for the same node', async () => {
    const later = { ...identity, expiresAt: new Date('2030-01-01T02:00:00Z') };
    const { connect, time } = lab({ reviewToken: async () => later });
    const { say, session, closed } = connect();
    await say(hello, holding(), { type: 'renew', token: 't' });
    time.ms = 3_600_000;
    await say({ type: 'heartbeat' });
    session.tick();
    expect(closed).toEqual([]);
    time.ms = 7_200_000;
    await say({ type: 'heartbeat' });
    session.tick();
    expect(closed).toEqual([4000]);
  });

  test.each([
    ['another node', async () => ({ ...identity, node: 'node-2' })],
    ['another node of the same name', async () => ({ ...identity, nodeUid: 'm' })],
  ])('refuses a renewed token of %s', async (_, reviewToken) => {
    const { connect } = lab({ reviewToken });
    const { say, closed, types } = connect();
    await say(hello, holding(), { type: 'renew', token: 't' });
    expect([closed, types().at(-1)]).toEqual([[4000], 'refused']);
  });

  test('ends at a renewed token that is not valid', async () => {
    const { connect } = lab({ reviewToken: async () => { throw new Fault('Unauthenticated', 'no'); } });
    const { say, closed, types } = connect();
    await say(hello, holding(), { type: 'renew', token: 't' });
    expect([closed, types().at(-1)]).toEqual([[4000], 'refused']);
  });

  test('keeps its old token while nobody can review the new one, and has it reviewed again', async () => {
    let reviews = 0;
    const later = { ...identity, expiresAt: new Date('2030-01-01T02:00:00Z') };
    const { connect, time } = lab({ reviewToken: async () => { if ((reviews += 1) === 1) throw new Fault('ApiServerUnreachable', 'no'); return later; } });
    const { say, closed, types, session } = connect();
    await say(hello, holding(), { type: 'renew', token: 't' });
    session.tick();
    expect([closed, reviews]).toEqual([[], 1]);
    time.ms = 5_000;
    session.tick();
    await Promise.resolve();
    expect([closed, reviews, types().at(-1)]).toEqual([[], 2, 'renewed']);
  });

  test('is judged by its latest token, however late the review of an earlier one ends', async () => {
    const reviews: PromiseWithResolvers<AgentIdentity>[] = [];
    const { connect, time } = lab({ reviewToken: () => { const review = Promise.withResolvers<AgentIdentity>(); reviews.push(review); return review.promise; } });
    const { say, closed, types, session } = connect();
    await say(hello, holding());
    const first = say({ type: 'renew', token: 'first' });
    reviews[0]?.reject(new Fault('ApiServerUnreachable', 'no'));
    await first;
    time.ms = 5_000;
    session.tick();
    const second = say({ type: 'renew', token: 'second' });
    reviews[2]?.resolve({ ...identity, expiresAt: new Date('2030-01-01T02:00:00Z') });
    await second;
    reviews[1]?.reject(new Fault('Unauthenticated', 'it has expired'));
    await new Promise(setImmediate);
    time.ms = 3_600_000;
    await say({ type: 'heartbeat' });
    session.tick();
    expect([closed, types().filter((type) => type === 'refused' || type === 'renewed')]).toEqual([[], ['renewed']]);
  });

  test('goes on counting revisions over connections, under the epoch that its agent was admitted with', async () => {
    let leaderEpoch = 7;
    const { fleet, connect } = lab({ admit: async () => ({ leaderEpoch }) });
    const orders = ({ heard }: ReturnType<typeof connect>) => heard.flatMap((message) => (message.type === 'desire' ? [[message.leaderEpoch, message.revision]] : []));
    fleet.want('node-1', image);
    const first = connect();
    await first.say(hello, holding());
    leaderEpoch = 9;
    fleet.want('node-1', { ...image, generation: 2 });
    const second = connect();
    await second.say(hello, holding());
    expect([orders(first), orders(second)]).toEqual([[[7, 1], [7, 2]], [[9, 3]]]);
  });

  test('commands nothing while this operator does not lead', async () => {
    const { fleet, connect } = lab({ leads: () => false });
    const { say, types } = connect();
    await say(hello, holding());
    fleet.want('node-1', image);
    fleet.doom('node-1', uid, 'image');
    expect(types()).toEqual(['welcome']);
  });

  test('says with a comparison what could not be said when it was wanted: no wake-up has to arrive', async () => {
    const lead = { is: true };
    const { fleet, connect, time } = lab({ leads: () => lead.is });
    const { say, types, session } = connect();
    await say(hello, holding());
    lead.is = false;
    fleet.want('node-1', image);
    lead.is = true;
    time.ms = 25_000;
    await say({ type: 'heartbeat' });
    time.ms = 50_000;
    await say({ type: 'heartbeat' });
    time.ms = 61_000;
    session.tick();
    expect(types().slice(-2)).toEqual(['desire', 'compare']);
  });

  test.each([
    ['a frame before hello', '{"type":"heartbeat"}'],
    ['no JSON', '{'],
    ['a frame that breaks its rules', '{"type":"absent","kind":"vm","uid":"../../etc"}'],
    ['an epoch that no leader could be above', JSON.stringify({ ...hello, leaderEpochSeen: Number.MAX_SAFE_INTEGER })],
  ])('ends at %s', async (_, text) => {
    const { connect } = lab();
    const { session, closed } = connect();
    await session.receive(text);
    expect(closed).toEqual([4000]);
  });

  test('ignores a frame of a type that it does not know', async () => {
    const { connect } = lab();
    const { session, closed, say } = connect();
    await say(hello, holding());
    await session.receive('{"type":"from-the-future"}');
    expect(closed).toEqual([]);
  });

  test('is refused when the ranges of the protocol do not meet', async () => {
    const { connect } = lab();
    const { say, heard } = connect();
    await say({ ...hello, protocol: { min: 2, max: 3 } });
    expect(heard).toMatchObject([{ type: 'refused', reason: 'ProtocolMismatch' }]);
  });
});
