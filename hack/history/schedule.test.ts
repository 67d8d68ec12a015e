import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { chanceOf } from './chance.ts';
import { scheduleOf, shownAct } from './schedule.ts';

test('the same seed gives the same schedule, another seed another one', () => {
  expect(scheduleOf(7, 2)).toEqual(scheduleOf(7, 2));
  expect(scheduleOf(7, 2)).not.toEqual(scheduleOf(8, 2));
});

test('chance is spread over its whole range, and the first numbers of a seed stay what they are', () => {
  fc.assert(fc.property(fc.integer(), fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 50 }), (seed, least, wide) => {
    const drawn = chanceOf(seed).between(least, least + wide);
    expect(drawn).toBeGreaterThanOrEqual(least);
    expect(drawn).toBeLessThanOrEqual(least + wide);
  }));
  const chance = chanceOf(1);
  const tens = Array.from({ length: 10_000 }, () => chance.between(0, 9));
  for (let digit = 0; digit < 10; digit += 1) expect(tens.filter((each) => each === digit).length).toBeGreaterThan(850);
  const again = chanceOf(1);
  expect([again.next(), again.next()].map((each) => each.toFixed(6))).toEqual(['0.627074', '0.002736']);
});

test('acts lie in their time, in its order, and every lane has some in each minute', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (seed) => {
    const acts = scheduleOf(seed, 5);
    expect(acts.every(({ atMs }, at) => atMs >= (acts[at - 1]?.atMs ?? 0))).toBe(true);
    for (const lane of ['edit', 'blow', 'agent', 'control']) expect(acts.filter((each) => each.lane === lane).length).toBeGreaterThan(2);
  }), { numRuns: 50 });
});

test('an act is shown in a line', () => {
  expect(shownAct({ lane: 'edit', act: { do: 'power', name: 'ada', to: 'Stopped' } })).toBe('power ada to=Stopped');
  expect(shownAct({ lane: 'agent', act: { do: 'killAgent', downMs: 5 } })).toBe('killAgent downMs=5');
});
