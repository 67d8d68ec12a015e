import type { Accelerator, Architecture, MachineSpec } from '../driver.ts';

/** What differs between the machines of the architectures that QEMU runs here. Everything in it is a constant or a number of ours. */
export type Board = {
  /** Name of the QEMU program, and what it calls the architecture in firmware descriptors. */
  program: string;
  qemuName: string;
  /** Finds the newest machine in the answer to `-machine help`. */
  newest: RegExp;
  /** Options of `-machine` after the type. */
  machine: (spec: Pick<MachineSpec, 'firmware'>) => string;
  /** Whether CPUs can be plugged while the guest runs. */
  plugsCpus: boolean;
  /** The argument of `-cpu` for a model. */
  cpu: (model: string, accelerator: Accelerator) => string;
  /** Arguments that make the first serial port from a character device. */
  serial: (chardev: string) => string[];
  /** Devices of a display with keyboard and pointer. */
  graphics: readonly Record<string, unknown>[];
  /** The device of a TPM. */
  tpm: string;
  /** Devices that make a SATA controller of six ports where the board has none, and the bus of a port. */
  sata: { controller: readonly Record<string, unknown>[]; bus: (port: number) => string };
};

const addresses = { graphics: '0x1', keyboard: '0xe', pointer: '0xf', sata: '0x10' };

/** The boards, by architecture of the guest. Source: QEMU docs/system/i386/pc, docs/system/arm/virt. */
export const boards: Readonly<Record<Architecture, Board>> = {
  amd64: {
    program: 'qemu-system-x86_64', qemuName: 'x86_64',
    newest: /\(alias of (pc-q35-[\w.+-]+)\)/,
    // Secure Boot without SMM would let the guest write the keys; OVMF then hangs in silence.
    machine: ({ firmware }) => `vmport=off,smm=${firmware.secureBoot ? 'on' : 'off'},hpet=off,dump-guest-core=off`,
    plugsCpus: true,
    cpu: (model) => model,
    serial: (chardev) => ['-device', JSON.stringify({ driver: 'isa-serial', chardev })],
    // Keyboard and pointer are part of the board (PS/2).
    graphics: [{ driver: 'VGA', bus: 'pcie.0', addr: addresses.graphics }],
    tpm: 'tpm-crb',
    // Its own, ICH9.
    sata: { controller: [], bus: (port) => `ide.${port}` },
  },
  arm64: {
    program: 'qemu-system-aarch64', qemuName: 'aarch64',
    newest: /\(alias of (virt-[\w.+-]+)\)/,
    // Version 2 of the interrupt controller serves eight CPUs at most.
    machine: () => 'gic-version=3,dump-guest-core=off',
    plugsCpus: false,
    // Pointer authentication as the architecture defines it takes half of the time under emulation.
    cpu: (model, accelerator) => (model === 'max' && accelerator === 'tcg' ? 'max,pauth-impdef=on' : model),
    serial: (chardev) => ['-serial', `chardev:${chardev}`],
    graphics: [
      { driver: 'virtio-gpu-pci', bus: 'pcie.0', addr: addresses.graphics },
      { driver: 'virtio-keyboard-pci', bus: 'pcie.0', addr: addresses.keyboard },
      { driver: 'virtio-tablet-pci', bus: 'pcie.0', addr: addresses.pointer },
    ],
    tpm: 'tpm-tis-device',
    sata: { controller: [{ driver: 'ich9-ahci', id: 'sata', bus: 'pcie.0', addr: addresses.sata }], bus: (port) => `sata.${port}` },
  },
};
