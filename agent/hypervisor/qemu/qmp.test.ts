import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { openQmp } from './qmp.ts';

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\n';
const command = z.object({ execute: z.string(), id: z.int() });

describe('QMP', () => {
  let folder: string;
  let file: string;
  let server: Server;
  const peers = new Set<Socket>();
  /** Serves one answer to each command but the first, which is `qmp_capabilities`. */
  const serve = async (answer: (id: number, execute: string) => string, first = greeting) => {
    server.on('connection', (peer) => {
      peers.add(peer);
      peer.on('error', () => {});
      peer.write(first);
      peer.on('data', (data) => {
        for (const line of data.toString('utf8').trim().split('\n')) {
          const { execute, id } = command.parse(JSON.parse(line));
          peer.write(execute === 'qmp_capabilities' ? `{"return": {}, "id": ${id}}\n` : answer(id, execute));
        }
      });
    });
    server.listen(file);
    await once(server, 'listening');
  };
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-qmp-'));
    file = join(folder, 'qmp.sock');
    server = createServer();
  });
  afterEach(async () => {
    for (const peer of peers) peer.destroy();
    peers.clear();
    if (server.listening) {
      server.close();
      await once(server, 'close');
    }
    await rm(folder, { recursive: true });
  });
  const soon = () => AbortSignal.timeout(10_000);

  test('tells the version and reads results past events and late answers', async () => {
    await serve((id) => `{"event": "STOP"}\n{"return": {"late": true}, "id": ${id - 1}}\n{"return": {"status": "running"}, "id": ${id}}\n`);
    using qmp = await openQmp(file, soon());
    expect(qmp.version).toBe('7.2.22');
    expect(await qmp.execute('query-status', z.object({ status: z.string() }), soon())).toEqual({ status: 'running' });
  });

  test('several answers can be asked for at once: each gets its own, whatever comes between', async () => {
    await serve((id, execute) => (execute === 'bad' ? `{"error": {"class": "GenericError", "desc": "no"}, "id": ${id}}\n{"event": "STOP"}\n` : `{"return": "${execute}", "id": ${id}}\n`));
    using qmp = await openQmp(file, soon());
    const said = await Promise.allSettled(['a', 'bad', 'b'].map((each) => qmp.execute(each, z.string(), soon())));
    expect(said).toEqual([{ status: 'fulfilled', value: 'a' }, { status: 'rejected', reason: expect.objectContaining({ code: 'QmpFailed' }) }, { status: 'fulfilled', value: 'b' }]);
  });

  test('what QEMU refuses is a fault with its words', async () => {
    await serve((id) => `{"error": {"class": "GenericError", "desc": "no such thing"}, "id": ${id}}\n`);
    using qmp = await openQmp(file, soon());
    await expect(qmp.execute('cont', z.unknown(), soon())).rejects.toMatchObject({ code: 'QmpFailed', message: 'cont: no such thing' });
  });

  test.each([
    ['an answer of another form', (id: number) => `{"return": {"status": 5}, "id": ${id}}\n`],
    ['no JSON', () => 'hello\n'],
    ['a line without end', () => 'x'.repeat(5 * 1024 * 1024)],
  ])('%s breaks the conversation', async (_what, answer) => {
    await serve(answer);
    using qmp = await openQmp(file, soon());
    await expect(qmp.execute('query-status', z.object({ status: z.string() }), soon())).rejects.toMatchObject({ code: 'QmpBroken' });
  });

  test('one that closes breaks it; one that is silent is left at the deadline', async () => {
    await serve(() => '');
    using qmp = await openQmp(file, soon());
    const deadline = new AbortController();
    const asked = qmp.execute('query-status', z.unknown(), deadline.signal);
    deadline.abort(new Error('the deadline'));
    await expect(asked).rejects.toThrow('the deadline');
    const again = qmp.execute('query-status', z.unknown(), soon());
    for (const peer of peers) peer.destroy();
    await expect(again).rejects.toMatchObject({ code: 'QmpBroken' });
  });

  test('what is asked for after the deadline is never done', async () => {
    const heard: string[] = [];
    await serve((id, execute) => {
      heard.push(execute);
      return `{"return": {}, "id": ${id}}\n`;
    });
    using qmp = await openQmp(file, soon());
    await expect(qmp.execute('cont', z.unknown(), AbortSignal.abort(new Error('the deadline')))).rejects.toThrow('the deadline');
    await qmp.execute('query-status', z.unknown(), soon());
    expect(heard).toEqual(['query-status']);
  });

  test('where nobody listens it says so; who greets otherwise is not QEMU', async () => {
    await expect(openQmp(file, soon())).rejects.toMatchObject({ code: 'QmpRefused' });
    await serve(() => '', '{"hello": 1}\n');
    await expect(openQmp(file, soon())).rejects.toMatchObject({ code: 'QmpBroken' });
  });
});
