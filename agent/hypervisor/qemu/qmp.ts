import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { lineReader } from '../../host/lines.ts';
import { errnoOf } from '../../storage/durable.ts';

const longestLine = 4 * 1024 * 1024;
const greeting = z.object({ QMP: z.object({ version: z.object({ qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }) }) }) });
const numbered = z.object({ id: z.int() });
const answer = z.object({ return: z.unknown().optional(), error: z.object({ class: z.string(), desc: z.string() }).optional() });

/** A conversation with one QEMU. */
export type Qmp = Disposable & {
  /** Version of this QEMU, as `7.2.22`. */
  version: string;
  /**
   * Executes one command and reads its result. QEMU executes commands in the order of the calls; who needs several answers asks
   * for all at once. Faults: QmpFailed (QEMU refused; says why), QmpBroken (what came is not
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
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let ended: unknown;
  let nextId = greetingId;
  const end = (why: unknown): void => {
    ended ??= why;
    for (const { reject } of waiting.values()) reject(ended);
    waiting.clear();
    socket.destroy();
  };
  /** What QEMU says under an id. */
  const heard = async (id: number, limit: AbortSignal): Promise<unknown> => {
    const said = Promise.withResolvers<unknown>();
    const abort = () => said.reject(limit.reason);
    limit.addEventListener('abort', abort, { once: true });
    waiting.set(id, said);
    try {
      return await said.promise;
    } finally {
      waiting.delete(id);
      limit.removeEventListener('abort', abort);
    }
  };
  let greeted = false;
  const tell = (line: unknown): void => {
    if (!greeted) {
      greeted = true;
      waiting.get(greetingId)?.resolve(line);
      return;
    }
    // Events, and late answers to commands that nobody waits for any more, find nobody.
    const { success, data } = numbered.safeParse(line);
    if (success) waiting.get(data.id)?.resolve(line);
  };
  readAll(socket, tell).catch(end);
  const execute: Qmp['execute'] = async (command, result, limit, args) => {
    if (ended !== undefined) throw ended;
    // Whose time is over gives up: what he asked for must not be done after all.
    limit.throwIfAborted();
    const id = (nextId += 1);
    const said = heard(id, limit);
    // Commands of one moment go in one write.
    socket.cork();
    socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
    process.nextTick(() => socket.uncork());
    const { error, return: returned } = parse(command, answer, await said);
    if (error) throw new Fault('QmpFailed', `${command}: ${error.desc}`);
    return parse(command, result, returned);
  };
  try {
    // QEMU reads what is said before its greeting after it.
    const [hello] = await Promise.all([heard(greetingId, signal).then(versionOf(socketFile)), execute('qmp_capabilities', z.unknown(), signal)]);
    return { version: hello, execute, [Symbol.dispose]: () => socket.destroy() };
  } catch (thrown) {
    socket.destroy();
    throw thrown;
  }
};

/** What QEMU's monitor for people says to a line; for what QMP has no command. Source: QAPI human-monitor-command. */
export const executeHmp = (qmp: Qmp, line: string, signal: AbortSignal): Promise<string> => qmp.execute('human-monitor-command', z.string(), signal, { 'command-line': line });

// The greeting has no id; those of commands follow.
const greetingId = 0;

const versionOf = (socketFile: string) => (said: unknown): string => {
  const hello = greeting.safeParse(said);
  if (!hello.success) throw new Fault('QmpBroken', `${socketFile}: what greets is not QMP`);
  const { major, minor, micro } = hello.data.QMP.version.qemu;
  return `${major}.${minor}.${micro}`;
};

const parse = <T>(command: string, form: z.ZodType<T>, said: unknown): T => {
  const parsed = form.safeParse(said);
  if (parsed.success) return parsed.data;
  throw new Fault('QmpBroken', `${command}: ${z.prettifyError(parsed.error)}`);
};

/** Tells each JSON line of a socket, in order. Rejects when it has ended, or what came is not JSON. */
const readAll = async (socket: Socket, tell: (line: unknown) => void): Promise<never> => {
  const next = lineReader(socket, longestLine, brokenBy);
  for (;;) {
    const line = (await next()).toString('utf8').trim();
    if (line !== '') tell(jsonOf(line));
  }
};

const jsonOf = (line: string): unknown => {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new Fault('QmpBroken', `what came is not QMP: ${messageOf(cause)}`, { cause });
  }
};

const brokenBy = (cause: unknown): Fault => {
  const code = errnoOf(cause);
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return new Fault('QmpRefused', `nobody listens: ${messageOf(cause)}`, { cause });
  // A QEMU that is stopped takes nobody in: the queue of its socket is full. Source: unix(7), EAGAIN of a connect that does not block.
  if (code === 'EAGAIN') return new Fault('QmpSilent', 'QEMU takes no connection', { cause });
  return new Fault('QmpBroken', `the connection to QEMU broke: ${messageOf(cause)}`, { cause });
};
