import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '../bed/until.ts';
import { uefi } from './firmware.ts';
import type { Guest } from './guest.ts';
import { theGuests } from '../bed/artifacts.ts';
import { startMachine } from './machine.ts';
import { makeSeed } from './seed.ts';

const run = promisify(execFile);
const bootMs = 240_000;
const seenMs = 120_000;
jest.setTimeout(2 * bootMs);

let dir = '';
let guest: Guest;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-fw-'));
  guest = (await theGuests()).small;
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A folder of its own with a root disk, and the arguments that attach it. */
const rootDisk = async (name: string) => {
  const own = join(dir, name);
  await mkdir(own);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', guest.disk, '-F', 'qcow2', join(own, 'root.qcow2')]);
  const args = ['-blockdev', 'driver=qcow2,node-name=root,file.driver=file,file.filename=root.qcow2', '-device', 'virtio-blk-pci,drive=root,bootindex=0,serial=root'];
  return { own, args };
};

/** A TPM 2.0 without state, and the arguments that attach it. */
const emulatedTpm = async (own: string) => {
  const socket = join(own, 'tpm.sock');
  await mkdir(join(own, 'tpm'));
  const child = spawn('swtpm', ['socket', '--tpm2', '--tpmstate', `dir=${join(own, 'tpm')}`, '--ctrl', `type=unixio,path=${socket}`], { stdio: 'ignore' });
  await until('the TPM', () => stat(socket).then(() => true), seenMs);
  return { child, args: ['-chardev', `socket,id=tpm,path=${socket}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm', '-device', 'tpm-crb,tpmdev=tpm0'] };
};

test('boots by UEFI, with addresses of its network-config, and sees its TPM', async () => {
  const { own, args } = await rootDisk('uefi');
  await makeSeed(join(own, 'seed.img'), {
    'meta-data': 'instance-id: i-1\nlocal-hostname: efi\n',
    'user-data': '#!/bin/sh\nip addr >/dev/console; ip route >/dev/console; cat /etc/resolv.conf >/dev/console\n',
    'network-config': [
      'version: 2',
      'ethernets:',
      '  lan:',
      '    match: {macaddress: "52:54:00:00:00:0A"}',
      '    set-name: lan0',
      '    addresses: [10.0.2.77/24, "fec0::77/64"]',
      '    routes:',
      '      - to: default',
      '        via: 10.0.2.2',
      '    nameservers: {addresses: [10.0.2.3], search: [example.org]}',
      '',
    ].join('\n'),
  });
  const tpm = await emulatedTpm(own);
  try {
    await using vm = await startMachine(own, 256, [
      ...(await uefi(own)), ...args, ...tpm.args,
      '-blockdev', 'driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed.img', '-device', 'virtio-blk-pci,drive=seed,serial=seed',
      '-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:00:00:0a',
      '-netdev', 'user,id=n1,net=10.0.9.0/24', '-device', 'virtio-net-pci,netdev=n1,romfile=',
    ]);
    await vm.saw(/^STRATO ready host=efi firmware=uefi$/m, bootMs);
    expect(vm.serial()).toMatch(/^STRATO static lan0 ip=10\.0\.2\.77\/24,fec0::77\/64 gw=10\.0\.2\.2 dns=10\.0\.2\.3$/m);
    expect(vm.serial()).toMatch(/^STRATO dhcp eth1 ip=10\.0\.9\.15\/24 /m);
    expect(vm.serial()).toMatch(/^STRATO tpm=1$/m);
    await vm.saw(/^STRATO script=user-data exit=0$/m, seenMs);
    for (const line of [/lan0: .*UP/, /inet 10\.0\.2\.77\/24/, /inet6 fec0::77\/64/, /^default via 10\.0\.2\.2 dev lan0/m, /^search example\.org$/m, /^nameserver 10\.0\.2\.3$/m]) {
      expect(vm.serial()).toMatch(line);
    }
  } finally {
    tpm.child.kill('SIGKILL');
  }
});

test('boots under Secure Boot, where an unsigned driver is refused', async () => {
  const { own, args } = await rootDisk('secure');
  await using vm = await startMachine(own, 384, [...(await uefi(own, { secureBoot: true })), ...args]);
  await vm.saw(/^STRATO ready host=strato firmware=uefi secureboot=1$/m, bootMs);
  await vm.saw(/~# /, seenMs);
  // Without the mark at its end, a module has no signature.
  vm.type('rmmod isofs; head -c -28 /lib/drivers/isofs.ko >/tmp/isofs.ko; insmod /tmp/isofs.ko; insmod /lib/drivers/isofs.ko; lsmod | grep -c ^isofs\n');
  await vm.saw(/^1$/m, seenMs);
  expect(vm.serial()).toMatch(/insmod: can't insert '\/tmp\/isofs\.ko': Key was rejected by service/);
});

test('resets itself on reboot under UEFI too', async () => {
  const { own, args } = await rootDisk('again');
  await using vm = await startMachine(own, 256, [...(await uefi(own)), ...args]);
  await vm.saw(/~# /, bootMs);
  vm.type('reboot\n');
  await vm.saw(/STRATO ready[^]*^STRATO ready host=strato firmware=uefi$/m, bootMs);
});
