import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { z } from 'zod';

const longest = z.array(z.string()).parse(JSON.parse(readFileSync(join(import.meta.dirname, 'longest.json'), 'utf8')));

test('each suite that begins first is there, and named once', () => {
  expect(longest.filter((file) => !existsSync(join(import.meta.dirname, '..', '..', file)))).toEqual([]);
  expect(new Set(longest).size).toBe(longest.length);
});
