import { randomUUID } from 'node:crypto';
import { quiet } from '#crds/kit/log.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { KeepOrder } from '#crds/wire/kept.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { type FakeGuests, makeFakeGuests } from '../guest/fake.ts';
import { type MachineWorld, machineWorld, makeFakeHypervisor } from '../hypervisor/fake.ts';
import { type FakeImageStore, makeFakeImageStore } from '../image/fake.ts';
import { type FakeNetwork, makeFakeNetwork } from '../network/fake.ts';
import { type DiskWorld, type FakeStorage, type KeptWorld, makeFakeStorage } from '../storage/fake.ts';
import { appliedOf } from './change.ts';
import { makeFakeShelf, type ShelfWorld, shelfWorld } from './fakeshelf.ts';
import { freshScratch, type Hands, type Scratch } from './hands.ts';
import { openLedger } from './ledger.ts';
import { pass, type PassEnd } from './pass.ts';

/** A uid for tests. */
export const uidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

/** A VM for tests: one disk from the image `uidOf(900)`, one blank one, one interface. */
export const someVm = (over: Partial<DesiredVm> = {}): DesiredVm => ({
  kind: 'vm', uid: uidOf(1), namespace: 'default', name: 'web', generation: 1, epoch: 1, uuid: uidOf(501), powerState: 'Running', cpus: 1, memoryMiB: 64,
  disks: [{ name: 'root', imageUid: uidOf(900) }, { name: 'data', sizeMiB: 10 }],
  interfaces: [{ name: 'eth0', mac: '52:54:00:00:00:01', user: { forwards: [{ name: 'ssh', hostPort: 2222, port: 22, protocol: 'TCP' }] } }],
  cloudInit: { hostname: 'web', sshAuthorizedKeys: [] }, stop: { mode: 'Graceful', gracePeriodSeconds: 90 }, ...over,
});

/** Everything of a node that outlives its agent. */
export type NodeWorld = { shelf: ShelfWorld; machine: MachineWorld; disks: DiskWorld; kept: KeptWorld; images: FakeImageStore; ms: { now: number } };

/** A node that was never used. */
export const nodeWorld = (): NodeWorld => {
  const disks: DiskWorld = new Map();
  const kept: KeptWorld = new Map();
  return {
    shelf: shelfWorld(() => [...disks].map(([uid, { unixId }]) => ({ uid, unixId })), () => [...kept].map(([uid, { name, record }]) => ({ uid, files: [`${name}.qcow2`, 'owner.json'], record }))),
    machine: machineWorld(),
    disks, kept, images: makeFakeImageStore(), ms: { now: 1_000 },
  };
};

/** An agent's hands on a pretend node, its passes driven by the test. `around` may refuse or cut effects short. */
export type Bench = {
  hands: Hands; storage: FakeStorage; network: FakeNetwork; guests: FakeGuests; reports: ObservedVm[]; absents: string[];
  pass: (uid: string) => Promise<PassEnd>;
  /** Passes until nothing moves; returns the last report. */
  rest: (uid: string) => Promise<ObservedVm | undefined>;
};

/** Runs an effect. */
export type Around = <T>(effect: () => Promise<T>) => Promise<T>;

/** Starts an agent on a pretend node, as after a restart: ports of recorded runs are adopted. */
export const openBench = async (world: NodeWorld, around: Around = (effect) => effect()): Promise<Bench> => {
  const shelf = makeFakeShelf(world.shelf);
  const ledger = await openLedger({ ...shelf, write: (...a) => around(() => shelf.write(...a)), remove: (...a) => around(() => shelf.remove(...a)), end: (...a) => around(() => shelf.end(...a)) }, { min: 200_000, max: 200_050 });
  const machines = makeFakeHypervisor(world.machine);
  const storage = makeFakeStorage(world.disks, world.kept);
  const network = makeFakeNetwork();
  const reports: ObservedVm[] = [];
  const absents: string[] = [];
  const scratches = new Map<string, Scratch>();
  for (const [uid, entry] of ledger.entries()) {
    if (entry.kind !== 'vm' || !entry.run || !entry.desired) continue;
    for (const { name, mac, user: { forwards } } of appliedOf(entry)?.interfaces ?? []) network.adopt({ uid, name, mac, forwards });
    scratches.set(uid, freshScratch(true));
  }
  const guests = makeFakeGuests();
  const never = new AbortController().signal;
  const hands: Hands = {
    guests, ledger, images: world.images, log: quiet, chance: () => 0.5, newId: randomUUID,
    hypervisor: {
      ...machines,
      start: (...a) => around(() => machines.start(...a)), revoke: (...a) => around(() => machines.revoke(...a)), resume: (...a) => around(() => machines.resume(...a)), pause: (...a) => around(() => machines.pause(...a)),
      change: (...a) => around(async () => {
        await machines.change(...a);
        const [uid, change] = a;
        // QEMU writes the size into the file.
        if (change.do === 'growDisk') await storage.grow(uid, world.machine.machines.get(uid)?.run?.disks.get(change.slot)?.name ?? '', change.sizeMiB, never);
      }), powerdown: (...a) => around(() => machines.powerdown(...a)), kill: (...a) => around(() => machines.kill(...a)), forget: (...a) => around(() => machines.forget(...a)),
    },
    storage: {
      ...storage,
      create: (...a) => around(() => storage.create(...a)), grow: (...a) => around(() => storage.grow(...a)), drop: (...a) => around(() => storage.drop(...a)),
      keep: (...a) => around(() => storage.keep(...a)), takeBack: (...a) => around(() => storage.takeBack(...a)), seed: (...a) => around(() => storage.seed(...a)),
      remove: (...a) => around(() => storage.remove(...a)),
    },
    network: { ...network, attach: (...a) => around(() => network.attach(...a)), detach: (...a) => around(() => network.detach(...a)) },
    now: () => new Date(Date.UTC(2026, 0, 1) + world.ms.now),
    hostMs: () => world.ms.now,
    report: (observed) => void reports.push(observed),
    absent: (uid) => void absents.push(uid),
    keptChanged: () => {},
  };
  const onePass = (uid: string): Promise<PassEnd> => {
    const scratch = scratches.get(uid) ?? freshScratch(false);
    scratches.set(uid, scratch);
    return pass(hands, uid, scratch, never);
  };
  return {
    hands, storage, network, guests, reports, absents, pass: onePass,
    rest: async (uid) => {
      for (let passes = 0; passes < 40; passes += 1) {
        const end = await onePass(uid);
        if (end.is !== 'moved') return reports.findLast((each) => each.uid === uid);
      }
      throw new Error(`VM ${uid} does not come to rest`);
    },
  };
};

/** An agent that dies at its n-th effect, before or after that has happened. */
export const mortal = () => {
  let left = Number.POSITIVE_INFINITY;
  let after = false;
  let dead = false;
  const around: Around = async (effect) => {
    if (dead) throw new Error('this agent is dead');
    if (left > 0) {
      left -= 1;
      return effect();
    }
    dead = true;
    if (after) await effect();
    throw new Error('killed');
  };
  return { around, isDead: () => dead, dieAt: (effects: number, late: boolean) => { left = effects; after = late; } };
};

let revision = 0;

/** Tells the ledger a desire, in the next revision of leader 1. */
export const want = async ({ hands, ...bench }: Bench, vm: DesiredVm): Promise<ObservedVm | undefined> => {
  await hands.ledger.accept({ type: 'desire', leaderEpoch: 1, revision: (revision += 1), object: vm });
  return bench.rest(vm.uid);
};

/** Tells the ledger a tombstone, in the next revision of leader 1. */
export const doom = async ({ hands, ...bench }: Bench, uid: string, keep?: KeepOrder): Promise<void> => {
  await hands.ledger.doom({ type: 'tombstone', leaderEpoch: 1, revision: (revision += 1), kind: 'vm', uid, ...(keep ? { keep } : {}) });
  await bench.rest(uid);
};

/** Has the image that `someVm` starts from, ready to be used. */
export const withImage = async (world: NodeWorld): Promise<void> => {
  world.images.want({ kind: 'image', uid: uidOf(900), namespace: 'default', name: 'debian', generation: 1, url: 'http://images/debian.qcow2', format: 'qcow2' });
  await new Promise((resolve) => setImmediate(resolve));
};
