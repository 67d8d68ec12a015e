// A thread of the agent that hashes one file while it is written; see hasher.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { type HashOrder, type HashWish, openFileHash } from './filehash.ts';

const wish: HashWish = workerData;
const hash = openFileHash(wish);

parentPort?.on('message', (order: HashOrder) => {
  if ('upTo' in order) hash.upTo(order.upTo);
  else parentPort?.postMessage(hash.end(order.end));
});
