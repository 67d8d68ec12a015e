import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { probeGuest } from './probe.ts';

const servers: Server[] = [];
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** A node's end of a forward that does this with each connection. */
const forward = async (does: (socket: Socket) => void): Promise<{ address: string; port: number }> => {
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => {}));
    does(socket);
  });
  servers.push(server);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { address, port } = server.address() as AddressInfo;
  return { address, port };
};

const probed = async (does: (socket: Socket) => void, established: () => Promise<boolean>, ms = 5_000) =>
  probeGuest({ is: 'tcp', port: 80 }, { tcp: { ...(await forward(does)), established } }, AbortSignal.timeout(ms));

const never = async (): Promise<boolean> => { throw new Error('asked'); };

describe('a TCP probe', () => {
  test.each<[string, (socket: Socket) => void, boolean]>([
    ['is taken by a guest that says something', (socket) => void socket.write('220 mail\r\n'), true],
    ['is not taken when the way in is closed at once', (socket) => void socket.end(), false],
    ['is not taken when the way in is reset', (socket) => void socket.resetAndDestroy(), false],
  ])('%s', async (_, does, is) => {
    expect((await probed(does, never)).is).toBe(is);
  });

  test('is not taken where nobody listens', async () => {
    const { address, port } = await forward(() => {});
    await new Promise((resolve) => servers.pop()?.close(resolve));
    expect((await probeGuest({ is: 'tcp', port: 80 }, { tcp: { address, port, established: never } }, AbortSignal.timeout(5_000))).is).toBe(false);
  });

  test('that merely stands counts once the guest itself has taken it, and is asked for until the time is over', async () => {
    let asked = 0;
    expect(await probed(() => {}, async () => (asked += 1) === 2)).toEqual({ is: true, message: 'TCP port 80 of the guest takes connections' });
    expect(asked).toBe(2);
    expect(await probed(() => {}, async () => false, 700)).toEqual({ is: false, message: 'TCP port 80 of the guest takes no connection' });
  });

  test('of which QEMU can not tell says nothing of the guest', async () => {
    await expect(probed(() => {}, never)).rejects.toThrow('asked');
  });
});
