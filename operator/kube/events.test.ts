import { describe, expect, test } from '@jest/globals';
import { quiet } from '#crds/kit/log.ts';
import { handClock } from '../loop/handclock.ts';
import { type EventNote, eventBody, makeRecorder } from './events.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';

const note = (text: string, uid = 'u1'): EventNote => ({
  regarding: { apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachine', name: 'web', namespace: 'ns', uid }, type: 'Normal', reason: 'Scheduled', action: 'Placing', note: text,
});
const bed = () => {
  const clock = handClock();
  const kube = makeFakeKube(Object.values(fakeKinds), clock.now);
  const stop = new AbortController();
  return { clock, kube, stop, recorder: makeRecorder({ kube, instance: 'op-1', log: quiet, clock, signal: stop.signal }) };
};

describe('events', () => {
  test('the same is said once in ten minutes; another object, reason or note is another event', async () => {
    const it = bed();
    for (const each of [note('a'), note('a'), note('b'), note('a', 'u2'), note('a')]) it.recorder.record(each);
    await it.clock.advance(599_000);
    it.recorder.record(note('a'));
    await it.recorder.flush();
    expect(it.kube.requests.length).toBe(3);
    await it.clock.advance(1_000);
    it.recorder.record(note('a'));
    await it.recorder.flush();
    expect([it.kube.requests.length, it.recorder.lost()]).toEqual([4, 0]);
  });

  test('a flood is written at 5 a second after 25, and what does not fit the queue is counted', async () => {
    const it = bed();
    for (let index = 0; index < 1_000; index += 1) it.recorder.record(note(`n${index}`));
    await it.clock.advance(0);
    expect(it.kube.requests.length).toBe(25);
    await it.clock.advance(10_000);
    expect(it.kube.requests.length).toBe(75);
    expect(it.recorder.lost()).toBe(487);
  });

  test('a passing failure is tried again, a refusal is given up, and the caller never hears of either', async () => {
    const it = bed();
    it.kube.fail({ times: 2, failure: { status: 500, message: 'boom' } });
    it.recorder.record(note('a'));
    await it.clock.advance(5_000);
    it.kube.fail({ failure: { status: 403, message: 'namespace is being terminated' } });
    it.recorder.record(note('b'));
    await it.clock.advance(5_000);
    it.recorder.record(note('c'));
    await it.clock.advance(5_000);
    expect([it.kube.requests.length, it.recorder.lost()]).toEqual([5, 1]);
  });

  test('an answer that asks for an hour of patience keeps the events of others waiting for half a minute', async () => {
    const it = bed();
    it.kube.fail({ failure: { status: 503, message: 'maintenance', retryAfterMs: 3_600_000 } });
    it.recorder.record(note('a'));
    it.recorder.record(note('b', 'u2'));
    await it.clock.advance(31_000);
    expect([it.kube.requests.length, it.recorder.lost()]).toEqual([3, 0]);
  });

  test('bounds: a long note is cut between characters, an event of a cluster-scoped object lives in default', () => {
    const body = eventBody({ ...note('ü'.repeat(2_000)), regarding: { apiVersion: 'v', kind: 'HypervisorNode', name: 'n'.repeat(253), uid: 'u' } }, new Date(0), 'x'.repeat(300));
    const { metadata, note: text, eventTime, reportingInstance } = body as { metadata: { name: string; namespace: string }; note: string; eventTime: string; reportingInstance: string };
    expect([Buffer.byteLength(text) <= 1_024, text.includes('\uFFFD'), metadata.namespace, metadata.name.length <= 253, eventTime, reportingInstance.length]).toEqual([true, false, 'default', true, '1970-01-01T00:00:00.000000Z', 128]);
  });
});
