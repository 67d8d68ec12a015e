import { Fault } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';
import { runTool } from '../../host/exec.ts';
import { platform } from '../../host/platform.ts';

const held = 75;
const graceMs = 5_000;

/**
 * Takes the lock of a VM, waiting for it at most `waitMs`, and gives it back: whether that could be done. Only `true` means that no
 * process has the VM's disks. Faults LockFailed and those of
 * `runTool` when that could not be found out. Source: flock(2).
 */
export const lockIsFree = (file: string, waitMs: number, signal: AbortSignal): Promise<boolean> => underLock(file, waitMs, ['true'], signal);

/** Runs a command that has the lock of a VM meanwhile; false when another process has it. Faults as `lockIsFree`, and LockFailed when the command failed. */
export const underLock = async (file: string, waitMs: number, command: readonly [string, ...string[]], signal: AbortSignal): Promise<boolean> => {
  const limit = AbortSignal.any([signal, patience(waitMs + graceMs)]);
  const [tool, ...args] = platform.underLock(file, waitMs, command);
  const { code, stderr } = await runTool(tool, args, { signal: limit });
  if (code === 0) return true;
  if (code === held) return false;
  throw new Fault('LockFailed', `${command[0]} under the lock ${file}: ${stderr.trim() || `${tool} ended with code ${code}`}`);
};
