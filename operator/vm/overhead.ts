/**
 * Memory that a VM takes from its node, in MiB: the guest's own, page tables, QEMU, 8 a vCPU; under TCG the JIT buffer too.
 * Source: design.md 5, measured.
 */
export const memoryOnNodeMiB = (memoryMiB: number, cpus: number, accelerator: 'kvm' | 'hvf' | 'tcg'): number =>
  memoryMiB + Math.ceil(memoryMiB / 512) + 64 + 8 * cpus + (accelerator === 'tcg' ? 128 : 0);

/** How many vCPUs a node may promise for each of its processors. */
export const cpuOvercommit = 4;
