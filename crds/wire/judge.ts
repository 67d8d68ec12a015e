import { digestOf } from '#crds/kit/digest.ts';
import { desireDigest } from './desired.ts';
import type { Doomed, Held, ToAgent } from './messages.ts';

/** A command that wants something of one object, in the order that its leader gave it. */
export type Desire = Extract<ToAgent, { type: 'desire' }>;
/** A command that ends one uid for ever. */
export type Tombstone = Extract<ToAgent, { type: 'tombstone' }>;

/** Place of a command in history: the leader's epoch first, then that leader's revision for this node. */
export type Order = { leaderEpoch: number; revision: number };

/** What an agent remembers of one object. */
export type Remembered = Omit<Held, 'kind'> & { kind: Doomed } & Order;

/** What an agent must remember to judge commands; all of it survives its death. */
export type Memory = {
  leaderEpochSeen: number;
  held: ReadonlyMap<string, Remembered>;
  /** Uids of VMs whose tombstone was carried out. An image is only a copy: its uid may come again, as it does when etcd was restored. */
  ended: ReadonlySet<string>;
  /** Uids without a readable ledger entry of which something is still on the node. */
  remains: ReadonlySet<string>;
};

/**
 * What an agent does with a command.
 *
 *   accept  record it, then act
 *   known   it is what we hold already: only the order is remembered
 *   absent  the uid has ended or was never here: say so again
 *   refuse  it is older than what we have seen, or its uid is ending
 */
export type Verdict = { is: 'accept' } | { is: 'known' } | { is: 'absent' } | { is: 'refuse'; why: string };

/** Whether `a` comes after `b`. */
const isAfter = (a: Order, b: Order): boolean =>
  a.leaderEpoch !== b.leaderEpoch ? a.leaderEpoch > b.leaderEpoch : a.revision > b.revision;

/** Judges a desire. An older leader, an older revision, an older placement and the uid of a VM that has ended never win. */
export const judgeDesire = (memory: Memory, command: Desire): Verdict => {
  const { uid } = command.object;
  if (command.leaderEpoch < memory.leaderEpochSeen) return olderLeader(memory, command);
  if (command.object.kind === 'vm' && memory.ended.has(uid)) return { is: 'absent' };
  if (memory.remains.has(uid)) return { is: 'refuse', why: `the ledger entry of ${uid} can not be read` };
  const mine = memory.held.get(uid);
  if (!mine) return { is: 'accept' };
  if (mine.ending) return { is: 'refuse', why: `${uid} is ending` };
  if (mine.kind !== command.object.kind) return { is: 'refuse', why: `${uid} is a ${mine.kind} here` };
  if (!isAfter(command, mine)) return { is: 'refuse', why: `revision ${command.revision} is not after ${mine.revision}` };
  if (command.object.kind === 'vm' && command.object.epoch < mine.epoch) {
    return { is: 'refuse', why: `epoch ${command.object.epoch} is older than ${mine.epoch}` };
  }
  return desireDigest(command.object) === mine.digest ? { is: 'known' } : { is: 'accept' };
};

/** Judges a tombstone. Once accepted it is never taken back. */
export const judgeTombstone = (memory: Memory, command: Tombstone): Verdict => {
  if (command.leaderEpoch < memory.leaderEpochSeen) return olderLeader(memory, command);
  const mine = memory.held.get(command.uid);
  if (!mine) return memory.remains.has(command.uid) ? { is: 'accept' } : { is: 'absent' };
  if (mine.kind !== command.kind && (mine.kind === 'disk' || command.kind === 'disk')) return { is: 'refuse', why: `${command.uid} is a ${mine.kind} here` };
  if (mine.ending) return { is: 'known' };
  return isAfter(command, mine) ? { is: 'accept' } : { is: 'refuse', why: `revision ${command.revision} is not after ${mine.revision}` };
};

/** The digest that both sides compare: over every object that the agent holds, and which of them are ending. */
export const holdingDigest = (held: Iterable<Pick<Held, 'uid' | 'digest' | 'ending'>>): string =>
  digestOf([...held].map(({ uid, digest, ending }) => `${uid} ${ending ? 'ending' : digest}`).sort());

const olderLeader = (memory: Memory, { leaderEpoch }: Order): Verdict =>
  ({ is: 'refuse', why: `leader epoch ${leaderEpoch} is older than ${memory.leaderEpochSeen}` });
