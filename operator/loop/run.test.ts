import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { type Log, quiet } from '#crds/kit/log.ts';
import { blocked, type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { KubeFault } from '../kube/kube.ts';
import { handClock } from './handclock.ts';
import { makeQueue } from './queue.ts';
import { type Reconcile, run } from './run.ts';

const loop = (reconcile: Reconcile, extra: { workers?: number } = {}) => {
  const clock = handClock();
  const queue = makeQueue({ clock, chance: () => 0.9999999 });
  const lines: string[] = [];
  const line = (fields: object, sentence: string): void => void lines.push(`${'key' in fields ? String(fields.key) : ''} ${sentence}`);
  const log: Log = { ...quiet, info: line, warn: line, error: line };
  const stop = new AbortController();
  const ended = run({ name: 'vm', reconcile, queue, workers: 2, log, signal: stop.signal, ...extra });
  return { clock, queue, lines, stop, ended };
};

const script = (...outcomes: (Outcome | Error)[]): Reconcile & { passes: number } => {
  const reconcile = async () => {
    const next = outcomes[Math.min(reconcile.passes, outcomes.length - 1)] ?? settled;
    reconcile.passes += 1;
    if (Error.isError(next)) throw next;
    return next;
  };
  reconcile.passes = 0;
  return reconcile;
};

describe('the loop', () => {
  test('says nothing of a pass that failed since the run has ended', async () => {
    const it = loop(async () => { it.stop.abort(); throw new Error('not ours any more'); });
    it.queue.add('a');
    await it.ended;
    expect(it.lines).toEqual([]);
  });

  test('a settled key is left alone, and nothing is said', async () => {
    const reconcile = script(settled);
    const it = loop(reconcile);
    it.queue.add('a');
    await it.clock.advance(3_600_000);
    expect([reconcile.passes, it.lines]).toEqual([1, []]);
    it.stop.abort();
    await it.ended;
  });

  test('many keys that need no answer keep nothing else of the process waiting until they are all looked at', async () => {
    const reconcile = script(settled);
    const it = loop(reconcile, { workers: 4 });
    for (let key = 0; key < 100; key += 1) it.queue.add(`key-${key}`);
    await new Promise((resolve) => { setImmediate(resolve); });
    expect(reconcile.passes).toBeLessThan(20);
    while (it.queue.length() > 0) await new Promise((resolve) => { setImmediate(resolve); });
    expect(reconcile.passes).toBe(100);
    it.stop.abort();
    await it.ended;
  });

  test('waiting looks again after its time; one line for many equal outcomes', async () => {
    const reconcile = script(waiting('node-1', 5_000), waiting('node-1', 5_000), waiting('node-1', 5_000), settled);
    const it = loop(reconcile);
    it.queue.add('a');
    await it.clock.advance(4_999);
    expect(reconcile.passes).toBe(1);
    await it.clock.advance(20_000);
    expect([reconcile.passes, it.lines]).toEqual([4, ['a waiting', 'a settled']]);
    it.stop.abort();
    await it.ended;
  });

  test.each<[string, Outcome | Error, number, number]>([
    ['a fault retries after 5, 10, 20 ms', blocked(new Fault('Broken', 'broken')), 34, 3],
    ['a throw is a fault', new Error('oops'), 34, 3],
    ['a fault that says never is not retried', blocked(new Fault('Broken', 'broken', { retry: 'never' })), 3_600_000, 1],
    ['Retry-After is honoured', new KubeFault('GET x', { status: 429, message: 'slow down', retryAfterMs: 7_000 }), 6_999, 1],
    ['and then it is tried', new KubeFault('GET x', { status: 429, message: 'slow down', retryAfterMs: 7_000 }), 7_000, 2],
  ])('%s', async (_rule, outcome, ms, passes) => {
    const reconcile = script(outcome);
    const it = loop(reconcile);
    it.queue.add('a');
    await it.clock.advance(ms);
    expect([reconcile.passes, it.lines]).toEqual([passes, ['a blocked']]);
    it.stop.abort();
    await it.ended;
  });

  test('a conflict is never retried slowly', async () => {
    const reconcile = script(new KubeFault('PATCH x', { status: 409, reason: 'Conflict', message: 'changed' }));
    const it = loop(reconcile);
    it.queue.add('a');
    await it.clock.advance(60_000);
    expect(reconcile.passes).toBeGreaterThan(200);
    it.stop.abort();
    await it.ended;
  });

  test('one key never runs twice at once, other keys go on; no more workers than asked', async () => {
    const gates: { key: string; open: () => void }[] = [];
    const it = loop(async (key) => {
      await new Promise<void>((resolve) => gates.push({ key, open: resolve }));
      return settled;
    });
    it.queue.add('a');
    await it.clock.settle();
    it.queue.add('a');
    it.queue.add('b');
    it.queue.add('c');
    await it.clock.settle();
    expect(gates.map((gate) => gate.key)).toEqual(['a', 'b']);
    for (let index = 0; index < gates.length; index += 1) {
      gates[index]?.open();
      await it.clock.settle();
    }
    expect(gates.map((gate) => gate.key)).toEqual(['a', 'b', 'c', 'a']);
    it.stop.abort();
    await it.ended;
  });

  test('stop waits for the running pass and begins no other', async () => {
    const events: string[] = [];
    const gate = Promise.withResolvers<void>();
    const it = loop(async (key) => {
      events.push(`begin ${key}`);
      await gate.promise;
      events.push(`end ${key}`);
      return settled;
    }, { workers: 1 });
    it.queue.add('a');
    it.queue.add('b');
    await it.clock.settle();
    it.stop.abort();
    await it.clock.settle();
    expect(events).toEqual(['begin a']);
    gate.resolve();
    await it.ended;
    expect([events, it.clock.sleepers()]).toEqual([['begin a', 'end a'], 0]);
  });
});
