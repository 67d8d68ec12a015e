import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { isThere } from '../../storage/durable.ts';
import { hierarchiesOf, ownCgroups } from './cgroup.ts';

const line = (root: string, directory: string, type: string, options: string) => `30 25 0:26 ${root} ${directory} rw,nosuid - ${type} cgroup ${options}`;

test('every whole hierarchy counts once, of version 1 and 2', () => {
  expect(hierarchiesOf([
    line('/', '/proc', 'proc', 'rw'),
    line('/', '/sys/fs/cgroup/memory', 'cgroup', 'rw,memory'),
    line('/', '/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'rw,cpu,cpuacct'),
    line('/', '/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'rw,cpu,cpuacct'),
    line('/', '/sys/fs/cgroup/unified', 'cgroup2', 'rw'),
    '',
  ].join('\n'))).toEqual([
    { version: 1, directory: '/sys/fs/cgroup/memory', controllers: ['memory'] },
    { version: 1, directory: '/sys/fs/cgroup/cpu,cpuacct', controllers: ['cpu', 'cpuacct'] },
    { version: 2, directory: '/sys/fs/cgroup/unified', controllers: [] },
  ]);
});

test('a part of a hierarchy, as a container sees it, is not one to leave the own group by', () => {
  expect(hierarchiesOf(line('/kubepods/pod1', '/sys/fs/cgroup/memory', 'cgroup', 'rw,memory'))).toEqual([]);
});

describe('a parent that was there', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'strato-cgroup-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  /** A group as the kernel makes it: with files. */
  const fresh = async (group: string, holds: string) => {
    await mkdir(group, { recursive: true });
    for (const file of ['cpuset.cpus', 'cpuset.mems']) await writeFile(join(group, file), holds);
  };

  test('and that somebody has removed is made again with the next group', async () => {
    const cgroups = ownCgroups([{ version: 1, directory, controllers: ['memory'] }]);
    await cgroups.make('a');
    await rm(join(directory, 'strato'), { recursive: true });
    expect(await cgroups.make('b')).toEqual([join(directory, 'strato', 'b', 'cgroup.procs')]);
    expect(await isThere(join(directory, 'strato', 'b'))).toBe(true);
  });

  test('and that somebody has made anew, without processors, gets them: its groups would take nobody in', async () => {
    const cgroups = ownCgroups([{ version: 1, directory, controllers: ['cpuset'] }]);
    await fresh(directory, '0-1\n');
    for (const group of ['strato', 'strato/a', 'strato/b']) await fresh(join(directory, group), '\n');
    await cgroups.make('a');
    await fresh(join(directory, 'strato'), '\n');
    await cgroups.make('b');
    expect(await readFile(join(directory, 'strato', 'b', 'cpuset.cpus'), 'utf8')).toBe('0-1\n');
  });
});
