import { hypervisorNodeKind } from './hypervisornode.ts';
import type { Kind } from './meta.ts';
import { virtualDiskKind } from './virtualdisk.ts';
import { virtualMachineKind } from './virtualmachine.ts';
import { virtualMachineImageKind } from './virtualmachineimage.ts';

/** Every kind of the API; the CRDs, the reference and the operator's informers are made from this list. */
export const kinds: readonly Kind[] = [virtualMachineKind, virtualMachineImageKind, virtualDiskKind, hypervisorNodeKind];
