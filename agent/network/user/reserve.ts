import { Fault } from '#crds/kit/fault.ts';
import type { NicBackend, Port } from '../driver.ts';

/** Where forwards may be bound: one address of the node and a range of ports, both ends included. */
export type ForwardRange = { address: string; minPort: number; maxPort: number };

/** Who holds a port of the node: an interface of a VM. */
export type Holder = { uid: string; name: string };

/** Held ports by `PROTOCOL/PORT`. */
export type Table = ReadonlyMap<string, Holder>;

type Forward = NicBackend['forwards'][number];

/** The key of one forward in the table. */
export const slotOf = (forward: Pick<Forward, 'protocol' | 'hostPort'>): string => `${forward.protocol}/${forward.hostPort}`;

/** What QEMU is told of a port. Pure. */
export const backendOf = (port: Port, range: ForwardRange): NicBackend => ({
  kind: 'user',
  forwards: port.forwards.map(({ protocol, hostPort, port: guestPort }) => ({ protocol, address: range.address, hostPort, port: guestPort })),
});

/**
 * The table after `port` has got what it asks for, in place of what the same interface held before; and which of its
 * forwards it did not hold yet. Pure. Faults: ForwardNotAllowed (outside of the range), ForwardInUse (names the holder).
 */
export const reserve = (table: Table, port: Port, range: ForwardRange): { table: Table; fresh: Forward[] } => {
  const next = release(table, (holder) => holder.uid === port.uid && holder.name === port.name);
  const { forwards } = backendOf(port, range);
  for (const forward of forwards) {
    if (forward.hostPort < range.minPort || forward.hostPort > range.maxPort) {
      throw new Fault(
        'ForwardNotAllowed',
        `interface ${port.name}: host port ${forward.hostPort} is outside of this node's forward_ports ${range.minPort}-${range.maxPort}`,
        { retry: 'never' },
      );
    }
    const holder = next.get(slotOf(forward));
    if (holder) throw inUse(port, forward, range, heldBy(holder, port));
    next.set(slotOf(forward), { uid: port.uid, name: port.name });
  }
  return { table: next, fresh: forwards.filter((forward) => !isHolder(table.get(slotOf(forward)), port)) };
};

/** The table with what a running machine is known to have bound: reality wins over older entries. Pure. */
export const record = (table: Table, port: Port, range: ForwardRange): Table => {
  const next = release(table, (holder) => isHolder(holder, port));
  for (const forward of backendOf(port, range).forwards) next.set(slotOf(forward), { uid: port.uid, name: port.name });
  return next;
};

/** The table without the entries that `gone` picks. Pure. */
export const release = (table: Table, gone: (holder: Holder, slot: string) => boolean): Map<string, Holder> =>
  new Map([...table].filter(([slot, holder]) => !gone(holder, slot)));

/** The fault for a port of the node that somebody else holds. */
export const inUse = (port: Port, forward: Forward, range: ForwardRange, by: string, cause?: unknown): Fault =>
  new Fault(
    'ForwardInUse',
    `interface ${port.name}: ${forward.protocol} port ${forward.hostPort} on ${range.address} is in use by ${by}; choose another hostPort`,
    { cause },
  );

/** Whether a port is held by this interface. Pure. */
export const isHolder = (holder: Holder | undefined, port: Port): boolean => holder?.uid === port.uid && holder.name === port.name;

const heldBy = (holder: Holder, port: Port): string =>
  holder.uid === port.uid ? `interface ${holder.name} of the same VM` : `VM ${holder.uid}`;
