// Part of `npm run check`: does every import keep to the map of the rooms?
import { join } from 'node:path';
import { wrongImports } from './wrong.ts';

const { wrong } = wrongImports(join(import.meta.dirname, '..', '..'));
for (const { file, names, why } of wrong) console.error(`${file}: ${names}: ${why}`);
process.exitCode = wrong.length === 0 ? 0 : 1;
