import { open } from 'node:fs/promises';
import { errnoOf } from '../storage/durable.ts';
import { lineFinder } from './pattern.ts';

const chunkBytes = 64 * 1024;
const longestLine = 4096;

/** Looks for a line in a record that grows, and may lose its oldest part or begin anew at any time. */
export type SerialScan = {
  /** Reads what is new, at most `budgetBytes`; whether a line held the pattern since the scan began. */
  look: () => Promise<boolean>;
};

/** A scan of the record in `file` from its beginning. A line longer than 4 KiB is looked at in pieces. */
export const makeSerialScan = (file: string, pattern: string, budgetBytes = 1024 * 1024): SerialScan => {
  const holds = lineFinder(pattern);
  let offset = 0;
  let rest = '';
  let found = false;
  const take = (text: string): void => {
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = (lines.pop() ?? '').slice(-longestLine);
    // A prompt or a last word may stand without the end of its line.
    found ||= lines.some(holds) || holds(rest);
  };
  return {
    look: async () => {
      if (found) return true;
      const handle = await open(file, 'r').catch((thrown: unknown) => {
        if (errnoOf(thrown) === 'ENOENT') return undefined;
        throw thrown;
      });
      if (!handle) return false;
      try {
        const { size } = await handle.stat();
        // Shorter than before: its oldest part went, or the machine was started anew.
        if (size < offset) [offset, rest] = [0, ''];
        const buffer = Buffer.alloc(chunkBytes);
        for (let read = 0; !found && offset < size && read < budgetBytes;) {
          const { bytesRead } = await handle.read(buffer, 0, chunkBytes, offset);
          if (bytesRead === 0) break;
          offset += bytesRead;
          read += bytesRead;
          take(buffer.toString('latin1', 0, bytesRead));
        }
        return found;
      } finally {
        await handle.close();
      }
    },
  };
};
