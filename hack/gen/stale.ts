import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Folders in which every file is generated. */
const generatedFolders = ['crds/generated', 'docs/reference'] as const;

/** How a clone differs from what the schemas say: files that are missing or differ, and files that nothing generates any more. */
export type Staleness = { stale: string[]; extra: string[] };

/** Compares a clone with what would be generated into it; paths are relative to `root`. */
export const findStale = async (root: string, outputs: ReadonlyMap<string, string>): Promise<Staleness> => {
  const stale: string[] = [];
  for (const [path, text] of outputs) {
    if ((await readFile(join(root, path), 'utf8').catch(() => undefined)) !== text) stale.push(path);
  }
  const extra: string[] = [];
  for (const folder of generatedFolders) {
    const names = await readdir(join(root, folder)).catch(() => []);
    extra.push(...names.map((name) => `${folder}/${name}`).filter((path) => !outputs.has(path)));
  }
  return { stale, extra };
};
