// npm run gen: writes what has changed of the generated files, and removes what nothing generates any more.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { outputs } from './outputs.ts';
import { findStale } from './stale.ts';

const root = join(import.meta.dirname, '..', '..');
const texts = outputs();
const { stale, extra } = await findStale(root, texts);
for (const path of stale) {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), texts.get(path) ?? '');
  process.stdout.write(`${path}\n`);
}
for (const path of extra) {
  await rm(join(root, path));
  process.stdout.write(`removed ${path}\n`);
}
