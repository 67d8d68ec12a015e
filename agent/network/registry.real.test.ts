import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { freePorts } from '#hack/bed/ports.ts';
import { networkContract } from './contract.ts';
import { networks } from './registry.ts';
import { unguarded } from './user/guard.ts';

const listenOn = async (port: number): Promise<Server> => {
  const server = createServer();
  server.listen({ host: '127.0.0.1', port });
  await once(server, 'listening');
  return server;
};

/** A pair of neighbours that are free and stay so: the range of the bench. */
const freePair = async (): Promise<[number, number]> => {
  for (;;) {
    const [low = 0, high = 0] = await freePorts(2);
    if (high === low + 1) return [low, high];
  }
};

for (const [mode, make] of Object.entries(networks)) {
  networkContract(mode, async () => {
    const ports = await freePair();
    const foreign = new Map<number, Server>();
    const leaveForeign = async (port: number) => {
      const server = foreign.get(port);
      if (foreign.delete(port) && server) await once(server.close(), 'close');
    };
    return {
      network: make({ guard: unguarded, forwards: { address: '127.0.0.1', minPort: ports[0], maxPort: ports[1] } }),
      ports,
      takeForeign: async (port) => void foreign.set(port, await listenOn(port)),
      leaveForeign,
      close: async () => {
        for (const port of foreign.keys()) await leaveForeign(port);
      },
    };
  });
}

describe('forwards on the node', () => {
  const uid = '00000000-0000-4000-8000-000000000001';
  const udp = (hostPort: number) => ({ uid, name: 'eth0', mac: '02:00:00:00:00:01', forwards: [{ name: 'dns', hostPort, port: 53, protocol: 'UDP' as const }] });
  const make = () => networks.user({ guard: unguarded, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 } });

  test('a UDP port that a process holds is refused; TCP on the same number is another port', async () => {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const port = socket.address().port;
    await expect(make().attach(udp(port), AbortSignal.timeout(60_000))).rejects.toMatchObject({ code: 'ForwardInUse' });
    socket.close();
    await once(socket, 'close');
    await expect(make().attach(udp(port), AbortSignal.timeout(60_000))).resolves.toMatchObject({ forwards: [{ protocol: 'UDP' }] });
  });

  test('what an interface holds is its own while it asks for others in vain: no other VM gets it meanwhile and loses it again', async () => {
    const network = make();
    const [port, other] = await freePair();
    const rival = { ...udp(port), uid: '00000000-0000-4000-8000-000000000002' };
    const socket = createSocket('udp4');
    socket.bind(other, '127.0.0.1');
    await once(socket, 'listening');
    await network.attach(udp(port), AbortSignal.timeout(60_000));
    const ends = await Promise.allSettled([network.attach(udp(other), AbortSignal.timeout(60_000)), network.attach(rival, AbortSignal.timeout(60_000))]);
    expect(ends).toMatchObject([{ status: 'rejected', reason: { code: 'ForwardInUse' } }, { status: 'rejected', reason: { code: 'ForwardInUse', message: expect.stringContaining(uid) } }]);
    socket.close();
    await once(socket, 'close');
    // One that has moved has given back what it had.
    await network.attach(udp(other), AbortSignal.timeout(60_000));
    await expect(network.attach(rival, AbortSignal.timeout(60_000))).resolves.toMatchObject({ forwards: [{ hostPort: port }] });
  });

  test('two VMs that ask for one port at the same moment: one gets it, the other is told who has it', async () => {
    const network = make();
    const [port] = await freePair();
    const ask = (of: string) => network.attach({ ...udp(port), uid: of }, AbortSignal.timeout(60_000));
    const ends = await Promise.allSettled([ask(uid), ask('00000000-0000-4000-8000-000000000002')]);
    expect(ends).toMatchObject([{ status: 'fulfilled' }, { status: 'rejected', reason: { code: 'ForwardInUse', message: expect.stringContaining(uid) } }]);
  });
});
