import { readFile } from 'node:fs/promises';
import { outputs } from './outputs.ts';

const stale: string[] = [];
for (const [path, text] of outputs()) {
  const found = await readFile(path, 'utf8').catch(() => '');
  if (found !== text) stale.push(path);
}
if (stale.length > 0) {
  process.stderr.write(`stale: ${stale.join(', ')}\nrun: npm run gen\n`);
  process.exitCode = 1;
}
