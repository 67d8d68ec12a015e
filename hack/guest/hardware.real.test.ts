import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { until } from '../bed/until.ts';
import { theGuests } from '../bed/artifacts.ts';
import type { Machine } from './machine.ts';
import { startMachine } from './machine.ts';
import { makeSeed } from './seed.ts';

const run = promisify(execFile);
const bootMs = 240_000;
const seenMs = 120_000;
jest.setTimeout(2 * bootMs);

let dir = '';
let vm: Machine;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-hw-'));
  const { hardware: guest } = await theGuests();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', guest.disk, '-F', 'qcow2', join(dir, 'root.qcow2')]);
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(dir, 'data.raw'), '32M']);
  await run('qemu-img', ['create', '-q', '-f', 'raw', join(dir, 'cd.raw'), '1M']);
  await makeSeed(join(dir, 'seed.img'), { 'meta-data': 'instance-id: i-1\nlocal-hostname: hw\n' });
  vm = await startMachine(dir, 384, [
    '-blockdev', 'driver=qcow2,node-name=root,file.driver=file,file.filename=root.qcow2', '-device', 'ide-hd,bus=ide.0,drive=root,bootindex=0,serial=root',
    '-blockdev', 'driver=raw,node-name=data,file.driver=file,file.filename=data.raw', '-device', 'ide-hd,bus=ide.1,drive=data,serial=data',
    '-blockdev', 'driver=raw,node-name=seed,file.driver=file,file.filename=seed.img', '-device', 'ide-hd,bus=ide.2,drive=seed,serial=seed',
    '-blockdev', 'driver=raw,node-name=cd,read-only=on,file.driver=file,file.filename=cd.raw', '-device', 'ide-cd,bus=ide.3,drive=cd,serial=cd',
    '-netdev', 'user,id=n0', '-device', 'e1000e,netdev=n0,romfile=',
    '-device', 'i6300esb', '-action', 'watchdog=pause',
  ]);
  await vm.saw(/^STRATO ready host=hw firmware=bios$/m, bootMs);
  await vm.saw(/~# /, bootMs);
});

afterAll(async () => {
  await vm?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('boots from a SATA disk, finds its seed on another, sees a CD, and has an e1000e', () => {
  expect(vm.serial()).toMatch(/^STRATO seed=\/dev\/sd[abc] instance-id=i-1 hostname=hw keys=0$/m);
  expect(vm.serial()).toMatch(/^STRATO disk=sd[abc]\(data\) size=33554432 ro=0$/m);
  expect(vm.serial()).toMatch(/^STRATO disk=sr0\(cd\) size=1048576 ro=1$/m);
  expect(vm.serial()).toMatch(/^STRATO dhcp eth0 ip=10\.0\.2\.15\/24 /m);
});

test('can use a SATA disk, found by its serial', async () => {
  vm.type('d=/dev/disk/by-serial/data; mke2fs -F $d >/dev/null 2>&1; mount -t ext4 $d /mnt; echo kept >/mnt/f; umount /mnt; mount -t ext4 $d /mnt; cat /mnt/f\n');
  await vm.saw(/^kept$/m, seenMs);
});

test('has a watchdog, which bites when nobody feeds it', async () => {
  expect(vm.serial()).toMatch(/^STRATO watchdog=\/dev\/watchdog0$/m);
  // Fed once, it waits for its timeout.
  vm.type('watchdog -t 100 -T 5 -F /dev/watchdog0 &\n');
  await until('the bite', async () => z.object({ status: z.string() }).parse(await vm.qmp('query-status')).status === 'watchdog', seenMs);
});
