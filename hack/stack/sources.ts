import { readdir, readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { join } from 'node:path';

/**
 * A digest of the TypeScript of some folders of the clone (tests left out) and of the lock file: differs when the code that a
 * process of ours runs has changed.
 */
export const digestSources = async (root: string, folders: readonly string[]): Promise<string> => {
  const hash = createHash('sha256').update(await readFile(join(root, 'package-lock.json')));
  for (const folder of folders.toSorted()) {
    const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'));
    for (const file of files.map((entry) => join(entry.parentPath, entry.name)).toSorted()) {
      const content = await readFile(file);
      hash.update(`${file.slice(root.length)}\0${content.length}\0`).update(content);
    }
  }
  return hash.digest('hex');
};
