import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { handClock } from './handclock.ts';
import { makeQueue } from './queue.ts';

const fresh = (chance = 0.999) => {
  const clock = handClock();
  return { clock, queue: makeQueue({ clock, chance: () => chance }) };
};

describe('the queue', () => {
  test('hands a key out once however often it was added', async () => {
    const { queue } = fresh();
    for (const key of ['a', 'a', 'b', 'a']) queue.add(key);
    expect([await queue.take(), await queue.take(), queue.length()]).toEqual(['a', 'b', 0]);
  });

  test('a key added while it is worked on comes again after done, not before', async () => {
    const { queue } = fresh();
    queue.add('a');
    await queue.take();
    queue.add('a');
    queue.add('a');
    expect(queue.length()).toBe(0);
    queue.done('a');
    expect(queue.length()).toBe(1);
    await queue.take();
    queue.done('a');
    expect(queue.length()).toBe(0);
  });

  test('addAfter waits; the earliest of several wishes counts', async () => {
    const { queue, clock } = fresh();
    queue.addAfter('a', 1_000);
    queue.addAfter('a', 300);
    queue.addAfter('a', 2_000);
    await clock.advance(299);
    expect(queue.length()).toBe(0);
    await clock.advance(1);
    expect(queue.length()).toBe(1);
    await queue.take();
    queue.done('a');
    await clock.advance(5_000);
    expect(queue.length()).toBe(0);
  });

  test('retries double from 5 ms to 30 s for each key, and forget begins anew', () => {
    const { queue } = fresh(0.9999999);
    expect(Array.from({ length: 5 }, () => queue.retry('a'))).toEqual([5, 10, 20, 40, 80]);
    expect(queue.retry('b')).toBe(5);
    expect(Array.from({ length: 20 }, () => queue.retry('a')).at(-1)).toBe(30_000);
    queue.forget('a');
    expect(queue.retry('a')).toBe(5);
    expect(queue.retry('a', 7_000)).toBe(7_000);
  });

  test('close answers every waiting take and ends every timer', async () => {
    const { queue, clock } = fresh();
    const takes = [queue.take(), queue.take()];
    queue.addAfter('a', 1_000);
    queue.close();
    expect(await Promise.all([...takes, queue.take()])).toEqual([undefined, undefined, undefined]);
    await clock.settle();
    expect(clock.sleepers()).toBe(0);
  });

  test('model: never two workers for one key, and every wish is followed by a pass that began after it', async () => {
    const key = fc.constantFrom('a', 'b', 'c');
    const command = fc.oneof(
      fc.record({ is: fc.constant('add' as const), key }),
      fc.record({ is: fc.constant('addAfter' as const), key, ms: fc.integer({ min: 0, max: 50 }) }),
      fc.record({ is: fc.constant('take' as const) }),
      fc.record({ is: fc.constant('done' as const), key }),
      fc.record({ is: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 60 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 40 }), async (commands) => {
        const { queue, clock } = fresh();
        const working = new Set<string>();
        let turn = 0;
        const wished = new Map<string, number>();
        const began = new Map<string, number>();
        const take = async (): Promise<void> => {
          if (queue.length() === 0) return;
          const taken = (await queue.take()) ?? '';
          expect(working.has(taken)).toBe(false);
          working.add(taken);
          began.set(taken, (turn += 1));
        };
        for (const each of commands) {
          if (each.is === 'add' || each.is === 'addAfter') wished.set(each.key, (turn += 1));
          if (each.is === 'add') queue.add(each.key);
          if (each.is === 'addAfter') queue.addAfter(each.key, each.ms);
          if (each.is === 'take') await take();
          if (each.is === 'done' && working.delete(each.key)) queue.done(each.key);
          if (each.is === 'advance') await clock.advance(each.ms);
        }
        // Drain: everything wished for must come, and then nothing more.
        for (let round = 0; round < 6; round += 1) {
          await clock.advance(50);
          while (queue.length() > 0) await take();
          for (const each of working) queue.done(each);
          working.clear();
        }
        for (const [each, at] of wished) expect(began.get(each) ?? 0).toBeGreaterThan(at);
        expect([queue.length(), clock.sleepers()]).toEqual([0, 0]);
      }),
      { numRuns: 60 },
    );
  });
});
