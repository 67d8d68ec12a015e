import { expect, test } from '@jest/globals';
import type { HistoryEvent } from './events.ts';
import { shownSummary, shownViolation } from './print.ts';

const events: HistoryEvent[] = [
  { is: 'looked', t: 1_000, looks: 40, longestMs: 7.4 },
  { is: 'did', t: 3_000, what: 'operator frozen', hurts: false },
  { is: 'asked', t: 9_000, request: 1, verb: 'delete', name: 'ada', uid: 'a' },
  { is: 'answered', t: 9_010, request: 1, outcome: 'done' },
  { is: 'process', t: 10_000, pid: 7, ticks: '1', uid: 'a', program: 'qemu-system-x86_64' },
  { is: 'process', t: 10_001, pid: 8, ticks: '1', uid: 'b', program: 'qemu-system-x86_64' },
  { is: 'did', t: 11_000, what: 'agent ended by SIGKILL', hurts: false },
  { is: 'ended', t: 12_000, pid: 7, ticks: '1', last: 11_990 },
  { is: 'ended', t: 12_001, pid: 8, ticks: '1', last: 11_990 },
  { is: 'boot', t: 90_000, uid: 'a', mark: 'BEEF', count: 1 },
];

test('a violation is shown with all that befell its VM before, and what was done to the processes around it', () => {
  expect(shownViolation({ rule: 'no disk is lost', t: 12_500, uid: 'a', what: 'it is gone' }, events).split('\n')).toEqual([
    'VIOLATION at   11.500 s: no disk is lost: it is gone',
    '     8.000 s  asked: delete ada ',
    '     8.010 s  answer: done ',
    '     9.000 s  process 7 is qemu-system-x86_64',
    '    10.000 s  did: agent ended by SIGKILL',
    '    11.000 s  process 7 is gone',
  ]);
});

test('a summary says how much happened and how well it was watched', () => {
  expect(shownSummary({ events })).toBe('1 changes acknowledged, 0 refused, 0 without an answer; 2 acts on processes; 2 QEMUs, 1 boots, 0 VMs ended; the witness looked 40 times, its longest pause was 7 ms');
});
