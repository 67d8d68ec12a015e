import { z } from 'zod';
import { ruled, text } from './meta.ts';

const kinds = ['serialPattern', 'guestAgent', 'tcp', 'cloudInitDone'] as const;

/** When a guest counts as ready. Exactly one way. */
export const probes = z.strictObject({
  ready: ruled(
    z.strictObject({
      serialPattern: text(256, 1).regex(/^[^\r\n]*[^*\r\n][^\r\n]*$/).describe('A text that a line of the serial console holds; * stands for any characters. Ready once it was seen since power-on.').optional(),
      guestAgent: z.strictObject({}).describe('Ready while the QEMU guest agent in the guest answers.').optional(),
      tcp: z.strictObject({
        port: z.int32().min(1).max(65535).describe('TCP port in the guest. In user mode an interface must forward to it.'),
      }).describe('Ready while a TCP connection to a port of the guest is taken.').optional(),
      cloudInitDone: z.strictObject({}).describe('Ready once cloud-init has finished: its last line on the serial console, or /var/lib/cloud/instance/boot-finished by the guest agent.').optional(),
    }),
    { rule: `[${kinds.map((kind) => `has(self.${kind})`).join(', ')}].filter(given, given).size() == 1`, message: `give exactly one of ${kinds.slice(0, -1).join(', ')} and ${kinds.at(-1)}` },
    (it) => kinds.filter((kind) => it[kind] !== undefined).length === 1,
  ).describe('When the condition GuestReady is True.'),
}).describe('How Strato learns that the guest does its work. Applied at once.');
