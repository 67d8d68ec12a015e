import { expect, test } from '@jest/globals';
import { hierarchiesOf } from './cgroup.ts';

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
