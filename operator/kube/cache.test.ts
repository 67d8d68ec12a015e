import { expect, test } from '@jest/globals';
import { makeCache } from './cache.ts';
import { hold } from './frame.ts';

const held = (name: string, resourceVersion: number) => hold({ metadata: { name, uid: name, resourceVersion: String(resourceVersion) } }, (raw) => raw);
const mapOf = (...all: ReturnType<typeof held>[]) => new Map(all.map((each) => [each.key, each]));

/** A cache that holds `a` at version 5 and has followed everything until version 9. */
test.each([
  ['as it is held', [held('a', 5)], 12, false],
  ['without what is held: it was deleted since', [], 12, false],
  ['with a younger version of it', [held('a', 11)], 12, false],
  ['with something new', [held('a', 5), held('b', 10)], 12, false],
  ['with an older version of it', [held('a', 3)], 12, true],
  ['with another version of it, of the time that was followed', [held('a', 7)], 12, true],
  ['with something of the time that was followed, which is not held', [held('a', 5), held('b', 8)], 12, true],
])('a list %s', (_, items, asOf, forked) => {
  const cache = makeCache<unknown>();
  cache.put(held('a', 5));
  expect(cache.isForked(mapOf(...items), String(asOf), '9')).toBe(forked);
});

test('a list that is older than our own write is no other history', () => {
  const cache = makeCache<unknown>();
  cache.put(held('a', 13));
  expect([cache.isForked(mapOf(held('a', 5)), '12', '9'), cache.isForked(mapOf(held('a', 5)), '14', '9')]).toEqual([false, true]);
});
