import type { FileHandle } from 'node:fs/promises';

/** Brings a file that grows to the disk on the way, so that little is left to wait for at its end. */
export type EarlySync = {
  /** The file has grown. Returns at once; while the disk is busy with it, it does nothing. */
  more: () => void;
  /** All of it is on the disk. Throws what any write to the disk has thrown. */
  end: () => Promise<void>;
};

/** Syncs a file early; nobody closes it before `end`. */
export const syncEarly = (file: Pick<FileHandle, 'datasync' | 'sync'>): EarlySync => {
  let running: Promise<void> | undefined;
  // The kernel tells of a failed write once: who asked first must keep it. Source: fsync(2), errors since Linux 4.13.
  let failed: { cause: unknown } | undefined;
  return {
    more: () => {
      running ??= file.datasync().catch((cause: unknown) => {
        failed ??= { cause };
      }).finally(() => {
        running = undefined;
      });
    },
    end: async () => {
      await running;
      if (failed) throw failed.cause;
      await file.sync();
    },
  };
};
