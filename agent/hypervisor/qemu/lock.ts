import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';

const run = promisify(execFile);
const held = 75;
const exit = z.object({ code: z.literal(held) });

/**
 * Whether the lock of a VM could be taken (and was given back), waiting for it at most `waitMs`. Only `true` means that no
 * process has the VM's disks. Fault LockFailed when that could not be found out. Source: flock(1) of util-linux.
 */
export const lockIsFree = async (file: string, waitMs: number, signal: AbortSignal): Promise<boolean> => {
  try {
    await run('flock', ['-E', String(held), ...(waitMs > 0 ? ['-w', String(waitMs / 1000)] : ['-n']), file, 'true'], { signal, timeout: waitMs + 5_000, killSignal: 'SIGKILL' });
    return true;
  } catch (thrown) {
    if (exit.safeParse(thrown).success) return false;
    signal.throwIfAborted();
    throw new Fault('LockFailed', `the lock ${file} could not be tried: ${messageOf(thrown)}`, { cause: thrown });
  }
};
