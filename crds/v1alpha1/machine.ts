import { z } from 'zod';
import { ruled, transition } from './meta.ts';

/** Architectures of guests. */
export const architecture = z.enum(['amd64', 'arm64']);

/** Name of a QEMU CPU model: letters, digits and a few marks; it can never end an argument. */
export const cpuModel = z.string().min(1).max(64).regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/);

/** What starts the machine. */
export const firmware = transition(ruled(
  z.strictObject({
    type: z.enum(['bios', 'uefi']).describe('bios for amd64 and uefi for arm64 when unset; arm64 knows uefi only.').optional(),
    secureBoot: z.boolean().default(false).describe('Start signed software only; needs type uefi. The keys are those of the distribution that built the firmware of the node.'),
    tpm: z.boolean().default(false).describe('A TPM 2.0, emulated by swtpm. Its state is kept with the VM.'),
  }),
  { rule: "!(has(self.secureBoot) && self.secureBoot) || (has(self.type) && self.type == 'uefi')", message: 'secureBoot needs type: uefi' },
  ({ type, secureBoot }) => !secureBoot || type === 'uefi',
), { rule: 'self == oldSelf', message: 'firmware can not be changed: what the guest wrote into it would be lost. Create another VM' })
  .describe('What starts the machine. Immutable. With uefi every VM has a variable store of its own.');

/** Further parts of the machine. */
export const devices = z.strictObject({
  watchdog: z.boolean().default(false).describe('A watchdog (i6300esb): a guest that has opened it and feeds it no more is reset.'),
  rng: z.boolean().default(true).describe('A random number generator (virtio-rng) fed by the node.'),
  panic: z.boolean().default(true).describe('A device (pvpanic) by which the kernel of the guest tells of its panic. A guest that panicked and does not reset itself within 10 s is ended, and restartPolicy says what follows.'),
  graphics: z.boolean().default(true).describe('A display, reached over VNC on a Unix socket of the node.'),
  vsock: z.boolean().default(false).describe('A socket between guest and node (virtio-vsock), on nodes that have it.'),
  guestAgent: z.boolean().default(true).describe('The port of the QEMU guest agent, by which the guest tells its addresses and more.'),
}).describe('Further parts of the machine. Changing them waits for a restart.');
