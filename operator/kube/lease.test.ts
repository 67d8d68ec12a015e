import { describe, expect, test } from '@jest/globals';
import { quiet } from '#crds/kit/log.ts';
import { handClock } from '../loop/handclock.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';
import { heartbeatName, makeHeartbeats } from './heartbeat.ts';
import { KubeFault } from './kube.ts';
import { mayTake, parseLease, takeLease } from './lease.ts';

const path = '/apis/coordination.k8s.io/v1/namespaces/ns/leases/leader';

const bed = () => {
  const clock = handClock();
  const kube = makeFakeKube(Object.values(fakeKinds), clock.now);
  const stop = new AbortController();
  const lost: string[] = [];
  const take = (identity: string, over: typeof kube = kube) =>
    takeLease({ kube: over, namespace: 'ns', name: 'leader', identity, clock, chance: () => 0.5, log: quiet, signal: stop.signal, onLost: (why) => lost.push(`${identity}: ${why}`) });
  const read = async () => parseLease(await kube.request('GET', path));
  const patch = async (body: unknown) => kube.request('PATCH', path, { body, contentType: 'application/merge-patch+json' });
  return { clock, kube, stop, lost, take, read, patch };
};

describe('who may take a lease', () => {
  const seen = { version: '1', holder: 'a', transitions: 3, durationMs: 15_000 };
  test.each<[string, Parameters<typeof mayTake>, boolean]>([
    ['held by another, just seen', [seen, 'b', 0, 15_000], false],
    ['held by another, unchanged for less than its duration', [seen, 'b', 14_999, 15_000], false],
    ['held by another, unchanged for its duration', [seen, 'b', 15_000, 15_000], true],
    ['its own longer duration counts', [{ ...seen, durationMs: 60_000 }, 'b', 15_000, 15_000], false],
    ['a holder that says 1 s is given ours', [{ ...seen, durationMs: 1_000 }, 'b', 5_000, 15_000], false],
    ['given back', [{ ...seen, holder: '' }, 'b', 0, 15_000], true],
    ['mine from a former life', [seen, 'a', 0, 15_000], true],
  ])('%s', (_case, question, answer) => {
    expect(mayTake(...question)).toBe(answer);
  });
});

describe('leadership', () => {
  test('is renewed for as long as the server answers, at 30 requests a minute', async () => {
    const it = bed();
    const mine = await it.take('a');
    await it.clock.advance(600_000);
    expect([mine.holds(), mine.epoch(), it.lost]).toEqual([true, 1, []]);
    expect(it.kube.requests.length).toBeLessThan(305);
  });

  test('is not lost by one request that is never answered', async () => {
    const it = bed();
    let hangs = 0;
    const deaf: typeof it.kube = {
      ...it.kube,
      request: async (method, at, options) => {
        if (method !== 'PATCH' || hangs === 0) return it.kube.request(method, at, options);
        hangs -= 1;
        await it.clock.sleep(options?.deadlineMs ?? 0, it.stop.signal);
        throw new KubeFault('PATCH', { status: 0, message: 'no answer' });
      },
    };
    await it.kube.request('POST', path.slice(0, path.lastIndexOf('/')), { body: { metadata: { name: 'leader', namespace: 'ns' }, spec: { holderIdentity: '', leaseTransitions: 0, leaseDurationSeconds: 1 } } });
    const mine = await it.take('a', deaf);
    hangs = 1;
    await it.clock.advance(60_000);
    expect([hangs, mine.holds(), it.lost]).toEqual([0, true, []]);
  });

  test('that is found to have run out, by whoever asks before the timer of a process that stood still, is lost in that moment', async () => {
    const it = bed();
    const stood = { ms: 0 };
    const mine = await takeLease({
      kube: it.kube, namespace: 'ns', name: 'leader', identity: 'a', clock: { ...it.clock, monotonicMs: () => it.clock.monotonicMs() + stood.ms }, chance: () => 0.5, log: quiet, signal: it.stop.signal,
      onLost: (why) => it.lost.push(why),
    });
    stood.ms = 60_000;
    expect([mine.holds(), mine.signal.aborted, it.lost]).toEqual([false, true, ['not renewed for 10 s']]);
  });

  test('a second one waits until the first has been silent for the duration, and has a higher epoch', async () => {
    const it = bed();
    const first = await it.take('a');
    let second: Awaited<ReturnType<typeof it.take>> | undefined;
    void it.take('b').then((leadership) => (second = leadership));
    await it.clock.advance(120_000);
    expect([first.holds(), second]).toEqual([true, undefined]);
    it.kube.chaos(({ method }) => (method === 'PATCH' ? { status: 0, message: 'cut off' } : undefined));
    await it.clock.advance(10_500);
    expect([first.holds(), first.signal.aborted, second]).toEqual([false, true, undefined]);
    it.kube.chaos(undefined);
    await it.clock.advance(10_000);
    expect([it.lost, second?.holds(), second?.epoch()]).toEqual([['a: not renewed for 10 s'], true, 2]);
  });

  test('never two at once, whatever fails', async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const it = bed();
      let state = seed;
      const random = (): number => (state = (state * 16_807) % 2_147_483_647) / 2_147_483_647;
      const held: { epoch: () => number; holds: () => boolean }[] = [];
      const compete = async (identity: string): Promise<void> => {
        for (let life = 0; !it.stop.signal.aborted; life += 1) {
          const leadership = await it.take(`${identity}${life}`);
          held.push(leadership);
          await new Promise<void>((resolve) => leadership.signal.addEventListener('abort', () => resolve(), { once: true }));
        }
      };
      void compete('a').catch(() => {});
      void compete('b').catch(() => {});
      it.kube.chaos(() => (random() < 0.45 ? { status: [0, 409, 429, 500][Math.floor(random() * 4)] ?? 0, message: 'bad luck' } : undefined));
      for (let second = 0; second < 300; second += 1) {
        await it.clock.advance(1_000);
        expect(held.filter((each) => each.holds()).length).toBeLessThanOrEqual(1);
      }
      expect(held.length).toBeGreaterThan(0);
      expect(held.map((each) => each.epoch())).toEqual([...new Set(held.map((each) => each.epoch()))].sort((x, y) => x - y));
      it.stop.abort();
    }
  }, 20_000);

  test('holds() is false before any timer has run, when the process was stopped for a while', async () => {
    const it = bed();
    const mine = await it.take('a');
    let jumpMs = 0;
    const frozen = await takeLease({
      kube: it.kube, namespace: 'ns', name: 'other', identity: 'a', clock: { ...it.clock, monotonicMs: () => it.clock.monotonicMs() + jumpMs }, chance: () => 0.5, log: quiet, signal: it.stop.signal,
    });
    jumpMs = 10_000;
    expect([mine.holds(), frozen.signal.aborted, frozen.holds()]).toEqual([true, false, false]);
  });

  test('an annotation by somebody else costs nothing; another holder or a deletion ends it at once', async () => {
    const it = bed();
    const mine = await it.take('a');
    await it.patch({ metadata: { annotations: { note: 'hello' } } });
    await it.clock.advance(12_000);
    expect(mine.holds()).toBe(true);
    await it.patch({ spec: { holderIdentity: 'thief', leaseTransitions: 9 } });
    await it.clock.advance(5_000);
    expect([mine.holds(), it.lost]).toEqual([false, ['a: thief holds it']]);
    await it.kube.request('DELETE', path);
    const again = await it.take('a');
    expect(again.epoch()).toBe(1);
    await it.kube.request('DELETE', path);
    await it.clock.advance(5_000);
    expect([again.holds(), it.lost[1]]).toEqual([false, 'a: it was deleted']);
  });

  test('is confirmed by one update for all who ask before it begins, and is not when somebody else took it', async () => {
    const it = bed();
    const mine = await it.take('a');
    it.kube.requests.length = 0;
    await Promise.all([mine.confirm(), mine.confirm(), mine.confirm()]);
    expect([it.kube.requests.length, mine.epoch()]).toEqual([1, 1]);
    it.kube.chaos(() => ({ status: 0, message: 'cut off' }));
    await expect(mine.confirm()).rejects.toMatchObject({ code: 'ApiServerUnreachable' });
    it.kube.chaos(undefined);
    await it.patch({ spec: { holderIdentity: 'thief', leaseTransitions: 2 } });
    expect(mine.holds()).toBe(true);
    await expect(Promise.all([mine.confirm(), mine.confirm()])).rejects.toMatchObject({ code: 'LeaseLost' });
    expect([mine.holds(), (await it.read()).holder]).toEqual([false, 'thief']);
    await expect(mine.confirm()).rejects.toMatchObject({ code: 'LeaseLost' });
  });

  test('an older Lease than the one that was known tells that the cluster was restored: before the lead, and in it', async () => {
    const it = bed();
    const wentBack: string[] = [];
    const take = (identity: string, since?: string) => takeLease({
      kube: it.kube, namespace: 'ns', name: 'leader', identity, clock: it.clock, chance: () => 0.5, log: quiet, signal: it.stop.signal, since,
      onLost: (why) => it.lost.push(why), onHistoryWentBack: () => wentBack.push(identity),
    });
    const first = await take('a');
    const restore = it.kube.snapshot();
    await it.clock.advance(20_000);
    expect([first.holds(), wentBack]).toEqual([true, []]);
    const known = first.version();
    await it.patch({ metadata: { annotations: { note: 'somebody' } } });
    await it.clock.advance(5_000);
    restore();
    await it.clock.advance(5_000);
    expect(wentBack).toEqual(['a']);
    await first.release();
    await (await take('b', known)).release();
    expect(wentBack).toEqual(['a', 'b']);
    await it.clock.advance(60_000);
    await (await take('c', (await it.read()).version)).release();
    expect(wentBack).toEqual(['a', 'b']);
  });

  test('released, the next one need not wait, and no timer stays', async () => {
    const it = bed();
    await (await it.take('a')).release();
    const next = await it.take('b');
    expect([next.epoch(), it.clock.monotonicMs(), it.lost]).toEqual([2, 0, []]);
    await next.release();
    await it.clock.settle();
    expect(it.clock.sleepers()).toBe(0);
  });
});

describe('heartbeats of nodes', () => {
  test('create the lease, then renew it by one request, at most each 10 s', async () => {
    const it = bed();
    const hearts = makeHeartbeats({ kube: it.kube, namespace: 'ns', clock: it.clock });
    await hearts.beat('node-1');
    it.kube.requests.length = 0;
    for (let second = 0; second < 60; second += 1) {
      await it.clock.advance(1_000);
      await hearts.beat('node-1');
    }
    expect(it.kube.requests.map(({ method }) => method)).toEqual(Array.from({ length: 6 }, () => 'PATCH'));
  });

  test('a name is a Lease name whatever the length of the node name', () => {
    expect([heartbeatName('n1'), heartbeatName('n'.repeat(253)).length]).toEqual(['node-n1', 45]);
  });
});
