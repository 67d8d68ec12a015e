import { Fault } from '#crds/kit/fault.ts';
import { paceOf } from './pace.ts';
import { runConfined, type ToolEnd } from './tool.ts';

/** Bounds of one conversion. `deadlineMs`: for so long it may get no further. */
export type ConvertLimits = { deadlineMs: number; addressSpaceBytes: number; cpuSeconds: number };

/** A conversion: `source` becomes `converted.qcow2`, both in `directory`, which the user `unixId` may enter. */
export type ConvertTask = {
  directory: string;
  format: 'qcow2' | 'raw';
  virtualSizeBytes: number;
  /** The target has the places of all data already, and is zero. */
  laidOut: boolean;
  unixId: number;
  limits: ConvertLimits;
  /** Percent. */
  progress: (percent: number) => void;
};

/** Names of the files of one attempt, in its directory. */
export const attemptFiles = { source: 'source', converted: 'converted.qcow2' };

const mebibyte = 1024 * 1024;
const gibibyte = 1024 * mebibyte;
// To unpack the clusters of a disk, by a slow processor.
const cpuSecondsPerGiB = 10;

// The format is said, and a backing file is ruled out a second time; nothing of it comes from the user.
const source = (format: 'qcow2' | 'raw'): string => {
  const file = { driver: 'file', filename: attemptFiles.source };
  return `json:${JSON.stringify(format === 'qcow2' ? { driver: 'qcow2', backing: null, file } : { driver: 'raw', file })}`;
};

/** The qemu-img command that reads all tables of a qcow2. Pure. Source: QEMU, docs/tools/qemu-img.rst. */
export const checkArgv = (): string[] => ['qemu-img', 'check', '-q', source('qcow2')];

/**
 * The qemu-img command of a conversion. Pure. Clusters that are unpacked side by side are written as they come if they have places in the target; else
 * in their order: each place is given to who writes first. Source: QEMU, docs/tools/qemu-img.rst.
 */
export const convertArgv = (format: 'qcow2' | 'raw', laidOut: boolean): string[] =>
  ['qemu-img', 'convert', '-p', ...(laidOut ? ['-n', '-W', '--target-is-zero'] : []), '-O', 'qcow2', source(format), attemptFiles.converted];

/**
 * Converts an inspected file into an uncompressed qcow2 as an unprivileged user, under limits. A qcow2
 * is checked first: what lies beyond the end of a cut-off file would be read as zeros without a word. Faults:
 * ImageRefused (qemu-img says that the content is broken, or is larger than it said), ConvertFailed (all else; later).
 */
export const convert = async (task: ConvertTask, signal: AbortSignal): Promise<void> => {
  const { limits, virtualSizeBytes, unixId, directory } = task;
  // Room for the tables beside the data: 1/8192 for L2 and 1/32768 for refcounts, rounded up generously.
  const fileBytes = virtualSizeBytes + Math.ceil(virtualSizeBytes / 512) + 64 * mebibyte;
  using pace = paceOf(limits.deadlineMs);
  const cpuSeconds = limits.cpuSeconds + Math.ceil(virtualSizeBytes / gibibyte) * cpuSecondsPerGiB;
  const run = async (argv: string[], hear: (text: string) => void, good: readonly number[], bad: readonly number[]): Promise<void> => {
    const to = { unixId, addressSpaceBytes: limits.addressSpaceBytes, fileBytes, cpuSeconds };
    const end = await runConfined(argv, to, directory, hear, AbortSignal.any([signal, pace.late]));
    signal.throwIfAborted();
    if (pace.late.aborted) throw new Fault('ConvertFailed', `converting the image got no further for longer than ${limits.deadlineMs / 1000} s`);
    if (end.code === undefined || !good.includes(end.code)) throw faultOf(argv, end, bad);
  };
  // 2: corruption. 3: leaked clusters only, which harm nobody.
  if (task.format === 'qcow2') await run(checkArgv(), () => {}, [0, 3], [1, 2]);
  pace.moved();
  await run(convertArgv(task.format, task.laidOut), (text) => {
    pace.moved();
    const percent = [...text.matchAll(/\((\d+)\.\d+\/100%\)/g)].at(-1)?.[1];
    if (percent !== undefined) task.progress(Number(percent));
  }, [0], [1]);
};

// Of the node's own disk, which may have been full for a moment. Source: QEMU, convert_co_do_copy in qemu-img.c.
const couldNotWrite = 'error while writing at byte';

// A code of qemu-img itself is a verdict on the image. Anything else came from outside: a limit, a lack of memory, a missing tool.
const faultOf = (argv: readonly string[], { code, signal, said }: ToolEnd, bad: readonly number[]): Fault => {
  const what = `${argv.slice(0, 2).join(' ')} ended with ${code === undefined ? signal : `code ${code}`}${said === '' ? '' : `: ${said}`}`;
  return code !== undefined && bad.includes(code) && !said.includes(couldNotWrite)
    ? new Fault('ImageRefused', `the image is refused: ${what}`, { retry: 'never' })
    : new Fault('ConvertFailed', `converting the image: ${what}`);
};
