import { readdir, readFile, readlink } from 'node:fs/promises';

/** The process id of the TPM's emulator that works in a VM's directory, as the process table shows it. */
export const tpmEmulator = async (directory: string): Promise<number> => {
  for (const pid of (await readdir('/proc')).filter((each) => /^\d+$/.test(each))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.startsWith('swtpm\0') && (await readlink(`/proc/${pid}/cwd`).catch(() => '')) === directory) return Number(pid);
  }
  throw new Error(`no emulator of a TPM works in ${directory}`);
};
