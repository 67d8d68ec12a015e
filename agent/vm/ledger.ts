import { Fault } from '#crds/kit/fault.ts';
import { type Desire, judgeDesire, judgeTombstone, type Memory, type Tombstone, type Verdict } from '#crds/wire/judge.ts';
import { maxKeptDisks } from '#crds/wire/kept.ts';
import type { Held } from '#crds/wire/messages.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import { appliedOf } from './change.ts';
import { blankVm, type DiskEntry, type Entry, heldOf, rememberedOf, strangerVm, type VmEntry, writeEntry } from './entry.ts';
import { makeKeeping } from './keeping.ts';
import { freeId, type IdRange, withSlots } from './places.ts';
import { leaderFile, writeLeader } from './leader.ts';
import { fileOf, recall } from './recall.ts';
import { withReplaced } from './replaced.ts';
import { keptToo, withRetained } from './retain.ts';
import type { Shelf } from './shelf.ts';

type Trouble = NodeFacts['troubles'][number];

/**
 * What an agent knows without anybody to ask: which desires it holds and what it must remember of each. Every verb
 * returns after what it says is on disk. Writes about one uid happen one after the other, each on the entry as it then is.
 */
export type Ledger = {
  entries: () => ReadonlyMap<string, Entry>;
  vm: (uid: string) => VmEntry | undefined;
  /** What commands are judged by. */
  memory: () => Memory;
  /** What the operator is told that we hold: also the uids of which only remains are left, with an empty digest. */
  held: () => Held[];
  /** Uids whose directory is here and whose entry can not be read: nobody touches them; and why. */
  remains: () => ReadonlyMap<string, string>;
  /** Remembers the highest leaderEpoch that was ever seen. */
  noteLeader: (leaderEpoch: number) => Promise<void>;
  /** Judges a desire and keeps it. Faults: LedgerFull, LedgerReadOnly, LedgerFailed; then it is not kept and must be said again. */
  accept: (command: Desire) => Promise<Verdict>;
  /** Judges a tombstone and keeps it. */
  doom: (command: Tombstone) => Promise<Verdict>;
  /** Remembers something of a VM. Without effect when its entry is gone. */
  change: (uid: string, to: (entry: VmEntry) => VmEntry) => Promise<void>;
  /** A Unix id for a VM that has none. Faults: NoUnixId. */
  allot: (uid: string) => Promise<void>;
  /** The disks that have outlived their VMs, or are about to. */
  disks: () => DiskEntry[];
  /** Remembers one more such disk. Fault KeptDisksFull. */
  putDisk: (entry: DiskEntry) => Promise<void>;
  /** Remembers something of such a disk, as it then is. Undefined when its entry is gone. */
  changeDisk: (uid: string, to: (entry: DiskEntry) => DiskEntry) => Promise<DiskEntry | undefined>;
  /** Nothing of the uid is left. That of a VM has ended for ever; that of an image may be wanted again, and a disk is a VM's. */
  end: (uid: string) => Promise<void>;
  /** What is wrong with the ledger itself. */
  troubles: () => Trouble[];
  /** Looks whether the disk of the ledger can be written, and refills the ballast when there is room again. */
  tend: (signal: AbortSignal) => Promise<void>;
};

/** Opens the ledger of a node. Faults: LedgerUnreadable, when it can not be told what the node holds. */
export const openLedger = async (shelf: Shelf, unixIds: IdRange, signal: AbortSignal = new AbortController().signal): Promise<Ledger> => {
  const { entries, ended, remains, put, lostDisks, foreignIds, leaderEpoch } = await recall(shelf);
  const keeping = makeKeeping(shelf);
  const reserving = new Set<number>();
  const placing = new Set<string>();
  let leaderEpochSeen = leaderEpoch;
  let leaderEpochKept = leaderEpochSeen;
  await keeping.tend(signal);

  const chains = new Map<string, Promise<unknown>>();
  const inOrder = <T>(key: string, job: () => Promise<T>): Promise<T> => {
    const next = (chains.get(key) ?? Promise.resolve()).then(job, job);
    chains.set(key, next);
    const clear = () => { if (chains.get(key) === next) chains.delete(key); };
    next.then(clear, clear);
    return next;
  };

  const save = async (entry: Entry): Promise<void> => {
    await keeping.must(() => shelf.write(fileOf(entry.uid), writeEntry(entry)));
    entries.set(entry.uid, entry);
  };
  /** Saves what comes from a new intent. */
  const admit = async (entry: Entry): Promise<void> => {
    await keeping.may(`the desire for ${entry.kind} ${entry.uid}`, () => shelf.write(fileOf(entry.uid), writeEntry(entry)));
    entries.set(entry.uid, entry);
  };

  const taken = (): Set<number> =>
    new Set([...foreignIds, ...reserving, ...[...entries.values()].flatMap((entry) => (entry.kind === 'vm' ? (entry.unixId ?? []) : []))]);
  /** Saves an entry that gets a Unix id when one is free; nobody else gets the same one meanwhile. */
  const withId = async (entry: VmEntry, keep: (entry: VmEntry) => Promise<void>): Promise<void> => {
    const unixId = entry.unixId ?? freeId(unixIds, taken()) ?? null;
    if (unixId !== null) reserving.add(unixId);
    try {
      await keep({ ...entry, unixId });
    } finally {
      if (unixId !== null) reserving.delete(unixId);
    }
  };

  const memory = (): Memory => ({ leaderEpochSeen, held: new Map([...entries].map(([uid, entry]) => [uid, rememberedOf(entry)])), ended, remains: new Set(remains.keys()) });
  /** As `memory`, for one uid: judging must not cost more the more VMs there are. */
  const memoryOf = (uid: string): Memory => {
    const entry = entries.get(uid);
    return { leaderEpochSeen, held: new Map(entry ? [[uid, rememberedOf(entry)]] : []), ended, remains: new Set(remains.has(uid) ? [uid] : []) };
  };
  const noteLeader = (leaderEpoch: number): Promise<void> => {
    // Counts at once, before it is on disk: from now on no leader of a lower epoch is obeyed, also while the disk hangs.
    leaderEpochSeen = Math.max(leaderEpochSeen, leaderEpoch);
    return inOrder(leaderFile, async () => {
      if (leaderEpoch <= leaderEpochKept) return;
      await keeping.must(() => shelf.write(leaderFile, writeLeader(leaderEpoch)));
      leaderEpochKept = leaderEpoch;
    });
  };

  const disks = (): DiskEntry[] => [...entries.values()].filter((entry) => entry.kind === 'disk');

  return {
    entries: () => entries,
    vm: (uid) => {
      const entry = entries.get(uid);
      return entry?.kind === 'vm' ? entry : undefined;
    },
    memory,
    held: () => [
      ...[...entries.values()].flatMap((entry): Held[] => (entry.kind === 'disk' ? [] : [heldOf(entry)])),
      ...[...remains.keys()].map((uid): Held => ({ kind: 'vm', uid, namespace: '', name: '', generation: 0, epoch: 0, digest: '', ending: false })),
    ],
    remains: () => remains,
    noteLeader,
    accept: async (command) => {
      const { object, leaderEpoch, revision } = command;
      await noteLeader(leaderEpoch);
      return inOrder(object.uid, async () => {
        const verdict = judgeDesire(memoryOf(object.uid), command);
        const order = { leaderEpoch, revision };
        const mine = entries.get(object.uid);
        if (verdict.is === 'known' && mine) await admit({ ...mine, order });
        if (verdict.is !== 'accept') return verdict;
        if (object.kind === 'image') {
          await admit({ kind: 'image', uid: object.uid, desired: object, order, ending: false });
          return verdict;
        }
        const before = mine?.kind === 'vm' ? mine : strangerVm(object.uid, command.made);
        const stops = object.powerState === 'Stopped';
        const applied = appliedOf(before);
        await withId({
          ...withReplaced(withRetained(before, object), object), desired: object, order, applied: applied ?? null, slots: withSlots(before.slots, object, applied),
          ended: before.ended && !stops, restarts: stops ? { ...before.restarts, quickEnds: 0, dueMs: null, dueTime: null } : before.restarts,
          // A new stop begins with its whole grace period.
          stopping: stops && before.desired?.powerState !== 'Stopped' ? null : before.stopping,
        }, admit);
        return verdict;
      });
    },
    doom: async (command) => {
      const { uid, leaderEpoch, revision } = command;
      await noteLeader(leaderEpoch);
      return inOrder(uid, async () => {
        const lost = lostDisks.get(uid);
        if (lost !== undefined) return { is: 'refuse', why: `disk ${uid}: ${lost}` };
        const verdict = judgeTombstone(memoryOf(uid), command);
        const order = { leaderEpoch, revision };
        if (verdict.is === 'accept') {
          const mine = entries.get(uid) ?? blankVm(uid);
          if (mine.kind === 'disk' && mine.moving) return { is: 'refuse', why: `disk ${uid} is on its way to or from VM ${mine.moving.vmUid}` };
          await save({ ...mine, ...(mine.kind === 'vm' && command.keep ? { keep: command.keep } : {}), order, ending: true });
          remains.delete(uid);
        }
        // A later word that more outlives it comes in time as long as its files are here.
        const ending = verdict.is === 'known' && command.keep ? entries.get(uid) : undefined;
        const isMore = ending?.kind === 'vm' && command.keep?.disks.some((name) => !ending.keep?.disks.includes(name));
        if (isMore && command.keep) await save({ ...ending, keep: keptToo(ending.keep, command.keep) });
        if (verdict.is === 'absent' && command.kind === 'vm' && !ended.has(uid)) {
          await keeping.must(() => shelf.end(uid));
          ended.add(uid);
        }
        return verdict;
      });
    },
    change: (uid, to) => inOrder(uid, async () => {
      const entry = entries.get(uid);
      if (entry?.kind === 'vm') await save(to(entry));
    }),
    allot: (uid) => inOrder(uid, async () => {
      const entry = entries.get(uid);
      if (entry?.kind !== 'vm' || entry.unixId !== null) return;
      if (freeId(unixIds, taken()) === undefined) throw new Fault('NoUnixId', `unix_ids ${unixIds.min}-${unixIds.max} is used up by the VMs of this node; widen it`);
      await withId(entry, save);
    }),
    disks,
    putDisk: async (entry) => {
      const { uid, owner: { disk } } = entry;
      // Counted with those that are being written: one more than fits into a frame, and the operator could not read a word about this node.
      const others = new Set([...placing, ...disks().map((each) => each.uid)]);
      if (others.size >= maxKeptDisks) throw new Fault('KeptDisksFull', `disk ${disk} can not be kept: the node keeps ${maxKeptDisks} disks already; delete VirtualDisks that nobody needs`, { retry: 'later' });
      placing.add(uid);
      try {
        await inOrder(uid, () => save(entry));
      } finally {
        placing.delete(uid);
      }
    },
    changeDisk: (uid, to) => inOrder(uid, async () => {
      const entry = entries.get(uid);
      if (entry?.kind !== 'disk') return undefined;
      const next = to(entry);
      if (next !== entry) await save(next);
      return next;
    }),
    end: (uid) => inOrder(uid, async () => {
      if ((entries.get(uid)?.kind ?? 'vm') === 'vm') {
        await keeping.must(() => shelf.end(uid));
        ended.add(uid);
      }
      await shelf.remove(fileOf(uid));
      entries.delete(uid);
    }),
    troubles: () => {
      const disk = keeping.trouble();
      // A uid that has an entry again, or has ended, no longer counts as remains.
      const damaged = put.filter(({ uid }) => remains.has(uid) || !(entries.has(uid) || ended.has(uid)));
      return [
        ...(disk === undefined ? [] : [disk]),
        ...damaged.map(({ reason, message }) => ({ reason, message })),
        ...[...lostDisks].map(([uid, why]) => ({ reason: 'UnknownDisk', message: `the disk in kept/${uid}: ${why}; it is left as it is` })),
        ...[...remains].map(([uid, why]) => ({ reason: 'UnknownVm', message: `VM ${uid}: ${why}; it is left as it is` })),
      ].slice(0, 64);
    },
    tend: keeping.tend,
  };
};
