import { writeFrame } from '#crds/wire/frame.ts';
import { type Held, maxHeldBytes, maxHeldPerFrame, type ToOperator } from '#crds/wire/messages.ts';
import type { Socket } from './dial.ts';

/** Most bytes that may wait in a socket before the rest waits here, where a newer report replaces an older one. */
const maxBufferedBytes = 1024 * 1024;

/** What is to be said over one connection. Bounded: one message a key, the latest. */
export type Outbox = { put: (key: string, message: ToOperator) => void; flush: () => void; waiting: () => number };

/** An outbox in front of a socket. */
export const makeOutbox = (socket: Socket): Outbox => {
  const waiting = new Map<string, ToOperator>();
  const flush = (): void => {
    for (const [key, message] of waiting) {
      if (socket.bufferedBytes() >= maxBufferedBytes) return;
      waiting.delete(key);
      socket.send(writeFrame(message), flush);
    }
  };
  return {
    put: (key, message) => {
      // What is said again goes to the end: its place among other messages is that of its latest content.
      waiting.delete(key);
      waiting.set(key, message);
      flush();
    },
    flush,
    waiting: () => waiting.size,
  };
};

/** The key under which a message replaces an older one of the same matter. */
export const keyOf = (message: ToOperator): string => {
  switch (message.type) {
    case 'report':
      return `report ${message.observed.uid}`;
    case 'absent':
      return `absent ${message.uid}`;
    case 'hello':
    case 'facts':
    case 'heartbeat':
    case 'renew':
    case 'holding':
      return message.type;
  }
};

/** Everything that is held, in frames that fit. The last one says so; an empty list is one frame. Pure. */
export const holdingFrames = (held: readonly Held[]): Extract<ToOperator, { type: 'holding' }>[] => {
  const chunks: Held[][] = [[]];
  let bytes = 0;
  for (const each of held) {
    const size = Buffer.byteLength(JSON.stringify(each)) + 1;
    const chunk = chunks.at(-1);
    if (!chunk || chunk.length >= maxHeldPerFrame || bytes + size > maxHeldBytes) {
      chunks.push([each]);
      bytes = size;
    } else {
      chunk.push(each);
      bytes += size;
    }
  }
  return chunks.map((chunk, at) => ({ type: 'holding', held: chunk, last: at === chunks.length - 1 }));
};
