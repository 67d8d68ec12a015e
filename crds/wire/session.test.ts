import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Desired, desireDigest } from './desired.ts';
import { type Desire, holdingDigest, judgeDesire, judgeTombstone, type Memory, type Remembered, type Tombstone } from './judge.ts';
import type { Held, ToAgent, ToOperator } from './messages.ts';
import { afterEnd, afterFrame, afterSend, type AgentView, joining, negotiate, planSync, type Want } from './sync.ts';

const uids = ['1', '2', '3', '4'].map((digit) => `00000000-0000-4000-8000-00000000000${digit}`);

const image = (uid: string, generation: number): Desired => ({ kind: 'image', uid, namespace: 'default', name: 'i', generation, url: 'http://h/i', format: 'raw' });

const vm = (uid: string, generation: number): Desired => ({
  kind: 'vm', uid, namespace: 'default', name: 'v', generation, epoch: 1, uuid: uid, powerState: 'Running', cpus: 1, memoryMiB: 64, disks: [], interfaces: [],
  cloudInit: { hostname: 'v', sshAuthorizedKeys: [] }, stop: { mode: 'Graceful', gracePeriodSeconds: 90 },
});

const heldOf = (object: Desired): Held => ({
  kind: object.kind, uid: object.uid, namespace: object.namespace, name: object.name, generation: object.generation,
  epoch: object.kind === 'vm' ? object.epoch : 1, digest: desireDigest(object), ending: false,
});

const objects = { vm, image } satisfies Record<Held['kind'], (uid: string, generation: number) => Desired>;

/** An agent as far as the session is concerned: it remembers, judges and answers. Teardown takes until `finish`. */
const pretendAgent = () => {
  const held = new Map<string, Remembered>();
  const ended = new Set<string>();
  let leaderEpochSeen = 0;
  const memory = (): Memory => ({ leaderEpochSeen, held, ended, remains: new Set() });
  const hear = (message: ToAgent): ToOperator[] => {
    switch (message.type) {
      case 'welcome':
        leaderEpochSeen = Math.max(leaderEpochSeen, message.leaderEpoch);
        return [list()];
      case 'desire': {
        const verdict = judgeDesire(memory(), message);
        if (verdict.is === 'accept' || verdict.is === 'known') held.set(message.object.uid, { ...heldOf(message.object), leaderEpoch: message.leaderEpoch, revision: message.revision });
        return verdict.is === 'absent' ? [{ type: 'absent', kind: message.object.kind, uid: message.object.uid }] : [];
      }
      case 'tombstone': {
        const verdict = judgeTombstone(memory(), message);
        const mine = held.get(message.uid);
        if (verdict.is === 'accept' && mine) held.set(message.uid, { ...mine, ending: true });
        if (verdict.is === 'absent' && message.kind === 'vm') ended.add(message.uid);
        return verdict.is === 'absent' ? [{ type: 'absent', kind: message.kind, uid: message.uid }] : [];
      }
      case 'compare':
        return holdingDigest(held.values()) === message.digest ? [] : [list()];
      case 'refused':
      case 'alive':
      case 'renewed':
        return [];
    }
  };
  const list = (): ToOperator => ({ type: 'holding', held: [...held.values()].flatMap(({ kind, ...rest }) => (kind === 'disk' ? [] : [{ kind, ...rest }])), last: true });
  const finish = (): ToOperator[] => [...held.values()].filter(({ ending }) => ending).map(({ uid, kind }) => {
    held.delete(uid);
    if (kind === 'vm') ended.add(uid);
    return { type: 'absent', kind, uid };
  });
  return { held, ended, hear, finish, seen: () => leaderEpochSeen };
};

/** A leader: it wants, dooms, sends what planSync says and believes what afterFrame says. */
const pretendLeader = (want: { objects: Map<string, Desired>; doomed: Map<string, Held['kind']> }, leaderEpoch: number) => {
  let view: AgentView = joining;
  let pending: readonly Held[] = [];
  let revision = 0;
  const wanted = (): Want => ({ objects: new Map([...want.objects].map(([uid, object]) => [uid, heldOf(object)])), doomed: want.doomed });
  const speak = (): ToAgent[] => {
    const sync = planSync(wanted(), view);
    const desires = sync.send.flatMap((uid) => {
      const object = want.objects.get(uid);
      if (!object) return [];
      view = afterSend(view, heldOf(object));
      return [{ type: 'desire', leaderEpoch, revision: ++revision, object } satisfies ToAgent];
    });
    const tombstones = sync.end.map(({ uid, kind }) => {
      view = afterEnd(view, uid);
      return { type: 'tombstone', leaderEpoch, revision: ++revision, uid, kind } satisfies ToAgent;
    });
    return [...desires, ...tombstones];
  };
  const hear = (message: ToOperator) => {
    ({ view, pending } = afterFrame(view, pending, message));
    if (message.type === 'absent') want.doomed.delete(message.uid);
  };
  return {
    leaderEpoch, speak, hear, want,
    connect: (): ToAgent[] => { view = joining; pending = []; return [{ type: 'welcome', protocol: 1, leaderEpoch, node: 'n' }]; },
    compare: (): ToAgent => ({ type: 'compare', leaderEpoch, digest: holdingDigest(view.told.values()) }),
    /** A copy of an image goes with its object; the operator dooms one that it does not want. */
    tidy: () => { for (const { uid, kind } of view.told.values()) if (kind === 'image' && !want.objects.has(uid)) want.doomed.set(uid, kind); },
    orphans: () => planSync(wanted(), view).orphans,
  };
};

type Act =
  | { do: 'want'; uid: string; generation: number } | { do: 'doom'; uid: string } | { do: 'lead' } | { do: 'reconnect' }
  | { do: 'speak' } | { do: 'compare' } | { do: 'finish' } | { do: 'deliver'; times: number } | { do: 'answer' } | { do: 'lose' } | { do: 'replay' };

const act = fc.oneof(
  fc.record({ do: fc.constant('want' as const), uid: fc.constantFrom(...uids), generation: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ do: fc.constant('doom' as const), uid: fc.constantFrom(...uids) }),
  fc.record({ do: fc.constant('deliver' as const), times: fc.integer({ min: 1, max: 2 }) }),
  ...(['lead', 'reconnect', 'speak', 'compare', 'finish', 'answer', 'lose', 'replay'] as const).map((each) => fc.constant({ do: each })),
);

describe('a session', () => {
  // The uid of a VM ends for ever. That of an image may be wanted again, as by an etcd that was restored.
  test.each(['vm', 'image'] as const)('agrees in the end about every %s, whatever is lost, repeated or cut, and a VM that has ended stays so', (kind) => {
    fc.assert(fc.property(fc.array(act, { maxLength: 60 }), (acts: Act[]) => {
      const agent = pretendAgent();
      const want = { objects: new Map<string, Desired>(), doomed: new Map<string, Held['kind']>() };
      let leader = pretendLeader(want, 1);
      let down: ToAgent[] = leader.connect();
      let up: ToOperator[] = [];
      const history: ToAgent[] = [];
      const doomedEver = new Set<string>();
      const deliver = () => { const next = down.shift(); if (next) { history.push(next); up.push(...agent.hear(next)); } };
      for (const it of acts) {
        if (it.do === 'want' && (kind === 'image' || !doomedEver.has(it.uid))) { want.objects.set(it.uid, objects[kind](it.uid, it.generation)); want.doomed.delete(it.uid); }
        if (it.do === 'doom' && want.objects.delete(it.uid)) { want.doomed.set(it.uid, kind); doomedEver.add(it.uid); }
        if (it.do === 'lead') { leader = pretendLeader(want, leader.leaderEpoch + 1); down = leader.connect(); up = []; }
        if (it.do === 'reconnect' || it.do === 'lose') { down = leader.connect(); up = []; }
        if (it.do === 'speak') down.push(...leader.speak());
        if (it.do === 'compare') down.push(leader.compare());
        if (it.do === 'finish') up.push(...agent.finish());
        if (it.do === 'replay') for (const old of history) agent.hear(old);
        if (it.do === 'deliver') for (let i = 0; i < it.times; i++) deliver();
        if (it.do === 'answer') { const next = up.shift(); if (next) leader.hear(next); }
        for (const uid of agent.ended) expect(agent.held.has(uid)).toBe(false);
      }
      // The storm is over: one connection, everything delivered, a few rounds.
      down = leader.connect(); up = [];
      for (let round = 0; round < 6; round++) {
        leader.tidy();
        down.push(...leader.speak(), leader.compare());
        while (down.length > 0) deliver();
        up.push(...agent.finish());
        for (const message of up.splice(0)) leader.hear(message);
      }
      expect([...agent.held.values()].map(({ uid, digest }) => `${uid} ${digest}`).sort())
        .toEqual([...want.objects.values()].map((object) => `${object.uid} ${desireDigest(object)}`).sort());
      expect([...doomedEver].filter((uid) => agent.held.has(uid) && !want.objects.has(uid))).toEqual([]);
      expect(want.doomed.size).toBe(0);
    }), { numRuns: 300 });
  });

  test('concludes nothing from a list that is not complete', () => {
    const want: Want = { objects: new Map([[uids[0] ?? '', heldOf(image(uids[0] ?? '', 1))]]), doomed: new Map() };
    expect(planSync(want, joining)).toEqual({ send: [], end: [], orphans: [] });
    const part = afterFrame(joining, [], { type: 'holding', held: [], last: false });
    expect(part.view.is).toBe('joining');
  });

  test('a VM that nobody wants is an orphan: no command is made for it', () => {
    const vm: Held = { kind: 'vm', uid: uids[1] ?? '', namespace: 'a', name: 'b', generation: 1, epoch: 1, digest: 'd', ending: false };
    const view: AgentView = { is: 'joined', told: new Map([[vm.uid, vm]]) };
    expect(planSync({ objects: new Map(), doomed: new Map() }, view)).toEqual({ send: [], end: [], orphans: [vm] });
  });

  test.each([
    [{ min: 1, max: 1 }, { min: 1, max: 2 }, 1],
    [{ min: 1, max: 3 }, { min: 2, max: 4 }, 3],
    [{ min: 1, max: 1 }, { min: 2, max: 3 }, undefined],
  ])('ranges %j and %j meet at %s', (mine, theirs, meet) => {
    expect(negotiate(mine, theirs)).toBe(meet);
  });
});

describe('an agent judges', () => {
  const [uid = ''] = uids;
  const mine: Remembered = { ...heldOf(image(uid, 3)), leaderEpoch: 5, revision: 7 };
  const memory = (over: Partial<Memory> = {}): Memory => ({ leaderEpochSeen: 5, held: new Map([[uid, mine]]), ended: new Set(), remains: new Set(), ...over });
  const desire = (leaderEpoch: number, revision: number, generation = 4): Desire => ({ type: 'desire', leaderEpoch, revision, object: image(uid, generation) });
  const tombstone = (leaderEpoch: number, revision: number): Tombstone => ({ type: 'tombstone', leaderEpoch, revision, kind: 'image', uid });

  test.each([
    ['an older leader', desire(4, 100), memory(), 'refuse'],
    ['an older revision', desire(5, 7), memory(), 'refuse'],
    ['a newer revision with a lower generation (restored etcd)', desire(5, 8, 1), memory(), 'accept'],
    ['a newer leader whose revisions begin anew', desire(6, 1), memory(), 'accept'],
    ['what it holds already', desire(5, 8, 3), memory(), 'known'],
    ['the uid of a VM that has ended', { ...desire(9, 1), object: vm(uid, 4) }, memory({ held: new Map(), ended: new Set([uid]) }), 'absent'],
    ['an image whose copy was removed', desire(9, 1), memory({ held: new Map(), ended: new Set([uid]) }), 'accept'],
    ['an ending uid', desire(9, 1), memory({ held: new Map([[uid, { ...mine, ending: true }]]) }), 'refuse'],
    ['a uid whose ledger entry is unreadable', desire(9, 1), memory({ held: new Map(), remains: new Set([uid]) }), 'refuse'],
  ])('a desire of %s', (_, command, remembered, verdict) => {
    expect(judgeDesire(remembered, command).is).toBe(verdict);
  });

  test.each([
    ['an older leader', tombstone(4, 100), memory(), 'refuse'],
    ['an older revision', tombstone(5, 6), memory(), 'refuse'],
    ['this leader', tombstone(5, 8), memory(), 'accept'],
    ['an unknown uid', tombstone(5, 8), memory({ held: new Map() }), 'absent'],
    ['remains without a ledger entry', tombstone(5, 8), memory({ held: new Map(), remains: new Set([uid]) }), 'accept'],
    ['an ending uid', tombstone(5, 8), memory({ held: new Map([[uid, { ...mine, ending: true }]]) }), 'known'],
  ])('a tombstone of %s', (_, command, remembered, verdict) => {
    expect(judgeTombstone(remembered, command).is).toBe(verdict);
  });
});
