import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { outputs } from './outputs.ts';
import { findStale } from './stale.ts';

let root = '';
const put = async (path: string, text: string) => {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
};
const texts = new Map([['crds/generated/a.yaml', 'a'], ['docs/reference/a.md', 'A'], ['docs/conditions.md', 'C']]);

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'strato-gen-'));
  for (const [path, text] of texts) await put(path, text);
});
afterEach(() => rm(root, { recursive: true, force: true }));

test('what is as it would be generated is not stale; other pages beside it are nobody\'s business', async () => {
  await put('docs/performance.md', 'by hand');
  expect(await findStale(root, texts)).toEqual({ stale: [], extra: [] });
});

test.each<[string, () => Promise<unknown>, { stale: string[]; extra: string[] }]>([
  ['a file that differs', () => put('docs/conditions.md', 'c'), { stale: ['docs/conditions.md'], extra: [] }],
  ['a file that is missing', () => rm(join(root, 'docs/reference/a.md')), { stale: ['docs/reference/a.md'], extra: [] }],
  ['a CRD that no kind makes any more', () => put('crds/generated/b.yaml', ''), { stale: [], extra: ['crds/generated/b.yaml'] }],
  ['a page of a kind that is gone', () => put('docs/reference/b.md', ''), { stale: [], extra: ['docs/reference/b.md'] }],
  ['a folder that is gone', () => rm(join(root, 'crds'), { recursive: true }), { stale: ['crds/generated/a.yaml'], extra: [] }],
])('%s is found', async (_, change, staleness) => {
  await change();
  expect(await findStale(root, texts)).toEqual(staleness);
});

test('this clone is as its schemas say', async () => {
  expect(await findStale(join(import.meta.dirname, '..', '..'), outputs())).toEqual({ stale: [], extra: [] });
});
