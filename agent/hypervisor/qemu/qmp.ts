import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { errnoOf } from '../../storage/durable.ts';

const longestLine = 4 * 1024 * 1024;
const answer = z.object({ id: z.unknown().optional(), return: z.unknown().optional(), error: z.object({ class: z.string(), desc: z.string() }).optional() });
const greeting = z.object({ QMP: z.object({ version: z.object({ qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }) }) }) });

/** A conversation with one QEMU. Commands are answered one after the other. */
export type Qmp = Disposable & {
  /** Version of this QEMU, as `7.2.22`. */
  version: string;
  /**
   * Executes one command and reads its result. Faults: QmpFailed (QEMU refused; says why), QmpBroken (what came is not
   * QMP, or the connection ended). Rejects with the signal's reason when no answer came.
   */
  execute: <T>(command: string, result: z.ZodType<T>, signal: AbortSignal, args?: object) => Promise<T>;
};

/**
 * Connects to a QMP socket and leaves its negotiation mode. Faults: QmpRefused (nobody listens: no process has the
 * socket), QmpSilent (it takes nobody in), QmpBroken. Rejects with the signal's reason when QEMU does not greet: a socket that accepts is no sign of life.
 * Source: docs/interop/qmp-spec.
 */
export const openQmp = async (socketFile: string, signal: AbortSignal): Promise<Qmp> => {
  signal.throwIfAborted();
  const socket = connect(socketFile);
  try {
    const lines = readLines(socket);
    const hello = greeting.safeParse(await lines.next(signal));
    if (!hello.success) throw new Fault('QmpBroken', `${socketFile}: what greets is not QMP`);
    const { major, minor, micro } = hello.data.QMP.version.qemu;
    let nextId = 0;
    const execute: Qmp['execute'] = async (command, result, limit, args) => {
      const id = (nextId += 1);
      socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
      for (;;) {
        const said = answer.safeParse(await lines.next(limit));
        // Events, and late answers to commands that nobody waits for any more.
        if (!said.success || said.data.id !== id) continue;
        if (said.data.error) throw new Fault('QmpFailed', `${command}: ${said.data.error.desc}`);
        const parsed = result.safeParse(said.data.return);
        if (parsed.success) return parsed.data;
        throw new Fault('QmpBroken', `${command}: ${z.prettifyError(parsed.error)}`);
      }
    };
    await execute('qmp_capabilities', z.unknown(), signal);
    return { version: `${major}.${minor}.${micro}`, execute, [Symbol.dispose]: () => socket.destroy() };
  } catch (thrown) {
    socket.destroy();
    throw thrown;
  }
};

const brokenBy = (cause: unknown): Fault => {
  const code = errnoOf(cause);
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return new Fault('QmpRefused', `nobody listens: ${messageOf(cause)}`, { cause });
  // A QEMU that is stopped takes nobody in: the queue of its socket is full. Source: unix(7), EAGAIN of a connect that does not block.
  if (code === 'EAGAIN') return new Fault('QmpSilent', 'QEMU takes no connection', { cause });
  return new Fault('QmpBroken', `the connection to QEMU broke: ${messageOf(cause)}`, { cause });
};

type Lines = { next: (signal: AbortSignal) => Promise<unknown> };

/** The JSON lines of a socket, in order. What is not JSON ends the conversation. */
const readLines = (socket: Socket): Lines => {
  const ready: unknown[] = [];
  let rest = '';
  let ended: unknown;
  let wake = (): void => {};
  const end = (why: unknown): void => {
    ended ??= why;
    wake();
  };
  socket.setEncoding('utf8').on('data', (text: string) => {
    rest += text;
    const parts = rest.split('\n');
    rest = parts.pop() ?? '';
    try {
      if (rest.length > longestLine) throw new Error('a line is too long');
      for (const part of parts) if (part.trim() !== '') ready.push(JSON.parse(part));
    } catch (cause) {
      end(new Fault('QmpBroken', `what came is not QMP: ${messageOf(cause)}`, { cause }));
      socket.destroy();
    }
    wake();
  });
  socket.on('error', (cause) => end(brokenBy(cause)));
  socket.on('close', () => end(new Fault('QmpBroken', 'QEMU closed the connection')));
  return {
    next: async (signal) => {
      while (ready.length === 0) {
        if (ended !== undefined) throw ended;
        signal.throwIfAborted();
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = () => resolve();
        signal.addEventListener('abort', wake, { once: true });
        await promise;
        signal.removeEventListener('abort', wake);
      }
      return ready.shift();
    },
  };
};
