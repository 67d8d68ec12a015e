import { describe, expect, test } from '@jest/globals';
import { exitReason, type LastExit, type ObservedVm } from '#crds/wire/observed.ts';
import { restartVerdict, type Standing, standingOf } from './status.ts';

const report = (over: Partial<ObservedVm>): ObservedVm => ({
  kind: 'vm', uid: '11111111-2222-4333-8444-555555555555', generation: 1, epoch: 1, digest: 'd', state: 'running', disks: [], forwards: [], ...over,
});
const standing = (over: Partial<ObservedVm>): Standing => standingOf({ powerState: 'Running' }, 'd', report(over));

// What is said when a guest has ended: the compiler asks for a row when a reason is added.
const ends: Record<LastExit['reason'], [phase: Standing['phase'], reason: Standing['reason'], words: string]> = {
  GuestShutdown: ['Stopped', 'GuestShutdown', 'powered itself off'],
  GuestReset: ['Failed', 'GuestReset', 'rebooted'],
  GuestPanicked: ['Failed', 'GuestPanicked', 'panicked'],
  QemuCrashed: ['Failed', 'QemuCrashed', 'SIGSEGV'],
  OutOfMemory: ['Failed', 'OutOfMemory', 'lack of memory'],
  NodeRebooted: ['Failed', 'NodeRebooted', 'the node went down with the guest'],
  Stopped: ['Stopped', 'GuestShutdown', 'powered itself off'],
  Forced: ['Stopped', 'GuestShutdown', 'powered itself off'],
};

describe.each(exitReason.options.map((exit) => [exit, ...ends[exit]] as const))('a guest that ended by %s', (exit, phase, reason, words) => {
  const lastExit: LastExit = { reason: exit, signal: 'SIGSEGV', time: '2030-01-01T00:00:00Z' };

  test('and is not started again is not Ready, Stalled, and says how it is started', () => {
    expect(standing({ state: 'ended', lastExit })).toMatchObject({ phase, ready: 'False', reason, progress: 'stalled', message: expect.stringMatching(`${words}.*powerState to Stopped and then to Running`) });
  });

  test('and is started again soon says when', () => {
    expect(standing({ state: 'ended', lastExit, restarts: { count: 1, at: '2030-01-01T00:00:10.000Z' } }))
      .toMatchObject({ phase: 'Stopped', ready: 'False', reason, progress: 'reconciling', message: expect.stringMatching(`${words}.*started again at 2030-01-01T00:00:10Z`) });
  });
});

test('an end that left no trace is told as the guest\'s own', () => {
  expect(standing({ state: 'ended' })).toMatchObject({ phase: 'Stopped', reason: 'GuestShutdown', progress: 'stalled' });
});

const edit = (restart: boolean) => ({ path: 'spec.cpu.cores', current: '1', desired: '2', restart });

test.each<[string, Partial<ObservedVm>, string[]]>([
  ['no machine is there', {}, []],
  ['it has the whole spec', { applied: { generation: 1, pending: [] } }, ['False UpToDate']],
  ['an edit waits for a power cycle', { applied: { generation: 1, pending: [edit(false), edit(true)] } }, ['True ChangesPending']],
  ['an edit is not made', { applied: { generation: 1, pending: [edit(false)] } }, ['True ChangesRefused']],
  ['its TPM is lost', { applied: { generation: 1, pending: [] }, tpmLost: true }, ['True TpmLost']],
])('whether a restart is needed where %s', (_, over, verdicts) => {
  expect(restartVerdict(report(over)).map(({ status, reason }) => `${status} ${reason}`)).toEqual(verdicts);
});
