import { expect, test } from '@jest/globals';
import { cgroupFolders, isQemuOf } from './guests.ts';

const uid = '0b1c2d3e-0000-4000-8000-000000000001';

test.each([
  ['its QEMU', ['/usr/bin/qemu-system-x86_64', '-name', `guest=${uid}`, ''], true],
  ['its QEMU, with more in the name', ['qemu-system-aarch64', '-name', `guest=${uid},debug-threads=on`], true],
  ['the supervisor, which has the uid in its text', ['sh', '-c', 'exec qemu-system-x86_64', `guest=${uid}`], false],
  ['the QEMU of another VM', ['/usr/bin/qemu-system-x86_64', '-name', `guest=${uid}0`], false],
  ['a process without arguments', [], false],
])('%s', (_, args, is) => {
  expect(isQemuOf(args.join('\0'), uid)).toBe(is);
});

const mountinfo = `24 1 0:21 / / rw - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 24 0:28 /pod7 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
33 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd`;

test('the cgroup folders of a VM are found in every hierarchy, those of others are not', () => {
  const cgroup = `9:name=systemd:/strato/${uid}\n4:memory:/a/strato/${uid}\n2:cpu,cpuacct:/pod7/strato/${uid}\n1:pids:/strato/${uid}\n0::/strato/${uid}\n`;
  expect(cgroupFolders(cgroup, mountinfo, uid)).toEqual([
    `/sys/fs/cgroup/systemd/strato/${uid}`,
    `/sys/fs/cgroup/memory/a/strato/${uid}`,
    `/sys/fs/cgroup/cpu/strato/${uid}`,
    `/sys/fs/cgroup/unified/strato/${uid}`,
  ]);
  expect(cgroupFolders('4:memory:/\n0::/user.slice\n', mountinfo, uid)).toEqual([]);
});
