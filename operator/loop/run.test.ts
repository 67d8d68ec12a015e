import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { blocked, type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { KubeFault } from '../kube/kube.ts';
import { handClock } from './handclock.ts';
import { type Log, quiet } from './log.ts';
import { makeQueue } from './queue.ts';
import { type Reconcile, run } from './run.ts';

const loop = (reconcile: Reconcile, extra: { workers?: number; passMs?: number; graceMs?: number } = {}) => {
  const clock = handClock();
  const queue = makeQueue({ clock, chance: () => 0.9999999 });
  const lines: string[] = [];
  const line = (fields: Record<string, unknown>, sentence: string): void => void lines.push(`${String(fields['key'])} ${sentence}`);
  const log: Log = { ...quiet, info: line, warn: line, error: line };
  const stop = new AbortController();
  const ended = run({ name: 'vm', reconcile, queue, workers: extra.workers ?? 2, log, clock, signal: stop.signal, ...extra });
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
  test('a settled key is left alone, and nothing is said', async () => {
    const reconcile = script(settled);
    const it = loop(reconcile);
    it.queue.add('a');
    await it.clock.advance(3_600_000);
    expect([reconcile.passes, it.lines]).toEqual([1, []]);
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

  test('stop waits for the running pass, aborts it after the grace, and begins no other', async () => {
    const events: string[] = [];
    const it = loop(async (key, signal) => {
      events.push(`begin ${key}`);
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      events.push(`end ${key}`);
      return settled;
    }, { workers: 1, graceMs: 1_000 });
    it.queue.add('a');
    it.queue.add('b');
    await it.clock.settle();
    it.stop.abort();
    await it.clock.advance(999);
    expect(events).toEqual(['begin a']);
    await it.clock.advance(1);
    await it.ended;
    expect(events).toEqual(['begin a', 'end a']);
    await it.clock.settle();
    expect(it.clock.sleepers()).toBe(0);
  });

  test('the signal of a pass that takes too long is aborted, the loop goes on', async () => {
    const reasons: unknown[] = [];
    const it = loop(async (_key, signal) => {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      reasons.push(signal.reason);
      return settled;
    }, { passMs: 2_000 });
    it.queue.add('a');
    await it.clock.advance(2_000);
    expect(String(reasons[0])).toContain('took too long');
    it.stop.abort();
    await it.ended;
  });
});
