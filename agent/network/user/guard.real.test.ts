// What the rules hold, by real nft(8) and real connections, in a network namespace of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { withoutBedDisks } from '#hack/bed/disk.ts';

const ids = { min: 200_000, max: 200_009 };

/**
 * A script for node in a namespace with `lo`, and a veth pair of which the other end is another machine (10.9.0.2). It says one JSON line.
 * `as(uid, code)` runs code as a user and tells what it wrote.
 */
const prelude = `
  import { execFileSync, spawn } from 'node:child_process';
  import { once } from 'node:events';
  import { createServer } from 'node:net';
  import { createSocket } from 'node:dgram';
  import { text } from 'node:stream/consumers';
  import { writeFileSync } from 'node:fs';
  const root = process.argv[1], dir = process.argv[2];
  const sh = (line) => execFileSync('sh', ['-c', line], { encoding: 'utf8' });
  const { startGuard } = await import(root + '/agent/network/user/guard.ts');
  const quiet = { info() {}, warn() {} };
  sh('ip link set lo up; ip addr add 10.9.0.1/24 dev lo; ip addr add 169.254.7.7/32 dev lo; ip addr add 127.0.0.53/8 dev lo 2>/dev/null || :');
  const as = async (uid, code, ...args) => {
    const child = spawn('setpriv', ['--reuid=' + uid, '--regid=' + uid, '--clear-groups', process.execPath, '-e', code, ...args], { cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] });
    return (await text(child.stdout)).trim();
  };
  const dial = "const s=require('net').connect({host:process.argv[1],port:+process.argv[2],timeout:30000});s.on('connect',()=>{console.log('in');process.exit()}).on('error',e=>{console.log(e.code);process.exit()}).on('timeout',()=>{console.log('silence');process.exit()})";
  const ask = "const s=require('dgram').createSocket('udp4');setTimeout(()=>{console.log('silence');process.exit()},30000);s.on('message',m=>{console.log('in');process.exit()}).on('error',e=>{console.log(e.code);process.exit()});s.send('x',+process.argv[2],process.argv[1],e=>{if(e){console.log('refused');process.exit()}})";
  const listen = (port, host) => new Promise((done) => { const s = createServer((c) => { c.on('error', () => {}); c.end('hi'); }).listen(port, host, () => done(s)); });
  const echo = (port, host) => new Promise((done) => { const s = createSocket('udp4'); s.on('message', (m, from) => s.send(m, from.port, from.address)); s.bind(port, host, () => done(s)); });
  for (const host of ['127.0.0.1', '127.0.0.53', '10.9.0.1', '169.254.7.7', '::1']) for (const port of [53, 7000]) await listen(port, host);
  for (const host of ['127.0.0.1', '127.0.0.53']) for (const port of [53, 7000]) await echo(port, host);
  const resolvConf = dir + '/resolv.conf';
  writeFileSync(resolvConf, 'nameserver 127.0.0.53\\n');
  const ids = ${JSON.stringify(ids)};
  const stop = new AbortController();
  const guard = () => startGuard({ ids, log: quiet, resolvConf }, stop.signal);
  const say = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
`;

const inNamespace = async (script: string): Promise<unknown> => {
  const child: ChildProcess = spawn('unshare', ['--net', '--mount', 'sh', '-c', `${withoutBedDisks}; d=$(mktemp -d); trap "rm -rf $d" EXIT; "$@" "$d"`, 'sh', process.execPath, '--input-type=module', '-e', `${prelude}\n${script}`, process.cwd()], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (!child.stdout) throw new Error('no output');
  const [said] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  return JSON.parse(said);
};

describe('a guest in user mode, under the guard', () => {

  test('reaches no address of its node, except the resolver for its questions; others do', async () => {
    expect(await inNamespace(`
      const before = await as(200005, dial, '127.0.0.1', '7000');
      const it = await guard();
      const tcp = async (uid, host, port) => as(uid, dial, host, String(port));
      const udp = async (uid, host, port) => as(uid, ask, host, String(port));
      say({
        trouble: it.trouble() ?? null, before,
        guest: [await tcp(200005, '127.0.0.1', 7000), await tcp(200005, '10.9.0.1', 7000), await tcp(200009, '169.254.7.7', 7000), await tcp(200000, '::1', 7000), await tcp(200005, '127.0.0.53', 7000), await tcp(200005, '127.0.0.1', 53)],
        guestUdp: [await udp(200005, '127.0.0.1', 7000) !== 'in', await udp(200005, '127.0.0.53', 7000) !== 'in'],
        resolver: [await tcp(200005, '127.0.0.53', 53), await udp(200005, '127.0.0.53', 53)],
        others: [await tcp(0, '127.0.0.1', 7000), await tcp(200010, '127.0.0.1', 7000), await udp(1000, '127.0.0.1', 7000)],
      });
    `)).toEqual({
      trouble: null, before: 'in',
      guest: Array.from({ length: 6 }, () => 'ECONNREFUSED'), guestUdp: [true, true], resolver: ['in', 'in'], others: ['in', 'in', 'in'],
    });
  });

  test('answers who comes through a forward', async () => {
    expect(await inNamespace(`
      await guard();
      const server = spawn('setpriv', ['--reuid=200005', '--regid=200005', '--clear-groups', process.execPath, '-e', "require('net').createServer(c=>c.end('hello')).listen(2222,'127.0.0.1',()=>console.log('up'));const u=require('dgram').createSocket('udp4');u.on('message',(m,f)=>u.send(m,f.port,f.address));u.bind(2222,'127.0.0.1')"], { cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] });
      await once(server.stdout, 'data');
      const tcp = await as(0, "require('net').connect(2222,'127.0.0.1').on('data',d=>{console.log(String(d));process.exit()}).on('error',e=>{console.log(e.code);process.exit()})");
      const udp = await as(0, ask, '127.0.0.1', '2222');
      server.kill();
      say([tcp, udp]);
    `)).toEqual(['hello', 'in']);
  });

  test('stays so when somebody flushes the rules or the resolver moves; an agent that ends leaves them', async () => {
    expect(await inNamespace(`
      const it = await guard();
      sh('nft flush ruleset');
      const flushed = await as(200005, dial, '127.0.0.1', '7000');
      await it.tend();
      const mended = await as(200005, dial, '127.0.0.1', '7000');
      sh('nft flush chain inet strato_guests_200000_200009 guest');
      await it.tend();
      const again = await as(200005, dial, '127.0.0.1', '7000');
      writeFileSync(resolvConf, 'nameserver 127.0.0.1\\n');
      await it.tend();
      const moved = [await as(200005, dial, '127.0.0.1', '53'), await as(200005, dial, '127.0.0.53', '53')];
      stop.abort();
      say({ flushed, mended, again, moved, after: await as(200005, dial, '127.0.0.1', '7000') });
    `)).toEqual({ flushed: 'in', mended: 'ECONNREFUSED', again: 'ECONNREFUSED', moved: ['in', 'ECONNREFUSED'], after: 'ECONNREFUSED' });
  });

  test('is not connected where the rules can not be set, and is when they can', async () => {
    expect(await inNamespace(`
      const { networks } = await import(root + '/agent/network/registry.ts');
      writeFileSync(dir + '/nft', '#!/bin/sh\\necho no such thing >&2; exit 1\\n', { mode: 0o755 });
      const path = process.env.PATH;
      process.env.PATH = dir + ':' + path;
      const it = await guard();
      const network = networks.user({ guard: it, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 } });
      const attach = () => network.attach({ uid: 'u', name: 'eth0', mac: '', forwards: [] }, AbortSignal.timeout(5000)).then(() => 'attached', (e) => e.code + ' ' + e.message);
      const refused = await attach();
      const told = network.capabilities().trouble?.reason;
      process.env.PATH = path;
      await it.tend();
      say([refused, told, await attach(), network.capabilities().trouble ?? null]);
    `)).toEqual([expect.stringMatching(/^GuestsUnguarded interface eth0: .*no such thing.*guard_user_network/), 'GuestsUnguarded', 'attached', null]);
  });
});
