import { describe, expect, jest, test } from '@jest/globals';
import { makeReport, showDuration, showRunning } from './report.ts';

const screen = (isTerminal: boolean) => {
  let text = '';
  let now = 0;
  return { write: (more: string) => { text += more; }, isTerminal, columns: () => 40, nowMs: () => now, text: () => text, pass: (ms: number) => { now += ms; } };
};

test.each([[80, '0.1 s'], [1240, '1.2 s'], [89_000, '89.0 s'], [125_000, '2 min 5 s']])('%i ms is shown as %s', (ms, shown) => {
  expect(showDuration(ms)).toBe(shown);
});

test('running steps fit the width', () => {
  expect(showRunning([{ name: 'etcd', doing: '', ms: 1500 }, { name: 'servers', doing: 'making kubectl', ms: 61_000 }], 80))
    .toBe('… etcd 1 s · servers: making kubectl 61 s');
  expect(showRunning([{ name: 'x'.repeat(90), doing: '', ms: 0 }], 40)).toHaveLength(39);
});

describe('a step', () => {
  test('ends with one line: its sign, name, time and what it says of itself', async () => {
    const to = screen(false);
    using report = makeReport(to);
    await report.step('etcd', async () => to.pass(1234), () => 'running');
    await expect(report.step('operator', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(to.text()).toMatch(/^✓ etcd +1\.2 s {3}running\n✗ operator +0\.0 s\n$/);
  });

  test('that stops for what another failed with is no failure of its own', async () => {
    const to = screen(false);
    using report = makeReport(to);
    const why = new Error('no');
    await Promise.allSettled(['agent', 'operator'].map((name) => report.step(name, () => Promise.reject(why))));
    expect(to.text()).toMatch(/^✗ agent .*\n– operator .*not ended\n$/);
  });

  test('that takes long is told again on a plain output, each 15 seconds', async () => {
    jest.useFakeTimers();
    try {
      const to = screen(false);
      using report = makeReport(to);
      const end = Promise.withResolvers<void>();
      const step = report.step('servers', async (tell) => { tell('making etcd'); await end.promise; });
      for (const _ of Array.from({ length: 62 })) { to.pass(500); jest.advanceTimersByTime(500); }
      end.resolve();
      await step;
      expect(to.text().split('\n').filter((line) => line.startsWith('…'))).toEqual(['… servers: making etcd 15 s', '… servers: making etcd 30 s']);
    } finally {
      jest.useRealTimers();
    }
  });
});
