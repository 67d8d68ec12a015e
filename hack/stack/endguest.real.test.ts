import { afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { theGuests } from '../bed/artifacts.ts';
import { endGuest } from './endguest.ts';
import { readyLine } from './firstvm.ts';
import { observeHolders } from './guests.ts';
import { type Layout, layout } from './layout.ts';

const uid = '0b1c2d3e-0000-4000-8000-000000000001';
const moment = 1_000;
const long = 300_000;
let dir = '';
let at: Layout;
let disk = '';
let started: ChildProcess[] = [];

beforeAll(async () => { ({ small: { disk } } = await theGuests()); }, 300_000);
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-end-'));
  const plan = layout(dir);
  at = { ...plan, agent: { ...plan.agent, sockets: join(dir, 's') } };
  for (const folder of [join(at.agent.vms, uid), join(at.agent.sockets, uid)]) await mkdir(folder, { recursive: true });
});
afterEach(async () => {
  for (const child of started) if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
  started = [];
  await rm(dir, { recursive: true, force: true, maxRetries: 5 });
});

/** QEMU below a shell that waits for it; both hold the lock, as under the agent's launcher. */
const start = async (...args: string[]): Promise<() => Promise<string>> => {
  const qemu = [
    'qemu-system-x86_64', '-name', `guest=${uid},debug-threads=on`, '-M', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', '256', '-nodefaults', '-display', 'none',
    '-serial', `file:${join(dir, 'serial.log')}`, '-qmp', `unix:${join(at.agent.sockets, uid, 'tools.sock')},server=on,wait=off`, ...args,
  ];
  const child = spawn('sh', ['-c', 'exec 9>>"$1"; flock -n 9; shift; "$@" & wait', 'sh', join(at.agent.vms, uid, 'lock'), ...qemu], { stdio: 'ignore', detached: true });
  started.push(child);
  await once(child, 'spawn');
  await until('QEMU', async () => (await observeHolders(at.agent.vms)).get(uid)?.some(({ isQemu }) => isQemu), long);
  return () => readFile(join(dir, 'serial.log'), 'latin1').catch(() => '');
};
const nobody = async () => expect((await observeHolders(at.agent.vms)).size).toBe(0);

test('a guest that heeds its power button is powered off', async () => {
  const serial = await start('-drive', `file=${disk},format=qcow2,if=virtio,snapshot=on`);
  await until('the guest', async () => readyLine(await serial()) !== undefined, long);
  expect(await endGuest(at, uid, { powerMs: long, termMs: moment })).toBe('powered off');
  await nobody();
}, 3 * long);

test('one that does not is switched off', async () => {
  await start();
  expect(await endGuest(at, uid, { powerMs: moment, termMs: long })).toBe('switched off');
  await nobody();
}, 3 * long);

test('one whose QEMU answers to nothing is killed', async () => {
  await start();
  const qemu = (await observeHolders(at.agent.vms)).get(uid)?.find(({ isQemu }) => isQemu);
  process.kill(qemu?.pid ?? Number.NaN, 'SIGSTOP');
  expect(await endGuest(at, uid, { powerMs: moment, termMs: moment })).toBe('killed');
  await nobody();
}, 3 * long);
