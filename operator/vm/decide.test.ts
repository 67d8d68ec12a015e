import { describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { vmFinalizer } from '#crds/v1alpha1/names.ts';
import { type VirtualMachine, virtualMachine, type VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import { desireDigest } from '#crds/wire/desired.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { decide } from './decide.ts';
import { desireOf } from './desire.ts';
import type { VmFacts } from './facts.ts';
import type { Holder } from './holders.ts';
import { interfaceMac, machineUuid } from './identity.ts';
import { skillsOf } from './needs.ts';
import type { Candidate } from './place.ts';

const now = new Date('2030-01-02T03:04:05Z');
const uid = '11111111-2222-4333-8444-555555555555';
const imageUid = '11111111-2222-4333-8444-666666666666';

const candidate = (over: Partial<Candidate> = {}): Candidate => ({
  name: 'node-1', connected: true, schedulable: true, accelerator: 'tcg', skills: skillsOf({ architecture: 'amd64' }), capacity: { cpus: 2, memoryMiB: 8192 }, taken: { cpus: 0, memoryMiB: 0 },
  ports: { min: 1024, max: 65535, used: new Map() }, ...over,
});

type Over = { spec?: object; metadata?: object; status?: Partial<VmStatus> };

const machine = ({ spec, metadata, status }: Over = {}): VirtualMachine => virtualMachine.parse({
  metadata: { name: 'a', namespace: 'default', uid, resourceVersion: '1', generation: 3, ...metadata },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'guest' } }], ...spec },
  ...(status ? { status: { observedGeneration: -1, ...status } } : {}),
});

const facts = (vm: VirtualMachine, over: Partial<VmFacts> = {}): VmFacts => ({
  vm, clusterId: 'c', candidates: [candidate()], link: 'connected', nodeGone: false, held: false, awaited: false, absent: false, endedForEver: false,
  images: new Map([['guest', { name: 'guest', uid: imageUid }]]), holders: [], claims: [], unrecorded: [], everyNodeReported: true, ...over,
});

const placed = { metadata: { finalizers: [vmFinalizer] }, status: { nodeName: 'node-1', epoch: 1 } };

const report = (vm: VirtualMachine, over: Partial<ObservedVm> = {}): ObservedVm => {
  const desire = desireOf(facts(vm));
  if ('missing' in desire) throw new Error('the test needs a complete desire');
  return { kind: 'vm', uid, generation: 3, epoch: 1, digest: desireDigest(desire), state: 'running', disks: [], forwards: [], ...over };
};

const holder = (node: string, over: Partial<Holder> = {}): Holder => ({ node, epoch: 4, ending: false, said: true, ...over });

const ready = (status: VmStatus | undefined) => {
  const found = conditionOf(status?.conditions, 'Ready');
  return found && `${found.status} ${found.reason}`;
};

const elder = { node: 'node-2', uid: '99999999-2222-4333-8444-555555555555', epoch: 3, ending: false, adopt: false };

describe('a binding', () => {
  test('is written to status first, then comes the finalizer, and only then a desire', () => {
    const first = decide(facts(machine()), now);
    expect(first).toMatchObject({ binds: true, tell: { is: 'keep' }, status: { nodeName: 'node-1', epoch: 1, observedGeneration: 3 } });
    expect(first.finalizer).toBeUndefined();
    const second = decide(facts(machine({ status: first.status ?? {} })), now);
    expect(second).toMatchObject({ finalizer: 'add', tell: { is: 'keep' } });
    const third = decide(facts(machine({ status: first.status ?? {}, metadata: { finalizers: [vmFinalizer] } })), now);
    expect(third.finalizer).toBeUndefined();
    expect(third.tell).toMatchObject({ is: 'desire', vm: { uid, epoch: 1, generation: 3, memoryMiB: 256 } });
  });

  test('of a stopped VM is not made: Ready, Stopped, no node', () => {
    const { status, binds, tell } = decide(facts(machine({ spec: { powerState: 'Stopped' } })), now);
    expect([ready(status), status?.phase, status?.nodeName, binds, tell.is]).toEqual(['True Stopped', 'Stopped', undefined, false, 'keep']);
  });

  test('waits while an older uid of the name lives on a node', () => {
    for (const powerState of ['Running', 'Stopped']) {
      const { status, binds } = decide(facts(machine({ spec: { powerState } }), { elder }), now);
      expect([binds, ready(status)]).toEqual([false, 'False NameHeldByOrphan']);
      expect(conditionOf(status?.conditions, 'Ready')?.message).toContain(`kubectl annotate hvn node-2 --overwrite strato.dev/adopt-orphan=${elder.uid}`);
    }
    const ending = decide(facts(machine(), { elder: { ...elder, ending: true } }), now).status;
    expect(conditionOf(ending?.conditions, 'Ready')?.message).toBe(`node node-2 is still ending the VM that had this name, uid ${elder.uid}; if that node is gone for good: kubectl delete hvn node-2`);
  });

  test.each([['Running', machine()], ['Stopped', machine({ spec: { powerState: 'Stopped' } })], ['lost', machine({ metadata: { finalizers: [vmFinalizer] } })]])('of a VM (%s) that shall adopt it goes to where it is, as what it is', (_, vm) => {
    const first = decide(facts(vm, { elder: { ...elder, adopt: true } }), now);
    expect(first).toMatchObject({ binds: true, tell: { is: 'keep' }, status: { nodeName: 'node-2', epoch: 3, machineUid: elder.uid } });
    const adopted = machine({ metadata: { finalizers: [vmFinalizer] }, status: first.status ?? {} });
    const second = decide(facts(adopted), now);
    expect(second.tell).toMatchObject({ is: 'desire', vm: { uid: elder.uid, epoch: 3, uuid: machineUuid('c', 'default', 'a'), namespace: 'default', name: 'a' } });
    expect(second.status).toMatchObject({ machineUid: elder.uid, nodeName: 'node-2' });
  });

  test('that is its own comes before one that could be adopted', () => {
    const { status } = decide(facts(machine(), { holders: [holder('node-7')], elder: { ...elder, adopt: true } }), now);
    expect([status?.nodeName, status?.machineUid]).toEqual(['node-7', undefined]);
  });

  test('of a VM that shall be stopped is made all the same where a node holds it: it may run there', () => {
    expect(decide(facts(machine({ spec: { powerState: 'Stopped' } }), { holders: [holder('node-7')] }), now)).toMatchObject({ binds: true, status: { nodeName: 'node-7' } });
  });

  test('goes to the node that holds the uid already, whatever fits better', () => {
    expect(decide(facts(machine(), { holders: [holder('node-7')] }), now).status).toMatchObject({ nodeName: 'node-7', epoch: 4 });
  });

  test.each([[false, false], [true, true]])('that was lost is never made anew (all reported: %s)', (everyNodeReported, stalled) => {
    const { status, binds, tell } = decide(facts(machine({ metadata: { finalizers: [vmFinalizer] } }), { everyNodeReported }), now);
    expect([binds, tell.is, ready(status), status?.phase]).toEqual([false, 'keep', 'Unknown BindingLost', 'Unknown']);
    expect(conditionOf(status?.conditions, 'Stalled') !== undefined).toBe(stalled);
  });

  test.each<[string, Partial<VmFacts>, string]>([
    ['held by two nodes', { holders: [holder('a'), holder('b')] }, 'Unknown HeldElsewhere'],
    ['held by two nodes, one of which is ending it', { holders: [holder('a', { ending: true }), holder('b')] }, 'Unknown HeldElsewhere'],
    ['still being ended by a node', { holders: [holder('a', { ending: true })] }, 'False WaitingForNodes'],
    ['recorded as held by a node that is not connected', { holders: [holder('a', { said: false, epoch: 0 })] }, 'False WaitingForNodes'],
  ])('is made nowhere while the VM is %s', (_, over, expected) => {
    const { status, binds } = decide(facts(machine(), over), now);
    expect([ready(status), binds]).toEqual([expected, false]);
    const lost = decide(facts(machine({ metadata: { finalizers: [vmFinalizer], deletionTimestamp: '2030-01-01T00:00:00Z' } }), over), now);
    expect([lost.binds, lost.finalizer]).toEqual([false, undefined]);
  });

  test('waits for a node that has not said what it holds; what was said of the VM stands for a moment, and not for long', () => {
    const soon = { unheard: { node: 'node-7', forLong: false } };
    const fresh = decide(facts(machine(), soon), now);
    expect([ready(fresh.status), fresh.binds, fresh.passing]).toEqual(['False WaitingForNodes', false, true]);
    const told = machine({ status: { observedGeneration: 3, phase: 'Pending' } });
    expect(decide(facts(told, soon), now)).toMatchObject({ binds: false, tell: { is: 'keep' } });
    expect(decide(facts(told, soon), now).status).toBeUndefined();
    const { status, binds } = decide(facts(told, { unheard: { node: 'node-7', forLong: true } }), now);
    expect([ready(status), binds, conditionOf(status?.conditions, 'Ready')?.message]).toEqual(['False WaitingForNodes', false, expect.stringContaining('kubectl delete hvn node-7')]);
  });

  test('whose finalizer was stripped gets it back and tears nothing down', () => {
    expect(decide(facts(machine({ status: placed.status })), now)).toMatchObject({ finalizer: 'add', tell: { is: 'keep' } });
  });
});

describe('a guest that a disk of its node halts', () => {
  const vm = machine(placed);
  const ioError = { reason: 'NoSpace', message: 'disk root: no space' } as const;
  const halted = report(vm, { state: 'paused', ioError, trouble: { ...ioError, final: false } });
  const told = (over: Partial<VmFacts>) => decide(facts(vm, over), now).status;

  test('is told with the reason; its disks are there', () => {
    const status = told({ report: halted });
    expect([status?.phase, ready(status)]).toEqual(['Paused', 'False NoSpace']);
    expect([conditionOf(status?.conditions, 'IOError'), conditionOf(status?.conditions, 'DisksReady')]).toMatchObject([{ status: 'True', ...ioError }, { status: 'True' }]);
  });

  test('is Ready when its user wants it paused', () => {
    const paused = machine({ ...placed, spec: { powerState: 'Paused' } });
    const status = decide(facts(paused, { report: report(paused, { state: 'paused', ioError }) }), now).status;
    expect([ready(status), conditionOf(status?.conditions, 'IOError')?.reason]).toEqual(['True Paused', 'NoSpace']);
  });

  test('is not told of when that is over, or when its node is silent', () => {
    expect([told({ report: report(vm) }), told({ report: halted, link: 'silent' })].map((status) => conditionOf(status?.conditions, 'IOError'))).toEqual([undefined, undefined]);
  });
});

describe('a node that keeps no new intents', () => {
  const full = { reason: 'LedgerFull', message: 'no space' } as const;
  const vm = machine(placed);
  test.each([
    ['of a VM that it was never told of', {}, 'False LedgerFull'],
    ['of an edit that it was not told of', { report: report(vm, { digest: 'older' }) }, 'False LedgerFull'],
    ['nothing of what it holds', { report: report(vm) }, 'True Running'],
  ])('is the reason %s', (_, over, expected) => {
    expect(ready(decide(facts(vm, { refuses: full, ...over }), now).status)).toBe(expected);
  });

  test.each<[string, Partial<VmFacts>, string, string]>([
    ['has not begun to end a VM', { report: report(vm) }, 'False LedgerFull', 'node node-1 has not begun to end the VM: no space'],
    ['is ending it', { report: report(vm, { state: 'deleting' }) }, 'False Terminating', 'node node-1 is ending the VM'],
    ['is silent since', { link: 'silent' }, 'Unknown NodeUnreachable', 'node node-1 is silent; the VM is ended when it is back; if that node is gone for good: kubectl delete hvn node-1'],
  ])('and %s, which is told', (_, over, expected, message) => {
    const { status, tell } = decide(facts(machine({ ...placed, metadata: { ...placed.metadata, deletionTimestamp: '2030-01-01T00:00:00Z' } }), { refuses: full, ...over }), now);
    expect([ready(status), conditionOf(status?.conditions, 'Ready')?.message, tell]).toEqual([expected, message, { is: 'end' }]);
  });
});

describe('a VM that another node than its own holds', () => {
  const vm = machine(placed);
  test.each<[string, Partial<VmFacts>]>([
    ['although its own runs it', { report: report(vm) }], ['although its own is silent', { link: 'silent' }], ['while that one ends it', { holders: [holder('node-7', { ending: true })] }],
    ['by what was last recorded of that one', { holders: [holder('node-7', { said: false })] }],
  ])('is told to nobody any more, and says so, %s', (_, over) => {
    const { status, tell } = decide(facts(vm, { holders: [holder('node-7')], ...over }), now);
    expect([ready(status), status?.nodeName, tell.is, conditionOf(status?.conditions, 'Stalled')?.reason]).toEqual(['Unknown HeldElsewhere', 'node-1', 'withhold', 'HeldElsewhere']);
  });

  test('says how to end the copy', () => {
    expect(conditionOf(decide(facts(vm, { holders: [holder('node-7')] }), now).status?.conditions, 'Ready')?.message)
      .toBe(`bound to node-1 and held by node-7 too: it may run there, and nothing more is told to any of them; to end a copy for good, with all disks but those with deletionPolicy Retain: kubectl annotate hvn node-7 --overwrite strato.dev/discard-orphan=${uid}`);
  });

  test('that is deleted is ended on its own', () => {
    expect(decide(facts(machine({ ...placed, metadata: { finalizers: [vmFinalizer], deletionTimestamp: '2030-01-01T00:00:00Z' } }), { holders: [holder('node-7')] }), now).tell.is).toBe('end');
  });
});

describe('a bound VM', () => {
  const vm = machine(placed);
  test.each([
    ['running', {}, 'True Running', 'Running'],
    ['preparing', { state: 'preparing' as const }, 'False Preparing', 'Preparing'],
    ['an older desire', { digest: 'x' }, 'False Applying', 'Running'],
    ['ended by the guest', { state: 'ended' as const, lastExit: { reason: 'GuestShutdown' as const, time: 't' } }, 'False GuestShutdown', 'Stopped'],
    ['ended by a crash', { state: 'ended' as const, lastExit: { reason: 'QemuCrashed' as const, signal: 'SIGKILL', time: 't' } }, 'False QemuCrashed', 'Failed'],
    ['hanging', { state: 'unknown' as const }, 'Unknown GuestUnknown', 'Unknown'],
    ['in trouble', { state: 'preparing' as const, trouble: { reason: 'ForwardInUse', message: 'm', final: false } }, 'False ForwardInUse', 'Preparing'],
  ])('that is %s', (_, over, wantReady, phase) => {
    const { status } = decide(facts(vm, { report: report(vm, over) }), now);
    expect([ready(status), status?.phase]).toEqual([wantReady, phase]);
  });

  test('on a silent node is Unknown, NodeUnreachable, and keeps what was known of it', () => {
    const running = decide(facts(vm, { report: report(vm, { machine: { type: 'q', cpuModel: 'max', accelerator: 'tcg', cpus: 1, memoryMiB: 256 } }) }), now).status;
    const silent = decide(facts(machine({ ...placed, status: running ?? {} }), { link: 'silent' }), now);
    expect([ready(silent.status), silent.status?.phase, silent.status?.resolved?.machine]).toEqual(['Unknown NodeUnreachable', 'Unknown', 'q']);
    expect(silent.tell.is).toBe('desire');
  });

  test('keeps its last status while a node that is joining has not spoken', () => {
    expect(decide(facts(vm, { link: 'joining' }), now).status).toBeUndefined();
  });

  test('keeps its last status while its node is back and has not said how it stands: what was reported before is old', () => {
    const old = report(vm);
    const silent = decide(facts(vm, { report: old, link: 'silent' }), now).status ?? {};
    for (const over of [{ report: old }, { report: old, link: 'joining' as const }, { held: true }]) {
      const { status, tell } = decide(facts(machine({ ...placed, status: silent }), { ...over, awaited: true }), now);
      expect([status, tell.is]).toEqual([undefined, 'desire']);
    }
    expect(ready(decide(facts(machine({ ...placed, status: silent }), { report: old, awaited: true, link: 'silent' }), now).status)).toBe('Unknown NodeUnreachable');
  });

  test('waits for an image that is not there, and says its name', () => {
    const { status, tell } = decide(facts(vm, { images: new Map() }), now);
    expect([ready(status), tell.is]).toEqual(['False ImageNotFound', 'keep']);
    expect(conditionOf(status?.conditions, 'Ready')?.message).toContain('guest');
  });

  describe('whose node holds other content under the name of its image', () => {
    const refused = { images: new Map([['guest', { name: 'guest', uid: imageUid, digest: 'sha256:a', refused: 'node node-1 reports sha256:b as image guest, which is sha256:a' }]]) };
    const made = { disks: [{ name: 'root', sizeMiB: 64, format: 'qcow2', state: 'Ready' as const }] };

    test('is not told to it while its disk is to be made, and says why', () => {
      const { status, tell } = decide(facts(vm, refused), now);
      expect([ready(status), conditionOf(status?.conditions, 'DisksReady')?.reason, tell.is]).toEqual(['False DigestMismatch', 'DigestMismatch', 'keep']);
      expect(conditionOf(status?.conditions, 'Ready')?.message).toContain('node-1 reports sha256:b');
    });

    test('goes on when its disk was made before', () => {
      const { status, tell } = decide(facts(vm, { ...refused, report: report(vm, made) }), now);
      expect([ready(status), tell.is]).toEqual(['True Running', 'desire']);
    });

    test('is told no edit that makes one more disk of it', () => {
      const edited = machine({ ...placed, metadata: { ...placed.metadata, generation: 4 }, spec: { disks: [{ name: 'root', image: { name: 'guest' } }, { name: 'more', image: { name: 'guest' } }] } });
      const { status, tell } = decide(facts(edited, { ...refused, report: report(vm, made) }), now);
      expect([ready(status), status?.phase, tell.is]).toEqual(['False DigestMismatch', 'Running', 'keep']);
    });
  });

  describe('whose image object is gone', () => {
    const made = { disks: [{ name: 'root', sizeMiB: 64, format: 'qcow2', state: 'Ready' as const }] };
    const running = decide(facts(vm, { report: report(vm, made) }), now).status ?? {};
    const after = (powerState: string) => machine({ ...placed, status: running, spec: { powerState }, metadata: { ...placed.metadata, generation: 4 } });
    const none = { images: new Map<string, never>() };

    test('goes on by what is recorded: Stopped is sent, and told when it is done', () => {
      const edited = after('Stopped');
      const { tell, status } = decide(facts(edited, { ...none, report: report(vm, made) }), now);
      expect(tell).toMatchObject({ is: 'desire', vm: { powerState: 'Stopped', disks: [{ name: 'root', imageUid }] } });
      expect(ready(status)).toBe('False Applying');
      const digest = tell.is === 'desire' ? desireDigest(tell.vm) : '';
      expect(ready(decide(facts(edited, { ...none, report: report(vm, { ...made, digest, state: 'stopped', generation: 4 }) }), now).status)).toBe('True Stopped');
    });

    test('tells of a crash', () => {
      const crash = { state: 'ended' as const, lastExit: { reason: 'QemuCrashed' as const, signal: 'SIGKILL', time: 't' } };
      expect(ready(decide(facts(machine({ ...placed, status: running }), { ...none, report: report(vm, { ...made, ...crash }) }), now).status)).toBe('False QemuCrashed');
    });

    test('and is there again as another: its disk is what it was, and says so', () => {
      const another = new Map([['guest', { name: 'guest', uid: '11111111-2222-4333-8444-777777777777', digest: 'sha256:b' }]]);
      const { tell, status } = decide(facts(machine({ ...placed, status: running }), { images: another, report: report(vm, made) }), now);
      expect([tell, status?.resolved?.images]).toMatchObject([{ vm: { disks: [{ imageUid }] } }, [{ disk: 'root', name: 'guest', uid: imageUid }]]);
      expect(decide(facts(machine({ ...placed, status: { ...running, disks: [] } }), { images: another }), now).tell).toMatchObject({ vm: { disks: [{ imageUid: another.get('guest')?.uid }] } });
    });

    // An older operator recorded no uid.
    const unrecorded = { ...running, resolved: { uuid: 'u', images: [{ name: 'guest', digest: 'sha256:a' }] } };
    test.each([
      ['runs on as it is told of', {}, {}, 'True Running'],
      ['tells of a crash', {}, { state: 'ended' as const, lastExit: { reason: 'QemuCrashed' as const, time: 't' } }, 'False QemuCrashed'],
      ['says that an edit waits', { generation: 4 }, {}, 'False ImageNotFound'],
    ])('and was never recorded: it %s', (_, metadata, over, verdict) => {
      const { tell, status } = decide(facts(machine({ ...placed, status: unrecorded, metadata: { ...placed.metadata, ...metadata } }), { ...none, report: report(vm, { ...made, ...over }) }), now);
      expect([tell.is, ready(status), status?.resolved?.images]).toEqual(['keep', verdict, [{ disk: 'root', name: 'guest', digest: 'sha256:a' }]]);
    });
  });

  test('that does not fit into a frame to its node is Stalled and says what to do; what runs, runs on', () => {
    const oversize = { frameBytes: 2_000_000, maxFrameBytes: 1_048_576 };
    const { status, tell } = decide(facts(vm, { oversize, report: report(vm, { digest: 'of the last one that fitted' }) }), now);
    expect([ready(status), status?.phase, conditionOf(status?.conditions, 'Stalled')?.reason, tell.is]).toEqual(['False SpecTooLarge', 'Running', 'SpecTooLarge', 'desire']);
    expect(conditionOf(status?.conditions, 'Ready')?.message).toMatch(/takes 2000000 bytes and the agent of node-1 reads 1048576.*cloudInit, or update the agent/);
  });

  test.each([
    ['DiskDamaged', 'False DiskDamaged', 'Unknown Preparing'],
    ['ChecksumMismatch', 'False ChecksumMismatch', 'Unknown Preparing'],
    ['NetworkFailed', 'Unknown Preparing', 'False NetworkFailed'],
    ['GuestsUnguarded', 'Unknown Preparing', 'False GuestsUnguarded'],
    ['StartFailed', 'Unknown Preparing', 'Unknown Preparing'],
  ])('in trouble by %s says which part of it is not well', (reason, disks, network) => {
    const { status } = decide(facts(vm, { report: report(vm, { state: 'preparing', trouble: { reason, message: 'm', final: false } }) }), now);
    const say = (type: 'DisksReady' | 'NetworkReady') => { const found = conditionOf(status?.conditions, type); return `${found?.status} ${found?.reason}`; };
    expect([say('DisksReady'), say('NetworkReady')]).toEqual([disks, network]);
  });

  test('gives the same status twice for the same facts, so nothing is written', () => {
    const first = decide(facts(vm, { report: report(vm) }), now).status;
    const again = decide(facts(machine({ ...placed, status: first ?? {} }), { report: report(vm) }), new Date('2031-01-01T00:00:00Z')).status;
    expect(again).toEqual(first);
  });
});

test('a VM that its node calls ended for ever, by a delete that a restored cluster has forgotten, is Stalled; deleted, it is ended as ever', () => {
  const stalled = decide(facts(machine(placed), { endedForEver: true }), now);
  expect([ready(stalled.status), conditionOf(stalled.status?.conditions, 'Stalled')?.reason, stalled.tell.is]).toEqual(['False EndedForEver', 'EndedForEver', 'desire']);
});

test.each<[string, Partial<VmFacts>, string]>([
  ['a node that is silent', { link: 'silent' }, 'keep'],
  ['a node that has just connected', { link: 'joining' }, 'keep'],
  ['a node that holds the VM and has not said how it stands', { held: true }, 'keep'],
  ['a node that is back, and said before that the guest has not been given it', { awaited: true, report: { kind: 'vm', uid, generation: 1, epoch: 1, digest: '', state: 'preparing', disks: [], forwards: [] } }, 'keep'],
  ['a node that does not hold the VM', {}, 'desire'],
])('what Secrets hold is not told to %s if the guest may have it already', (_, over, is) => {
  const vm = machine({ ...placed, spec: { cloudInit: { userDataSecretRef: { name: 's' } } } });
  const secrets: VmFacts['secrets'] = new Map([['s', { is: 'there', values: new Map([['userData', 'canary']]) }]]);
  const { tell } = decide(facts(vm, { secrets, ...over }), now);
  expect([tell.is, JSON.stringify(tell).includes('canary')]).toEqual([is, is === 'desire']);
});

describe('a deleted VM', () => {
  const deleted = { finalizers: [vmFinalizer], deletionTimestamp: '2030-01-01T00:00:00Z' };
  test('is ended on its node, and the finalizer goes only when the node says absent', () => {
    const vm = machine({ metadata: deleted, status: placed.status });
    expect(decide(facts(vm), now)).toMatchObject({ tell: { is: 'end' }, status: { phase: 'Terminating' } });
    expect(decide(facts(vm), now).finalizer).toBeUndefined();
    expect(decide(facts(vm, { absent: true }), now).finalizer).toBe('remove');
  });

  test('on a silent node waits', () => {
    const { finalizer, status } = decide(facts(machine({ metadata: deleted, status: placed.status }), { link: 'silent' }), now);
    expect([finalizer, ready(status)]).toEqual([undefined, 'Unknown NodeUnreachable']);
  });

  test('on a node that somebody has deleted, and whose agent is silent, is let go: nobody waits for what is gone for good', () => {
    const gone = { link: 'silent', nodeGone: true } as const;
    expect(decide(facts(machine({ metadata: deleted, status: placed.status }), gone), now)).toMatchObject({ finalizer: 'remove', tell: { is: 'keep' } });
    const kept = decide(facts(machine(placed), gone), now);
    expect([kept.finalizer, ready(kept.status), conditionOf(kept.status?.conditions, 'Ready')?.message]).toEqual([undefined, 'Unknown NodeUnreachable', expect.stringContaining('delete it, and apply it anew')]);
    expect(decide(facts(machine({ metadata: deleted, status: placed.status, spec: { deletionProtection: true } }), gone), now).finalizer).toBeUndefined();
  });

  test.each<[string, Partial<VmFacts>, RegExp]>([
    ['a node that has not reported', { unreported: 'node-3' }, /node node-3 has not reported .* kubectl delete hvn node-3/],
    ['any node', {}, /waiting for a node to join/],
  ])('whose node was lost waits for %s, and says what to do', (_, over, message) => {
    const { status, finalizer } = decide(facts(machine({ metadata: deleted }), { everyNodeReported: false, ...over }), now);
    expect([finalizer, conditionOf(status?.conditions, 'Ready')?.message]).toEqual([undefined, expect.stringMatching(message)]);
  });

  test('that is protected runs on', () => {
    const { tell, status } = decide(facts(machine({ metadata: deleted, status: placed.status, spec: { deletionProtection: true } })), now);
    expect(tell.is).toBe('desire');
    expect(conditionOf(status?.conditions, 'DeletionProtected')?.status).toBe('True');
  });
});

describe('derived names', () => {
  test('are the same for the same names and differ for others', () => {
    expect(machineUuid('c', 'a', 'b')).toBe(machineUuid('c', 'a', 'b'));
    expect(new Set([machineUuid('c', 'a', 'b'), machineUuid('c', 'b', 'a'), machineUuid('d', 'a', 'b')]).size).toBe(3);
    expect(machineUuid('c', 'a', 'b')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(interfaceMac('c', 'a', 'b', 'n')).toMatch(/^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
  });
});

describe('a guest', () => {
  const probed = machine({ ...placed, spec: { probes: { ready: { tcp: { port: 22 } } } } });
  const says = (over: Partial<ObservedVm>, vm = probed) => decide(facts(vm, { report: report(vm, over) }), now).status;
  const guestReady = (status: VmStatus | undefined) => {
    const found = conditionOf(status?.conditions, 'GuestReady');
    return found && `${found.status} ${found.reason}`;
  };

  test.each<[string, Partial<ObservedVm>, string]>([
    ['passes its probe', { ready: { is: true, message: 'm' } }, 'True ProbeSucceeded'],
    ['does not', { ready: { is: false, message: 'm' } }, 'False ProbeFailing'],
    ['was not probed', {}, 'Unknown ProbePending'],
    ['does not run', { state: 'starting', ready: { is: true, message: 'm' } }, 'False NotRunning'],
  ])('that %s', (_, over, verdict) => {
    expect(guestReady(says(over))).toBe(verdict);
  });

  test('without a probe has no such condition, and its probe is no part of Ready', () => {
    const plain = machine(placed);
    expect(guestReady(says({}, plain))).toBeUndefined();
    expect(ready(says({ ready: { is: false, message: 'm' } }))).toBe('True Running');
  });

  test('that leaves CPUs off line is told of', () => {
    const guest = { agentVersion: '7', addresses: [], cpusOnline: 1 };
    const told = says({ guest, machine: { type: 'q', cpuModel: 'max', accelerator: 'tcg', cpus: 2, memoryMiB: 256 } });
    expect(conditionOf(told?.conditions, 'CpusOffline')).toMatchObject({ status: 'True', message: expect.stringContaining('1 of its 2 CPUs') });
    expect(conditionOf(says({ guest })?.conditions, 'CpusOffline')).toBeUndefined();
  });

  test('that was known stays so while its node or its agent is quiet, and not after its run', () => {
    const known = { guest: { agentVersion: '7', hostname: 'web' } };
    const vm = machine({ ...placed, status: { ...placed.status, ...known } });
    expect(says({}, vm)?.guest).toEqual(known.guest);
    expect(decide(facts(vm, { link: 'silent' }), now).status?.guest).toEqual(known.guest);
    expect(says({ state: 'ended' }, vm)?.guest).toBeUndefined();
  });
});

describe('a VM whose disks outlive it, or that has outlived ones', () => {
  const retained = { spec: { disks: [{ name: 'root', image: { name: 'guest' } }, { name: 'data', blank: {}, size: '1Gi', deletionPolicy: 'Retain' }] } };
  const namespace = { uid: imageUid, terminating: false };
  const claim = { disk: 'data', object: 'a-data', kept: uid, node: 'node-2', deleting: false, at: 'here' as const };
  const kept = { uid, owner: { namespace: 'default', namespaceUid: imageUid, vm: 'a', vmUid: uid, disk: 'data' }, sizeMiB: 1 };
  const deleted = machine({ ...retained, ...placed, metadata: { ...placed.metadata, deletionTimestamp: '2030-01-01T00:00:00Z' } });

  test('is placed where its disks are, and nowhere else', () => {
    const nodes = [candidate(), candidate({ name: 'node-2', taken: { cpus: 0, memoryMiB: 4096 } })];
    expect(decide(facts(machine(retained), { namespace, candidates: nodes, claims: [claim] }), now)).toMatchObject({ binds: true, status: { nodeName: 'node-2' } });
    const full = [candidate(), candidate({ name: 'node-2', taken: { cpus: 0, memoryMiB: 8192 } })];
    expect(ready(decide(facts(machine(retained), { namespace, candidates: full, claims: [claim] }), now).status)).toBe('False NoNodeFits');
  });

  test('waits while it can not have them', () => {
    const decision = decide(facts(machine(retained), { namespace, claims: [{ ...claim, at: 'unheard' }] }), now);
    expect([decision.binds, ready(decision.status), conditionOf(decision.status?.conditions, 'Scheduled')?.reason]).toEqual([false, 'False WaitingForDisk', 'WaitingForDisk']);
  });

  test('tells its node which disk it shall have, and which outlive it', () => {
    const { tell } = decide(facts(machine({ ...retained, ...placed }), { namespace, claims: [{ ...claim, node: 'node-1' }] }), now);
    expect(tell).toMatchObject({ is: 'desire', vm: { namespaceUid: imageUid, disks: [{ name: 'root' }, { name: 'data', retain: true, kept: uid }] } });
    const plain = decide(facts(machine(placed), { namespace }), now).tell;
    expect(plain.is === 'desire' && plain.vm).not.toHaveProperty('namespaceUid');
  });

  test('gets no new disk in place of one on another node', () => {
    const decision = decide(facts(machine({ ...retained, ...placed }), { namespace, claims: [claim] }), now);
    expect([decision.tell, ready(decision.status)]).toEqual([{ is: 'keep' }, 'False WaitingForDisk']);
  });

  test('is ended with the order to keep them; not by an agent that can not, nor while its namespace is not known', () => {
    expect(decide(facts(deleted, { namespace, keepsDisks: true }), now).tell).toEqual({ is: 'end', keep: { namespace: 'default', namespaceUid: imageUid, vm: 'a', disks: ['data'] } });
    const old = decide(facts(deleted, { namespace, keepsDisks: false }), now);
    expect([old.tell, ready(old.status)]).toEqual([{ is: 'keep' }, 'False AgentTooOld']);
    expect(decide(facts(deleted, { keepsDisks: true }), now).tell).toEqual({ is: 'keep' });
  });

  test('goes when each of them has its VirtualDisk; in a namespace that is being deleted its node keeps them', () => {
    expect(decide(facts(deleted, { namespace, absent: true, unrecorded: [kept] }), now).record).toEqual([kept]);
    expect(decide(facts(deleted, { absent: true, unrecorded: [kept] }), now).finalizer).toBeUndefined();
    expect(decide(facts(deleted, { namespace, absent: true }), now)).toMatchObject({ finalizer: 'remove', record: [] });
    expect(decide(facts(deleted, { namespace: { ...namespace, terminating: true }, absent: true, unrecorded: [kept] }), now)).toMatchObject({ finalizer: 'remove', record: [] });
  });

  test('says what keeps its node from ending it', () => {
    const full = { kind: 'vm' as const, uid, generation: 3, epoch: 1, digest: '', state: 'deleting' as const, disks: [], forwards: [], trouble: { reason: 'KeptDisksFull', message: 'the node keeps 384 disks already', final: false } };
    const { status } = decide(facts(deleted, { namespace, keepsDisks: true, report: full }), now);
    expect([ready(status), conditionOf(status?.conditions, 'Ready')?.message]).toEqual(['False KeptDisksFull', 'node node-1 is ending the VM: the node keeps 384 disks already']);
  });
});
