import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isTest } from './map.ts';

/** The codes of the faults that a text throws or wraps, and the reasons of the troubles in it, as far as they stand there as words. Pure. */
export const codesIn = (text: string): string[] =>
  [...text.matchAll(/(?:new Fault\(|asFault\([\w.]+, |reason: )'([A-Z]\w+)'/g)].map(([, code]) => code ?? '');

/** Every such code of a room, with the files that have it; tests and fakes are left out. */
export const codesOf = (root: string, room: string): ReadonlyMap<string, readonly string[]> => {
  const found = new Map<string, string[]>();
  for (const file of globSync(`${room}/**/*.ts`, { cwd: root }).filter((each) => !isTest(each))) {
    for (const code of codesIn(readFileSync(join(root, file), 'utf8'))) found.set(code, [...(found.get(code) ?? []), file]);
  }
  return found;
};
