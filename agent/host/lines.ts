import type { Socket } from 'node:net';
import { setImmediate as othersTurn } from 'node:timers/promises';
import type { Fault } from '#crds/kit/fault.ts';

// After so many lines everybody else of this process gets a turn: who sends them by the million keeps nobody waiting.
const linesInARow = 1_000;

/**
 * Reads a socket line by line: each call returns the next one, without its end, as soon as it is there. When the connection has ended, or more than
 * `mostBytes` came that nobody has read, it throws what `broken` makes of that, once the lines before it are read. Rejects with the reason of `signal`.
 */
export const lineReader = (socket: Socket, mostBytes: number, broken: (cause: unknown) => Fault, signal?: AbortSignal): (() => Promise<Buffer>) => {
  let bytes: Buffer = Buffer.alloc(0);
  let ended: Fault | undefined;
  let wake = (): void => {};
  const end = (cause: unknown): void => {
    ended ??= broken(cause);
    wake();
  };
  socket.on('data', (chunk: Buffer) => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    if (bytes.length > mostBytes) {
      end(new Error(`more than ${mostBytes} bytes came without being asked for`));
      socket.destroy();
    }
    wake();
  });
  socket.on('error', end);
  socket.on('close', () => end(new Error('it was closed')));
  signal?.addEventListener('abort', () => wake(), { once: true });
  let taken = 0;
  return async () => {
    taken += 1;
    if (taken % linesInARow === 0) await othersTurn();
    for (;;) {
      const at = bytes.indexOf(0x0a);
      if (at >= 0) {
        const line = bytes.subarray(0, at);
        bytes = bytes.subarray(at + 1);
        return line;
      }
      if (ended !== undefined) throw ended;
      signal?.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
  };
};
