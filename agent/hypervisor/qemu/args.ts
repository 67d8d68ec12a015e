import type { Accelerator, MachineDisk, MachineNic, MachineSpec } from '../driver.ts';

/** What the node adds to a machine's own data. `sockets` is a directory of our own making; its path has no comma. */
export type Build = { accelerator: Accelerator; type: string; sockets: string };

/** Names of the monitors' sockets in the directory of a machine's sockets. */
export const qmpSocket = 'qmp.sock';
export const toolsSocket = 'tools.sock';

/** Id of the serial port's character device. It is `null` until the supervisor gives it its file and its FIFO. */
export const serialId = 'serial';

// q35 has 32 functions' worth of boot time at most: 16 root ports cost 0.4 s, 24 cost 2 s (measured).
const rootPorts = 16;
const portsPerDevice = 8;
const firstPortDevice = 2;
const rngAddress = '0x8';

/**
 * The arguments of the QEMU that is a machine. Pure: equal data give an equal command line. Whatever a user chose (the name
 * of a disk, an address) stands inside JSON only; the rest is constants, numbers and our own ids.
 * Source: qemu-system-x86_64(1); QAPI BlockdevOptions, NetdevUserOptions.
 */
export const qemuArgs = (spec: MachineSpec, build: Build): string[] => [
  '-name', `guest=${spec.uid},debug-threads=on`,
  '-nodefaults', '-no-user-config',
  '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
  '-action', 'shutdown=poweroff,panic=none,reboot=reset',
  '-machine', `${build.type},vmport=off,smm=off,hpet=off,dump-guest-core=off`,
  '-accel', accelOf(build.accelerator),
  '-cpu', cpuModelOf(build.accelerator),
  '-smp', `cpus=${spec.cpus},sockets=1,cores=${spec.cpus},threads=1`,
  '-m', `${spec.memoryMiB}M`,
  '-uuid', spec.uuid,
  '-rtc', 'base=utc',
  '-boot', 'strict=on',
  '-display', 'none',
  '-S',
  '-chardev', 'stdio,id=events,signal=off', '-mon', 'chardev=events,mode=control',
  ...monitor('agent', `${build.sockets}/${qmpSocket}`),
  ...monitor('tools', `${build.sockets}/${toolsSocket}`),
  '-chardev', `null,id=${serialId}`, ...device({ driver: 'isa-serial', chardev: serialId }),
  ...ports(),
  ...object({ 'qom-type': 'rng-random', id: 'rng', filename: '/dev/urandom' }),
  ...device({ driver: 'virtio-rng-pci', rng: 'rng', bus: 'pcie.0', addr: rngAddress }),
  ...spec.disks.flatMap(disk),
  ...spec.nics.flatMap(nic),
];

/** The CPU model that a machine gets: all that its accelerator can show. */
export const cpuModelOf = (accelerator: Accelerator): string => (accelerator === 'tcg' ? 'max' : 'host');

// The translation buffer would grow to 1 GiB; overhead is accounted with 64 MiB.
const accelOf = (accelerator: Accelerator): string => (accelerator === 'tcg' ? 'tcg,thread=multi,tb-size=64' : accelerator);

const json = (flag: string) => (options: object): string[] => [flag, JSON.stringify(options)];
const device = json('-device');
const object = json('-object');
const blockdev = json('-blockdev');
const netdev = json('-netdev');

const monitor = (id: string, socket: string): string[] => ['-chardev', `socket,id=${id},path=${socket},server=on,wait=off`, '-mon', `chardev=${id},mode=control`];

const ports = (): string[] =>
  Array.from({ length: rootPorts }, (_, at) => {
    const place = { device: firstPortDevice + Math.floor(at / portsPerDevice), fn: at % portsPerDevice };
    return device({
      driver: 'pcie-root-port', id: `port${at}`, bus: 'pcie.0', addr: `0x${place.device.toString(16)}.${place.fn}`, chassis: at + 1, port: at,
      ...(place.fn === 0 ? { multifunction: true } : {}),
    });
  }).flat();

/** Nodes `throttleN` on `diskN`; a limit is set and the disk resized there. `backing: null` ends the chain, whatever a header says. */
const disk = ({ name, file, format, base, readOnly, slot, bootIndex }: MachineDisk): string[] => {
  const storage = (filename: string, only: boolean) => ({ driver: 'file', filename, 'read-only': only, ...(only ? {} : { discard: 'unmap' }) });
  const backing = base === undefined ? null : { driver: 'qcow2', 'read-only': true, file: storage(base, true), backing: null };
  return [
    ...object({ 'qom-type': 'throttle-group', id: `limits${slot}` }),
    ...blockdev({
      driver: format, 'node-name': `disk${slot}`, 'read-only': readOnly, file: storage(file, readOnly),
      ...(format === 'qcow2' ? { backing } : {}), ...(readOnly ? {} : { discard: 'unmap' }),
    }),
    ...blockdev({ driver: 'throttle', 'node-name': `throttle${slot}`, 'throttle-group': `limits${slot}`, file: `disk${slot}`, 'read-only': readOnly }),
    ...device({
      driver: 'virtio-blk-pci', id: `blk${slot}`, bus: `port${slot}`, drive: `throttle${slot}`, serial: name, werror: 'stop', rerror: 'stop',
      ...(bootIndex === undefined ? {} : { bootindex: bootIndex }),
    }),
  ];
};

const nic = ({ mac, slot, backend }: MachineNic): string[] => [
  ...netdev({
    type: 'user', id: `net${slot}`,
    hostfwd: backend.forwards.map(({ protocol, address, hostPort, port }) => ({ str: `${protocol.toLowerCase()}:${address}:${hostPort}-:${port}` })),
  }),
  ...device({ driver: 'virtio-net-pci', id: `nic${slot}`, bus: `port${slot}`, netdev: `net${slot}`, mac, romfile: '' }),
];
