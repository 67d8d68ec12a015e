import { expect, test } from '@jest/globals';
import type { VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import { makeWords, onlyWords } from './words.ts';

const status = (over: Partial<VmStatus> = {}): VmStatus => ({ observedGeneration: 1, phase: 'Running', guest: { agentVersion: '1' }, interfaces: [{ name: 'net', mac: '52:54:00:00:00:01', forwards: [] }], ...over });
const ready = (is: 'True' | 'False'): Partial<VmStatus> =>
  ({ conditions: [{ type: 'GuestReady', status: is, reason: 'ProbeFailing', message: is, observedGeneration: 1, lastTransitionTime: '2030-01-01T00:00:00Z' }] });

test.each<[string, Partial<VmStatus>, Partial<VmStatus>, boolean]>([
  ['its name', {}, { guest: { agentVersion: '1', hostname: 'b' } }, true],
  ['its addresses', {}, { interfaces: [{ name: 'net', mac: '52:54:00:00:00:01', addresses: ['10.0.0.1'], forwards: [] }] }, true],
  ['whether it is ready', ready('True'), ready('False'), true],
  ['that it is ready for the first time', ready('False'), { ...ready('True'), timings: { accepted: '2030-01-01T00:00:00Z', scheduled: '2030-01-01T00:00:00Z', guestReady: '2030-01-01T00:00:01Z' } }, false],
  ['anything at all, for the first time', { guest: undefined }, {}, false],
  ['its phase', {}, { phase: 'Paused' }, false],
])('a change of %s: only the word of the guest?', (_, before, after, is) => {
  expect(onlyWords(status(before), status(after))).toBe(is);
});

test('five words go at once, then one in 30 s; quiet earns them back', () => {
  const time = { ms: 0 };
  const words = makeWords(() => time.ms);
  for (let at = 0; at < 5; at += 1) {
    expect(words.waitMs('a')).toBe(0);
    words.written('a');
  }
  expect([words.waitMs('a'), words.waitMs('b')]).toEqual([30_000, 0]);
  time.ms = 30_000;
  expect(words.waitMs('a')).toBe(0);
  words.written('a');
  expect(words.waitMs('a')).toBe(30_000);
  time.ms = 1_000_000;
  for (let at = 0; at < 5; at += 1) words.written('a');
  expect(words.waitMs('a')).toBe(30_000);
});
