import { describe, expect, test } from '@jest/globals';
import { blankVm, noRestarts } from './entry.ts';
import { afterEnd, restartsAfter, restartWaitMs } from './restart.ts';

const now = new Date('2026-01-01T00:00:00Z');

describe('a restart policy', () => {
  test.each([
    ['Always', 'GuestShutdown', true], ['Always', 'QemuCrashed', true], ['Always', 'NodeRebooted', true], ['Always', undefined, true],
    ['OnFailure', 'GuestShutdown', false], ['OnFailure', 'QemuCrashed', true], ['OnFailure', 'GuestPanicked', true], ['OnFailure', 'OutOfMemory', true], ['OnFailure', 'NodeRebooted', true],
    ['Never', 'GuestShutdown', false], ['Never', 'QemuCrashed', false], [undefined, 'QemuCrashed', false],
  ] as const)('%s after %s: %s', (policy, reason, restarts) => {
    expect(restartsAfter(policy, reason)).toBe(restarts);
  });

  test('waits 10 s, twice as long after each quick end, 5 min at most', () => {
    const waits: number[] = [];
    let restarts = noRestarts as ReturnType<typeof afterEnd>;
    for (let end = 0; end < 7; end += 1) {
      restarts = afterEnd({ ...restarts, ranSinceMs: 1_000 }, 'QemuCrashed', 2_000, now);
      waits.push((restarts.dueMs ?? 0) - 2_000);
    }
    expect(waits).toEqual([10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    expect(afterEnd({ ...restarts, ranSinceMs: 1_000 }, 'QemuCrashed', 600_999, now).dueMs).toBe(600_999 + 300_000);
    expect(afterEnd({ ...restarts, ranSinceMs: 1_000 }, 'QemuCrashed', 601_000, now)).toMatchObject({ dueMs: 611_000, dueTime: '2026-01-01T00:00:10.000Z' });
  });

  const ended = (dueMs: number | null) => ({ ...blankVm('u'), ended: true, lastExit: { reason: 'QemuCrashed' as const, time: '' }, restarts: { ...noRestarts, dueMs } });
  test('what is due on the clock of an earlier boot is due now; a node that went down makes nobody wait', () => {
    expect(restartWaitMs(ended(5_000), 'Always', 2_000)).toBe(3_000);
    expect(restartWaitMs(ended(5_000), 'Always', 6_000)).toBe(0);
    expect(restartWaitMs(ended(9_000_000), 'Always', 2_000)).toBe(0);
    expect(restartWaitMs(ended(5_000), 'Never', 6_000)).toBeUndefined();
    expect(afterEnd({ ...noRestarts, quickEnds: 4, ranSinceMs: 1 }, 'NodeRebooted', 2_000, now)).toMatchObject({ quickEnds: 4, dueMs: null });
  });
});
