import type { MakeHypervisor } from './driver.ts';
import { makeQemu } from './qemu/driver.ts';

/** Every hypervisor that is built, by its name. */
export const hypervisors = { qemu: makeQemu } satisfies Record<string, MakeHypervisor>;
