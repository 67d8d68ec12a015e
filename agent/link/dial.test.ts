import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { WebSocketServer } from 'ws';
import { z } from 'zod';
import { doorOf, makeDial } from './dial.ts';

const address = z.object({ port: z.int() });

describe('the dial', () => {
  let server: Server;
  let url: string;
  let answer: 'upgrade' | number;
  beforeEach(async () => {
    answer = 'upgrade';
    server = createServer();
    const sockets = new WebSocketServer({ noServer: true });
    server.on('upgrade', (request, socket, head) => {
      if (answer === 'upgrade') sockets.handleUpgrade(request, socket, head, (peer) => {
        peer.on('message', (data: Buffer) => peer.send(`${request.url} ${request.headers.authorization} ${data.toString('utf8')}`));
      });
      else socket.end(`HTTP/1.1 ${answer} No\r\nContent-Length: 0\r\n\r\n`);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${address.parse(server.address()).port}`;
  });
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });

  test('its signal limits the connecting, not the connection', async () => {
    const connecting = new AbortController();
    const heard = Promise.withResolvers<string>();
    const closed = Promise.withResolvers<string>();
    const socket = await makeDial({ url })('secret', { message: heard.resolve, closed: closed.resolve }, connecting.signal);
    connecting.abort(new Error('too late'));
    socket.send('hello', () => {});
    expect(await Promise.race([heard.promise, closed.promise])).toBe('/agent/ws Bearer secret hello');
    socket.close(1000, 'done');
    await closed.promise;
  });

  test.each([[401, 'DialRefused'], [403, 'DialRefused'], [503, 'NotLeader'], [500, 'DialFailed']] as const)('an answer of %s is %s', async (status, code) => {
    answer = status;
    const ears = { message: () => {}, closed: () => {} };
    await expect(makeDial({ url })('secret', ears, AbortSignal.timeout(10_000))).rejects.toMatchObject({ code, message: expect.stringContaining(String(status)) });
  });

  test('a CA that can not be read is named', async () => {
    await expect(makeDial({ url, caFile: '/nowhere/ca.crt' })('secret', { message: () => {}, closed: () => {} }, AbortSignal.timeout(10_000)))
      .rejects.toMatchObject({ code: 'DialFailed', message: expect.stringContaining('control_plane_ca /nowhere/ca.crt') });
  });

  test.each([
    ['https://operator:8443', 'wss://operator:8443/agent/ws'],
    ['wss://operator:8443/', 'wss://operator:8443/agent/ws'],
    ['https://operator/strato', 'wss://operator/strato/agent/ws'],
  ])('the door of %s is %s', (from, door) => {
    expect(doorOf(from)).toBe(door);
  });
});
