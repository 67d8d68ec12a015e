import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '../bed/until.ts';
import { askAgent } from './askagent.ts';
import { armUefi } from './firmware.ts';
import { theGuests } from '../bed/artifacts.ts';
import type { Machine } from './machine.ts';
import { startMachine, virt } from './machine.ts';
import { makeSeed } from './seed.ts';

const run = promisify(execFile);
const bootMs = 240_000;
const seenMs = 120_000;
jest.setTimeout(3 * bootMs);

let dir = '';
let vm: Machine;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-arm-'));
  const { arm64: guest } = await theGuests();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', guest.disk, '-F', 'qcow2', join(dir, 'root.qcow2')]);
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(dir, 'data.raw'), '32M']);
  await makeSeed(join(dir, 'seed.img'), { 'meta-data': 'instance-id: i-1\nlocal-hostname: arm\n', 'user-data': '#!/bin/sh\necho "STRATO-TEST on $(uname -m)" >/dev/console\n' });
  vm = await startMachine(dir, 256, [
    ...(await armUefi(dir)),
    '-blockdev', 'driver=qcow2,node-name=root,file.driver=file,file.filename=root.qcow2', '-device', 'virtio-blk-pci,drive=root,bootindex=0,serial=root',
    '-blockdev', 'driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed.img', '-device', 'virtio-blk-pci,drive=seed,serial=seed',
    '-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0,romfile=',
    '-device', 'virtio-serial-pci', '-chardev', 'socket,id=qga,path=qga.sock,server=on,wait=off', '-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0',
    '-device', 'pcie-root-port,id=spare,slot=1',
  ], virt);
  await vm.saw(/^STRATO ready host=arm firmware=uefi$/m, bootMs);
});

afterAll(async () => {
  await vm?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('boots by UEFI with its seed, its address and its script', async () => {
  expect(vm.serial()).toMatch(/^STRATO seed=\/dev\/vdb instance-id=i-1 hostname=arm keys=0$/m);
  expect(vm.serial()).toMatch(/^STRATO dhcp eth0 ip=10\.0\.2\.15\/24 /m);
  await vm.saw(/^STRATO-TEST on aarch64$/m, seenMs);
});

test('its guest agent answers', async () => {
  await until('the agent', () => askAgent(join(dir, 'qga.sock'), 'guest-ping').catch(() => undefined), seenMs);
  expect(await askAgent(join(dir, 'qga.sock'), 'guest-get-osinfo')).toMatchObject({ machine: 'aarch64', id: 'strato-guest' });
});

test('sees a disk that is plugged in', async () => {
  await vm.qmp('blockdev-add', { driver: 'raw', 'node-name': 'data', file: { driver: 'file', filename: 'data.raw' } });
  await vm.qmp('device_add', { driver: 'virtio-blk-pci', id: 'data', bus: 'spare', drive: 'data', serial: 'data' });
  await vm.saw(/^STRATO disk=vdc\(data\) size=33554432 ro=0$/m, seenMs);
});

test('resets itself, and heeds the power button', async () => {
  await vm.saw(/~# /, seenMs);
  vm.type('reboot\n');
  await until('ready again', () => vm.serial().match(/^STRATO ready host=arm/gm)?.length === 2, bootMs);
  await vm.qmp('system_powerdown');
  await vm.saw(/^STRATO acpi-power$/m, seenMs);
  expect(await vm.ended).toBe(0);
});
