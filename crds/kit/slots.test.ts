import { describe, expect, test } from '@jest/globals';
import { slots } from './slots.ts';

describe('slots', () => {
  const never = new AbortController().signal;

  test('let so many run at a time, and all of them in the end', async () => {
    const turn = slots(2);
    let running = 0;
    let most = 0;
    const act = async () => {
      running += 1;
      most = Math.max(most, running);
      await Promise.resolve();
      running -= 1;
    };
    await Promise.all(Array.from({ length: 10 }, () => turn(act, never)));
    expect([most, running]).toEqual([2, 0]);
  });

  test('are given back by an act that throws and never taken by one that is aborted', async () => {
    const turn = slots(1);
    await expect(turn(async () => Promise.reject(new Error('no')), never)).rejects.toThrow('no');
    const first = Promise.withResolvers<void>();
    const held = turn(() => first.promise, never);
    const controller = new AbortController();
    let ran = false;
    const waiting = turn(async () => {
      ran = true;
    }, controller.signal);
    controller.abort(new Error('left'));
    await expect(waiting).rejects.toThrow('left');
    first.resolve();
    await held;
    await expect(turn(async () => 'free', never)).resolves.toBe('free');
    expect(ran).toBe(false);
  });
});
