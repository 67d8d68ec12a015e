import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The files of a NoCloud seed (cloud-init's documentation, "NoCloud"). */
export type Seed = { 'meta-data': string; 'user-data'?: string; 'network-config'?: string };

/** Writes a FAT disk of 1 MiB that is a seed; `file` must not be there. */
export const makeSeed = async (file: string, seed: Seed): Promise<void> => {
  const dir = await mkdtemp(join(dirname(file), 'seed-'));
  try {
    for (const [name, text] of Object.entries(seed)) await writeFile(join(dir, name), text);
    const paths = Object.keys(seed).map((name) => join(dir, name));
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
    await run('mkfs.vfat', ['-n', 'CIDATA', '-C', file, '1024'], { env });
    await run('mcopy', ['-i', file, ...paths, '::']);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
};
