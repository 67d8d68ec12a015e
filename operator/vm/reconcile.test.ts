import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { type VirtualDisk, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { virtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { ObservedVm, VmState } from '#crds/wire/observed.ts';
import { KubeFault } from '../kube/kube.ts';
import { fakeCache } from '../fakecache.ts';
import { makeFleet } from '../fleet/fleet.ts';
import type { TimedStep } from './guest.ts';
import { makeVmReconciler, type VmHands } from './reconcile.ts';
import type { SecretFact } from './secrets.ts';

const uidOf = (digit: number) => `11111111-2222-4333-8444-00000000000${digit}`;

const machine = (name: string, digit: number, hostPort?: number): VirtualMachine => virtualMachine.parse({
  metadata: { name, namespace: 'default', uid: uidOf(digit), resourceVersion: '1', generation: 1, creationTimestamp: '2029-12-31T23:59:59Z' },
  spec: {
    cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'guest' } }],
    ...(hostPort === undefined ? {} : { interfaces: [{ name: 'net', user: { forwards: [{ name: 'ssh', hostPort, port: 22 }] } }] }),
  },
});

/** One cluster with one connected node; writes land in the cache as the API server would answer them. */
const lab = (...vms: VirtualMachine[]) => {
  const refused = new Set<string>();
  const faults: KubeFault[] = [];
  const time = { ms: 0 };
  const fleet = makeFleet(() => time.ms);
  const store = new Map(vms.map((vm) => [`default/${vm.metadata.name}`, vm]));
  const image = virtualMachineImage.parse({ metadata: { name: 'guest', namespace: 'default', uid: uidOf(9), resourceVersion: '1' }, spec: { source: { http: { url: 'http://h/i' } }, format: 'qcow2' } });
  const node = hypervisorNode.parse({ metadata: { name: 'node-1', uid: 'n', resourceVersion: '1' } });
  const disks: VirtualDisk[] = [];
  const namespace = { metadata: objectMeta.parse({ name: 'default', uid: uidOf(8), resourceVersion: '1' }) };
  const writes: string[] = [];
  const notes: string[] = [];
  const steps: TimedStep[] = [];
  const secrets = new Map<string, SecretFact>();
  const reads: string[] = [];
  Object.assign(fleet.member('node-1'), {
    view: { is: 'joined', told: new Map() }, session: { id: 1, wake: () => undefined, close: () => undefined },
    facts: {
      agentVersion: '1', qemuVersion: '7', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
      capacity: { cpus: 4, memoryMiB: 8192, storageMiB: 8192 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
    },
  });
  const put = (vm: VirtualMachine, change: Partial<VirtualMachine>) => { store.set(`default/${vm.metadata.name}`, { ...(store.get(`default/${vm.metadata.name}`) ?? vm), ...change }); };
  const hands: VmHands = {
    clusterId: 'c', inherited: () => false, historyWentBack: () => false, fleet, now: () => new Date(Date.UTC(2030, 0, 1) + time.ms), monotonicMs: () => time.ms,
    vms: fakeCache(() => [...store.values()]),
    images: fakeCache(() => [image]),
    disks: fakeCache<VirtualDisk>(() => disks),
    namespaces: fakeCache(() => [namespace]),
    recordDisk: async ({ uid, owner: { disk } }, keptFor) => { if (refused.has(disk)) throw new Fault('Forbidden', 'exceeded quota'); writes.push(`record ${disk} of ${keptFor.vm}`); disks.push(virtualDisk.parse({ metadata: { name: disk, namespace: keptFor.namespace, uid, resourceVersion: '1' }, status: { observedGeneration: -1, uid, diskName: disk, vmName: keptFor.vm, namespaceUid: keptFor.namespaceUid, nodeName: keptFor.node } })); },
    nodes: fakeCache(() => [node]),
    writeStatus: async (vm, status) => { await Promise.resolve(); const fault = faults.shift(); if (fault) throw fault; writes.push(`status ${status.phase}`); put(vm, { status }); },
    writeFinalizers: async (vm, finalizers) => { writes.push(`finalizers ${finalizers.join()}`); put(vm, { metadata: { ...vm.metadata, finalizers: [...finalizers] } }); },
    secret: async (_, name) => { reads.push(name); return secrets.get(name) ?? { is: 'absent' }; },
    stepTaken: (step) => { steps.push(step); },
    event: (_, { reason }) => { notes.push(reason); },
  };
  const say = (digit: number, state: VmState, over: Partial<ObservedVm> = {}) => {
    const held = fleet.member('node-1').wanted.get(uidOf(digit))?.held;
    fleet.member('node-1').vms.set(uidOf(digit), { kind: 'vm', uid: uidOf(digit), generation: 1, epoch: 1, digest: held?.digest ?? '', state, disks: [], forwards: [], ...over });
  };
  const statusOf = (name: string) => store.get(`default/${name}`)?.status;
  return { refused, faults, time, fleet, disks, store, secrets, reads, steps, writes, notes, say, put, reconcile: makeVmReconciler(hands), statusOf };
};

describe('a VM', () => {
  test('comes to Running with three writes and two events, however often its node reports on the way', async () => {
    const { reconcile, say, time, writes, notes, steps, statusOf } = lab(machine('a', 1));
    await reconcile('default/a');
    for (const state of ['preparing', 'starting', 'running'] as const) {
      say(1, state, state === 'running' ? { times: { prepared: '2030-01-01T00:00:00.100Z', running: '2030-01-01T00:00:00.200Z' } } : {});
      await reconcile('default/a');
      time.ms += 200;
    }
    expect(writes).toEqual(['status Pending', 'finalizers strato.dev/vm', 'status Running']);
    expect(notes).toEqual(['Scheduled', 'Running']);
    expect(steps.map(({ step }) => step)).toEqual(['scheduled', 'prepared', 'running']);
    expect(conditionOf(statusOf('a')?.conditions, 'Ready')?.status).toBe('True');
    await reconcile('default/a');
    expect(writes).toHaveLength(3);
  });

  test('that has ended and was let go is not ended once more while its object is still there, by another finalizer or in a cache that lags', async () => {
    const vm = machine('a', 1);
    const { reconcile, fleet, put, writes } = lab(vm);
    await reconcile('default/a');
    put(vm, { metadata: { ...vm.metadata, finalizers: ['strato.dev/vm', 'example.org/x'], deletionTimestamp: '2030-01-01T00:00:00Z' } });
    await reconcile('default/a');
    fleet.member('node-1').doomed.clear();
    fleet.member('node-1').absent.add(uidOf(1));
    await reconcile('default/a');
    const before = [...writes];
    expect(before.at(-1)).toBe('finalizers example.org/x');
    await reconcile('default/a');
    put(vm, { metadata: { ...vm.metadata, finalizers: ['strato.dev/vm', 'example.org/x'], deletionTimestamp: '2030-01-01T00:00:00Z' } });
    await reconcile('default/a');
    expect([fleet.member('node-1').doomed.size, writes]).toEqual([0, before]);
    // Another VM of that name.
    put(vm, { ...vm, metadata: { ...vm.metadata, uid: uidOf(2) } });
    await reconcile('default/a');
    expect(writes.slice(before.length)).toEqual(['status Pending', 'finalizers strato.dev/vm']);
  });

  test('waits for its Secret, gets what it holds at its first boot, and then nothing of it any more', async () => {
    const vm = machine('a', 1);
    const { reconcile, secrets, fleet, say, time, statusOf, put } = lab({ ...vm, spec: { ...vm.spec, cloudInit: { userDataSecretRef: { name: 's' } } } });
    const told = () => fleet.member('node-1').wanted.get(uidOf(1))?.object;
    await reconcile('default/a');
    time.ms += 1_000;
    expect(await reconcile('default/a')).toMatchObject({ is: 'waiting', afterMs: 5_000 });
    expect([conditionOf(statusOf('a')?.conditions, 'Ready')?.reason, told()]).toEqual(['SecretNotFound', undefined]);
    for (const userData of ['first', 'second']) {
      secrets.set('s', { is: 'there', values: new Map([['userData', userData]]) });
      await reconcile('default/a');
      expect(told()).toMatchObject({ cloudInit: { userData } });
    }
    say(1, 'running', { seeded: true });
    await reconcile('default/a');
    expect(told()).not.toHaveProperty('cloudInit.userData');
    say(1, 'running', { seeded: true });
    await reconcile('default/a');
    put(vm, {});
    expect([conditionOf(statusOf('a')?.conditions, 'Ready')?.status, JSON.stringify(statusOf('a'))]).toEqual(['True', expect.not.stringContaining('second')]);
  });

  test('whose node says while its Secret is read that the guest has it, is told nothing of it', async () => {
    const vm = machine('a', 1);
    const { reconcile, secrets, fleet, say } = lab({ ...vm, spec: { ...vm.spec, cloudInit: { userDataSecretRef: { name: 's' } } } });
    Object.assign(secrets, { get: (): SecretFact => { say(1, 'running', { seeded: true }); return { is: 'there', values: new Map([['userData', 'canary']]) }; } });
    await reconcile('default/a');
    expect(fleet.member('node-1').wanted.get(uidOf(1))?.object).toMatchObject({ cloudInit: { hostname: 'a' } });
    expect(JSON.stringify([...fleet.member('node-1').wanted.values()])).not.toContain('canary');
  });

  test.each([['is gone', undefined, undefined], ['is edited', { powerState: 'Stopped' as const }, 'Stopped']])('that %s while its Secret is read is not told as it was', async (_, edit, told) => {
    const vm = machine('a', 1);
    const { reconcile, secrets, fleet, store } = lab({ ...vm, spec: { ...vm.spec, cloudInit: { userDataSecretRef: { name: 's' } } } });
    const wanted = () => { const object = fleet.member('node-1').wanted.get(uidOf(1))?.object; return object?.kind === 'vm' ? object.powerState : undefined; };
    Object.assign(secrets, { get: (): SecretFact => {
      const now = store.get('default/a');
      const isDue = now !== undefined && now.metadata.finalizers.length > 0 && now.spec.powerState === 'Running';
      if (isDue && edit) store.set('default/a', { ...now, spec: { ...now.spec, ...edit } });
      if (isDue && !edit) store.delete('default/a');
      return { is: 'there', values: new Map([['userData', 'x']]) };
    } });
    await reconcile('default/a');
    expect(wanted()).toBe(told);
  });

  test('that waits for long for a Secret asks for that one alone, and ever more seldom, and goes on within 30 s of its correction', async () => {
    const vm = machine('a', 1);
    const { reconcile, secrets, reads, fleet, time, statusOf } = lab({ ...vm, spec: { ...vm.spec, cloudInit: { userDataSecretRef: { name: 'data' }, sshKeySecretRefs: [{ name: 'one' }, { name: 'two' }, { name: 'three' }] } } });
    const keys: SecretFact = { is: 'there', values: new Map([['k', 'ssh-ed25519 AAAA']]) };
    secrets.set('data', { is: 'there', values: new Map([['userData', 'x']]) }).set('one', keys).set('two', { is: 'there', values: new Map([['k', 'no key']]) }).set('three', keys);
    const until = async (ms: number): Promise<number[]> => {
      const waits: number[] = [];
      for (let outcome = await reconcile('default/a'); time.ms < ms && outcome.is === 'waiting'; outcome = await reconcile('default/a')) {
        waits.push(outcome.afterMs);
        time.ms += outcome.afterMs;
        fleet.member('node-1').lastHeardMs = time.ms;
      }
      return waits;
    };
    await until(600_000);
    expect(conditionOf(statusOf('a')?.conditions, 'Ready')).toMatchObject({ reason: 'SecretInvalid', message: expect.stringContaining('Secret two') });
    reads.splice(0);
    const waits = await until(1_200_000);
    expect([Math.min(...waits), Math.max(...waits), new Set(reads)]).toEqual([30_000, 30_000, new Set(['two'])]);
    expect(reads.length).toBeLessThan(25);
    secrets.set('two', keys);
    await reconcile('default/a');
    expect(fleet.member('node-1').wanted.get(uidOf(1))?.object).toMatchObject({ cloudInit: { userData: 'x', sshAuthorizedKeys: ['ssh-ed25519 AAAA', 'ssh-ed25519 AAAA', 'ssh-ed25519 AAAA'] } });
  });

  test('whose guest says something else at every look is written at once a few times, then once in 30 s, and all else at once', async () => {
    const vm = machine('a', 1);
    const { reconcile, say, time, fleet, writes, statusOf } = lab({ ...vm, spec: { ...vm.spec, interfaces: [{ name: 'net', user: {} }], probes: { ready: { guestAgent: {} } } } });
    await reconcile('default/a');
    say(1, 'running');
    await reconcile('default/a');
    const mac = statusOf('a')?.interfaces?.[0]?.mac ?? '';
    const says = async (at: number, over: Partial<ObservedVm> = {}) => {
      fleet.member('node-1').lastHeardMs = time.ms;
      say(1, 'running', { ready: { is: at % 2 === 0, message: `look ${at}` }, guest: { agentVersion: '1', hostname: `h${at}`, addresses: [{ mac, addresses: [`10.0.0.${at % 250}`] }] }, ...over });
      return reconcile('default/a');
    };
    const before = writes.length;
    for (let at = 0; at < 5; at += 1) {
      await says(at);
      expect(statusOf('a')?.guest?.hostname).toBe(`h${at}`);
      time.ms += 2_000;
    }
    let last: Awaited<ReturnType<typeof says>> | undefined;
    for (let at = 5; at < 305; at += 1) {
      last = await says(at);
      time.ms += 2_000;
    }
    expect(writes.length - before).toBeLessThanOrEqual(5 + 600 / 30 + 1);
    expect(last).toMatchObject({ is: 'waiting', afterMs: expect.any(Number) });
    await says(306, { lastExit: { reason: 'GuestReset', time: '2030-01-01T00:00:00Z' } });
    expect(statusOf('a')).toMatchObject({ lastExit: { reason: 'GuestReset' }, guest: { hostname: 'h306' } });
    await says(307);
    time.ms += 30_000;
    await says(307);
    expect(statusOf('a')?.guest?.hostname).toBe('h307');
    time.ms += 200_000;
    expect(await says(307)).toEqual({ is: 'settled' });
  });

  test('that is slow says so after a second, once', async () => {
    const { reconcile, say, time, writes } = lab(machine('a', 1));
    await reconcile('default/a');
    say(1, 'preparing');
    expect(await reconcile('default/a')).toMatchObject({ is: 'waiting', afterMs: 1000 });
    time.ms += 1_000;
    await reconcile('default/a');
    await reconcile('default/a');
    expect(writes.slice(2)).toEqual(['status Preparing']);
  });

  test('is wanted on its node only after status and finalizer are written', async () => {
    const { reconcile, fleet, writes } = lab(machine('a', 1));
    const seen: number[] = [];
    const want = fleet.want;
    fleet.want = (...told) => { seen.push(writes.length); want(...told); };
    await reconcile('default/a');
    expect(seen).toEqual([2]);
  });

  test('that is placed at the same time as another never gets the same port', async () => {
    const { reconcile, statusOf } = lab(machine('a', 1, 2222), machine('b', 2, 2222));
    await Promise.all([reconcile('default/a'), reconcile('default/b')]);
    expect([statusOf('a')?.nodeName, statusOf('b')?.nodeName]).toEqual(['node-1', undefined]);
    expect(conditionOf(statusOf('b')?.conditions, 'Ready')).toMatchObject({ reason: 'ForwardConflict', message: expect.stringContaining('default/a') });
  });

  test.each([[0, undefined, 'node-1'], [409, 'node-1', undefined]])('whose binding was answered with %s: without an answer it may be there, and its port is given to no other until that is known', async (status, b, a) => {
    const { reconcile, faults, statusOf, put } = lab(machine('a', 1, 2222), machine('b', 2, 2222));
    faults.push(new KubeFault('binding', { status, message: 'no', reason: status === 0 ? 'ApiServerTimeout' : 'Conflict' }));
    await expect(reconcile('default/a')).rejects.toThrow('binding');
    await reconcile('default/b');
    expect(statusOf('b')?.nodeName).toBe(b);
    await reconcile('default/a');
    expect(statusOf('a')?.nodeName).toBe(a);
    // What the cache says of it later counts.
    if (a) put(machine('a', 1), { status: { observedGeneration: 1 }, spec: machine('a', 1).spec });
    await reconcile('default/b');
    expect(statusOf('b')?.nodeName).toBe('node-1');
  });

  test('that is edited to take more than its node has is not told so, takes no room from others, and says what to do', async () => {
    const vm = machine('a', 1);
    const { reconcile, say, put, fleet, statusOf, time, store } = lab(vm, machine('b', 2));
    const told = () => fleet.member('node-1').wanted.get(uidOf(1))?.object;
    const edit = (generation: number, spec: object) => {
      const now = store.get('default/a') ?? vm;
      put(now, { metadata: { ...now.metadata, generation }, spec: virtualMachine.parse({ ...now, spec: { ...now.spec, ...spec } }).spec });
    };
    await reconcile('default/a');
    say(1, 'running');
    await reconcile('default/a');
    expect(statusOf('a')?.resolved?.reserved).toEqual({ cpus: 1, memory: '256Mi' });
    edit(2, { memory: { size: '256Mi', max: '64Gi' }, powerState: 'Paused' });
    time.ms += 1_000;
    await reconcile('default/a');
    expect([told(), statusOf('a')?.resolved?.reserved, statusOf('a')?.phase]).toMatchObject([{ powerState: 'Running' }, { memory: '256Mi' }, 'Running']);
    expect(conditionOf(statusOf('a')?.conditions, 'Ready')).toMatchObject({ status: 'False', reason: 'NoNodeFits', message: expect.stringMatching(/^node node-1 has no room for the latest edit, which needs .* and 8Gi is free: ask for less/) });
    await reconcile('default/b');
    expect(statusOf('b')?.nodeName).toBe('node-1');
    // A stop takes no room, and asks for none.
    edit(3, { powerState: 'Stopped' });
    await reconcile('default/a');
    expect(told()).toMatchObject({ powerState: 'Stopped' });
    say(1, 'stopped', { generation: 3 });
    await reconcile('default/a');
    expect([statusOf('a')?.phase, statusOf('a')?.resolved?.reserved, conditionOf(statusOf('a')?.conditions, 'Ready')?.status]).toMatchObject(['Stopped', { memory: '256Mi' }, 'True']);
    edit(4, { powerState: 'Running' });
    await reconcile('default/a');
    expect([told(), conditionOf(statusOf('a')?.conditions, 'Ready')?.reason]).toMatchObject([{ powerState: 'Stopped' }, 'NoNodeFits']);
    edit(5, { memory: { size: '256Mi', max: '4Gi' }, powerState: 'Paused' });
    await reconcile('default/a');
    expect([told(), statusOf('a')?.resolved?.reserved]).toMatchObject([{ powerState: 'Paused', maxMemoryMiB: 4096 }, { memory: '4Gi' }]);
  });

  test('that is edited at the same time as another never gets the same room', async () => {
    const { reconcile, say, put, store, statusOf } = lab(machine('a', 1), machine('b', 2));
    for (const [digit, name] of [[1, 'default/a'], [2, 'default/b']] as const) {
      await reconcile(name);
      say(digit, 'running');
      await reconcile(name);
      const now = store.get(name);
      if (now) put(now, { metadata: { ...now.metadata, generation: 2 }, spec: { ...now.spec, memory: { size: '5Gi' } } });
    }
    await Promise.all([reconcile('default/a'), reconcile('default/b')]);
    expect(['a', 'b'].map((name) => statusOf(name)?.resolved?.reserved?.memory)).toEqual(['5Gi', '256Mi']);
  });

  test.each([['Graceful', ['Forced']], ['Force', []]] as const)('that was switched off has an event Forced only when its grace period was over: stop mode %s', async (mode, events) => {
    const { spec, ...vm } = machine('a', 1);
    const stop = { ...spec.stop, mode };
    const { reconcile, say, put, notes } = lab({ ...vm, spec: { ...spec, stop } });
    await reconcile('default/a');
    say(1, 'running');
    await reconcile('default/a');
    put({ ...vm, spec }, { spec: { ...spec, stop, powerState: 'Stopped' } });
    await reconcile('default/a');
    say(1, 'stopped', { lastExit: { reason: 'Forced', signal: 'SIGKILL', time: '2030-01-01T00:00:00Z' } });
    await reconcile('default/a');
    expect(notes.filter((reason) => reason === 'Forced')).toEqual(events);
  });

  test('that is deleted is doomed, and let go only when its node says absent', async () => {
    const { reconcile, fleet, say, put, store, writes } = lab(machine('a', 1));
    await reconcile('default/a');
    say(1, 'running');
    await reconcile('default/a');
    const vm = store.get('default/a');
    if (!vm) throw new Error('the VM is there');
    put(vm, { metadata: { ...vm.metadata, deletionTimestamp: '2030-01-01T00:00:00Z' } });
    await reconcile('default/a');
    const node = fleet.member('node-1');
    expect([node.wanted.size, node.doomed.get(uidOf(1)), writes.includes('finalizers ')]).toEqual([0, 'vm', false]);
    node.doomed.delete(uidOf(1));
    node.absent.add(uidOf(1));
    await reconcile('default/a');
    expect(writes.at(-1)).toBe('finalizers ');
  });

  test('that was deleted goes after the disk that outlives it has its VirtualDisk', async () => {
    const vm = machine('a', 1);
    const { fleet, reconcile, writes, put } = lab(vm);
    await reconcile('default/a');
    put(vm, { metadata: { ...vm.metadata, finalizers: ['strato.dev/vm'], deletionTimestamp: '2030-01-01T00:00:00Z' } });
    const member = fleet.member('node-1');
    member.absent.add(uidOf(1));
    member.keptOf.set(uidOf(1), [{ uid: uidOf(7), owner: { namespace: 'default', namespaceUid: uidOf(8), vm: 'a', vmUid: uidOf(1), disk: 'data' }, sizeMiB: 1 }]);
    writes.length = 0;
    await reconcile('default/a');
    expect(writes).toEqual(['record data of a', 'finalizers ']);
  });

  test('does not go while one can not have it, says why, and goes when it has', async () => {
    const vm = machine('a', 1);
    const { fleet, reconcile, writes, put, refused, statusOf } = lab(vm);
    await reconcile('default/a');
    put(vm, { metadata: { ...vm.metadata, finalizers: ['strato.dev/vm'], deletionTimestamp: '2030-01-01T00:00:00Z' } });
    const member = fleet.member('node-1');
    member.absent.add(uidOf(1));
    const kept = (digit: number, disk: string) => ({ uid: uidOf(digit), owner: { namespace: 'default', namespaceUid: uidOf(8), vm: 'a', vmUid: uidOf(1), disk }, sizeMiB: 1 });
    member.keptOf.set(uidOf(1), [kept(6, 'first'), kept(7, 'data')]);
    refused.add('first');
    writes.length = 0;
    expect(await reconcile('default/a')).toMatchObject({ is: 'blocked', by: { code: 'Forbidden' } });
    expect([writes, conditionOf(statusOf('a')?.conditions, 'Ready')]).toMatchObject([['record data of a', 'status Terminating'], { reason: 'Terminating', message: `disk first is kept under ${uidOf(6)} and gets no VirtualDisk now: exceeded quota` }]);
    refused.clear();
    writes.length = 0;
    await reconcile('default/a');
    expect(writes).toEqual(['record first of a', 'finalizers ']);
  });

  test('that runs is looked after although a disk that was taken from it can not be recorded; an event tells of that', async () => {
    const { fleet, reconcile, say, refused, notes, statusOf } = lab(machine('a', 1));
    await reconcile('default/a');
    say(1, 'running');
    Object.assign(fleet.member('node-1').facts ?? {}, { keptDisks: [{ uid: uidOf(7), owner: { namespace: 'default', namespaceUid: uidOf(8), vm: 'a', vmUid: uidOf(1), disk: 'data' }, sizeMiB: 1 }] });
    refused.add('data');
    expect(await reconcile('default/a')).toMatchObject({ is: 'blocked', by: { code: 'Forbidden' } });
    expect([statusOf('a')?.phase, notes]).toEqual(['Running', ['Scheduled', 'RecordFailed', 'Running']]);
  });
});
