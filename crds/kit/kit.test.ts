import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { orAborted } from './aborted.ts';
import { exponential, jittered } from './backoff.ts';
import { systemClock } from './clock.ts';
import { canonical, digestOf } from './digest.ts';
import { asFault, Fault, messageOf } from './fault.ts';
import { fromMiB, sizePattern, toMiB } from './quantity.ts';

describe('a backoff', () => {
  const bounds = { baseMs: 5, maxMs: 30_000 };
  test('doubles from its base to its most', () => {
    expect([0, 1, 2, 12, 13, 1_000_000].map((attempt) => exponential(bounds, attempt))).toEqual([5, 10, 20, 20_480, 30_000, 30_000]);
  });

  test('with jitter lies between its base and the delay of the attempt', () => {
    fc.assert(fc.property(fc.nat(100), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (attempt, chance) => {
      const ms = jittered(bounds, attempt, chance);
      expect(ms).toBeGreaterThanOrEqual(bounds.baseMs);
      expect(ms).toBeLessThanOrEqual(exponential(bounds, attempt));
    }));
  });
});

describe('canonical JSON', () => {
  test('is the same whatever the order of members, and without those that are undefined', () => {
    expect(canonical({ b: [1, { d: undefined, c: 'x' }], a: null })).toBe('{"a":null,"b":[1,{"c":"x"}]}');
    expect(digestOf({ a: 1, b: 2 })).toBe(digestOf({ b: 2, a: 1, c: undefined }));
  });

  test('is JSON of the same value', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => expect(JSON.parse(canonical(value))).toEqual(JSON.parse(JSON.stringify(value)))));
  });

  test.each([[{ a: 1 }, { a: '1' }], [[1, 2], [2, 1]], [{ a: null }, {}], [{ a: [] }, { a: {} }]])('tells %j from %j', (one, other) => {
    expect(digestOf(one)).not.toBe(digestOf(other));
  });
});

describe('a fault', () => {
  test('is tried again later unless it says otherwise, and passes through unchanged', () => {
    const fault = new Fault('NoSpace', 'the disk is full');
    expect([fault.retry, fault.name, asFault(fault, 'Other', 'doing')]).toEqual(['later', 'Fault', fault]);
    expect(new Fault('Bad', 'b', { retry: 'never' }).retry).toBe('never');
  });

  test('of anything thrown says what was done, and keeps the causes', () => {
    const thrown = new Error('no route', { cause: new Error('EHOSTUNREACH') });
    expect(asFault(thrown, 'Unreachable', 'asking')).toMatchObject({ code: 'Unreachable', message: 'asking: no route (EHOSTUNREACH)', cause: thrown });
    expect([messageOf('words'), messageOf(undefined)]).toEqual(['words', 'undefined']);
  });
});

describe('a size', () => {
  test.each([['1Mi', 1], ['16Mi', 16], ['1Gi', 1024], ['2Ti', 2 * 1024 * 1024], ['99999999Mi', 99_999_999]])('%s is %i MiB', (text, sizeMiB) => {
    expect(toMiB(text)).toBe(sizeMiB);
  });

  test.each(['', '0Mi', '01Gi', '1', '1M', '1.5Gi', '-1Gi', '1Gi ', '10Ti', '100000000Mi'])('%j is none', (text) => {
    expect(toMiB(text)).toBeNaN();
  });

  test('is written in the largest unit that is exact, and read as it was', () => {
    expect([fromMiB(0), fromMiB(512), fromMiB(2048), fromMiB(2049)]).toEqual(['0Mi', '512Mi', '2Gi', '2049Mi']);
    fc.assert(fc.property(fc.integer({ min: 1, max: 8 * 1024 * 1024 }), (sizeMiB) => {
      expect(fromMiB(sizeMiB)).toMatch(new RegExp(sizePattern));
      expect(toMiB(fromMiB(sizeMiB))).toBe(sizeMiB);
    }));
  });
});

describe('a wait', () => {
  test('ends with what it waits for, or with the reason of its signal', async () => {
    const stop = new AbortController();
    expect(await orAborted(Promise.resolve(7), stop.signal)).toBe(7);
    const waiting = orAborted(new Promise(() => {}), stop.signal);
    stop.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await expect(orAborted(Promise.resolve(7), stop.signal)).rejects.toThrow('enough');
  });

  test('of the clock ends with its signal too', async () => {
    const stop = new AbortController();
    const waiting = systemClock.sleep(60_000, stop.signal);
    stop.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    expect(systemClock.monotonicMs()).toBeLessThanOrEqual(systemClock.monotonicMs());
  });
});
