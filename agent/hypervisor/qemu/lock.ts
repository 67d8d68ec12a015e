import { Fault } from '#crds/kit/fault.ts';
import { runTool } from '../../host/exec.ts';

const held = 75;
const graceMs = 5_000;

/**
 * Whether the lock of a VM could be taken (and was given back), waiting for it at most `waitMs`. Only `true` means that no
 * process has the VM's disks. Faults LockFailed and those of
 * `runTool` when that could not be found out. Source: flock(1) of util-linux.
 */
export const lockIsFree = async (file: string, waitMs: number, signal: AbortSignal): Promise<boolean> => {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(waitMs + graceMs)]);
  const { code, stderr } = await runTool('flock', ['-E', String(held), ...(waitMs > 0 ? ['-w', String(waitMs / 1000)] : ['-n']), file, 'true'], { signal: limit });
  if (code === 0) return true;
  if (code === held) return false;
  throw new Fault('LockFailed', `the lock ${file} could not be tried: ${stderr.trim() || `flock ended with code ${code}`}`);
};
