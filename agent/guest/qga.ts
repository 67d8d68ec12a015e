import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';

const longestAnswer = 1024 * 1024;
/** The byte before an answer to guest-sync-delimited: what stands before it is of an earlier conversation. */
const mark = 0xff;

/** A conversation with the QEMU guest agent in a guest. Everything that it says is a guest's word. */
export type GuestAgent = Disposable & {
  /** Executes one command. Faults: GuestAgentFailed (it refused, or what came is no answer). Rejects with the signal's reason when nothing came. */
  execute: <T>(command: string, result: z.ZodType<T>, args?: object) => Promise<T>;
};

const answer = z.union([z.object({ return: z.unknown() }), z.object({ error: z.object({ desc: z.string() }) })]);

/**
 * Opens the port of a guest agent and waits until it has answered once. Faults: GuestAgentFailed. Rejects with the signal's
 * reason when the guest does not answer: a port without a guest agent is silent.
 * Source: QEMU docs/interop/qemu-ga, guest-sync-delimited.
 */
export const openGuestAgent = async (socketFile: string, id: number, signal: AbortSignal): Promise<GuestAgent> => {
  const socket = connect(socketFile);
  try {
    const read = readAnswers(socket, signal);
    const ask = async (command: string, args?: object): Promise<unknown> => {
      socket.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}) })}\n`);
      const said = answer.safeParse(parsed(await read()));
      if (!said.success) throw new Fault('GuestAgentFailed', `${command}: what the guest agent said is no answer`);
      if ('error' in said.data) throw new Fault('GuestAgentFailed', `${command}: ${said.data.error.desc.slice(0, 256)}`);
      return said.data.return;
    };
    socket.write(Buffer.from([mark]));
    socket.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } })}\n`);
    await read.synced(id);
    return {
      execute: async (command, result, args) => {
        const checked = result.safeParse(await ask(command, args));
        if (checked.success) return checked.data;
        throw new Fault('GuestAgentFailed', `${command}: the guest agent gave something else than asked for`);
      },
      [Symbol.dispose]: () => socket.destroy(),
    };
  } catch (thrown) {
    socket.destroy();
    throw thrown;
  }
};

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** The lines of a socket, in order; `synced` passes over everything up to the answer to a sync with that id. */
const readAnswers = (socket: Socket, signal: AbortSignal) => {
  let bytes = Buffer.alloc(0);
  let ended: unknown;
  let wake = (): void => {};
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    if (bytes.length > longestAnswer) {
      ended ??= new Fault('GuestAgentFailed', 'the guest agent says more than it was asked for');
      socket.destroy();
    }
    wake();
  });
  const end = (why: unknown): void => {
    ended ??= why;
    wake();
  };
  socket.on('error', (cause) => end(new Fault('GuestAgentFailed', `its port can not be used: ${messageOf(cause)}`, { cause })));
  socket.on('close', () => end(new Fault('GuestAgentFailed', 'its port was closed')));
  const line = async (): Promise<Buffer> => {
    for (;;) {
      const at = bytes.indexOf(0x0a);
      if (at >= 0) {
        const found = bytes.subarray(0, at);
        bytes = bytes.subarray(at + 1);
        return found;
      }
      if (ended !== undefined) throw ended;
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = () => resolve();
      signal.addEventListener('abort', wake, { once: true });
      await promise;
      signal.removeEventListener('abort', wake);
    }
  };
  const read = async (): Promise<string> => (await line()).toString('utf8');
  const sync = z.object({ return: z.int() });
  return Object.assign(read, {
    synced: async (id: number): Promise<void> => {
      for (;;) {
        const found = await line();
        const said = sync.safeParse(parsed(found.subarray(found.lastIndexOf(mark) + 1).toString('utf8')));
        if (said.success && said.data.return === id) return;
      }
    },
  });
};
