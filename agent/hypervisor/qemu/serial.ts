import { open, stat } from 'node:fs/promises';
import { runTool } from '../../host/exec.ts';
import { errnoOf } from '../../storage/durable.ts';

/** How long a record may become before its oldest part goes, and how much of its newest stays; `head` stays in any case. In bytes. */
export type Bound = { most: number; kept: number; head?: number };

/** The bound of the record of a serial console. */
export const serialBound = { most: 4 * 1024 * 1024, kept: 2 * 1024 * 1024 };

/** The bound of what QEMU tells of a run. A guest that reboots over and over makes it long; that it ever ran stands at the beginning. */
export const eventsBound = { most: 1024 * 1024, kept: 512 * 1024, head: 64 * 1024 };

const toolMs = 10_000;
// A range to collapse is a whole number of blocks; no common file system has larger ones.
const blockBytes = 64 * 1024;

/**
 * Bounds a record that somebody appends to: takes away its oldest part when it is too long. Readers must expect that the
 * file has become shorter, and that a line is torn where a part is gone. Where the file system can not collapse a range (tmpfs), the newest part is copied to the
 * beginning; what is written in that instant may be lost. Source: fallocate(2), FALLOC_FL_COLLAPSE_RANGE.
 */
export const boundRecord = async (file: string, bound: Bound, collapse = collapseRange): Promise<void> => {
  const size = await stat(file).then((seen) => seen.size, (thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return 0;
    throw thrown;
  });
  if (size <= bound.most) return;
  const head = bound.head ?? 0;
  const drop = Math.floor((size - bound.kept - head) / blockBytes) * blockBytes;
  if (drop > 0 && !(await collapse(file, head, drop)) && head === 0) await copyDown(file, bound.kept);
};

const collapseRange = async (file: string, offset: number, bytes: number): Promise<boolean> =>
  runTool('fallocate', ['-c', '-o', String(offset), '-l', String(bytes), file], { signal: AbortSignal.timeout(toolMs) }).then(({ code }) => code === 0, () => false);

const copyDown = async (file: string, kept: number): Promise<void> => {
  const handle = await open(file, 'r+');
  try {
    const { size } = await handle.stat();
    const tail = Buffer.alloc(Math.min(kept, size));
    const { bytesRead } = await handle.read(tail, 0, tail.byteLength, size - tail.byteLength);
    await handle.truncate(0);
    await handle.write(tail, 0, bytesRead, 0);
  } finally {
    await handle.close();
  }
};
