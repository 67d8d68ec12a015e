import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';

const answer = z.union([z.object({ error: z.object({ desc: z.string() }) }), z.object({ return: z.unknown() })]);
const ids = { next: 1 };

/**
 * Asks the guest agent behind the Unix socket of its virtio port (QEMU Guest Agent Protocol Reference) and returns what it returned.
 * Fault GuestAgent when it refuses, hangs up or does not answer in time.
 */
export const askAgent = async (socketPath: string, execute: string, args: Record<string, unknown> = {}, deadlineMs = 20_000): Promise<unknown> => {
  const socket = connect(socketPath);
  const id = ids.next++;
  try {
    const lines = createInterface({ input: socket, signal: AbortSignal.timeout(deadlineMs) })[Symbol.asyncIterator]();
    const next = async () => {
      const line = await lines.next();
      if (line.done === true) throw new Fault('GuestAgent', `${execute}: no answer in ${deadlineMs} ms`);
      return answer.parse(JSON.parse(line.value));
    };
    // What is still under way for an earlier client comes before the answer to our id.
    socket.write(`{"execute":"guest-sync","arguments":{"id":${id}}}\n`);
    for (let said = await next(); !('return' in said && said.return === id); said = await next());
    socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const said = await next();
    if ('error' in said) throw new Fault('GuestAgent', `${execute}: ${said.error.desc}`);
    return said.return;
  } finally {
    socket.destroy();
  }
};
