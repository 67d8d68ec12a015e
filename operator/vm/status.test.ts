import { describe, expect, test } from '@jest/globals';
import { dated } from '#crds/v1alpha1/condition.ts';
import { type VirtualMachine, virtualMachine, virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { exitReason, type LastExit, type ObservedVm, observedVm } from '#crds/wire/observed.ts';
import type { VmFacts } from './facts.ts';
import { timedSteps } from './guest.ts';
import { restartVerdict, type Standing, standingOf, statusOf } from './status.ts';

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

test('whatever an agent says of a VM, its status is one that the API server takes: else the last one would stand for ever', () => {
  const most = 2 ** 31 - 1;
  const says = (count: number, sizeMiB: number): unknown => report({
    lastExit: { reason: 'QemuCrashed', code: count, time: 'x' }, machine: { type: 'q35', cpuModel: 'max', accelerator: 'tcg', cpus: count, memoryMiB: sizeMiB }, applied: { generation: count, pending: [] },
    restarts: { count }, disks: [{ name: 'root', sizeMiB, format: 'qcow2', state: 'Ready' }],
    forwards: Array.from({ length: 256 }, () => ({ interface: 'net', name: 'f', address: '127.0.0.1', hostPort: count, port: count, protocol: 'TCP' as const })),
  });
  const vm: VirtualMachine = virtualMachine.parse({
    metadata: { name: 'a', namespace: 'default', uid: report({}).uid, resourceVersion: '1', generation: 1 }, status: { observedGeneration: 1, nodeName: 'n', epoch: 1 },
    spec: { cpu: { cores: 1 }, memory: { size: '1Gi' }, disks: [{ name: 'root', blank: {}, size: '1Gi' }], interfaces: [{ name: 'net', user: {} }] },
  });
  const facts: VmFacts = {
    vm, clusterId: 'c', candidates: [], link: 'connected', nodeGone: false, held: false, awaited: false, report: observedVm.parse(says(most, 2 ** 40)), absent: false, endedForEver: false, images: new Map(), claims: [], unrecorded: [], holders: [], everyNodeReported: true,
  };
  expect(virtualMachineKind.status.safeParse(statusOf(facts, standing({}), [], new Date(0))).error).toBeUndefined();
  const paths = observedVm.safeParse(says(most + 1, 2 ** 40 + 1)).error?.issues.map(({ path }) => path.join('.'));
  expect(paths?.toSorted()).toEqual(expect.arrayContaining(['applied.generation', 'disks.0.sizeMiB', 'forwards.0.port', 'lastExit.code', 'machine.cpus', 'machine.memoryMiB', 'restarts.count']));
});

test('a message that is cut within a character, or that an agent cut there, is one that the API server stores as it is', () => {
  const messages = [`${'a'.repeat(4095)}😀`, 'half: \ud83d'].map((message) => dated([{ type: 'Ready', status: 'True', reason: 'Ready', message }], [], 1, new Date(0))[0]?.message);
  expect(messages.map((message) => message?.isWellFormed())).toEqual([true, true]);
});

test('a time that is none makes no step of the histogram', () => {
  const timings = { accepted: '2030-01-01T00:00:00Z', scheduled: '2030-01-01T00:00:01Z', prepared: 'garbage' };
  expect(timedSteps({ observedGeneration: 1 }, { observedGeneration: 1, timings })).toEqual([{ step: 'scheduled', seconds: 1 }]);
});
