import { describe, expect, test } from '@jest/globals';
import type { EventOf, HistoryEvent, Standing } from './events.ts';
import { judge } from './judge.ts';

const uid = 'uid-1';
const spec = { powerState: 'Running' as const, restartPolicy: 'Never' as const, memory: { size: '32Mi' }, disks: [{ name: 'data' }, { name: 'root' }], interfaces: [{ name: 'lan' }], stop: { mode: 'Graceful', gracePeriodSeconds: 3 } };
const standing: Standing = { name: 'ada', uid, spec, generation: 1, observedGeneration: 1, deleting: false, phase: 'Running', ready: 'True', reason: 'Running', message: 'it runs', restartRequired: false, reconciling: false };
const supervisor = { pid: 10, ticks: '1', parent: 1, uid, program: 'dash' };
const machine = { pid: 11, ticks: '2', parent: 10, uid, program: 'qemu-system-x86_64' };
const guest = { status: 'running', memoryMiB: 32, disks: ['data', 'root'], nics: 1 };
const atRest: EventOf<'rest'> = { is: 'rest', t: 1_000, stage: 'after the chaos', objects: [standing], processes: [supervisor, machine], guests: { [uid]: guest }, diaries: {}, traces: {} };
const empty: EventOf<'rest'> = { is: 'rest', t: 2_000, stage: 'after the deletes', objects: [], processes: [], guests: {}, diaries: {}, traces: { [uid]: [] } };
const open = (t: number, pid: number, of: { disk?: string; uid?: string } = {}): HistoryEvent =>
  ({ is: 'opened', t, pid, ticks: '2', uid: of.uid ?? uid, disk: of.disk ?? '1:100', path: 'disks/root.qcow2' });
const boot = (t: number, count: number, mark = 'BEEF'): HistoryEvent => ({ is: 'boot', t, uid, mark, count });
const file = (t: number, id: string | null): HistoryEvent => ({ is: 'file', t, uid, path: 'disks/root.qcow2', id });
const looked = (t: number, longestMs = 6): HistoryEvent => ({ is: 'looked', t, looks: 50, longestMs });

/** One VM: created, started, killed, started again, found at rest, deleted, and nothing left. */
const clean: readonly HistoryEvent[] = [
  looked(1),
  { is: 'asked', t: 10, request: 1, verb: 'create', name: 'ada', body: { spec } },
  { is: 'answered', t: 20, request: 1, outcome: 'done', object: { name: 'ada', uid, spec, deleting: false } },
  file(30, '100 born 5'),
  { is: 'process', t: 40, pid: 8, ticks: '1', uid, program: 'dash' },
  { is: 'process', t: 41, pid: 9, ticks: '2', uid, program: 'setpriv' },
  { is: 'process', t: 45, pid: 9, ticks: '2', uid, program: 'qemu-system-x86_64' },
  open(50, 9),
  boot(60, 1), boot(70, 2),
  { is: 'did', t: 100, what: 'killQemu ada', uid, hurts: true },
  { is: 'closed', t: 120, pid: 9, ticks: '2', disk: '1:100', last: 99 },
  { is: 'ended', t: 121, pid: 9, ticks: '2', last: 99 },
  { is: 'ended', t: 130, pid: 8, ticks: '1', last: 125 },
  { is: 'process', t: 110, ...supervisor },
  { is: 'process', t: 112, ...machine },
  open(115, 11),
  boot(140, 4),
  looked(990),
  atRest,
  { is: 'asked', t: 1_100, request: 2, verb: 'delete', name: 'ada', uid },
  { is: 'answered', t: 1_110, request: 2, outcome: 'done' },
  { is: 'closed', t: 1_200, pid: 11, ticks: '2', disk: '1:100', last: 1_195 },
  { is: 'ended', t: 1_200, pid: 11, ticks: '2', last: 1_195 },
  { is: 'ended', t: 1_210, pid: 10, ticks: '1', last: 1_206 },
  file(1_250, null),
  { is: 'gone', t: 1_300, name: 'ada', uid },
  looked(2_000),
  empty,
];

const rules = (history: readonly HistoryEvent[]) => judge(history).map(({ rule }) => rule);
/** The clean history with events put in, and those that `drop` names left out. */
const doctored = (more: readonly HistoryEvent[], drop: (event: HistoryEvent) => boolean = () => false) => rules([...clean.filter((each) => !drop(each)), ...more]);
const resting = (over: Partial<EventOf<'rest'>>) => doctored([{ ...atRest, ...over }], (each) => each === atRest);
const standingAs = (over: Partial<Standing>, rest: Partial<EventOf<'rest'>> = {}) => resting({ objects: [{ ...standing, ...over }], ...rest });

test('a clean history has nothing wrong in it', () => {
  expect(judge(clean)).toEqual([]);
});

describe('two QEMUs', () => {
  test('of one VM, both seen at one moment', () => {
    expect(doctored([{ is: 'process', t: 90, pid: 20, ticks: '9', uid, program: 'qemu-system-x86_64' }, { is: 'ended', t: 99, pid: 20, ticks: '9', last: 95 }])).toEqual(['one QEMU for a VM']);
  });
  test('with one disk, though it is another VM\'s', () => {
    expect(doctored([open(500, 20, { uid: 'uid-2' }), { is: 'closed', t: 520, pid: 20, ticks: '2', disk: '1:100', last: 510 }])).toEqual(['one QEMU for a disk']);
  });
  test('of one VM, the second after the last sight of the first', () => {
    expect(doctored([{ is: 'process', t: 100, pid: 20, ticks: '9', uid, program: 'qemu-system-x86_64' }, { is: 'ended', t: 111, pid: 20, ticks: '9', last: 105 }])).toEqual([]);
  });
  test('of one VM, one of which never became a machine', () => {
    expect(doctored([{ is: 'process', t: 90, pid: 20, ticks: '9', uid, program: 'dash' }, { is: 'ended', t: 99, pid: 20, ticks: '9', last: 95 }])).toEqual([]);
  });
});

describe('a lost disk', () => {
  test.each<[string, readonly HistoryEvent[]]>([
    ['is another file under its name', [file(500, '101 born 9')]],
    ['was away and came back', [file(500, null), file(510, '100 born 5')]],
    ['was booted with another mark', [boot(500, 5, 'CAFE')]],
    ['went back to an earlier boot', [boot(500, 2)]],
    ['was booted twice with one count', [boot(500, 4)]],
  ])('%s', (_, more) => {
    expect(new Set(doctored(more))).toEqual(new Set(['no disk is lost']));
  });
  test.each([['is not what its guest told of', 'CAFE', 4], ['has not what its guest told of', 'BEEF', 3]])('%s', (_, mark, count) => {
    expect(resting({ diaries: { [uid]: { mark, count } } })).toEqual(['no disk is lost']);
  });
  test('has what its guest told of, and may have more', () => {
    expect([resting({ diaries: { [uid]: { mark: 'BEEF', count: 4 } } }), resting({ diaries: { [uid]: { mark: 'BEEF', count: 5 } } })]).toEqual([[], []]);
  });
  test('is owed to a VM whose delete was not done', () => {
    const unanswered: HistoryEvent = { is: 'asked', t: 480, request: 9, verb: 'delete', name: 'ada', uid };
    expect(doctored([unanswered, { is: 'answered', t: 490, request: 9, outcome: 'unknown' }, file(500, null)])).toEqual(['no disk is lost']);
  });
  describe('that an edit took away', () => {
    const more = (t: number, id: string | null): HistoryEvent => ({ is: 'file', t, uid, path: 'disks/more.qcow2', id });
    const without: HistoryEvent = { is: 'asked', t: 500, request: 9, verb: 'patch', name: 'ada', uid, body: { spec: { disks: [{ name: 'root' }, { name: 'data' }] } } };
    const unanswered: HistoryEvent = { is: 'answered', t: 505, request: 9, outcome: 'unknown' };
    const having = { ...spec, disks: [...spec.disks, { name: 'more' }] };
    const givenBack: HistoryEvent[] = [
      { is: 'asked', t: 1_005, request: 10, verb: 'patch', name: 'ada', uid, body: { spec: { disks: having.disks } } },
      { is: 'answered', t: 1_006, request: 10, outcome: 'done', object: { name: 'ada', uid, spec: having, deleting: false } },
    ];
    const rest: EventOf<'rest'> = { ...atRest, t: 1_020, objects: [{ ...standing, spec: having }], guests: { [uid]: { ...guest, disks: ['data', 'more', 'root'] } } };
    test.each<[string, readonly HistoryEvent[], string[]]>([
      ['may go', [more(400, '7 born 7'), without, unanswered, more(510, null)], []],
      ['may be made anew', [more(400, '7 born 7'), without, unanswered, more(510, null), more(520, '8 born 8')], []],
      ['may go when its guest lets go of it, after all has settled', [more(400, '7 born 7'), without, unanswered, more(1_050, null)], []],
      ['is owed again when all has settled with it', [more(400, '7 born 7'), without, unanswered, more(510, null), more(520, '8 born 8'), ...givenBack, rest, more(1_050, null)], ['no disk is lost']],
      ['is another than one that was not', [more(400, '7 born 7'), without, unanswered, file(510, null)], ['no disk is lost']],
      ['may not go before that', [more(400, '7 born 7'), more(490, null), without, unanswered], ['no disk is lost']],
    ])('%s', (_, events, wrong) => {
      expect(doctored(events)).toEqual(wrong);
    });
  });
  test('may go when its delete was asked for', () => {
    expect(doctored([file(1_150, null)])).toEqual([]);
  });
});

describe('a lost acknowledged change', () => {
  const paused = { ...spec, powerState: 'Paused' as const };
  const patch = (outcome: 'done' | 'refused' | 'unknown', sent: Record<string, unknown> = { powerState: 'Paused' }): HistoryEvent[] => [
    { is: 'asked', t: 300, request: 3, verb: 'patch', name: 'ada', uid, body: { spec: sent } },
    { is: 'answered', t: 310, request: 3, outcome, ...(outcome === 'done' ? { object: { name: 'ada', uid, spec: paused, deleting: false } } : {}) },
  ];
  const asPaused = { objects: [{ ...standing, spec: paused, phase: 'Paused' }], guests: { [uid]: { ...guest, status: 'paused' } } };
  const withPatch = (outcome: 'done' | 'refused' | 'unknown', rest: Partial<EventOf<'rest'>>, sent?: Record<string, unknown>) =>
    doctored([...patch(outcome, sent), { ...atRest, ...rest }], (each) => each === atRest);

  test.each<[string, string[], string[]]>([
    ['done', ['no acknowledged change is lost'], []],
    ['refused', [], ['no acknowledged change is lost']],
    ['unknown', [], []],
  ])('a patch that was %s: not there, there', (outcome, notThere, there) => {
    const how = outcome === 'done' || outcome === 'refused' ? outcome : 'unknown';
    expect([withPatch(how, {}), withPatch(how, asPaused)]).toEqual([notThere, there]);
  });
  test('a patch without an answer is done whole or not at all', () => {
    expect(withPatch('unknown', { objects: [{ ...standing, spec: { ...spec, stop: { mode: 'Force', gracePeriodSeconds: 9 } } }] }, { stop: { mode: 'Force' } })).toEqual(['no acknowledged change is lost']);
  });
  test('a VM that was created and is not there', () => {
    expect(doctored([{ ...atRest, objects: [], processes: [], guests: {} }], (each) => each === atRest)).toEqual(['no acknowledged change is lost']);
  });
  test('a VM that was deleted and is there', () => {
    expect(doctored([{ ...empty, objects: [standing], processes: [supervisor, machine], guests: { [uid]: guest } }], (each) => each === empty)).toContain('no acknowledged change is lost');
  });
  test('a VM that is edited while it is deleted goes all the same', () => {
    const late: HistoryEvent[] = [
      { is: 'asked', t: 1_150, request: 8, verb: 'patch', name: 'ada', uid, body: { spec: { powerState: 'Paused' } } },
      { is: 'answered', t: 1_160, request: 8, outcome: 'done', object: { name: 'ada', uid, spec: paused, deleting: true } },
    ];
    expect(doctored(late)).toEqual([]);
  });
  test('another VM under the name', () => {
    expect(standingAs({ uid: 'uid-2' }, { processes: [{ ...machine, uid: 'uid-2' }], guests: { 'uid-2': guest } })).toEqual(['no acknowledged change is lost']);
  });
  test('a VM whose create had no answer is there or not', () => {
    const create: HistoryEvent[] = [
      { is: 'asked', t: 300, request: 5, verb: 'create', name: 'bob', body: { spec: { powerState: 'Stopped' } } }, { is: 'answered', t: 310, request: 5, outcome: 'unknown' },
    ];
    const bob = { ...standing, name: 'bob', uid: 'uid-2', spec: { ...spec, powerState: 'Stopped' as const, more: 'by default' }, phase: 'Stopped' };
    expect(doctored(create)).toEqual([]);
    expect(doctored([...create, { ...atRest, objects: [standing, bob] }], (each) => each === atRest || each === empty)).toEqual([]);
  });
});

describe('at rest', () => {
  const declared = 'what is declared is what runs';
  test.each<[string, Partial<Standing>, Partial<EventOf<'rest'>>]>([
    ['a VM that should run has no QEMU', {}, { processes: [], guests: {} }],
    ['a VM that should run has two', {}, { processes: [supervisor, machine, { ...machine, pid: 30 }] }],
    ['a guest that should run stands still', {}, { guests: { [uid]: { ...guest, status: 'paused' } } }],
    ['the status says otherwise', { ready: 'Unknown', reason: 'GuestUnknown' }, {}],
    ['the status is of an older generation', { generation: 2 }, {}],
    ['its memory is not what is declared, and no restart is said to be needed', {}, { guests: { [uid]: { ...guest, memoryMiB: 48 } } }],
    ['it lacks a disk, and no restart is said to be needed', {}, { guests: { [uid]: { ...guest, disks: ['root'] } } }],
    ['it lacks a network card, and no restart is said to be needed', {}, { guests: { [uid]: { ...guest, nics: 0 } } }],
    ['a restartToken was not honoured', { restartTokenObserved: 'old' }, {}],
    ['a supervisor is left of a machine that is gone', { ready: 'False', reason: 'QemuCrashed', phase: 'Failed' }, { processes: [supervisor], guests: {} }],
    ['the emulator of its TPM is left of a machine that is gone', { ready: 'False', reason: 'QemuCrashed', phase: 'Failed' }, { processes: [{ ...supervisor, program: 'swtpm' }], guests: {} }],
    ['a VM has two supervisors', {}, { processes: [supervisor, machine, { ...supervisor, pid: 30 }] }],
  ])('%s', (_, over, rest) => {
    expect(new Set(standingAs(over, rest))).toEqual(new Set([declared]));
  });
  test('a VM whose QEMU was killed may be down, and says so', () => {
    expect(standingAs({ ready: 'False', reason: 'QemuCrashed', phase: 'Failed' }, { processes: [], guests: {} })).toEqual([]);
  });
  test('but not when nobody hurt it', () => {
    expect(doctored([{ ...atRest, objects: [{ ...standing, ready: 'False', reason: 'QemuCrashed', phase: 'Failed' }], processes: [], guests: {} }], (each) => each === atRest || each.is === 'did'))
      .toEqual([declared, declared]);
  });
  test('the emulator of a TPM may outlive its supervisor', () => {
    expect(resting({ processes: [supervisor, machine, { ...supervisor, pid: 30, program: 'swtpm' }] })).toEqual([]);
  });
  test('a supervisor may have children', () => {
    expect(resting({ processes: [supervisor, machine, { ...supervisor, pid: 30, parent: 10 }, { ...supervisor, pid: 31, parent: 30, program: 'sleep' }] })).toEqual([]);
  });
  test('an edit that is said to wait for a restart may wait', () => {
    expect(standingAs({ restartRequired: true }, { guests: { [uid]: { ...guest, memoryMiB: 48 } } })).toEqual([]);
  });
  test.each([
    ['nor when its policy is to start it again, and that is not said to come', false, 100, [declared, declared]],
    ['nor when that should have come long ago', true, -400_000, [declared, declared]],
    ['but while that is on its way', true, 100, []],
  ])('%s', (_, reconciling, hurtAt, wrong) => {
    const always = { ...spec, restartPolicy: 'Always' as const };
    const acknowledged = clean.map((each): HistoryEvent => {
      if (each.is === 'did') return { ...each, t: hurtAt };
      return each.is === 'answered' && each.object ? { ...each, object: { ...each.object, spec: always } } : each;
    });
    const down: Standing = { ...standing, spec: always, ready: 'False', reason: 'QemuCrashed', phase: 'Stopped', reconciling };
    expect(rules([...acknowledged.filter((each) => each !== atRest), { ...atRest, objects: [down], processes: [], guests: {} }])).toEqual(wrong);
  });
});

describe('a deleted VM', () => {
  test.each<[string, readonly HistoryEvent[]]>([
    ['has a QEMU again', [{ is: 'process', t: 1_400, pid: 40, ticks: '7', uid, program: 'qemu-system-x86_64' }, { is: 'ended', t: 1_500, pid: 40, ticks: '7', last: 1_490 }]],
    ['has left a process', [{ ...empty, processes: [{ ...supervisor, pid: 40 }] }]],
    ['has left files', [{ ...empty, traces: { [uid]: ['vms/uid-1'] } }]],
  ])('%s', (_, more) => {
    expect(doctored(more)).toEqual(['nothing of a deleted VM']);
  });
});

describe('the witness', () => {
  test.each<[string, readonly HistoryEvent[]]>([
    ['saw nothing', clean.filter(({ is }) => is !== 'looked')],
    ['was not there for some seconds', [...clean, looked(800, 2_500)]],
    ['ended before the history', [...clean, { ...empty, t: 9_000 }]],
  ])('%s: the history proves nothing', (_, history) => {
    expect(rules(history)).toEqual(['the witness was awake']);
  });
});
