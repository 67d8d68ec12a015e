import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Network, Port } from './driver.ts';

/** A network under test: it may forward from `ports[0]` to `ports[1]` of 127.0.0.1. */
export type NetworkBench = {
  network: Network;
  ports: readonly [number, number];
  /** Lets a process that is not ours take a TCP port of the node. */
  takeForeign: (hostPort: number) => Promise<void>;
  leaveForeign: (hostPort: number) => Promise<void>;
  close: () => Promise<void>;
};

const first = '00000000-0000-4000-8000-000000000001';
const second = '00000000-0000-4000-8000-000000000002';

/** What every network driver with forwards keeps. */
export const networkContract = (name: string, make: () => Promise<NetworkBench>): void => {
  describe(`network contract: ${name}`, () => {
    let bench: NetworkBench;
    // Of all tests together.
    const signal = AbortSignal.timeout(600_000);
    const port = (uid: string, hostPorts: number[], nic = 'eth0'): Port => ({
      uid,
      name: nic,
      mac: '02:00:00:00:00:01',
      forwards: hostPorts.map((hostPort, index) => ({ name: `f${index}`, hostPort, port: 22, protocol: 'TCP' })),
    });
    beforeEach(async () => {
      bench = await make();
    });
    afterEach(() => bench.close());

    test('an attached port tells what QEMU binds, and attaching it again gives the same', async () => {
      const backend = await bench.network.attach(port(first, [bench.ports[0]]), signal);
      expect(backend).toEqual({ kind: 'user', forwards: [{ protocol: 'TCP', address: '127.0.0.1', hostPort: bench.ports[0], port: 22 }] });
      expect(await bench.network.attach(port(first, [bench.ports[0]]), signal)).toEqual(backend);
    });

    test('an interface without forwards needs nothing', async () => {
      expect(await bench.network.attach(port(first, []), signal)).toEqual({ kind: 'user', forwards: [] });
    });

    test.each([[-1], [1]])('a port outside of the range is refused for ever and the range is named (%i)', async (side) => {
      const outside = side < 0 ? bench.ports[0] - 1 : bench.ports[1] + 1;
      await expect(bench.network.attach(port(first, [outside]), signal)).rejects.toMatchObject({
        code: 'ForwardNotAllowed',
        retry: 'never',
        message: expect.stringContaining(`${bench.ports[0]}-${bench.ports[1]}`),
      });
    });

    test('a port that another VM holds is refused and the VM is named, until that VM gives it back', async () => {
      await bench.network.attach(port(first, [bench.ports[0]]), signal);
      await expect(bench.network.attach(port(second, [bench.ports[0]]), signal)).rejects.toMatchObject({
        code: 'ForwardInUse',
        retry: 'later',
        message: expect.stringContaining(first),
      });
      await bench.network.detach(first, signal);
      await expect(bench.network.attach(port(second, [bench.ports[0]]), signal)).resolves.toBeDefined();
    });

    test('one of two interfaces of a VM can not take the port of the other', async () => {
      await bench.network.attach(port(first, [bench.ports[0]], 'eth0'), signal);
      await expect(bench.network.attach(port(first, [bench.ports[0]], 'eth1'), signal)).rejects.toMatchObject({ code: 'ForwardInUse' });
    });

    test('a refused attach holds nothing', async () => {
      await bench.network.attach(port(first, [bench.ports[0]]), signal);
      await expect(bench.network.attach(port(second, [bench.ports[1], bench.ports[0]]), signal)).rejects.toMatchObject({ code: 'ForwardInUse' });
      await expect(bench.network.attach(port(first, [bench.ports[1]], 'eth1'), signal)).resolves.toBeDefined();
    });

    test('a port that a process of the node holds is refused, until it is free', async () => {
      await bench.takeForeign(bench.ports[0]);
      await expect(bench.network.attach(port(first, [bench.ports[0]]), signal)).rejects.toMatchObject({
        code: 'ForwardInUse',
        message: expect.stringContaining('another process'),
      });
      await bench.leaveForeign(bench.ports[0]);
      await expect(bench.network.attach(port(first, [bench.ports[0]]), signal)).resolves.toBeDefined();
    });

    test('what a running machine has bound is adopted without a look at the port, and guarded against others', async () => {
      await bench.takeForeign(bench.ports[0]);
      const adopted = bench.network.adopt(port(first, [bench.ports[0]]));
      expect(await bench.network.attach(port(first, [bench.ports[0]]), signal)).toEqual(adopted);
      await expect(bench.network.attach(port(second, [bench.ports[0]]), signal)).rejects.toMatchObject({ message: expect.stringContaining(first) });
    });

    test('detaching twice, or what was never attached, is fine', async () => {
      await bench.network.attach(port(first, [bench.ports[0]]), signal);
      await bench.network.detach(first, signal);
      await bench.network.detach(first, signal);
      await bench.network.detach(second, signal);
    });
  });
};
