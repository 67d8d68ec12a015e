import { createHash } from 'node:crypto';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';

/**
 * The uid under which nodes know the machine of a VM: the VM's own, or that of the earlier object whose machine it has adopted. Everything that
 * speaks to a node or looks at what one said goes by it.
 */
export const machineUidOf = ({ metadata, status }: Pick<VirtualMachine, 'metadata' | 'status'>): string => status.machineUid ?? metadata.uid;

/**
 * UUID of a machine: a pure function of cluster and name, so that a VM re-created from Git keeps it.
 * Source: RFC 9562, version 8 (custom) with the variant bits set.
 */
export const machineUuid = (clusterId: string, namespace: string, name: string): string => {
  const hex = hash('uuid', clusterId, namespace, name);
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
};

/** MAC address of an interface: locally administered, unicast, 46 bits of hash. Source: IEEE 802, U/L bit. */
export const interfaceMac = (clusterId: string, namespace: string, name: string, nic: string): string => {
  const hex = hash('mac', clusterId, namespace, name, nic);
  const first = ((Number.parseInt(hex.slice(0, 2), 16) & 0xfc) | 0x02).toString(16).padStart(2, '0');
  return [first, ...[2, 4, 6, 8, 10].map((at) => hex.slice(at, at + 2))].join(':');
};

// NUL can't occur in a Kubernetes name, so no two lists of parts give the same text.
const hash = (...parts: string[]): string => createHash('sha256').update(parts.join('\0')).digest('hex');
