import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Import, importsOf, rooms, wrongWith } from './map.ts';

/** Every import of the repository that does not keep to the map. `files` tells how many files were read. */
export const wrongImports = (root: string): { files: number; wrong: (Import & { why: string })[] } => {
  const files = globSync(Object.keys(rooms).map((room) => `${room}/**/*.ts`), { cwd: root });
  const wrong = files.flatMap((file) => importsOf(file, readFileSync(join(root, file), 'utf8'))).flatMap((each) => {
    const why = wrongWith(each);
    return why === undefined ? [] : [{ ...each, why }];
  });
  return { files: files.length, wrong };
};
