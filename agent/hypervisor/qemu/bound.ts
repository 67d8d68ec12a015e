import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { uid as uidForm } from '#crds/wire/desired.ts';
import { runTool } from '../../host/exec.ts';
import type { Paths } from '../../host/paths.ts';
import { errnoOf } from '../../storage/durable.ts';

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

/** How long a record may become before its middle goes, and how much stays of its beginning and of its end. In bytes. */
export type RecordBound = { most: number; head: number; tail: number };

/** The record of a serial console: what came last counts. */
export const serialBound: RecordBound = { most: 4 * mebibyte, head: 0, tail: 2 * mebibyte };
/** What QEMU says of a run, on stdout and stderr: how it began counts as well. */
export const runBound: RecordBound = { most: 2 * mebibyte, head: 256 * kibibyte, tail: 256 * kibibyte };
/** Files of a run that its guest can make long. */
export const runRecords = ['events', 'stderr'] as const;

// A range to collapse is a whole number of blocks; no common file system has larger ones.
export const blockBytes = 64 * kibibyte;
const toolMs = 10_000;

/**
 * Bounds a record that somebody appends to: takes away its middle when it is too long. Readers must expect that the file
 * has become shorter. Where the file system can not collapse a range (tmpfs), the end is copied over the middle; what is
 * written in that instant may be lost. Source: fallocate(2), FALLOC_FL_COLLAPSE_RANGE.
 */
export const boundRecord = async (file: string, bound: RecordBound, collapse: Collapse = collapseRange): Promise<void> => {
  const size = await stat(file).then((seen) => seen.size, (thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return 0;
    throw thrown;
  });
  if (size <= bound.most) return;
  const drop = Math.floor((size - bound.head - bound.tail) / blockBytes) * blockBytes;
  if (drop > 0 && !(await collapse(file, bound.head, drop))) await copyDown(file, bound);
};

type Collapse = (file: string, from: number, bytes: number) => Promise<boolean>;

/** Takes bytes out of a file; false when its file system can not. Fault ToolCut, when that is not known: a tool that the kernel holds may do it later. */
export const collapseRange = (file: string, from: number, bytes: number, limit = AbortSignal.timeout(toolMs)): Promise<boolean> =>
  runTool('fallocate', ['-c', '-o', String(from), '-l', String(bytes), file], { signal: limit }).then(({ code }) => code === 0, (thrown: unknown) => {
    if (thrown instanceof Fault && thrown.code === 'ToolCut') throw thrown;
    return false;
  });

const copyDown = async (file: string, { head, tail }: RecordBound): Promise<void> => {
  const handle = await open(file, 'r+');
  try {
    const { size } = await handle.stat();
    const kept = Buffer.alloc(Math.min(tail, size - head));
    const { bytesRead } = await handle.read(kept, 0, kept.byteLength, size - kept.byteLength);
    await handle.write(kept, 0, bytesRead, head);
    await handle.truncate(head + bytesRead);
  } finally {
    await handle.close();
  }
};

/**
 * Bounds every record that a guest of this node can make long. Whose they are is looked up on disk, so that it counts neither
 * whether a machine answers nor whether anything is told of it. `failed` hears of a VM whose records could not be bounded; the
 * others are.
 */
export const boundRecords = async (paths: Paths, failed: (uid: string, thrown: unknown) => void): Promise<void> => {
  for (const uid of (await list(paths.vms)).filter((name) => uidForm.safeParse(name).success)) {
    try {
      await boundRecord(paths.serialLog(uid), serialBound);
      for (const startId of await list(paths.runs(uid))) for (const name of runRecords) await boundRecord(join(paths.run(uid, startId), name), runBound);
    } catch (thrown) {
      failed(uid, thrown);
    }
  }
};

const list = (folder: string): Promise<string[]> => readdir(folder).catch((thrown: unknown) => {
  if (errnoOf(thrown) === 'ENOENT') return [];
  throw thrown;
});
