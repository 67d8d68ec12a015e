import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';

const reply = z.union([z.object({ QMP: z.unknown() }), z.object({ return: z.unknown() }), z.object({ error: z.unknown() }), z.object({ event: z.string() })]);

/** Presses the power button of a guest by the tools' QMP socket. Source: QEMU's QMP specification. Rejects when QEMU does not answer. */
export const pressPower = async (socketFile: string, signal: AbortSignal): Promise<void> => {
  const socket = connect(socketFile);
  const abort = () => socket.destroy(new Error('QMP did not answer in time'));
  signal.addEventListener('abort', abort, { once: true });
  try {
    const lines = createInterface({ input: socket });
    const errors = new Promise<never>((_, reject) => socket.once('error', reject).once('close', () => reject(new Error('QMP closed'))));
    errors.catch(() => undefined);
    const script = ['qmp_capabilities', 'system_powerdown'];
    const spoken = (async () => {
      for await (const line of lines) {
        const said = reply.parse(JSON.parse(line));
        if ('error' in said) throw new Error(`QMP refused: ${line.slice(0, 200)}`);
        if ('event' in said) continue;
        const next = script.shift();
        if (next === undefined) return;
        socket.write(`${JSON.stringify({ execute: next })}\n`);
      }
    })();
    await Promise.race([spoken, errors]);
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
};
