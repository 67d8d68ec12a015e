import type { Fault } from '#crds/kit/fault.ts';
import type { Network, Port } from './driver.ts';
import { backendOf, type ForwardRange, inUse, record, release, reserve, slotOf, type Table } from './user/reserve.ts';

/** Verbs of a network that a test can make fail. */
export type NetworkVerb = 'attach' | 'detach';

/** A pretend network with handles for tests. */
export type FakeNetwork = Network & {
  /** The next call of `verb` throws this. */
  failNext: (verb: NetworkVerb, fault: Fault) => void;
  /** Lets a process that is not ours take or leave a port: `TCP/8080`. */
  foreign: { take: (slot: string) => void; leave: (slot: string) => void };
  /** The ports that VMs hold, as `PROTOCOL/PORT` to uid. */
  held: () => ReadonlyMap<string, string>;
};

/** A network in memory that keeps the contract of the user-mode driver and binds nothing. */
export const makeFakeNetwork = (range: ForwardRange = { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }): FakeNetwork => {
  let table: Table = new Map();
  const foreign = new Set<string>();
  const faults = new Map<NetworkVerb, Fault[]>();
  const enter = (verb: NetworkVerb, signal: AbortSignal): void => {
    signal.throwIfAborted();
    const fault = faults.get(verb)?.shift();
    if (fault) throw fault;
  };
  return {
    capabilities: () => ({ mode: 'user', forwards: range }),
    attach: async (port: Port, signal) => {
      enter('attach', signal);
      const next = reserve(table, port, range);
      const taken = next.fresh.find((forward) => foreign.has(slotOf(forward)));
      if (taken) throw inUse(port, taken, range, 'another process of the node');
      table = next.table;
      return backendOf(port, range);
    },
    adopt: (port) => {
      table = record(table, port, range);
      return backendOf(port, range);
    },
    detach: async (uid, signal, name) => {
      enter('detach', signal);
      table = release(table, (holder) => holder.uid === uid && (name === undefined || holder.name === name));
    },
    failNext: (verb, fault) => void faults.set(verb, [...(faults.get(verb) ?? []), fault]),
    foreign: { take: (slot) => void foreign.add(slot), leave: (slot) => void foreign.delete(slot) },
    held: () => new Map([...table].map(([slot, holder]) => [slot, holder.uid])),
  };
};
