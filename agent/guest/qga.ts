import { connect } from 'node:net';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { lineReader } from '../host/lines.ts';

// Some hundred cards with their figures fit in; to read a megabyte of nonsense takes half a second, at each look anew.
const longestAnswer = 256 * 1024;
// Answers to those who asked before and went away are passed over. One that says more lines than that keeps the agent busy, on purpose or not.
const mostStaleLines = 1_000;
/** The byte before an answer to guest-sync-delimited: what stands before it is of an earlier conversation. */
const mark = 0xff;

/** A conversation with the QEMU guest agent in a guest. Everything that it says is a guest's word. */
export type GuestAgent = Disposable & {
  /** Executes one command. Faults: GuestAgentFailed (it refused, or what came is no answer). Rejects with the signal's reason when nothing came. */
  execute: <T>(command: string, result: z.ZodType<T>, args?: object) => Promise<T>;
};

const answer = z.union([z.object({ return: z.unknown() }), z.object({ error: z.object({ desc: z.string() }) })]);
const sync = z.object({ return: z.int() });

/**
 * Opens the port of a guest agent and waits until it has answered once. Faults: GuestAgentFailed. Rejects with the signal's
 * reason when the guest does not answer: a port without a guest agent is silent.
 * Source: QEMU docs/interop/qemu-ga, guest-sync-delimited.
 */
export const openGuestAgent = async (socketFile: string, id: number, signal: AbortSignal): Promise<GuestAgent> => {
  const socket = connect(socketFile);
  try {
    const next = lineReader(socket, longestAnswer, (cause) => new Fault('GuestAgentFailed', `its port can not be used: ${messageOf(cause)}`, { cause }), signal);
    const ask = async (command: string, args?: object): Promise<unknown> => {
      socket.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}) })}\n`);
      const said = answer.safeParse(parsed((await next()).toString('utf8')));
      if (!said.success) throw new Fault('GuestAgentFailed', `${command}: what the guest agent said is no answer`);
      if ('error' in said.data) throw new Fault('GuestAgentFailed', `${command}: ${said.data.error.desc.slice(0, 256)}`);
      return said.data.return;
    };
    socket.write(Buffer.from([mark]));
    socket.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } })}\n`);
    await synced(next, id);
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

/** Passes over everything up to the answer to a sync with that id. */
const synced = async (next: () => Promise<Buffer>, id: number): Promise<void> => {
  for (let passed = 0; passed < mostStaleLines; passed += 1) {
    const line = await next();
    const said = sync.safeParse(parsed(line.subarray(line.lastIndexOf(mark) + 1).toString('utf8')));
    if (said.success && said.data.return === id) return;
  }
  throw new Fault('GuestAgentFailed', `it said ${mostStaleLines} lines and no answer`);
};
