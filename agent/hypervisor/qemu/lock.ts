import { Fault } from '#crds/kit/fault.ts';
import { runTool } from '../../host/exec.ts';
import { platform } from '../../host/platform.ts';

const held = 75;
const graceMs = 5_000;

/**
 * Whether the lock of a VM could be taken (and was given back), waiting for it at most `waitMs`. Only `true` means that no
 * process has the VM's disks. Faults LockFailed and those of
 * `runTool` when that could not be found out. Source: flock(2).
 */
export const lockIsFree = async (file: string, waitMs: number, signal: AbortSignal): Promise<boolean> => {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(waitMs + graceMs)]);
  const [tool, ...args] = platform.tryLock(file, waitMs);
  const { code, stderr } = await runTool(tool, args, { signal: limit });
  if (code === 0) return true;
  if (code === held) return false;
  throw new Fault('LockFailed', `the lock ${file} could not be tried: ${stderr.trim() || `${tool} ended with code ${code}`}`);
};
