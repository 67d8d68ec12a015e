import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import { type Log, quiet } from '#crds/kit/log.ts';
import { handClock } from '../loop/handclock.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';
import { type Change, startInformer } from './informer.ts';
import type { KubeFailure } from './kube.ts';
import { pathOf } from './resource.ts';

const { configMap: kind } = fakeKinds;
const parse = (raw: unknown) => z.object({ metadata: z.looseObject({ name: z.string() }), data: z.object({ n: z.coerce.number() }) }).parse(raw);
const config = (name: string, n: number | string = 1) => ({ metadata: { name }, data: { n: String(n) } });
const short = (key: string): string => key.slice(3);

const bed = (options: { onChange?: () => void; since?: string } = {}) => {
  const clock = handClock();
  const kube = makeFakeKube(Object.values(fakeKinds), clock.now);
  const told: string[] = [];
  const lines: string[] = [];
  const wentBack: unknown[] = [];
  const line = (fields: object, sentence: string): void => void lines.push('code' in fields ? `${sentence}: ${String(fields.code)}` : sentence);
  const log: Log = { ...quiet, info: line, warn: line, error: line };
  const stop = new AbortController();
  const start = () => startInformer({
    kube, resource: kind.resource, since: options.since, parse, log, clock, chance: () => 0.5, signal: stop.signal,
    indexes: { parity: ({ data }) => [data.n % 2 === 0 ? 'even' : 'odd'] },
    onChange: (change: Change<unknown>) => {
      told.push(`${change.is} ${short(change.key)} ${change.seenBy}`);
      options.onChange?.();
    },
    onHistoryWentBack: (note) => wentBack.push(note),
  });
  const names = (informer: ReturnType<typeof start>) => informer.all().map((held) => `${short(held.key)}${held.is === 'object' ? held.object.data.n : '?'}`).sort();
  const set = async (name: string, n: number | string) => kube.request('PATCH', pathOf(kind.resource, { namespace: 'ns', name }), { body: { data: { n: String(n) } }, contentType: 'application/merge-patch+json' });
  const remove = async (name: string) => kube.request('DELETE', pathOf(kind.resource, { namespace: 'ns', name }));
  const lists = () => kube.requests.filter(({ method, query }) => method === 'GET' || query['sendInitialEvents'] === true).length;
  return { clock, kube, told, lines, wentBack, stop, start, names, set, remove, lists };
};

/** An informer that has listed a and b and watches. */
const watching = async (options: Parameters<typeof bed>[0] = {}) => {
  const it = bed(options);
  it.kube.put(kind, 'ns', config('a'));
  it.kube.put(kind, 'ns', config('b'));
  const informer = it.start();
  await it.clock.settle();
  await informer.synced;
  it.told.length = 0;
  return { ...it, informer };
};

describe('an informer in good weather', () => {
  test('lists by stream, follows the watch, keeps indexes, and drops managedFields', async () => {
    const it = await watching();
    expect([it.informer.hasSynced(), it.names(it.informer)]).toEqual([true, ['a1', 'b1']]);
    it.kube.put(kind, 'ns', { ...config('c', 2), metadata: { name: 'c', managedFields: [{ manager: 'x' }] } });
    await it.set('a', 4);
    await it.remove('b');
    await it.clock.settle();
    expect(it.told).toEqual(['present c watch', 'present a watch', 'gone b watch']);
    expect(it.informer.by('parity', 'even').map((held) => held.key).sort()).toEqual(['ns/a', 'ns/c']);
    expect(it.informer.by('parity', 'odd')).toEqual([]);
    expect(JSON.stringify(it.informer.list())).not.toContain('managedFields');
    expect(it.lists()).toBe(1);
  });

  test('a watch that the server closes goes on where it ended, without a list', async () => {
    const it = await watching();
    it.kube.bookmark();
    it.kube.cut();
    await it.clock.advance(1_000);
    await it.set('a', 7);
    await it.clock.settle();
    expect([it.lists(), it.told, it.lines]).toEqual([1, ['present a watch'], []]);
  });

  test('an object that does not parse is held as such and told of; the others go on', async () => {
    const it = await watching();
    await it.set('a', 'many');
    await it.set('b', 3);
    await it.clock.settle();
    expect([it.told, it.names(it.informer), it.informer.get('ns/a')]).toEqual([['present a watch', 'present b watch'], ['a?', 'b3'], undefined]);
    expect(it.informer.held('ns/a')).toMatchObject({ is: 'unparsable', meta: { name: 'a' }, message: expect.stringContaining('data.n') });
    await it.set('a', 5);
    await it.clock.settle();
    expect(it.names(it.informer)).toEqual(['a5', 'b3']);
  });

  test('accept: our own write is read at once, and not told a second time by the watch; an older one is refused', async () => {
    const it = await watching();
    const before = await it.kube.request('GET', '/api/v1/namespaces/ns/configmaps/a');
    const after = await it.set('a', 9);
    expect([it.informer.accept(after), it.informer.accept(before), it.names(it.informer)]).toEqual([true, false, ['a9', 'b1']]);
    await it.clock.settle();
    expect(it.told).toEqual(['present a own']);
  });

  test('accept does not bring back what the watch has seen go', async () => {
    const it = await watching();
    const late = await it.set('a', 9);
    await it.remove('a');
    await it.clock.settle();
    expect([it.informer.accept(late), it.names(it.informer)]).toEqual([false, ['b1']]);
  });

  test('deleted and made anew under one name between two lists: the old uid is told gone', async () => {
    const it = await watching();
    it.kube.compact();
    it.kube.mute(true);
    await it.remove('a');
    it.kube.put(kind, 'ns', config('a', 8));
    it.kube.mute(false);
    it.kube.cut({ status: 0, message: 'reset' });
    await it.clock.advance(2_000);
    expect(it.told).toEqual(['gone a relist', 'present a relist']);
  });

  test('a throw in the handler is logged and ends nothing', async () => {
    const it = await watching({ onChange: () => { throw new Error('handler'); } });
    await it.set('a', 2);
    await it.set('a', 3);
    await it.clock.settle();
    expect([it.told.length, it.names(it.informer), it.lines.at(-1)]).toEqual([2, ['a3', 'b1'], 'an informer handler threw']);
  });

  test('an abort stops it and leaves no timer', async () => {
    const it = await watching();
    it.stop.abort();
    await it.informer.stopped;
    await it.clock.settle();
    expect([it.kube.watches(), it.clock.sleepers()]).toEqual([0, 0]);
  });
});

/** An informer in the middle of a streamed list, which has said a and b so far; `endOfList` says that it is of the version that was newest then, or of one that is `later`. */
const listing = async () => {
  const it = await watching();
  it.kube.mute(true);
  it.kube.cut({ status: 0, message: 'reset' });
  await it.clock.advance(1_000);
  const { items, metadata } = z.object({ metadata: z.object({ resourceVersion: z.coerce.number() }), items: z.array(z.unknown()) }).parse(await it.kube.request('GET', '/api/v1/configmaps'));
  for (const object of items) it.kube.send({ type: 'ADDED', object });
  await it.clock.settle();
  const endOfList = (later = 0) => it.kube.send({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(metadata.resourceVersion + later), annotations: { 'k8s.io/initial-events-end': 'true' } } } });
  return { ...it, endOfList };
};

/** While the watch is broken a is changed, b deleted, c made: afterwards the informer must know all three. */
const meanwhile = async (it: Awaited<ReturnType<typeof watching>>, breakIt: () => void) => {
  it.kube.mute(true);
  await it.set('a', 2);
  await it.remove('b');
  it.kube.put(kind, 'ns', config('c'));
  expect(it.names(it.informer)).toEqual(['a1', 'b1']);
  it.kube.mute(false);
  breakIt();
};

describe('an informer in bad weather', () => {
  test.each<[string, (it: Awaited<ReturnType<typeof watching>>) => void]>([
    ['410 as a frame', (it) => it.kube.send({ type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' } })],
    ['410 as a status when the watch goes on', (it) => {
      it.kube.fail({ method: 'WATCH', failure: { status: 410, reason: 'Expired', message: 'too old' } });
      it.kube.cut();
    }],
    ['410 as the first frame, after compaction', (it) => {
      it.kube.compact();
      it.kube.cut();
    }],
    ['another ERROR frame', (it) => it.kube.send({ type: 'ERROR', object: { kind: 'Status', code: 500, message: 'etcd leader changed' } })],
    ['a connection cut in the middle', (it) => it.kube.cut({ status: 0, reason: 'StreamCut', message: 'terminated' })],
    ['a frame that is no frame', (it) => it.kube.send({ nonsense: true })],
    ['an object without metadata', (it) => it.kube.send({ type: 'ADDED', object: { data: {} } })],
    ['the list then answers 500 five times', (it) => {
      it.kube.fail({ times: 5, failure: { status: 500, message: 'boom' } });
      it.kube.cut({ status: 0, message: 'reset' });
    }],
    ['the server then is away and initialises its storage', (it) => {
      it.kube.fail({ times: 3, failure: { status: 0, message: 'ECONNREFUSED' } });
      it.kube.fail({ times: 2, failure: { status: 429, message: 'storage is (re)initializing', retryAfterMs: 1_000 } });
      it.kube.cut({ status: 0, message: 'reset' });
    }],
  ])('%s: lists anew, tells the difference once, and watches on', async (_weather, breakIt) => {
    const it = await watching();
    await meanwhile(it, () => breakIt(it));
    await it.clock.advance(60_000);
    expect([it.names(it.informer), it.told, it.wentBack]).toEqual([['a2', 'c1'], ['gone b relist', 'present a relist', 'present c relist'], []]);
    await it.set('c', 5);
    await it.clock.settle();
    expect([it.told.at(-1), it.kube.watches()]).toEqual(['present c watch', 1]);
    expect(it.lines.length).toBeLessThanOrEqual(3);
  });

  test('until the new list is complete the old content is served', async () => {
    const it = await watching();
    await meanwhile(it, () => {
      it.kube.chaos(() => ({ status: 503, message: 'away' }));
      it.kube.cut({ status: 0, message: 'reset' });
    });
    await it.clock.advance(20_000);
    expect([it.informer.hasSynced(), it.names(it.informer), it.told]).toEqual([true, ['a1', 'b1'], []]);
  });

  test('Retry-After is honoured', async () => {
    const it = await watching();
    it.kube.fail({ failure: { status: 429, message: 'slow down', retryAfterMs: 20_000 } });
    it.kube.cut({ status: 0, message: 'reset' });
    await it.clock.advance(15_000);
    const before = it.lists();
    await it.clock.advance(7_000);
    expect([before, it.lists()]).toEqual([2, 3]);
  });

  test('errors back off up to 30 s: an hour of 500s costs no more than 300 lists', async () => {
    const it = await watching();
    it.kube.chaos(() => ({ status: 500, message: 'boom' }));
    it.kube.cut({ status: 500, message: 'boom' });
    await it.clock.advance(3_600_000);
    expect(it.lists()).toBeLessThan(300);
    expect(it.lists()).toBeGreaterThan(100);
    expect(it.lines.length).toBe(1);
    it.kube.chaos(undefined);
    await it.clock.advance(60_000);
    expect([it.kube.watches(), it.lines.length]).toEqual([1, 2]);
  });

  test.each([422, 400, 404])('%d on a streamed list: in pages, at once, then a watch', async (status) => {
    const it = bed();
    for (let index = 0; index < 1_001; index += 1) it.kube.put(kind, 'ns', config(`x${index}`));
    const refusal: KubeFailure = { status, message: 'sendInitialEvents is forbidden' };
    it.kube.fail({ method: 'WATCH', failure: refusal });
    const informer = it.start();
    await it.clock.settle();
    expect([informer.hasSynced(), informer.list().length, it.kube.requests.filter(({ method }) => method === 'GET').length]).toEqual([true, 1_001, 3]);
    it.kube.put(kind, 'ns', config('y'));
    await it.clock.settle();
    expect(informer.get('ns/y')).toBeDefined();
  });

  test('a list of which a page fails is not taken: no object is thought gone', async () => {
    const it = bed();
    it.kube.streamedLists(false);
    for (let index = 0; index < 600; index += 1) it.kube.put(kind, 'ns', config(`x${index}`));
    let asked = 0;
    it.kube.chaos(({ query }) => (query['continue'] !== undefined && (asked += 1) <= 2 ? { status: 410, reason: 'Expired', message: 'the continue token is too old' } : undefined));
    const informer = it.start();
    await it.clock.settle();
    expect([informer.hasSynced(), informer.list().length]).toEqual([false, 0]);
    await it.clock.advance(5_000);
    expect([informer.hasSynced(), informer.list().length, it.told.filter((each) => !each.startsWith('present'))]).toEqual([true, 600, []]);
  });

  test('a watch that died unseen: what is held is old until a list is asked for, which begins at once', async () => {
    const it = await watching();
    it.kube.mute(true);
    await it.set('a', 2);
    await it.remove('b');
    it.kube.mute(false);
    await it.clock.settle();
    expect(it.names(it.informer)).toEqual(['a1', 'b1']);
    let done = false;
    void it.informer.refresh().then(() => { done = true; });
    await it.clock.settle();
    expect([done, it.names(it.informer), it.told, it.lines, it.wentBack]).toEqual([true, ['a2'], ['gone b relist', 'present a relist'], [], []]);
    await it.set('a', 3);
    await it.clock.settle();
    expect([it.names(it.informer), it.lists()]).toEqual([['a3'], 2]);
  });

  test('a list that is asked for while the server is away, or while another one is on its way, is one that begins after that', async () => {
    const it = bed();
    it.kube.put(kind, 'ns', config('a'));
    const informer = it.start();
    let done = 0;
    const ask = () => void informer.refresh().then(() => { done += 1; });
    ask();
    it.kube.put(kind, 'ns', config('b'));
    await it.clock.settle();
    expect([done, it.names(informer)]).toEqual([1, ['a1', 'b1']]);
    ask();
    ask();
    await it.clock.settle();
    expect(done).toBe(3);
    it.kube.chaos(() => ({ status: 0, message: 'cut off' }));
    ask();
    await it.clock.advance(10_000);
    expect(done).toBe(3);
    it.kube.chaos(undefined);
    await it.clock.advance(30_000);
    expect([done, informer.hasSynced()]).toEqual([4, true]);
  });

  test('silence for 150 s: a list, and never a watch from the old version; before that nothing', async () => {
    const it = await watching();
    it.kube.mute(true);
    await it.set('a', 2);
    it.kube.mute(false);
    const asked = it.kube.requests.length;
    await it.clock.advance(149_000);
    expect(it.kube.requests.length - asked).toBe(0);
    await it.clock.advance(2_000);
    expect(it.names(it.informer)).toEqual(['a2', 'b1']);
    const first = it.kube.requests[asked];
    expect([first?.method, first?.query['resourceVersion']]).toEqual(['GET', undefined]);
  });

  test('bookmarks are life: with one a minute nothing is listed for an hour', async () => {
    const it = await watching();
    for (let minute = 0; minute < 60; minute += 1) {
      await it.clock.advance(60_000);
      it.kube.bookmark();
    }
    expect(it.lists()).toBe(1);
  });

  test('history went back: told before the cache changes, nothing of it stays, no tombstone as if it were a deletion', async () => {
    const it = await watching();
    const restore = it.kube.snapshot();
    it.kube.put(kind, 'ns', config('c'));
    await it.set('a', 2);
    await it.clock.settle();
    it.told.length = 0;
    restore();
    await it.clock.advance(2_000);
    expect([it.names(it.informer), it.wentBack.length, it.informer.hasSynced()]).toEqual([['a1', 'b1'], 1, true]);
    expect(it.told).toEqual(['gone c history', 'present a history', 'present b history']);
  });

  test.each([['9000', 1], ['1', 0]])('history went back is seen by a first list too, when an earlier informer of the process had come to %s', async (since, times) => {
    const it = await watching({ since });
    expect([it.wentBack.length, it.informer.hasSynced(), it.names(it.informer)]).toEqual([times, true, ['a1', 'b1']]);
    expect(it.informer.newest()).not.toBe('9000');
  });

  test.each([
    ['deleted', (it: ReturnType<typeof bed>) => it.remove('b')],
    ['changed', (it: ReturnType<typeof bed>) => it.set('b', 5)],
  ])('history went back is seen also when its count has overtaken ours: by what had been %s since', async (_, change) => {
    const it = await watching();
    const restore = it.kube.snapshot();
    await change(it);
    await it.clock.settle();
    restore();
    for (const n of [1, 2, 3, 4, 5, 6]) await it.set('a', n + 10);
    it.told.length = 0;
    await it.clock.advance(2_000);
    expect([it.names(it.informer), it.wentBack.length, it.told]).toEqual([['a16', 'b1'], 1, ['present a history', 'present b history']]);
  });

  test('a cache of the server that lags (504 too large a version) says nothing of the history: a list in pages does', async () => {
    const it = await watching();
    it.kube.fail({ failure: { status: 504, reason: 'Timeout', message: 'Too large resource version: 9, current: 5', causes: ['ResourceVersionTooLarge'] } });
    it.kube.cut({ status: 0, message: 'reset' });
    await it.clock.advance(300);
    expect([it.wentBack.length, it.informer.hasSynced(), it.names(it.informer)]).toEqual([0, true, ['a1', 'b1']]);
    await it.clock.advance(2_000);
    expect([it.wentBack, it.told, it.kube.requests.at(-2)]).toMatchObject([[], [], { method: 'GET', query: { limit: 500 } }]);
  });

  test('a streamed list that our own write overtakes is no history that went back', async () => {
    const it = await listing();
    it.informer.accept(await it.set('a', 9));
    it.endOfList();
    await it.clock.settle();
    expect([it.wentBack, it.told, it.names(it.informer)]).toEqual([[], ['present a own'], ['a9', 'b1']]);
  });

  test('what is deleted while a list is streamed is not in the list', async () => {
    const it = await listing();
    it.kube.send({ type: 'DELETED', object: await it.remove('b') });
    it.endOfList(1);
    await it.clock.settle();
    expect([it.wentBack, it.told, it.names(it.informer)]).toEqual([[], ['gone b relist'], ['a1']]);
  });

  test('whatever the weather was, in the end the cache is the cluster, and every lasting difference was told', async () => {
    const weather = fc.constantFrom('set', 'add', 'remove', 'cut', 'close', 'compact', 'mute', 'gone', 'fail', 'wait', 'bookmark', 'long', 'accept');
    await fc.assert(
      fc.asyncProperty(fc.array(weather, { minLength: 5, maxLength: 25 }), async (steps) => {
        const it = await watching();
        let made = 0;
        for (const step of steps) {
          made += 1;
          if (step === 'set') await it.set('a', made);
          if (step === 'accept') it.informer.accept(await it.set('a', made));
          if (step === 'add') it.kube.put(kind, 'ns', config(`x${made}`, made));
          if (step === 'remove') await it.remove(`x${made - 1}`).catch(() => {});
          if (step === 'cut') it.kube.cut({ status: 0, message: 'reset' });
          if (step === 'close') it.kube.cut();
          if (step === 'compact') it.kube.compact();
          if (step === 'mute') it.kube.mute(true);
          if (step === 'gone') it.kube.send({ type: 'ERROR', object: { code: 410, reason: 'Expired', message: 'old' } });
          if (step === 'fail') it.kube.fail({ times: 3, path: /configmaps$/, failure: { status: made % 2 === 0 ? 500 : 429, message: 'boom', retryAfterMs: 500 } });
          if (step === 'bookmark') it.kube.bookmark();
          if (step === 'wait') await it.clock.advance(700);
          if (step === 'long') await it.clock.advance(160_000);
        }
        it.kube.mute(false);
        await it.clock.advance(600_000);
        const { items } = z.object({ items: z.array(z.object({ metadata: z.object({ name: z.string() }), data: z.object({ n: z.string() }) })) }).parse(await it.kube.request('GET', '/api/v1/configmaps'));
        expect(it.names(it.informer)).toEqual(items.map((item) => `${item.metadata.name}${item.data.n}`).sort());
        expect(it.wentBack).toEqual([]);
        const last = new Map(it.told.map((each) => [each.split(' ')[1], each.split(' ')[0]]));
        for (const [name, is] of last) expect(is === 'present').toBe(items.some((item) => item.metadata.name === name));
        it.stop.abort();
        await it.informer.stopped;
      }),
      { numRuns: 40 },
    );
  });
});
