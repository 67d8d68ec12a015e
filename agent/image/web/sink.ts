/** Where a sink writes to: a FileHandle. */
export type Writable = {
  writev: (parts: readonly Buffer[], position: number) => Promise<{ bytesWritten: number }>;
  write: (bytes: Buffer, at: number, length: number, position: number) => Promise<{ bytesWritten: number }>;
};

/** Takes bytes in their order and writes them to a file. */
export type Sink = {
  /** Waits while more is held than is good. Throws what a write threw. */
  take: (part: Buffer) => Promise<void>;
  /** Writes all that was taken. Throws what a write threw. */
  flush: () => Promise<void>;
};

const pieceBytes = 1024 * 1024;
const lingerMs = 50;

/**
 * A sink onto a file, from a position on. It writes large pieces, and gathers the next one while a write is on its way; what comes slowly waits
 * 50 ms for more at most. `wrote` hears up to where the file is right, after each write; what a failed write left behind that counts for nothing.
 */
export const makeSink = (file: Writable, from: number, wrote: (upTo: number) => void): Sink => {
  let at = from;
  let held: Buffer[] = [];
  let heldBytes = 0;
  let writing = Promise.resolve();
  let linger: NodeJS.Timeout | undefined;

  const writeHeld = async (): Promise<void> => {
    clearTimeout(linger);
    linger = undefined;
    const parts = held;
    held = [];
    heldBytes = 0;
    const bytes = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
    if (bytes === 0) return;
    const { bytesWritten } = await file.writev(parts, at);
    // A write may be short, as on a disk that fills up: the next one says why.
    if (bytesWritten < bytes) await writeAll(file, Buffer.concat(parts).subarray(bytesWritten), at + bytesWritten);
    at += bytes;
    wrote(at);
  };
  /** Begins a write behind the one that is on its way; its fault is told to whoever comes next. */
  const begin = (): void => {
    writing = writing.then(writeHeld);
    writing.catch(() => {});
  };
  return {
    take: async (part) => {
      held.push(part);
      heldBytes += part.byteLength;
      if (heldBytes < pieceBytes) {
        linger ??= setTimeout(begin, lingerMs);
        return;
      }
      const before = writing;
      begin();
      await before;
    },
    flush: async () => {
      begin();
      await writing;
    },
  };
};

const writeAll = async (file: Writable, bytes: Buffer, position: number): Promise<void> => {
  for (let at = 0; at < bytes.byteLength; ) at += (await file.write(bytes, at, bytes.byteLength - at, position + at)).bytesWritten;
};
