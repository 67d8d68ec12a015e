import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Cached, chooseEvictions } from './evict.ts';

const rules = { maxBytes: 100, keepMs: 10 };
const item = (sha256: string, fileBytes: number, lastUsedMs: number, linked = false): Cached => ({ sha256, fileBytes, lastUsedMs, linked });

describe('what leaves the cache', () => {
  test.each<[string, Cached[], string[], number, string[]]>([
    ['nothing that fits', [item('a', 50, 0), item('b', 50, 1)], [], 0, []],
    ['the least recently used, until the rest fits', [item('new', 60, 900), item('old', 30, 1), item('mid', 30, 500)], [], 0, ['old']],
    ['as many as it takes', [item('new', 90, 900), item('old', 30, 1), item('mid', 30, 500)], [], 0, ['old', 'mid']],
    ['nothing that a VM uses, however old', [item('used', 90, 1), item('b', 30, 500)], ['used'], 0, ['b']],
    ['nothing that a VM has a link to', [item('linked', 90, 1, true), item('b', 30, 500)], [], 0, ['b']],
    ['nothing that was used a moment ago', [item('a', 200, 995)], [], 0, []],
    ['what was used so long ago', [item('a', 200, 990)], [], 0, ['a']],
    ['nothing, when all that is too much is in use', [item('a', 200, 1), item('b', 1, 999)], ['a'], 0, []],
    ['one more on a full disk, though all fits', [item('a', 10, 5), item('b', 10, 1)], [], 1, ['b']],
    ['nothing on a full disk when all is in use', [item('a', 10, 5)], ['a'], 1, []],
    ['nothing of a clock that went back', [item('a', 200, 5_000)], [], 0, []],
  ])('is %s', (_, cached, inUse, atLeast, gone) => {
    expect(chooseEvictions(cached, new Set(inUse), rules, 1_000, atLeast)).toEqual(gone);
  });

  test('is never in use, and no more than it must be', () => {
    const each = fc.record({ sha256: fc.uuid(), fileBytes: fc.nat(60), lastUsedMs: fc.nat(1_000), linked: fc.boolean() });
    fc.assert(fc.property(fc.array(each, { maxLength: 12 }), fc.nat(3), fc.nat(), (cached, atLeast, dice) => {
      const inUse = new Set(cached.filter((_, at) => (dice >> at) % 2 === 1).map(({ sha256 }) => sha256));
      const gone = chooseEvictions(cached, inUse, rules, 1_000, atLeast);
      const sizes = new Map(cached.map(({ sha256, fileBytes }) => [sha256, fileBytes]));
      const sum = (names: readonly string[]) => names.reduce((all, name) => all + (sizes.get(name) ?? 0), 0);
      const held = sum([...sizes.keys()]);
      expect(gone.filter((name) => inUse.has(name) || cached.some(({ sha256, linked }) => sha256 === name && linked))).toEqual([]);
      // Without the last of them it would still have been too much, or too few.
      if (gone.length > 0) expect(held - sum(gone.slice(0, -1)) > rules.maxBytes || gone.length <= atLeast).toBe(true);
    }));
  });
});
