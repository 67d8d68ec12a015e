import { once } from 'node:events';
import { createServer } from 'node:net';
import { worker } from './worker.ts';

const first = 10_000;
const span = 500;
const slices = 12;

// Of this worker alone, so that two that ask at once are given different ports.
const slice = first + ((worker - 1) % slices) * span;
let next = Math.floor(Math.random() * span);

/**
 * As many different ports of 127.0.0.1 as asked for that nobody listens on at this moment. They lie below the range of outgoing
 * connections, and are given once until the worker's slice is used up: they stay free until somebody listens, and between two listeners.
 */
export const freePorts = async (count: number): Promise<number[]> => {
  const ports: number[] = [];
  for (let tried = 0; tried < span && ports.length < count; tried += 1) {
    const port = slice + (next++ % span);
    if (await isFree(port)) ports.push(port);
  }
  if (ports.length < count) throw new Error(`no ${count} free ports from ${slice} on`);
  return ports;
};

/** Whether nobody listens on a port of 127.0.0.1. */
export const isFree = async (port: number): Promise<boolean> => {
  const server = createServer().listen(port, '127.0.0.1');
  const listens = await once(server, 'listening').then(() => true, () => false);
  if (listens) {
    server.close();
    await once(server, 'close');
  }
  return listens;
};
