import { expect, test } from '@jest/globals';
import { makeBudget } from './budget.ts';

test('a budget gives its burst at once, then its rate, and never saves more than the burst', () => {
  let nowMs = 1_000;
  const { spend } = makeBudget({ perSecond: 10, atOnce: 3 }, () => nowMs);
  expect([spend(1), spend(2), spend(1), spend(1)]).toEqual([0, 0, 100, 200]);
  nowMs += 150;
  expect(spend(0)).toBe(50);
  nowMs += 50;
  expect([spend(0), spend(1)]).toEqual([0, 100]);
  nowMs += 3_600_000;
  expect([spend(3), spend(1)]).toEqual([0, 100]);
});
