import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { outputs } from './outputs.ts';

for (const [path, text] of outputs()) {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  process.stdout.write(`${path}\n`);
}
