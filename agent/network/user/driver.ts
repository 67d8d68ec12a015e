import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';
import type { NicBackend, Port } from '../driver.ts';
import type { MakeNetwork } from '../registry.ts';
import { backendOf, inUse, isHolder, record, release, reserve, slotOf, type Table } from './reserve.ts';

type Forward = NicBackend['forwards'][number];

const probeMs = 5_000;

/**
 * User-mode networking: QEMU itself binds the forwards, so that the node needs nothing. This driver keeps who holds
 * which port, in memory (after a restart the caller adopts what runs), and asks the node whether a port is free.
 */
export const makeUserNetwork: MakeNetwork = ({ forwards: range, guard }) => {
  let table: Table = new Map();
  const unbound = (port: Port, forward: Forward, cause: unknown): Fault =>
    Error.isError(cause) && 'code' in cause && cause.code === 'EADDRINUSE'
      ? inUse(port, forward, range, 'another process of the node', cause)
      : new Fault('ForwardNotAllowed', `interface ${port.name}: port ${forward.hostPort} on ${range.address} can not be bound: ${messageOf(cause)}`, { cause });
  return {
    capabilities: () => {
      const trouble = guard.trouble();
      return { mode: 'user', forwards: range, ...(trouble ? { trouble } : {}) };
    },
    attach: async (port, signal) => {
      signal.throwIfAborted();
      const trouble = guard.trouble();
      if (trouble) throw new Fault(trouble.reason, `interface ${port.name}: ${trouble.message}`, { retry: 'later' });
      const wanted = reserve(table, port, range);
      // Held from now on beside what it held before, so that nobody gets either while the node is asked.
      table = new Map([...table, ...wanted.table]);
      try {
        for (const forward of wanted.fresh) {
          await probe(forward, AbortSignal.any([signal, patience(probeMs)])).catch((cause: unknown) => {
            signal.throwIfAborted();
            throw unbound(port, forward, cause);
          });
        }
      } catch (thrown) {
        const fresh = new Set(wanted.fresh.map(slotOf));
        table = release(table, (holder, slot) => isHolder(holder, port) && fresh.has(slot));
        throw thrown;
      }
      table = release(table, (holder, slot) => isHolder(holder, port) && !wanted.table.has(slot));
      return backendOf(port, range);
    },
    adopt: (port) => {
      table = record(table, port, range);
      return backendOf(port, range);
    },
    detach: async (uid, signal, name) => {
      signal.throwIfAborted();
      table = release(table, (holder) => holder.uid === uid && (name === undefined || holder.name === name));
    },
  };
};

/** Binds the port for a moment, in the way QEMU will. Throws when it is taken. */
const probe = async ({ protocol, address, hostPort }: Forward, signal: AbortSignal): Promise<void> => {
  if (protocol === 'TCP') {
    // An error after the signal has ended the wait has no other listener.
    const server = createServer().on('error', () => {});
    const listening = once(server, 'listening', { signal });
    server.listen({ host: address, port: hostPort, exclusive: true });
    await listening.finally(() => server.close());
    return;
  }
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' }).on('error', () => {});
  const listening = once(socket, 'listening', { signal });
  socket.bind({ port: hostPort, address, exclusive: true });
  await listening.finally(() => socket.close());
};
