import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { until } from '../bed/until.ts';
import { askAgent } from './askagent.ts';
import { theGuests } from '../bed/artifacts.ts';
import type { Machine } from './machine.ts';
import { startMachine } from './machine.ts';
import { makeSeed } from './seed.ts';

const run = promisify(execFile);
const bootMs = 180_000;
const seenMs = 120_000;
jest.setTimeout(3 * bootMs);

let dir = '';
let vm: Machine;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-plug-'));
  const { small: guest } = await theGuests();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', guest.disk, '-F', 'qcow2', join(dir, 'root.qcow2')]);
  for (const name of ['late', 'scsi', 'nvme', 'medium']) await run('qemu-img', ['create', '-q', '-f', 'raw', join(dir, `${name}.raw`), '8M']);
  await run('mke2fs', ['-q', '-F', '-b', '4096', '-O', '^has_journal', join(dir, 'medium.raw')], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
  await makeSeed(join(dir, 'seed.img'), { 'meta-data': 'instance-id: i-1\nlocal-hostname: plug\n' });
  vm = await startMachine(dir, 256, [
    '-smp', '1,maxcpus=3', '-m', 'maxmem=2G,slots=2',
    ...Array.from({ length: 8 }, (_, at) => ['-device', `pcie-root-port,id=port${at},chassis=${at + 1},slot=${at + 1}`]).flat(),
    '-blockdev', 'driver=qcow2,node-name=root,file.driver=file,file.filename=root.qcow2', '-device', 'virtio-blk-pci,bus=port0,drive=root,bootindex=0,serial=root',
    '-blockdev', 'driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed.img', '-device', 'virtio-blk-pci,bus=port1,drive=seed,serial=seed',
    '-netdev', 'user,id=n0', '-device', 'virtio-net-pci,bus=port2,netdev=n0,romfile=', '-netdev', 'user,id=n1,net=10.0.9.0/24',
    '-device', 'virtio-scsi-pci,id=scsi,bus=port3', '-device', 'scsi-cd,id=cd,bus=scsi.0,serial=cdrom',
    '-device', 'virtio-serial-pci,bus=port4',
    '-chardev', 'socket,id=qga,path=qga.sock,server=on,wait=off', '-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0',
    '-object', 'memory-backend-ram,id=vmem,size=1G', '-device', 'virtio-mem-pci,id=vmem0,bus=pcie.0,memdev=vmem,requested-size=0',
    '-device', 'pvpanic-pci', '-action', 'panic=pause',
  ]);
  await vm.saw(/^STRATO ready host=plug/m, bootMs);
  await vm.saw(/~# /, bootMs);
});

afterAll(async () => {
  await vm?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

const agent = (execute: string, args?: Record<string, unknown>) => askAgent(join(dir, 'qga.sock'), execute, args);
const memory = () => [...vm.serial().matchAll(/^STRATO mem=(\d+) MiB$/gm)].map(([, mib]) => Number(mib)).at(-1) ?? 0;
const blockdev = (name: string) => vm.qmp('blockdev-add', { driver: 'raw', 'node-name': name, file: { driver: 'file', filename: `${name}.raw` } });

describe('the guest agent', () => {
  test('answers soon after the guest is ready', async () => {
    expect(await until('the agent', () => agent('guest-ping').catch(() => undefined), seenMs)).toEqual({});
    expect(await agent('guest-info')).toMatchObject({ version: expect.stringMatching(/^\d+\.\d+/) });
  });

  test('tells who the guest is', async () => {
    expect(await agent('guest-get-host-name')).toEqual({ 'host-name': 'plug' });
    expect(await agent('guest-get-osinfo')).toMatchObject({ id: 'strato-guest', 'pretty-name': 'Strato test guest', machine: 'x86_64' });
  });

  test('tells its addresses', async () => {
    const address = { 'ip-address': '10.0.2.15', 'ip-address-type': 'ipv4', prefix: 24 };
    expect(await agent('guest-network-get-interfaces')).toContainEqual(
      expect.objectContaining({ name: 'eth0', 'hardware-address': '52:54:00:12:34:56', 'ip-addresses': expect.arrayContaining([address]) }),
    );
  });

  test('runs a command', async () => {
    const { pid } = z.object({ pid: z.number() }).parse(await agent('guest-exec', { path: 'cloud-init', arg: ['status', '--wait'], 'capture-output': true }));
    const ended = await until('its end', async () => {
      const status = z.object({ exited: z.boolean(), 'out-data': z.string().optional() }).parse(await agent('guest-exec-status', { pid }));
      return status.exited ? status : undefined;
    }, seenMs);
    expect(Buffer.from(ended['out-data'] ?? '', 'base64').toString()).toBe('status: done\n');
  });
});

describe('what is plugged in', () => {
  test('CPUs come online', async () => {
    await vm.saw(/^STRATO cpus=1$/m, seenMs);
    const slots = z.array(z.object({ props: z.record(z.string(), z.number()), type: z.string(), 'qom-path': z.string().optional() })).parse(await vm.qmp('query-hotpluggable-cpus'));
    const free = slots.filter((slot) => slot['qom-path'] === undefined);
    for (const { props, type } of free) await vm.qmp('device_add', { driver: type, id: `cpu${props['core-id'] ?? 0}${props['socket-id'] ?? 0}`, ...props });
    await vm.saw(/^STRATO cpus=3$/m, seenMs);
  });

  test('a memory module comes online', async () => {
    const before = memory();
    await vm.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'dimm', size: 256 * 1024 * 1024 });
    await vm.qmp('device_add', { driver: 'pc-dimm', id: 'dimm0', memdev: 'dimm' });
    await until('256 MiB more', () => memory() === before + 256, seenMs);
  });

  test('virtio memory comes and goes', async () => {
    const before = memory();
    await vm.qmp('qom-set', { path: '/machine/peripheral/vmem0', property: 'requested-size', value: 512 * 1024 * 1024 });
    await until('512 MiB more', () => memory() === before + 512, seenMs);
    await vm.qmp('qom-set', { path: '/machine/peripheral/vmem0', property: 'requested-size', value: 0 });
    await until('512 MiB less', () => memory() === before, seenMs);
  });

  test('a disk is seen, grows and goes', async () => {
    await blockdev('late');
    await vm.qmp('device_add', { driver: 'virtio-blk-pci', id: 'late', bus: 'port5', drive: 'late', serial: 'late-1' });
    await vm.saw(/^STRATO disk=vdc\(late-1\) size=8388608 ro=0$/m, seenMs);
    vm.type('readlink -f /dev/disk/by-serial/late-1\n');
    await vm.saw(/^\/dev\/vdc$/m, seenMs);
    await truncate(join(dir, 'late.raw'), 16 * 1024 * 1024);
    await vm.qmp('block_resize', { 'node-name': 'late', size: 16 * 1024 * 1024 });
    await vm.saw(/^STRATO disk=vdc\(late-1\) size=16777216 ro=0$/m, seenMs);
    await vm.qmp('device_del', { id: 'late' });
    await vm.saw(/^STRATO removed disk=vdc\(late-1\)$/m, seenMs);
    vm.type('ls /dev/disk/by-serial | sort | tr "\\n" " "; echo .\n');
    await vm.saw(/^cdrom root seed \.$/m, seenMs);
  });

  test('a SCSI and an NVMe disk are seen by their serial numbers', async () => {
    await blockdev('scsi');
    await vm.qmp('device_add', { driver: 'scsi-hd', id: 'hd', bus: 'scsi.0', drive: 'scsi', serial: 'scsi-1' });
    await vm.saw(/^STRATO disk=sda\(scsi-1\) size=8388608 ro=0$/m, seenMs);
    await blockdev('nvme');
    await vm.qmp('device_add', { driver: 'nvme', id: 'nvme', bus: 'port6', drive: 'nvme', serial: 'nvme-1' });
    await vm.saw(/^STRATO disk=nvme0n1\(nvme-1\) size=8388608 ro=0$/m, seenMs);
  });

  test('a CD is seen, is given back when the host asks for it, and another one is seen', async () => {
    await vm.saw(/^STRATO disk=sr0\(cdrom\) size=0 ro=\d$/m, seenMs);
    await blockdev('medium');
    const insert = async () => {
      await vm.qmp('blockdev-open-tray', { id: 'cd' });
      await vm.qmp('blockdev-insert-medium', { id: 'cd', 'node-name': 'medium' });
      await vm.qmp('blockdev-close-tray', { id: 'cd' });
    };
    const seen = () => [...vm.serial().matchAll(/^STRATO disk=sr0\(cdrom\) size=(\d+)/gm)].map(([, size]) => Number(size));
    await insert();
    await until('the medium', () => seen().at(-1) === 8388608, seenMs);
    // A mounted medium locks the drive's door: the first request only presses its button.
    vm.type('mount -t ext4 -r /dev/sr0 /mnt && echo mounted\n');
    await vm.saw(/^mounted$/m, seenMs);
    await expect(vm.qmp('eject', { id: 'cd' })).rejects.toThrow('locked');
    await until('an open tray', () => vm.qmp('eject', { id: 'cd' }).then(() => true, () => false), seenMs);
    await until('no medium', () => seen().at(-1) === 0, seenMs);
    await insert();
    await until('the medium again', () => seen().at(-1) === 8388608, seenMs);
  });

  test('a NIC gets its address and goes', async () => {
    await vm.qmp('device_add', { driver: 'virtio-net-pci', netdev: 'n1', id: 'nic', bus: 'port7', romfile: '', mac: '52:54:00:00:00:01' });
    await vm.saw(/^STRATO nic=eth1 mac=52:54:00:00:00:01$/m, seenMs);
    await vm.saw(/^STRATO dhcp eth1 ip=10\.0\.9\.15\/24 /m, seenMs);
    await vm.qmp('device_del', { id: 'nic' });
    await vm.saw(/^STRATO removed nic=eth1 mac=52:54:00:00:00:01$/m, seenMs);
  });
});

test('a reboot is the guest\'s own reset, a panic is told to the host', async () => {
  vm.type('reboot\n');
  await until('ready again', () => vm.serial().match(/^STRATO ready host=plug/gm)?.length === 2, bootMs);
  // The script of the agent is where it was: a panic must be heard whenever scripts run.
  await until('the agent', () => agent('guest-ping').catch(() => undefined), seenMs);
  await agent('guest-exec', { path: 'sh', arg: ['-c', 'echo c >/proc/sysrq-trigger'] });
  await until('a panic', async () => z.object({ status: z.string() }).parse(await vm.qmp('query-status')).status === 'guest-panicked', seenMs);
});
