import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';

const folder = '/usr/share/OVMF';
const armFolder = '/usr/share/AAVMF';

/**
 * QEMU arguments for UEFI on q35 (Debian's package ovmf), with a variable store of its own at `dir`/vars.fd: a fresh copy. `secureBoot`:
 * the store with Microsoft's keys, and System Management Mode, which alone may write it.
 */
export const uefi = async (dir: string, { secureBoot = false } = {}): Promise<string[]> => {
  const vars = join(dir, 'vars.fd');
  await copyFile(join(folder, secureBoot ? 'OVMF_VARS_4M.ms.fd' : 'OVMF_VARS_4M.fd'), vars);
  const code = join(folder, secureBoot ? 'OVMF_CODE_4M.secboot.fd' : 'OVMF_CODE_4M.fd');
  return [
    ...flash(code, vars),
    ...(secureBoot ? ['-machine', 'smm=on', '-global', 'driver=cfi.pflash01,property=secure,value=on'] : ['-machine', 'smm=off']),
  ];
};

/** The same on `virt` (Debian's package qemu-efi-aarch64). */
export const armUefi = async (dir: string): Promise<string[]> => {
  const vars = join(dir, 'vars.fd');
  await copyFile(join(armFolder, 'AAVMF_VARS.fd'), vars);
  return flash(join(armFolder, 'AAVMF_CODE.fd'), vars);
};

const flash = (code: string, vars: string): string[] => [
  '-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${code}`,
  '-drive', `if=pflash,unit=1,format=raw,file=${vars}`,
];
