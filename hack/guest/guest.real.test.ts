import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePorts } from '../bed/ports.ts';
import { until } from '../bed/until.ts';
import type { Guest } from './guest.ts';
import { ensureGuest } from './guest.ts';
import { theGuests } from '../bed/artifacts.ts';
import type { Machine } from './machine.ts';
import { startMachine } from './machine.ts';
import { makeSeed } from './seed.ts';

const run = promisify(execFile);
const bootMs = 300_000;
const seenMs = 120_000;
jest.setTimeout(3 * bootMs);

let dir = '';
let guest: Guest;
let sshPort = 0;
let webPort = 0;
let first: Machine;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-guest-'));
  guest = (await theGuests()).small;
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'tester', '-f', join(dir, 'key')]);
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'alice', '-f', join(dir, 'alice')]);
  await writeSeed();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', guest.disk, '-F', 'qcow2', join(dir, 'root.qcow2')]);
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(dir, 'data.raw'), '32M']);
  [sshPort = 0, webPort = 0] = await freePorts(2);
  first = await boot();
  await first.saw(/^STRATO ready/m, bootMs);
});

afterAll(async () => {
  await first?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

// A cloud-config and a script in one user-data, as cloud-init's multipart format has it.
const writeSeed = async () => {
  const key = (name: string) => readFile(join(dir, `${name}.pub`), 'utf8').then((text) => text.trim());
  const parts = [
    `#cloud-config\nusers:\n  - default\n  - name: alice\n    ssh_authorized_keys:\n      - ${await key('alice')}\n`,
    '#!/bin/bash\necho "STRATO-TEST script on $(hostname)" >/dev/console\necho ran >>/root/ran\nexit 3\n',
  ];
  const types = ['text/cloud-config', 'text/x-shellscript'];
  const body = parts.map((part, at) => `--XX\nContent-Type: ${types[at]}\n\n${part}`).join('');
  await makeSeed(join(dir, 'seed.img'), {
    'meta-data': `instance-id: i-0001\nlocal-hostname: first-vm\npublic-keys:\n  - ${await key('key')}\n`,
    'user-data': `Content-Type: multipart/mixed; boundary="XX"\nMIME-Version: 1.0\n\n${body}--XX--\n`,
  });
};

// The seed comes first on the bus: neither the firmware nor the guest may go by the order of disks.
const boot = () =>
  startMachine(dir, 256, [
    '-blockdev', 'driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed.img', '-device', 'virtio-blk-pci,drive=seed',
    '-blockdev', 'driver=raw,node-name=data,file.driver=file,file.filename=data.raw', '-device', 'virtio-blk-pci,drive=data,serial=data',
    '-blockdev', 'driver=qcow2,node-name=root,file.driver=file,file.filename=root.qcow2',
    '-device', 'virtio-blk-pci,drive=root,bootindex=0,serial=root',
    '-netdev', `user,id=n0,hostfwd=tcp:127.0.0.1:${sshPort}-:22,hostfwd=tcp:127.0.0.1:${webPort}-:80`, '-device', 'virtio-net-pci,netdev=n0,romfile=',
    '-netdev', 'user,id=n1,net=10.0.9.0/24', '-device', 'pcie-root-port,id=spare,slot=1',
  ]);

const ssh = async (user: string, key: string, command: string) => {
  const options = ['StrictHostKeyChecking=no', `UserKnownHostsFile=${join(dir, 'known')}`, 'BatchMode=yes', 'ConnectTimeout=20'];
  const flags = options.flatMap((option) => ['-o', option]);
  const { stdout } = await run('ssh', [...flags, '-F', '/dev/null', '-i', join(dir, key), '-p', `${sshPort}`, `${user}@127.0.0.1`, command], { timeout: seenMs });
  return stdout;
};

describe('the guest image', () => {
  test('is in the cache with its digest, and is not made twice', async () => {
    expect(guest.digest).toBe(`sha256:${createHash('sha256').update(await readFile(guest.disk)).digest('hex')}`);
    const told: string[] = [];
    expect(await ensureGuest(({ is }) => told.push(is))).toEqual(guest);
    expect(told).toEqual(['cached']);
  });
});

describe('a first boot by BIOS', () => {
  test('says what it did, each on a line of its own', () => {
    const serial = first.serial();
    expect(serial).toMatch(/^STRATO seed=\/dev\/vda instance-id=i-0001 hostname=first-vm keys=2$/m);
    expect(serial).toMatch(/^STRATO dhcp eth0 ip=10\.0\.2\.15\/24 gw=10\.0\.2\.2 dns=10\.0\.2\.3$/m);
    expect(serial).toMatch(/^STRATO cpus=1$/m);
    expect(serial).toMatch(/^STRATO mem=2\d\d MiB$/m);
    expect(serial).toMatch(/^STRATO nic=eth0 mac=52:54:00:12:34:56$/m);
    expect(serial).toMatch(/^STRATO disk=vdb\(data\) size=33554432 ro=0$/m);
    expect(serial).toMatch(/^STRATO disk=vda\(\) size=1048576 ro=1$/m);
    expect(serial).toMatch(/^STRATO ready host=first-vm firmware=bios$/m);
  });

  test('lets in the keys of the seed, each to its account', async () => {
    expect(await ssh('root', 'key', 'hostname; id -un')).toBe('first-vm\nroot\n');
    expect(await ssh('alice', 'alice', 'id -un; pwd')).toBe('alice\n/home/alice\n');
    await expect(ssh('root', 'alice', 'id')).rejects.toThrow('Permission denied');
  });

  test('runs the script and says how it ended', async () => {
    await first.saw(/^STRATO-TEST script on first-vm$/m, seenMs);
    await first.saw(/^STRATO script=part-002 exit=3$/m, seenMs);
    expect(await ssh('root', 'key', 'cat /root/ran')).toBe('ran\n');
  });

  test('has a root shell on the serial port', async () => {
    first.type('cat /proc/uptime; id -un\n');
    await first.saw(/^\d+\.\d+ \d+\.\d+\nroot$/m, seenMs);
  });

  test('can use a second disk, found by its serial', async () => {
    const script = 'set -e; d=/dev/disk/by-serial/data; [ /dev/disk/by-id/virtio-data -ef $d ]; mke2fs -F $d >/dev/null 2>&1; mount -t ext4 $d /mnt; echo kept >/mnt/f; umount /mnt; echo done';
    expect(await ssh('root', 'key', script)).toBe('done\n');
  });

  test('answers its host name on port 80', async () => {
    expect(await (await fetch(`http://127.0.0.1:${webPort}/`, { signal: AbortSignal.timeout(seenMs) })).text()).toBe('first-vm\n');
  });

  test('gives a NIC that is plugged in later its address', async () => {
    await first.qmp('device_add', { driver: 'virtio-net-pci', netdev: 'n1', id: 'late', bus: 'spare', romfile: '' });
    await first.saw(/^STRATO dhcp eth1 ip=10\.0\.9\.15\/24 /m, seenMs);
    expect(await ssh('root', 'key', 'ip route | head -n 1')).toContain('default via 10.0.2.2 dev eth0');
  });
});

test('the power button ends it; on the next boot the script does not run again and the host key is the same', async () => {
  await ssh('root', 'key', 'true');
  const known = await readFile(join(dir, 'known'), 'utf8');
  await first.qmp('system_powerdown');
  await first.saw(/^STRATO acpi-power$/m, seenMs);
  expect(await first.ended).toBe(0);

  await using second = await boot();
  await second.saw(/^STRATO ready host=first-vm /m, bootMs);
  const left = await until('SSH', () => ssh('root', 'key', 'ls /root/ran /run/scripts 2>&1; mount -t ext4 /dev/disk/by-id/virtio-data /mnt; cat /mnt/f'), seenMs);
  expect(left).toMatch(/ran: No such file.*\n.*scripts: No such file.*\nkept\n/);
  expect(second.serial()).not.toContain('script');
  expect(await readFile(join(dir, 'known'), 'utf8')).toBe(known);
  // From within: busybox init ends what runs, syncs, and powers off.
  second.type('poweroff\n');
  expect(await second.ended).toBe(0);
});
