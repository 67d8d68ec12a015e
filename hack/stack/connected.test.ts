import { expect, test } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { connectionsTo, isConnected } from './connected.ts';

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:403D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:403D 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 20 4 30 10 -1
   2: 0100007F:403D 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0 20 4 30 10 -1
   3: 0100007F:9C42 0100007F:403D 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0`;

test('a client of the port counts; its listener, its server side and what has ended do not', () => {
  expect([...connectionsTo(0x403d, table)]).toEqual(['101']);
  expect([...connectionsTo(80, table)]).toEqual([]);
});

test('a process is connected from its connection to the end of it', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  expect(await isConnected(process.pid, port)).toBe(false);
  const accepted = once(server, 'connection');
  const client = connect(port, '127.0.0.1');
  await Promise.all([once(client, 'connect'), accepted]);
  expect(await isConnected(process.pid, port)).toBe(true);
  expect(await isConnected(1, port)).toBe(false);
  client.destroy();
  server.close();
  await once(server, 'close');
});
