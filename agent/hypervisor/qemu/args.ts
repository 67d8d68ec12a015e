import { platform } from '../../host/platform.ts';
import type { Accelerator, MachineDisk, MachineDrive, MachineNic, MachineSpec } from '../driver.ts';
import { boards } from './board.ts';
import { memoryBlockMiB, memoryDevice, nicParts } from './devices.ts';
import { diskParts, driveParts } from './diskparts.ts';
import { variablesFile } from './firmware.ts';

/** What the node adds to a machine's own data. `sockets` is a directory of our own making; its path has no comma. */
export type Build = { accelerator: Accelerator; type: string; sockets: string; uefi?: { code: string } };

/** Names of the monitors' sockets in the directory of a machine's sockets. */
export const qmpSocket = 'qmp.sock';
export const toolsSocket = 'tools.sock';
export const guestAgentSocket = 'qga.sock';
const vncSocket = 'vnc.sock';
export const tpmSocket = 'tpm.sock';
/** Label of the connection to it. */
export const tpmChardev = 'tpm';

/**
 * The serial port's character device: it reads the FIFO `serial.in` of the VM's directory, and what the guest says goes to the record
 * `serial.log`. It waits for no reader: its own output, `serial.out`, is /dev/null. (A `file` device takes no input before
 * QEMU 8.1, and the UART of arm64 can not be given another device later.) Source: qemu-options, -chardev pipe, logfile.
 */
const serialId = 'serial';
const serialPort = `pipe,id=${serialId},path=serial,logfile=serial.log,logappend=on`;

// q35 has 32 functions' worth of boot time at most: 16 root ports cost 0.4 s, 24 cost 2 s (measured).
const rootPorts = 16;
const portsPerDevice = 8;
const firstPortDevice = 2;
const rngAddress = '0x8';
const memoryAddress = '0x9';
const panicAddress = '0xa';
const serialBusAddress = '0xb';
const watchdogAddress = '0xc';
const vsockAddress = '0xd';

/**
 * The arguments of the QEMU that is a machine. Pure: equal data give an equal command line. Whatever a user chose (the name
 * of a disk, an address) stands inside JSON only; the rest is constants, numbers and our own ids.
 * Source: qemu-system-x86_64(1); QAPI BlockdevOptions, NetdevUserOptions.
 */
export const qemuArgs = (spec: MachineSpec, build: Build): string[] => {
  const board = boards[spec.architecture];
  const maxCpus = board.plugsCpus ? spec.maxCpus : spec.cpus;
  return [
    '-name', `guest=${spec.uid},debug-threads=on`,
    '-nodefaults', '-no-user-config',
    ...platform.sandbox,
    '-action', 'shutdown=poweroff,panic=none,reboot=reset,watchdog=reset',
    '-machine', `${build.type},${board.machine(spec)}${build.uefi ? ',pflash0=code,pflash1=vars' : ''}`,
    ...firmware(spec, build),
    '-accel', accelOf(build.accelerator),
    '-cpu', board.cpu(spec.cpuModel ?? cpuModelOf(build.accelerator), build.accelerator),
    '-smp', `cpus=${spec.cpus},maxcpus=${maxCpus},sockets=1,cores=${maxCpus},threads=1`,
    ...memory(spec),
    '-uuid', spec.uuid,
    '-rtc', 'base=utc',
    '-boot', 'strict=on',
    '-display', 'none',
    '-S',
    '-chardev', 'stdio,id=events,signal=off', '-mon', 'chardev=events,mode=control',
    ...monitor('agent', `${build.sockets}/${qmpSocket}`),
    ...monitor('tools', `${build.sockets}/${toolsSocket}`),
    '-chardev', serialPort, ...board.serial(serialId),
    ...ports(),
    ...further(spec, build),
    ...([...spec.disks, ...spec.drives].some(({ bus }) => bus === 'sata') ? board.sata.controller.flatMap((each) => device(each)) : []),
    ...spec.disks.flatMap((each) => disk(each, board.sata.bus)),
    ...spec.drives.flatMap((each) => drive(each, board.sata.bus)),
    ...spec.nics.flatMap(nic),
  ];
};

/** Its code is the node's, its variables are the VM's own. */
const firmware = (spec: MachineSpec, { uefi }: Build): string[] => {
  if (!uefi) return [];
  const flash = (node: string, filename: string, only: boolean) => ({ driver: 'raw', 'node-name': node, 'read-only': only, file: { driver: 'file', filename, 'read-only': only } });
  return [
    ...blockdev(flash('code', uefi.code, true)), ...blockdev(flash('vars', variablesFile, false)),
    // Without it a guest could write its variables past the firmware.
    ...(spec.firmware.secureBoot ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
  ];
};

/** The parts of the machine that a spec may leave out. */
const further = ({ architecture, devices, firmware: { tpm }, unixId }: MachineSpec, { sockets }: Build): string[] => {
  const board = boards[architecture];
  return [
    ...(devices.rng ? [...object({ 'qom-type': 'rng-random', id: 'rng', filename: '/dev/urandom' }), ...device({ driver: 'virtio-rng-pci', rng: 'rng', bus: 'pcie.0', addr: rngAddress })] : []),
    ...(devices.panic ? device({ driver: 'pvpanic-pci', bus: 'pcie.0', addr: panicAddress }) : []),
    ...(devices.guestAgent ? [
      '-chardev', `socket,id=guest-agent,path=${sockets}/${guestAgentSocket},server=on,wait=off`,
      ...device({ driver: 'virtio-serial-pci', id: 'ports', bus: 'pcie.0', addr: serialBusAddress }),
      ...device({ driver: 'virtserialport', bus: 'ports.0', chardev: 'guest-agent', name: 'org.qemu.guest_agent.0' }),
    ] : []),
    ...(devices.watchdog ? device({ driver: 'i6300esb', bus: 'pcie.0', addr: watchdogAddress }) : []),
    // Unique on the node, as the Unix id is; 0 to 2 are taken by the protocol.
    ...(devices.vsock ? device({ driver: 'vhost-vsock-pci', 'guest-cid': unixId, bus: 'pcie.0', addr: vsockAddress }) : []),
    ...(devices.graphics ? ['-vnc', `unix:${sockets}/${vncSocket}`, ...board.graphics.flatMap((each) => device(each))] : []),
    ...(tpm ? ['-chardev', `socket,id=${tpmChardev},path=${sockets}/${tpmSocket}`, '-tpmdev', `emulator,id=tpm0,chardev=${tpmChardev}`, ...device({ driver: board.tpm, tpmdev: 'tpm0' })] : []),
  ];
};

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

const memory = ({ memoryMiB, maxMemoryMiB }: MachineSpec): string[] => {
  if (maxMemoryMiB <= memoryMiB) return ['-m', `${memoryMiB}M`];
  const mebibyte = 1024 * 1024;
  return [
    '-m', `${memoryMiB}M,maxmem=${maxMemoryMiB}M`,
    ...object({ 'qom-type': 'memory-backend-ram', id: 'vmem', size: (maxMemoryMiB - memoryMiB) * mebibyte, reserve: false }),
    ...device({ driver: 'virtio-mem-pci', id: memoryDevice, bus: 'pcie.0', addr: memoryAddress, memdev: 'vmem', 'requested-size': 0, 'block-size': memoryBlockMiB * mebibyte }),
  ];
};

const disk = (of: MachineDisk, sataBus: (port: number) => string): string[] => {
  const { group, nodes, devices } = diskParts(of, sataBus);
  return [...object(group), ...nodes.flatMap(blockdev), ...devices.flatMap(device)];
};

const drive = (of: MachineDrive, sataBus: (port: number) => string): string[] => {
  const { nodes, devices } = driveParts(of, sataBus);
  return [...nodes.flatMap(blockdev), ...devices.flatMap(device)];
};

const nic = (of: MachineNic): string[] => {
  const { netdev: way, device: seen } = nicParts(of);
  return [...netdev(way), ...device(seen)];
};
