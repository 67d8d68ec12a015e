import { blocked, type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { canonical } from '#crds/kit/digest.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { vmFinalizer } from '#crds/v1alpha1/names.ts';
import type { VirtualMachine, VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import { decide, type Decision } from './decide.ts';
import { recordEach, saidOf } from '../disk/recordeach.ts';
import { madeDisks } from './disks.ts';
import type { VmFacts } from './facts.ts';
import { timedSteps, type TimedStep } from './guest.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { KeptFor } from '../disk/record.ts';
import { machineUidOf } from './identity.ts';
import { observe, type VmSources } from './observe.ts';
import { statusOf } from '../kube/kube.ts';
import { keyOf } from '../kube/resource.ts';
import { makeSecretReads } from './secretreads.ts';
import type { SecretFact } from './secrets.ts';
import { makeWords, onlyWords } from './words.ts';

/** What a VM's reconciler may do. The writers put what the API server answered into the cache before they return. */
export type VmHands = VmSources & {
  writeStatus: (vm: VirtualMachine, status: VmStatus) => Promise<void>;
  writeFinalizers: (vm: VirtualMachine, finalizers: readonly string[]) => Promise<void>;
  /** Makes the VirtualDisk of a disk that outlives a VM. */
  recordDisk: (disk: KeptDisk, keptFor: KeptFor) => Promise<void>;
  /** Reads a Secret of a VM's namespace. */
  secret: (namespace: string, name: string) => Promise<SecretFact>;
  event: (vm: VirtualMachine, event: { type: 'Normal' | 'Warning'; reason: string; note: string }) => void;
  /** A VM has come a step further for the first time. */
  stepTaken: (step: TimedStep) => void;
  now: () => Date;
  monotonicMs: () => number;
};

/** How long a status that tells only of progress waits for a better one, so that a quick start costs one write. */
const passingMs = 1_000;
/** Passes that one call may make: binding, finalizer, desire. */
const maxPasses = 4;

/** Makes the function that brings one VM a step closer to what its user wants. Safe to call at any time, for any key. */
export const makeVmReconciler = (hands: VmHands) => {
  // When a passing status was first seen; lost with the process, which costs one write more at most.
  const passingSince = new Map<string, number>();
  // Bindings, and what is kept for bound ones, that are being written: two VMs that are decided about at the same time must see each other's. One that got no
  // answer may have been written, and is assumed until its VM is looked at again, or the cache has it anew.
  const assumed = new Map<string, { from: VirtualMachine; to: VirtualMachine }>();
  // By key, uids of VMs that have ended and were let go: their objects may be there for a while, by the finalizers of others or in a cache that lags.
  const letGo = new Map<string, string>();
  let listed: { of: readonly VirtualMachine[]; list: readonly VirtualMachine[] } | undefined;
  const asAssumed = (vm: VirtualMachine): VirtualMachine => {
    const it = assumed.get(keyOf(vm.metadata));
    return it?.from === vm ? it.to : vm;
  };
  const list = (): readonly VirtualMachine[] => {
    const of = hands.vms.list();
    if (listed?.of !== of) listed = { of, list: assumed.size === 0 ? of : of.map(asAssumed) };
    return listed.list;
  };
  const assume = (from: VirtualMachine, to: VirtualMachine): void => {
    assumed.set(keyOf(from.metadata), { from, to });
    listed = undefined;
  };
  const unassume = (key: string): void => {
    if (assumed.delete(key)) listed = undefined;
  };
  const vms: VmSources['vms'] = { ...hands.vms, list };
  const readSecrets = makeSecretReads(hands);
  const words = makeWords(hands.monotonicMs);

  const mayWait = (uid: string, decision: Decision): number => {
    if (!decision.passing) {
      passingSince.delete(uid);
      return 0;
    }
    const since = passingSince.get(uid) ?? hands.monotonicMs();
    passingSince.set(uid, since);
    return Math.max(0, since + passingMs - hands.monotonicMs());
  };

  const tell = (vm: VirtualMachine, { tell: it }: Decision): void => {
    const { nodeName } = vm.status;
    if (nodeName === undefined) return;
    if (it.is === 'desire') hands.fleet.want(nodeName, it.vm, madeDisks(vm));
    if (it.is === 'withhold') hands.fleet.withhold(nodeName, machineUidOf(vm));
    if (it.is === 'end') hands.fleet.doom(nodeName, machineUidOf(vm), 'vm', it.keep);
  };

  /** A VM whose guest's next word waits is looked at when its time has come. */
  const calm = (vm: VirtualMachine, outcome: Outcome): Outcome => {
    const waitMs = words.waitMs(vm.metadata.uid);
    return waitMs > 0 && (outcome.is === 'settled' || (outcome.is === 'waiting' && outcome.afterMs > waitMs)) ? waiting('the guest to say the same for longer', waitMs) : outcome;
  };

  /** Carries a decision out. */
  const act = async (vm: VirtualMachine, decision: Decision): Promise<Outcome | 'again'> => {
    tell(vm, decision);
    if (decision.finalizer) {
      const others = vm.metadata.finalizers.filter((each) => each !== vmFinalizer);
      await hands.writeFinalizers(vm, decision.finalizer === 'add' ? [...others, vmFinalizer] : others);
      if (decision.finalizer === 'add') return 'again';
      if (vm.status.nodeName !== undefined) hands.fleet.release(vm.status.nodeName, machineUidOf(vm));
      letGo.set(keyOf(vm.metadata), vm.metadata.uid);
      passingSince.delete(vm.metadata.uid);
      words.forget(vm.metadata.uid);
      return settled;
    }
    if (!decision.status || canonical(decision.status) === canonical(vm.status)) return calm(vm, decision.outcome);
    const isWord = onlyWords(vm.status, decision.status);
    if (isWord && words.waitMs(vm.metadata.uid) > 0) return calm(vm, decision.outcome);
    const takes = decision.binds || canonical(decision.status.resolved?.reserved) !== canonical(vm.status.resolved?.reserved);
    const waitMs = takes ? 0 : mayWait(vm.metadata.uid, decision);
    if (waitMs > 0) return waiting('progress', waitMs);
    if (takes) assume(vm, { ...vm, status: decision.status });
    try {
      await hands.writeStatus(vm, decision.status);
      unassume(keyOf(vm.metadata));
    } catch (thrown) {
      if (statusOf(thrown) !== 0) unassume(keyOf(vm.metadata));
      throw thrown;
    }
    if (isWord) words.written(vm.metadata.uid);
    passingSince.delete(vm.metadata.uid);
    for (const step of timedSteps(vm.status, decision.status)) hands.stepTaken(step);
    announce(vm, decision.status, hands);
    return decision.binds ? 'again' : calm(vm, decision.outcome);
  };

  /** One decision and at most one write, or the VirtualDisks of disks that outlive the VM. */
  const pass = async (key: string): Promise<Outcome | 'again'> => {
    const vm = hands.vms.get(key);
    unassume(key);
    if (letGo.has(key) && letGo.get(key) !== vm?.metadata.uid) letGo.delete(key);
    if (!vm || letGo.has(key)) return settled;
    const secrets = await readSecrets(vm);
    // It may have been edited, or have gone, while they were read.
    if (hands.vms.get(key) !== vm) return 'again';
    // Its node may have said meanwhile that the guest has them.
    const look = (): VmFacts => {
      const seen = observe(vm, { ...hands, vms });
      return secrets && !seen.report?.seeded ? { ...seen, secrets } : seen;
    };
    const facts = look();
    const first = decide(facts, hands.now());
    const { metadata: { namespace, name }, status: { nodeName, resolved } } = vm;
    if (first.record.length === 0 || !facts.namespace || nodeName === undefined) return act(vm, first);
    const keptFor = { namespace, namespaceUid: facts.namespace.uid, vm: name, node: nodeName, ...(resolved?.architecture === undefined ? {} : { architecture: resolved.architecture }) };
    const unrecordable = await recordEach(first.record, (disk) => hands.recordDisk(disk, keptFor));
    const [failed] = unrecordable;
    if (!failed) return 'again';
    // One that can not be recorded keeps the VM from going, and from nothing else.
    hands.event(vm, { type: 'Warning', reason: 'RecordFailed', note: saidOf(unrecordable) });
    if (hands.vms.get(key) === vm) await act(vm, decide({ ...look(), unrecordable }, hands.now()));
    return blocked(failed.fault);
  };

  return async (key: string): Promise<Outcome> => {
    for (let count = 0; count < maxPasses; count++) {
      const outcome = await pass(key);
      if (outcome !== 'again') return outcome;
    }
    return waiting('the cache to catch up', 1_000);
  };
};

/** Two events for a VM that starts well: where it was placed, and that it runs; one for each way of failing. */
const announce = (vm: VirtualMachine, next: VmStatus, { event }: VmHands): void => {
  const before = conditionOf(vm.status.conditions, 'Ready');
  const after = conditionOf(next.conditions, 'Ready');
  if (vm.status.nodeName === undefined && next.nodeName !== undefined) {
    event(vm, { type: 'Normal', reason: 'Scheduled', note: next.machineUid === undefined ? `placed on ${next.nodeName}` : `adopted the machine ${next.machineUid} on ${next.nodeName}` });
  }
  const halted = conditionOf(next.conditions, 'IOError');
  if (halted && !conditionOf(vm.status.conditions, 'IOError')) event(vm, { type: 'Warning', reason: 'IOError', note: halted.message });
  if (!after || before?.reason === after.reason) return;
  if (after.status === 'True' && next.nodeName !== undefined) event(vm, { type: 'Normal', reason: after.reason, note: after.message });
  const forced = next.lastExit?.reason === 'Forced' && canonical(next.lastExit) !== canonical(vm.status.lastExit ?? null);
  // With stop mode Force the user asked for just that, and no grace period was given.
  if (forced && vm.spec.stop.mode === 'Graceful') event(vm, { type: 'Warning', reason: 'Forced', note: 'the guest did not power off within its grace period and was forced off' });
  if (conditionOf(next.conditions, 'Stalled')) event(vm, { type: 'Warning', reason: after.reason, note: after.message });
};
