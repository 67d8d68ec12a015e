import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoOf } from './durable.ts';

// Our own headers end far below this, and QEMU never moves them.
const headerRead = 65_536;

/** The beginning of a file of the node's own, and how long it is; undefined when it is not there. Follows no link. */
export const readHeader = async (file: string): Promise<{ head: Uint8Array; fileBytes: number } | undefined> => {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((thrown: unknown) => {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown;
    return undefined;
  });
  if (!handle) return undefined;
  try {
    const { size } = await handle.stat();
    const head = Buffer.alloc(Math.min(headerRead, size));
    const { bytesRead } = await handle.read(head, 0, head.byteLength, 0);
    return { head: head.subarray(0, bytesRead), fileBytes: size };
  } finally {
    await handle.close();
  }
};
