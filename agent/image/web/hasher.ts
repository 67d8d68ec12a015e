import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { type FileHashes, type HashOrder, type HashWish, openFileHash } from './filehash.ts';

/** Hashes a file from its beginning while it is written. */
export type Hasher = AsyncDisposable & {
  /** So much of the file is there and stays as it is. */
  reached: (bytes: number) => void;
  /** The file is another one from now on. */
  restart: () => Promise<void>;
  /** The hashes of so many bytes of it, which is all; nothing is reached afterwards. Rejects when it can't be read. */
  end: (bytes: number, signal: AbortSignal) => Promise<FileHashes>;
};

// Hashed in two milliseconds; a thread takes 60 to begin.
const smallBytes = 2 * 1024 * 1024;

/**
 * Hashes what is in the file, not what was on its way there. A large file has a thread of its own: the agent has one for
 * everything else, and a download need not wait for its hashes.
 */
export const makeHasher = (wish: HashWish): Hasher => {
  let thread: { worker: Worker; failed?: unknown } | undefined;
  const begin = (): void => {
    const fresh: NonNullable<typeof thread> = { worker: new Worker(new URL('./hashthread.ts', import.meta.url), { workerData: wish }) };
    fresh.worker.on('error', (thrown) => {
      fresh.failed = thrown;
    });
    thread = fresh;
  };
  const order = (worker: Worker, what: HashOrder): void => worker.postMessage(what);
  const stop = async (): Promise<void> => {
    const old = thread;
    thread = undefined;
    await old?.worker.terminate();
  };
  return {
    reached: (bytes) => {
      if (bytes <= smallBytes) return;
      if (!thread) begin();
      if (thread) order(thread.worker, { upTo: bytes });
    },
    restart: stop,
    end: async (bytes, signal) => {
      if (!thread) {
        using file = openFileHash(wish);
        return file.end(bytes);
      }
      const { worker, failed } = thread;
      if (failed !== undefined) throw failed;
      const answered = once(worker, 'message', { signal });
      order(worker, { end: bytes });
      const [hashes]: FileHashes[] = await answered;
      if (!hashes) throw new Error('the thread that hashes said nothing');
      return hashes;
    },
    [Symbol.asyncDispose]: stop,
  };
};
