import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { endProcess } from './end.ts';
import { hasEnded, observeProcess, parseStat, readBootId } from './identity.ts';
import { launcher, parseRecord, readLive, readRecord, removeRecord } from './record.ts';

const digest = 'd'.repeat(64);
const boot = '7d4f6a56-3c2f-4b4e-9d65-0c6f6a3f1b11';

test('the state, threads and start of a process whose name is meant to confuse', () => {
  const rest = Array.from({ length: 18 }, (_, index) => index + 4).join(' ');
  expect(parseStat(`71 (a) b (c) S ${rest} 4242 0 0`)).toEqual({ state: 'S', threads: 20, startTicks: '4242' });
  expect(parseStat('')).toBeUndefined();
});

test.each([['S', 1, false], ['Z', 3, false], ['Z', 1, true], ['Z', 0, true], ['X', 1, true]])('a process in state %s with %i threads has ended: %s', (state, threads, ended) => {
  expect(hasEnded({ state, threads })).toBe(ended);
});

describe('a record', () => {
  test.each([
    ['an empty pid', '', `${boot} 1 ${digest}`],
    ['a pid of all processes', '-1', `${boot} 1 ${digest}`],
    ['pid 0, which is our own group', '0', `${boot} 1 ${digest}`],
    ['two pids', '12 13', `${boot} 1 ${digest}`],
    ['a torn start', '12', boot],
    ['no start', '12', ''],
  ])('with %s is none', (_, pid, start) => {
    expect(parseRecord(pid, start)).toBeUndefined();
  });

  test('is read from its two files', () => {
    expect(parseRecord('12\n', `${boot} 99 ${digest}\n`)).toEqual({ pid: 12, bootId: boot, startTicks: '99', definition: digest });
  });
});

describe('a started process', () => {
  let dir = '';
  let started: { pid: number; startTicks: string; bootId: string } | undefined;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'strato-record-'));
    const child = spawn('sh', ['-c', launcher, 'sh', dir, 'etcd', await readBootId(), digest, 'sleep', '600'], { detached: true, stdio: 'ignore' });
    await once(child, 'spawn');
    started = await until('its record', () => readLive(dir, 'etcd'), 10_000);
  });
  afterEach(async () => {
    if (started !== undefined) await endProcess(started, 0);
    await rm(dir, { recursive: true, force: true });
  });

  test('has recorded itself before it is what it shall be', async () => {
    await until('sleep', async () => (await readFile(`/proc/${started?.pid}/cmdline`, 'utf8')) === 'sleep\x00600\x00', 10_000);
    expect(await readLive(dir, 'etcd')).toEqual(started);
    expect((await readFile(join(dir, 'etcd.pid'), 'utf8')).trim()).toBe(String(started?.pid));
  });

  test('ends, and what had its id is then nobody', async () => {
    const record = await readRecord(dir, 'etcd');
    if (record !== undefined) await endProcess(record, 5_000);
    expect(await readLive(dir, 'etcd')).toBeUndefined();
    expect(await readRecord(dir, 'etcd')).toEqual(record);
    await removeRecord(dir, 'etcd');
    expect(await readRecord(dir, 'etcd')).toBeUndefined();
  });

  test('with an id that is in use again is neither live nor ended', async () => {
    await writeFile(join(dir, 'etcd.start'), `${await readBootId()} 1 ${digest}\n`);
    expect(await readLive(dir, 'etcd')).toBeUndefined();
    const record = await readRecord(dir, 'etcd');
    if (record !== undefined) await endProcess(record, 0);
    expect(await observeProcess(started?.pid ?? 0)).toBeDefined();
  });

  test('of another boot is not live', async () => {
    await writeFile(join(dir, 'etcd.start'), `${boot} ${started?.startTicks} ${digest}\n`);
    expect(await readLive(dir, 'etcd')).toBeUndefined();
  });
});
