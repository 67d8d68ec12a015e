import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { endRun, rebootGuest, thaw } from '../hypervisor/fake.ts';
import { type Bench, mortal, nodeWorld, openBench, someVm, uidOf, want, withImage } from './bed.ts';

const uid = uidOf(1);
const states = ['Running', 'Stopped', 'Paused'] as const;

type Edit = { restartPolicy?: 'Always' | 'OnFailure' | 'Never'; restartToken?: string; cpus: number; lan: boolean; extra: 'has' | 'retained' | 'taken' | 'omitted'; sizeMiB: number };

const edit: fc.Arbitrary<Edit> = fc.record({
  restartPolicy: fc.constantFrom('Always', 'OnFailure', 'Never'), restartToken: fc.constantFrom('a', 'b'), cpus: fc.integer({ min: 1, max: 5 }), lan: fc.boolean(),
  extra: fc.constantFrom('has' as const, 'retained' as const, 'taken' as const, 'omitted' as const), sizeMiB: fc.integer({ min: 10, max: 14 }),
}, { requiredKeys: ['cpus', 'lan', 'extra', 'sizeMiB'] });

type Act =
  | { do: 'want'; powerState: (typeof states)[number]; edit: Edit }
  | { do: 'end'; cause: 'guest' | 'crashed' | 'rebooted' }
  | { do: 'reboot' } | { do: 'panic' } | { do: 'stall' } | { do: 'thaw' }
  | { do: 'doom' } | { do: 'hang' } | { do: 'answer' } | { do: 'time' } | { do: 'rest' }
  | { do: 'die'; effects: number; after: boolean };

const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('want' as const), powerState: fc.constantFrom(...states), edit }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('die' as const), effects: fc.integer({ min: 0, max: 9 }), after: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('end' as const), cause: fc.constantFrom('guest' as const, 'crashed' as const, 'rebooted' as const) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'doom' as const }) },
  { weight: 2, arbitrary: fc.constant({ do: 'stall' as const }) },
  ...(['hang', 'answer', 'time', 'rest', 'reboot', 'panic', 'thaw'] as const).map((each) => ({ weight: 1, arbitrary: fc.constant({ do: each }) })),
);

const lanCard = { name: 'lan', mac: '52:54:00:00:00:02', user: { forwards: [] } };

const storm = async (acts: readonly Act[]) => {
  const world = nodeWorld();
  await withImage(world);
  // The files that a guest has run from; another object under the same name would be an empty disk in place of its data.
  const used = new Map<string, unknown>();
  // Disks that outlive the VM by the last word about them: each is in exactly one place for ever.
  const precious = new Set<unknown>();
  // Kept ones that an edit gave back to the VM, which takes them when it starts next: if it ends before, they stay kept.
  const givenBack = new Set<unknown>();
  // An edit takes a disk away: from then on its file may be gone at any time, also when another edit adds a disk of that name.
  let taken = false;
  const takenFiles = new Set<unknown>();
  let life = mortal();
  let bench: Bench = await openBench(world, life.around);
  let generation = 0;
  // What was acknowledged: it must outlive every agent.
  let acked = { generation: 0, doomed: false };
  const ending = () => world.shelf.ended.has(uid) || (world.shelf.files.get(`${uid}.json`)?.includes('"ending":true') ?? false);
  const hangs = (on: boolean) => { const it = world.machine.machines.get(uid); if (it) it.hangs = on; };
  const check = async () => {
    if (life.isDead()) {
      life = mortal();
      bench = await openBench(world, life.around);
      if (!ending()) expect(bench.hands.ledger.vm(uid)?.desired?.generation ?? 0).toBeGreaterThanOrEqual(acked.generation);
      if (acked.doomed) expect(ending()).toBe(true);
    }
    expect(world.machine.doubleStarts).toBe(0);
    const disks = world.disks.get(uid)?.disks;
    if (bench.hands.ledger.vm(uid)?.retained?.disks.includes('extra') && disks?.has('extra')) precious.add(disks.get('extra'));
    const places = [...world.disks.values()].flatMap((each) => [...each.disks.values()]).concat([...world.kept.values()].map(({ file }) => file));
    for (const file of precious) expect(places.filter((each) => each === file).length).toBe(1);
    if (!ending()) for (const [name, file] of used) expect(disks?.get(name)).toBe(file);
    for (const { name } of world.machine.machines.get(uid)?.run?.disks.values() ?? []) if (name !== 'seed_') expect(disks?.has(name)).toBe(true);
    for (const { name } of world.machine.machines.get(uid)?.run?.disks.values() ?? []) if (name !== 'seed_' && !(taken && name === 'extra') && !takenFiles.has(disks?.get(name))) used.set(name, disks?.get(name));
  };
  const act = async (it: Act): Promise<void> => {
    switch (it.do) {
      case 'want': {
        if (ending()) return;
        generation += 1;
        const mine = generation;
        const { lan, extra, sizeMiB, ...edited } = it.edit;
        taken = extra === 'taken';
        if (taken) {
          takenFiles.add(world.disks.get(uid)?.disks.get('extra'));
          used.delete('extra');
        }
        const [root] = someVm().disks;
        const disks = [...(root ? [root] : []), { name: 'data', sizeMiB }, ...(extra === 'has' ? [{ name: 'extra', sizeMiB: 5 }] : extra === 'retained' ? [{ name: 'extra', sizeMiB: 5, retain: true as const }] : [])];
        if (extra === 'has') {
          for (const { file } of world.kept.values()) givenBack.add(file);
          precious.clear();
        }
        const vm = someVm({ generation: mine, namespaceUid: uidOf(700), powerState: it.powerState, maxCpus: 4, disks, ...(extra === 'taken' ? { removedDisks: [{ name: 'extra' }] } : {}), ...edited, ...(lan ? { interfaces: [...someVm().interfaces, lanCard] } : {}) });
        const kept = await bench.hands.ledger.accept({ type: 'desire', leaderEpoch: 1, revision: mine, object: vm }).catch(() => undefined);
        if (kept?.is === 'accept') acked = { ...acked, generation: mine };
        return;
      }
      case 'doom': {
        const kept = await bench.hands.ledger.doom({ type: 'tombstone', leaderEpoch: 1, revision: generation + 1, kind: 'vm', uid }).catch(() => undefined);
        if (kept) acked = { ...acked, doomed: true };
        return;
      }
      case 'end':
        return endRun(world.machine, uid, it.cause);
      case 'reboot':
        return rebootGuest(world.machine, uid);
      case 'panic':
        return void Object.assign(world.machine.machines.get(uid)?.run ?? {}, { panicked: true });
      case 'hang':
        return hangs(true);
      case 'answer':
        return hangs(false);
      case 'time':
        world.ms.now += 100_000;
        return;
      case 'stall':
        world.machine.stalls = true;
        return;
      case 'thaw':
        delete world.machine.stalls;
        return thaw(world.machine, uid);
      case 'die':
        return life.dieAt(it.effects, it.after);
      case 'rest':
        return;
    }
  };
  for (const it of acts) {
    await act(it);
    await check();
    await bench.rest(uid);
    await check();
  }
  hangs(false);
  delete world.machine.stalls;
  thaw(world.machine, uid);
  for (let round = 0; round < 8; round += 1) {
    world.ms.now += 100_000;
    await bench.rest(uid);
    await check();
  }
  return { world, bench, precious, givenBack, doomed: acked.doomed };
};

describe('from any state, with agents killed at any effect', () => {
  test('a VM settles in what was wanted, is never started twice, and loses no disk; a tombstone ends in absent', async () => {
    await fc.assert(fc.asyncProperty(fc.array(act, { maxLength: 25 }), async (acts) => {
      const { world, bench, precious, givenBack, doomed } = await storm(acts);
      expect(world.machine.doubleStarts).toBe(0);
      const run = world.machine.machines.get(uid)?.run;
      if (doomed) {
        const kept = new Set<unknown>([...world.kept.values()].map(({ file }) => file));
        expect([...precious].filter((file) => !kept.has(file))).toEqual([]);
        expect([...kept].filter((file) => !precious.has(file) && !givenBack.has(file))).toEqual([]);
        expect({ run, disks: world.disks.has(uid), ended: world.shelf.ended.has(uid), ledger: bench.hands.ledger.vm(uid) }).toEqual({ run: undefined, disks: false, ended: true, ledger: undefined });
        return;
      }
      const entry = bench.hands.ledger.vm(uid);
      const wanted = entry?.desired?.powerState;
      if (!entry || entry.ending) return;
      const last = bench.reports.findLast((each) => each.uid === uid);
      expect(last?.trouble).toBeUndefined();
      if (wanted === 'Stopped') expect({ run, state: last?.state }).toEqual({ run: undefined, state: 'stopped' });
      else if (entry.ended && entry.desired?.restartPolicy !== 'Always') expect({ run, state: last?.state }).toEqual({ run: undefined, state: 'ended' });
      else if (wanted === 'Running') expect({ guest: run?.guest, state: last?.state }).toEqual({ guest: 'running', state: 'running' });
      else expect(['prelaunch', 'paused']).toContain(run?.guest);
      if (last?.state === 'running') expect({ token: entry.restartToken ?? undefined, applied: last.applied?.pending.filter(({ restart, why = '' }) => !restart && !/it is kept|never shrinks/.test(why)) }).toEqual({ token: entry.desired?.restartToken ?? entry.restartToken ?? undefined, applied: [] });
      if (entry.desired?.removedDisks && last?.state !== 'paused') expect(world.disks.get(uid)?.disks.has('extra') ?? false).toBe(false);
      if (last?.state !== 'running' || last.applied?.pending.length !== 0) return;
      const sizes = last.disks.filter(({ name }) => name === 'data').map(({ sizeMiB }) => sizeMiB >= (entry.desired?.disks[1]?.sizeMiB ?? 0));
      expect({ cpus: run?.cpus, nics: run?.nics.size, disks: [...(run?.disks.values() ?? [])].map(({ name }) => name).toSorted(), sizes })
        .toEqual({ cpus: entry.desired?.cpus, nics: entry.desired?.interfaces.length, disks: [...(entry.desired?.disks.map(({ name }) => name) ?? []), 'seed_'].toSorted(), sizes: [true] });
    }), { numRuns: 300 });
  }, 60_000);

  // Every effect of one start: 6 drivers' verbs and 3 files, before and after each.
  test.each(Array.from({ length: 12 }, (_, effects) => [effects]))('killed at effect %i of a first start: one start, and it runs', async (effects) => {
    for (const after of [false, true]) {
      const world = nodeWorld();
      await withImage(world);
      const life = mortal();
      const first = await openBench(world, life.around);
      life.dieAt(effects, after);
      await want(first, someVm()).catch(() => undefined);
      const next = await openBench(world);
      if (!next.hands.ledger.vm(uid)) await want(next, someVm());
      expect(await next.rest(uid)).toMatchObject({ state: 'running' });
      expect(world.machine).toMatchObject({ doubleStarts: 0, starts: { length: 1 } });
    }
  });
});
