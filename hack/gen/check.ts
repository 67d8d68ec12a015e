// Part of `npm run check`: is every generated file as the schemas say, and no other there?
import { join } from 'node:path';
import { outputs } from './outputs.ts';
import { findStale } from './stale.ts';

const { stale, extra } = await findStale(join(import.meta.dirname, '..', '..'), outputs());
if (stale.length + extra.length > 0) {
  for (const path of stale) process.stderr.write(`stale: ${path}\n`);
  for (const path of extra) process.stderr.write(`nothing generates it any more: ${path}\n`);
  process.stderr.write('run: npm run gen\n');
  process.exitCode = 1;
}
