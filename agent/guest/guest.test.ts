import { appendFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { systemClock } from '#crds/kit/clock.ts';
import { quiet } from '#crds/kit/log.ts';
import { until } from '#hack/bed/until.ts';
import { addressesOf, askGuest } from './facts.ts';
import { makeGuests } from './guests.ts';
import { lineFinder, printable } from './pattern.ts';
import { lineOf, probeGuest } from './probe.ts';
import { openGuestAgent } from './qga.ts';
import { makeSerialScan } from './serialscan.ts';

let folder: string;
const servers: Server[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'strato-guest-'));
});
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  await rm(folder, { recursive: true, force: true });
});

/** A pretend guest agent: `says` answers each command; what it gives is written as it is. */
const guestAgent = async (says: (command: string, socket: Socket, args: unknown) => unknown): Promise<string> => {
  const file = join(folder, 'qga.sock');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    let rest = '';
    socket.on('data', (chunk) => {
      const lines = (rest + chunk.toString('latin1').replaceAll('\xff', '')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const { execute, arguments: args } = JSON.parse(line);
        if (execute === 'guest-sync-delimited') socket.write(Buffer.concat([Buffer.from('{"return": "old"}\n'), Buffer.from([0xff]), Buffer.from(`{"return": ${args.id}}\n`)]));
        else {
          const said = says(execute, socket, args);
          if (said !== undefined) socket.write(`${JSON.stringify(said)}\n`);
        }
      }
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(file, resolve));
  return file;
};

const debian: Record<string, unknown> = {
  'guest-info': { return: { version: '7.2.22', supported_commands: [] } },
  'guest-get-osinfo': { return: { 'pretty-name': 'Debian \u001b[31m12\n' } },
  'guest-get-host-name': { return: { 'host-name': 'web' } },
  'guest-network-get-interfaces': { return: [
    { name: 'lo', 'ip-addresses': [{ 'ip-address': '127.0.0.1', 'ip-address-type': 'ipv4' }] },
    { name: 'eth0', 'hardware-address': '52:54:00:00:00:01', 'ip-addresses': [{ 'ip-address': 'fe80::1', 'ip-address-type': 'ipv6' }, { 'ip-address': '10.0.2.15', 'ip-address-type': 'ipv4' }] },
  ] },
  'guest-get-vcpus': { error: { class: 'CommandNotFound', desc: 'disabled' } },
};

describe('a guest agent', () => {
  test('tells of its guest; what it may not say is left out, and nothing but printable text comes through', async () => {
    const file = await guestAgent((command) => debian[command]);
    using agent = await openGuestAgent(file, 7, AbortSignal.timeout(5_000));
    expect(await askGuest(agent)).toEqual({
      agentVersion: '7.2.22', os: 'Debian [31m12', hostname: 'web', addresses: [{ mac: '52:54:00:00:00:01', addresses: ['10.0.2.15'] }],
    });
  });

  test('tells how many CPUs its guest has on line', async () => {
    const file = await guestAgent((command) => (command === 'guest-get-vcpus' ? { return: [true, false, true].map((online, at) => ({ 'logical-id': at, online })) } : debian[command]));
    using agent = await openGuestAgent(file, 7, AbortSignal.timeout(5_000));
    expect((await askGuest(agent)).cpusOnline).toBe(2);
  });

  test.each<[string, (command: string, socket: Socket) => unknown]>([
    ['gives something else', () => ({ return: 5 })],
    ['gives no JSON', (_, socket) => void socket.write('{{{\n')],
    ['floods', (_, socket) => void socket.write('x'.repeat(2 * 1024 * 1024))],
    ['hangs up', (_, socket) => void socket.end()],
  ])('that %s fails, and nothing else does', async (_, says) => {
    using agent = await openGuestAgent(await guestAgent(says), 1, AbortSignal.timeout(5_000));
    await expect(askGuest(agent)).rejects.toMatchObject({ code: 'GuestAgentFailed' });
  });

  test.each([['\n'], ['{"return": 1}\n']])('that floods with %j instead of an answer is given up at once', async (line) => {
    const file = join(folder, 'loud.sock');
    const server = createServer((socket) => {
      socket.on('error', () => {}).resume();
      const more = (broken?: unknown) => { if (!broken) socket.write(line.repeat(10_000), more); };
      more();
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(file, resolve));
    await expect(openGuestAgent(file, 7, AbortSignal.timeout(5_000))).rejects.toMatchObject({ code: 'GuestAgentFailed' });
  });

  test('that says nothing is waited for no longer than one wants', async () => {
    const file = join(folder, 'mute.sock');
    const server = createServer(() => {});
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(file, resolve));
    await expect(openGuestAgent(file, 1, AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test('can not name addresses that are none', () => {
    expect(addressesOf([{ 'hardware-address': '52:54:00:00:00:01', 'ip-addresses': [{ 'ip-address': '<script>', 'ip-address-type': 'ipv4' }] }])).toEqual([]);
    expect(addressesOf([{ 'hardware-address': 'nonsense', 'ip-addresses': [{ 'ip-address': '10.0.0.1', 'ip-address-type': 'ipv4' }] }])).toEqual([]);
  });
});

describe('a line of a serial console', () => {
  test.each([
    ['login: ', 'login:', true], ['Debian web login: ', 'Debian * login:', true], ['login web Debian', 'Debian*login', false], ['aaa', 'a*a*a*a', false], ['x', '*x*', true],
  ])('%j holds %j: %s', (line, pattern, holds) => {
    expect(lineFinder(pattern)(line)).toBe(holds);
  });

  test('long lines and hard patterns cost nothing', () => {
    expect(lineFinder(`${'a*'.repeat(100)}b`)('a'.repeat(100_000))).toBe(false);
    expect(printable('a\u0000\u001b]0;x\u0007b\u009fc', 10)).toBe('a]0;xbc');
  });

  test('what a guest says of itself turns no text around, and is Unicode also where it was cut', () => {
    expect([printable('a\u202eb\u2028c', 10), printable('\ud800x', 10), printable('ab\u{1f600}', 3), printable('\u{1f600}', 2)]).toEqual(['abc', 'x', 'ab', '\u{1f600}']);
  });

  test.each([[`${'*'.repeat(511)}a`], ['a*'.repeat(256)]])('many short lines cost little, whatever is looked for', async (pattern) => {
    const file = join(folder, 'serial.log');
    await writeFile(file, '\n'.repeat(1024 * 1024));
    const since = performance.now();
    expect(await makeSerialScan(file, pattern).look()).toBe(false);
    expect(performance.now() - since).toBeLessThan(3_000);
  });

  const scanned = async (pattern = 'READY *') => {
    const file = join(folder, 'serial.log');
    await writeFile(file, '');
    return { file, scan: makeSerialScan(file, pattern) };
  };

  test('is found when it comes in pieces, and stays found', async () => {
    const { file, scan } = await scanned();
    await appendFile(file, 'boot\r\nREA');
    expect(await scan.look()).toBe(false);
    await appendFile(file, 'DY now\r\n');
    expect(await scan.look()).toBe(true);
    await truncate(file, 0);
    expect(await scan.look()).toBe(true);
  });

  test('is found after the oldest part of the record went, and without its end', async () => {
    const { file, scan } = await scanned('login:');
    await appendFile(file, 'x'.repeat(200_000));
    expect(await scan.look()).toBe(false);
    await writeFile(file, 'web login: ');
    expect(await scan.look()).toBe(true);
  });

  test('is looked for in a bounded part at a time', async () => {
    const { file, scan } = await scanned('END');
    await appendFile(file, `${'noise\n'.repeat(400_000)}END\n`);
    expect(await scan.look()).toBe(false);
    await until('the end', () => scan.look(), 10_000);
  });
});

describe('cloud-init', () => {
  const probe = { is: 'cloudInitDone' as const };
  const lastLine = 'Cloud-init v. 22.4.2 finished at Tue, 24 Nov 2026 22:00:00 +0000. Datasource DataSourceNoCloud.  Up 9.41 seconds\r\n';
  const opens = (path: string) => (command: string, _socket: Socket, args: unknown) => {
    if (command === 'guest-file-open') return Object(args).path === path ? { return: 1000 } : { error: { class: 'GenericError', desc: 'No such file or directory' } };
    return { return: {} };
  };
  test.each<[string, string, Parameters<typeof guestAgent>[0] | undefined, boolean]>([
    ['has finished when its last line is on the console', lastLine, undefined, true],
    ['has finished when the guest agent finds its last file', '', opens('/var/lib/cloud/instance/boot-finished'), true],
    ['has not when there is neither', 'Cloud-init v. 22.4.2 running\r\n', opens('/none'), false],
    ['has not when nobody can be asked', '', undefined, false],
  ])('%s', async (_, serial, says, done) => {
    const file = join(folder, 'serial.log');
    await writeFile(file, serial);
    const signal = AbortSignal.timeout(5_000);
    using agent = says && (await openGuestAgent(await guestAgent(says), 7, signal));
    expect((await probeGuest(probe, { scan: makeSerialScan(file, lineOf(probe) ?? ''), agent }, signal)).is).toBe(done);
  });
});

describe('guests that are looked into', () => {
  const open = (nowMs: () => number = systemClock.monotonicMs) => {
    const changed: string[] = [];
    const ending = new AbortController();
    const guests = makeGuests({
      established: async () => false,
      paths: { sockets: () => folder, serialLog: () => join(folder, 'serial.log'), guestAgentSocket: () => join(folder, 'qga.sock') },
      clock: { ...systemClock, monotonicMs: nowMs, sleep: (_, signal) => systemClock.sleep(20, signal) }, log: quiet, changed: (uid) => void changed.push(uid),
    }, ending.signal);
    return { guests, changed, end: () => ending.abort() };
  };

  test('say what they are once their agent answers, quietly, and are ready when their probe says so', async () => {
    const { guests, changed, end } = open();
    const run = { uid: 'a', startId: 's', cpus: 1, probe: { is: 'guestAgent' as const } };
    guests.follow(run);
    await until('the first look', () => guests.observe('a')?.ready?.is === false, 10_000);
    await guestAgent((command) => debian[command]);
    await until('its agent to answer', () => guests.observe('a')?.ready?.is === true && guests.observe('a')?.info?.hostname === 'web', 10_000);
    const told = changed.length;
    guests.follow({ ...run });
    guests.follow({ ...run, probe: { is: 'tcp', port: 22 } });
    await until('the other probe', () => guests.observe('a')?.ready?.message.includes('no interface forwards'), 10_000);
    expect([changed.length - told, guests.observe('a')?.info?.hostname]).toEqual([1, 'web']);
    guests.leave('a');
    expect(guests.observe('a')).toBeUndefined();
    end();
  });

  test('have ten seconds to take plugged CPUs on line before it is told that they do not', async () => {
    const time = { ms: 0 };
    const { guests, end } = open(() => time.ms);
    let online = 1;
    let asked = 0;
    await guestAgent((command) => {
      if (command !== 'guest-get-vcpus') return debian[command];
      asked += 1;
      return { return: [0, 1, 2].map((id) => ({ 'logical-id': id, online: id < online })) };
    });
    const looks = async () => { const before = asked; await until('two more looks', () => asked >= before + 2, 10_000); };
    const cpusOnline = () => guests.observe('a')?.info?.cpusOnline;
    guests.follow({ uid: 'a', startId: 's', cpus: 1 });
    await until('the first answer', () => cpusOnline() === 1, 10_000);
    guests.follow({ uid: 'a', startId: 's', cpus: 3 });
    await looks();
    expect([cpusOnline(), guests.observe('a')?.info?.hostname]).toEqual([undefined, 'web']);
    online = 3;
    await until('all of them', () => cpusOnline() === 3, 10_000);
    online = 2;
    await looks();
    expect(cpusOnline()).toBeUndefined();
    time.ms = 10_000;
    await until('it to be told', () => cpusOnline() === 2, 10_000);
    end();
  });
});
