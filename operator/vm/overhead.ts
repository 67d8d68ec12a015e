import { toMiB } from '#crds/kit/quantity.ts';
import type { VirtualMachine, VmSpec } from '#crds/v1alpha1/virtualmachine.ts';

/**
 * Memory that a VM takes from its node, in MiB: the guest's own, page tables, QEMU, 8 a vCPU; under TCG the JIT buffer too.
 * Source: design.md 5, measured.
 */
export const memoryOnNodeMiB = (memoryMiB: number, cpus: number, accelerator: 'kvm' | 'hvf' | 'tcg'): number =>
  memoryMiB + Math.ceil(memoryMiB / 512) + 64 + 8 * cpus + (accelerator === 'tcg' ? 128 : 0);

/** What is kept for a VM, without its overhead. */
export type Reserved = { cpus: number; memoryMiB: number };

/** What a VM may grow to while it runs, and so what its node keeps for it. */
export const reservedFor = ({ cpu, memory }: Pick<VmSpec, 'cpu' | 'memory'>): Reserved => ({
  cpus: Math.max(cpu.cores, cpu.max ?? 0), memoryMiB: Math.max(toMiB(memory.size), memory.max === undefined ? 0 : toMiB(memory.max)),
});

/** What a node keeps for a VM that is bound to it: an edit that asks for more counts once there is room for it. Pure. */
export const grantedTo = ({ spec, status: { resolved } }: Pick<VirtualMachine, 'spec' | 'status'>): Reserved =>
  (resolved?.reserved ? { cpus: resolved.reserved.cpus, memoryMiB: toMiB(resolved.reserved.memory) } : reservedFor(spec));

/** What parts of a machine take beside it, in MiB: its display and its TPM. */
export const extraMiB = ({ devices, firmware }: Pick<VmSpec, 'devices' | 'firmware'>): number => (devices.graphics ? 32 : 0) + (firmware.tpm ? 16 : 0);

/** How many vCPUs a node may promise for each of its processors. */
export const cpuOvercommit = 4;
