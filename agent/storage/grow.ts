import { Fault } from '#crds/kit/fault.ts';
import { runConfined } from '../image/tool.ts';
import type { DiskPlace } from './driver.ts';

const mebibyte = 1024 * 1024;
// Only the header and a table are written.
const bounds = { addressSpaceBytes: 2048 * mebibyte, fileBytes: 16 * 1024 ** 4, cpuSeconds: 60 };

/**
 * The qemu-img command that makes a disk larger, in the directory of its VM. Pure. The chain is given here, whatever a header
 * says. Source: QEMU, docs/tools/qemu-img.rst.
 */
const growArgv = ({ file, base }: Pick<DiskPlace, 'file' | 'base'>, sizeMiB: number): string[] => {
  const storage = (filename: string) => ({ driver: 'file', filename });
  const backing = base === undefined ? null : { driver: 'qcow2', 'read-only': true, file: { ...storage(base), 'read-only': true }, backing: null };
  return ['qemu-img', 'resize', '-q', `json:${JSON.stringify({ driver: 'qcow2', file: storage(file), backing })}`, String(sizeMiB * mebibyte)];
};

/** Makes a disk larger that no process has, as the user of its VM. Faults: StorageFailed, with what qemu-img said. */
export const growDisk = async (directory: string, name: string, place: DiskPlace, sizeMiB: number, unixId: number, signal: AbortSignal): Promise<void> => {
  const { code, said } = await runConfined(growArgv(place, sizeMiB), { ...bounds, unixId }, directory, () => {}, signal);
  signal.throwIfAborted();
  if (code !== 0) throw new Fault('StorageFailed', `disk ${name} could not be made ${sizeMiB} MiB large: ${said || `qemu-img ended with code ${code ?? 'unknown'}`}`);
};
