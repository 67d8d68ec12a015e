import { describe, expect, test } from '@jest/globals';
import { type MachineDisk, type MachineDrive, type MachineSpec, plainDisk, plainHardware } from '../driver.ts';
import { cpuModelOf, qemuArgs } from './args.ts';

const uid = '00000000-0000-4000-8000-000000000001';
const spec: MachineSpec = {
  ...plainHardware, uid, startId: 's', epoch: 1, uuid: '00000000-0000-8000-8000-000000000002', cpus: 3, maxCpus: 4, memoryMiB: 512, maxMemoryMiB: 512, unixId: 200_000,
  disks: [
    { ...plainDisk, name: 'root', file: 'disks/root.qcow2', base: 'disks/root.base', format: 'qcow2', readOnly: false, slot: 0, bootIndex: 0 },
    { ...plainDisk, name: 'seed_', file: 'seed.img', format: 'raw', readOnly: true, slot: 5 },
  ],
  nics: [{ name: 'net0', mac: '02:00:00:00:00:01', slot: 1, backend: { kind: 'user', forwards: [{ protocol: 'UDP', address: '127.0.0.1', hostPort: 5353, port: 53 }] } }],
};
const build = { accelerator: 'tcg', type: 'pc-q35-7.2', sockets: '/run/x' } as const;
const args = (over: Partial<MachineSpec> = {}, accelerator: 'tcg' | 'kvm' = 'tcg') => qemuArgs({ ...spec, ...over }, { ...build, accelerator });
/** Every value of a flag; what is JSON as data. */
const valuesOf = (all: readonly string[], flag: string): unknown[] =>
  all.flatMap((each, at) => (all[at - 1] === flag ? [each.startsWith('{') ? JSON.parse(each) : each] : []));

describe('the arguments of QEMU', () => {
  test.each<[string, string, unknown]>([
    ['it waits before its first instruction', '-S', '-chardev'],
    ['it is named by the uid, by which it is known again', '-name', `guest=${uid},debug-threads=on`],
    ['it may start nothing and become nobody else', '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ['a panic does not end it, a reset does not either', '-action', 'shutdown=poweroff,panic=none,reboot=reset,watchdog=reset'],
    ['the versioned machine, without what costs start time or dumps memory', '-machine', 'pc-q35-7.2,vmport=off,smm=off,hpet=off,dump-guest-core=off'],
    ['the translation buffer is bounded, as the overhead is accounted', '-accel', 'tcg,thread=multi,tb-size=64'],
    ['cores of one socket, with room for more', '-smp', 'cpus=3,maxcpus=4,sockets=1,cores=4,threads=1'],
    ['memory', '-m', '512M'],
    ['the UUID of the status', '-uuid', '00000000-0000-8000-8000-000000000002'],
  ])('%s', (_rule, flag, value) => {
    const all = args();
    expect(all[all.indexOf(flag) + 1]).toEqual(value);
  });

  test('under KVM the guest sees the CPU of the node, under TCG all that TCG can', () => {
    expect([cpuModelOf('kvm'), cpuModelOf('tcg')]).toEqual(['host', 'max']);
    expect(valuesOf(args({}, 'kvm'), '-accel')).toEqual(['kvm']);
  });

  test('there are monitors for the agent and for tools, and one for the record of events; neither the serial port nor that of the guest agent waits for anybody', () => {
    expect(valuesOf(args(), '-chardev')).toEqual([
      'stdio,id=events,signal=off', 'socket,id=agent,path=/run/x/qmp.sock,server=on,wait=off', 'socket,id=tools,path=/run/x/tools.sock,server=on,wait=off', 'pipe,id=serial,path=serial,logfile=serial.log,logappend=on',
      'socket,id=guest-agent,path=/run/x/qga.sock,server=on,wait=off',
    ]);
    expect(valuesOf(args(), '-mon')).toEqual(['chardev=events,mode=control', 'chardev=agent,mode=control', 'chardev=tools,mode=control']);
  });

  test('a disk is an overlay whose chain is given here, whatever a header says; it stops the guest when it can not be written', () => {
    const [root] = valuesOf(args(), '-blockdev');
    expect(root).toEqual({
      driver: 'qcow2', 'node-name': 'disk0', 'read-only': false, discard: 'unmap',
      file: { driver: 'file', filename: 'disks/root.qcow2', 'read-only': false, discard: 'unmap' },
      backing: { driver: 'qcow2', 'read-only': true, file: { driver: 'file', filename: 'disks/root.base', 'read-only': true }, backing: null },
    });
    expect(valuesOf(args(), '-device')).toContainEqual({
      driver: 'virtio-blk-pci', id: 'blk0', bus: 'port0', drive: 'throttle0', serial: 'root', 'write-cache': 'on', werror: 'stop', rerror: 'stop', bootindex: 0,
    });
  });

  test('a disk without an image has no chain at all', () => {
    const [blank] = valuesOf(args({ disks: [{ ...plainDisk, name: 'data', file: 'disks/data.qcow2', format: 'qcow2', readOnly: false, slot: 0 }] }), '-blockdev');
    expect(blank).toMatchObject({ backing: null });
  });

  test('the seed is raw and read only to its last layer', () => {
    expect(valuesOf(args(), '-blockdev')).toContainEqual({ driver: 'raw', 'node-name': 'disk5', 'read-only': true, file: { driver: 'file', filename: 'seed.img', 'read-only': true } });
  });

  test('a forward is bound to the address that the network gave', () => {
    expect(valuesOf(args(), '-netdev')).toEqual([{ type: 'user', id: 'net1', hostfwd: [{ str: 'udp:127.0.0.1:5353-:53' }] }]);
    expect(valuesOf(args(), '-device')).toContainEqual({ driver: 'virtio-net-pci', id: 'nic1', bus: 'port1', netdev: 'net1', mac: '02:00:00:00:00:01', romfile: '' });
  });

  const drivers = (all: readonly string[]) => valuesOf(all, '-device').flatMap((each) => (typeof each === 'object' && each !== null && 'driver' in each ? [each.driver] : []));

  test('what a VM does not want is not there', () => {
    const none = { watchdog: false, rng: false, panic: false, graphics: false, vsock: false, guestAgent: false };
    expect(drivers(args({ devices: none })).filter((driver) => !['pcie-root-port', 'virtio-blk-pci', 'virtio-net-pci', 'isa-serial'].includes(String(driver)))).toEqual([]);
    const all = args({ devices: { watchdog: true, rng: true, panic: true, graphics: true, vsock: true, guestAgent: true } });
    expect(drivers(all)).toEqual(expect.arrayContaining(['i6300esb', 'virtio-rng-pci', 'pvpanic-pci', 'VGA', 'vhost-vsock-pci', 'virtserialport']));
    expect(valuesOf(all, '-vnc')).toEqual(['unix:/run/x/vnc.sock']);
    expect(valuesOf(all, '-device')).toContainEqual({ driver: 'vhost-vsock-pci', 'guest-cid': 200_000, bus: 'pcie.0', addr: '0xd' });
  });

  test('no two devices on the root bus have one address', () => {
    const on = { watchdog: true, rng: true, panic: true, graphics: true, vsock: true, guestAgent: true };
    for (const architecture of ['amd64', 'arm64'] as const) {
      const addresses = valuesOf(args({ architecture, devices: on, maxMemoryMiB: 1024 }), '-device').flatMap((each) => (typeof each === 'object' && each !== null && 'addr' in each && 'bus' in each && each.bus === 'pcie.0' ? [each.addr] : []));
      expect([addresses.length > 20, new Set(addresses).size]).toEqual([true, addresses.length]);
    }
  });

  const uefi = { type: 'uefi' as const, secureBoot: false, tpm: false };
  const withUefi = (over: Partial<MachineSpec>) => qemuArgs({ ...spec, ...over }, { ...build, uefi: { code: '/f/code.fd' } });

  test("UEFI: the node's code, read only, and the VM's own variables", () => {
    const all = withUefi({ firmware: uefi });
    expect(all[all.indexOf('-machine') + 1]).toMatch(/smm=off.*,pflash0=code,pflash1=vars$/);
    expect(valuesOf(all, '-blockdev')).toEqual(expect.arrayContaining([
      { driver: 'raw', 'node-name': 'code', 'read-only': true, file: { driver: 'file', filename: '/f/code.fd', 'read-only': true } },
      { driver: 'raw', 'node-name': 'vars', 'read-only': false, file: { driver: 'file', filename: 'vars.fd', 'read-only': false } },
    ]));
  });

  test('Secure Boot: variables are written by the firmware alone', () => {
    const all = withUefi({ firmware: { ...uefi, secureBoot: true } });
    expect([all[all.indexOf('-machine') + 1], all[all.indexOf('-global') + 1]]).toEqual([expect.stringContaining('smm=on'), 'driver=cfi.pflash01,property=secure,value=on']);
  });

  test('a TPM is the emulator behind a socket', () => {
    expect(valuesOf(args({ firmware: { ...spec.firmware, tpm: true } }), '-tpmdev')).toEqual(['emulator,id=tpm0,chardev=tpm']);
    expect(drivers(args({ firmware: { ...spec.firmware, tpm: true } }))).toContain('tpm-crb');
  });

  test('arm64 has its own board: no BIOS, no port 0x3f8, no CPUs to plug', () => {
    const all = withUefi({ architecture: 'arm64', firmware: { ...uefi, tpm: true }, maxCpus: 4 });
    expect([all[all.indexOf('-cpu') + 1], all[all.indexOf('-smp') + 1], all[all.indexOf('-serial') + 1]]).toEqual(['max,pauth-impdef=on', 'cpus=3,maxcpus=3,sockets=1,cores=3,threads=1', 'chardev:serial']);
    expect([drivers(all).includes('isa-serial'), drivers(all).includes('tpm-tis-device')]).toEqual([false, true]);
  });

  test('a CPU model of the user is the whole argument', () => {
    const all = args({ cpuModel: 'EPYC' });
    expect(all[all.indexOf('-cpu') + 1]).toBe('EPYC');
  });

  test('each of the sixteen root ports has its own address', () => {
    const ports = valuesOf(args(), '-device').filter((each): each is { driver: string; addr: string } => typeof each === 'object' && each !== null && 'driver' in each && each.driver === 'pcie-root-port');
    expect([ports.length, new Set(ports.map(({ addr }) => addr)).size]).toEqual([16, 16]);
  });

  test('the name of a disk can not leave its JSON', () => {
    const name = 'a",file=/etc/passwd,\n-device x';
    const all = args({ disks: [{ ...plainDisk, name, file: 'disks/x.qcow2', format: 'qcow2', readOnly: false, slot: 0 }] });
    expect(all.length).toBe(args({ disks: spec.disks.slice(0, 1) }).length);
    expect(all.filter((each) => each.includes('passwd'))).toEqual([JSON.stringify({ driver: 'virtio-blk-pci', bus: 'port0', id: 'blk0', drive: 'throttle0', serial: name, 'write-cache': 'on', werror: 'stop', rerror: 'stop' })]);
  });

  const disk = (over: Partial<MachineDisk>) => args({ disks: [{ ...plainDisk, name: 'data', file: 'disks/data.qcow2', format: 'qcow2', slot: 3, ...over }] });
  test.each<[MachineDisk['bus'], object[]]>([
    ['virtio', [{ driver: 'virtio-blk-pci', bus: 'port3', id: 'blk3', serial: 'data', werror: 'stop' }]],
    ['scsi', [{ driver: 'virtio-scsi-pci', id: 'scsi3', bus: 'port3' }, { driver: 'scsi-hd', bus: 'scsi3.0', id: 'blk3', serial: 'data', werror: 'stop' }]],
    ['sata', [{ driver: 'ide-hd', bus: 'ide.4', id: 'blk3', serial: 'data', werror: 'stop' }]],
    ['nvme', [{ driver: 'nvme', bus: 'port3', id: 'blk3', serial: 'data' }]],
  ])('a disk on bus %s', (bus, devices) => {
    for (const device of devices) expect(valuesOf(disk({ bus, port: 4 }), '-device')).toContainEqual(expect.objectContaining(device));
  });

  const drive = (over: Partial<MachineDrive>) => args({ drives: [{ name: 'cd', slot: 4, bus: 'scsi', port: 0, ...over }] });
  test.each<[string, Partial<MachineDrive>, object[]]>([
    ['on scsi', { medium: 'disks/cd.x.medium' }, [{ driver: 'virtio-scsi-pci', id: 'scsi4', bus: 'port4' }, { driver: 'scsi-cd', bus: 'scsi4.0', id: 'blk4', serial: 'cd', drive: 'disk4' }]],
    ['on sata, booted from', { bus: 'sata', port: 2, medium: 'disks/cd.x.medium', bootIndex: 1 }, [{ driver: 'ide-cd', bus: 'ide.2', id: 'blk4', serial: 'cd', drive: 'disk4', bootindex: 1 }]],
    ['empty', {}, [{ driver: 'scsi-cd', bus: 'scsi4.0', id: 'blk4', serial: 'cd' }]],
  ])('a CD drive %s', (_, over, devices) => {
    for (const device of devices) expect(valuesOf(drive(over), '-device')).toContainEqual(device);
    const node = { driver: 'qcow2', 'node-name': 'disk4', 'read-only': true, file: { driver: 'file', filename: 'disks/cd.x.medium', 'read-only': true }, backing: null };
    expect(valuesOf(drive(over), '-blockdev').filter((each) => JSON.stringify(each).includes('disk4'))).toEqual(over.medium === undefined ? [] : [node]);
  });

  test('a board without SATA gets a controller, when a disk needs it', () => {
    const arm = (over: Partial<MachineDisk>) => valuesOf(qemuArgs({ ...spec, architecture: 'arm64', disks: [{ ...plainDisk, name: 'd', file: 'f', format: 'raw', slot: 3, ...over }] }, build), '-device');
    expect(arm({ bus: 'sata', port: 2 })).toEqual(expect.arrayContaining([expect.objectContaining({ driver: 'ich9-ahci', id: 'sata' }), expect.objectContaining({ driver: 'ide-hd', bus: 'sata.2' })]));
    expect(arm({})).not.toContainEqual(expect.objectContaining({ driver: 'ich9-ahci' }));
  });

  test.each<[MachineDisk['cache'], object, string]>([
    ['writeback', {}, 'on'], ['writethrough', {}, 'off'], ['none', { cache: { direct: true } }, 'on'],
  ])('cache %s', (cache, node, writeCache) => {
    const [format] = valuesOf(disk({ cache, base: 'disks/data.base' }), '-blockdev');
    const file = (filename: string) => ({ driver: 'file', filename, ...node });
    expect(format).toEqual(expect.objectContaining({ ...node, file: expect.objectContaining(file('disks/data.qcow2')), backing: expect.objectContaining({ file: expect.objectContaining(file('disks/data.base')) }) }));
    if (cache !== 'none') expect(JSON.stringify(format)).not.toContain('direct');
    expect(valuesOf(disk({ cache }), '-device')).toContainEqual(expect.objectContaining({ 'write-cache': writeCache }));
  });

  test.each([
    [{}, { 'iops-total': 0, 'bps-total': 0 }],
    [{ iops: 50 }, { 'iops-total': 50, 'bps-total': 0 }],
    [{ iops: 50, mibPerSecond: 2 }, { 'iops-total': 50, 'bps-total': 2_097_152 }],
  ])('limits %j', (limits, expected) => {
    expect(valuesOf(disk({ limits }), '-object')).toContainEqual({ 'qom-type': 'throttle-group', id: 'limits3', limits: expected });
  });
});
