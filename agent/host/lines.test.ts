import { once } from 'node:events';
import { createServer, connect, type Socket } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { lineReader } from './lines.ts';

describe('the lines of a socket', () => {
  let ours: Socket;
  let theirs: Socket;
  let close: () => Promise<void>;
  beforeEach(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'strato-lines-'));
    const server = createServer().listen(join(folder, 's'));
    await once(server, 'listening');
    ours = connect(join(folder, 's'));
    [theirs] = await once(server, 'connection');
    close = async () => {
      for (const each of [ours, theirs]) each.destroy();
      server.close();
      await rm(folder, { recursive: true });
    };
  });
  afterEach(() => close());
  const reader = (signal?: AbortSignal) => {
    const next = lineReader(ours, 100, (cause) => new Fault('Broken', messageOf(cause)), signal);
    return async () => (await next()).toString('utf8');
  };

  test('that come in great numbers keep nobody else waiting', async () => {
    const next = lineReader(ours, 1024 * 1024, (cause) => new Fault('Broken', messageOf(cause)));
    theirs.write('\n'.repeat(60_000));
    await next();
    let [read, elsewhere] = [1, 0];
    setImmediate(() => { elsewhere = read; });
    while (read < 60_000) {
      await next();
      read += 1;
    }
    expect([elsewhere > 0, elsewhere < 5_000]).toEqual([true, true]);
  });

  test('come one by one, however they were cut, and those before the end are read before it is told', async () => {
    const next = reader();
    theirs.write('a\n\nb');
    expect([await next(), await next()]).toEqual(['a', '']);
    const third = next();
    theirs.end('c\nd\nwithout end');
    expect([await third, await next()]).toEqual(['bc', 'd']);
    await expect(next()).rejects.toMatchObject({ code: 'Broken' });
  });

  test('that nobody reads are bounded', async () => {
    const next = reader();
    theirs.write(`${'x'.repeat(90)}\n`);
    theirs.on('error', () => {});
    expect(await next()).toHaveLength(90);
    theirs.write('y'.repeat(101));
    await expect(next()).rejects.toMatchObject({ code: 'Broken', message: expect.stringContaining('more than 100 bytes') });
    expect(ours.destroyed).toBe(true);
  });

  test('are waited for no longer than the signal says, also one that is over', async () => {
    const over = new AbortController();
    const next = reader(over.signal);
    const first = next();
    over.abort(new Error('the deadline'));
    await expect(first).rejects.toThrow('the deadline');
    await expect(next()).rejects.toThrow('the deadline');
  });
});
