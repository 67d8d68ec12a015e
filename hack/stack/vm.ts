import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault } from '#crds/kit/fault.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { isNotFound, type Kube } from '#operator/kube/kube.ts';
import { exampleFor } from './example.ts';
import { judge, readyLine } from './firstvm.ts';
import { observeHolders } from './guests.ts';
import { kubectl } from './kubectl.ts';
import type { Layout } from './layout.ts';

const path = '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/first-vm';
const restartMark = 'strato.dev/restarted-by-up';
const pollMs = 200;
const bootMs = 240_000;
// A record this long may have lost its beginning. Source: agent/hypervisor/qemu/bound.ts.
const wholeSerialBytes = 1024 * 1024;

/** The first VM, and what there is to say of it. */
export type Booted = { vm: VirtualMachine; how: string };

/** Its serial console's record. */
export const serialLog = (at: Layout, { metadata }: VirtualMachine): string => join(at.agent.vms, metadata.uid, 'serial.log');

const read = async (kube: Kube, signal: AbortSignal): Promise<VirtualMachine | undefined> => {
  try {
    return virtualMachine.parse(await kube.request('GET', path, { signal }));
  } catch (thrown) {
    if (isNotFound(thrown)) return undefined;
    throw thrown;
  }
};

const apply = async (at: Layout, signal: AbortSignal): Promise<void> => {
  const text = await readFile(at.example, 'utf8');
  const shown = exampleFor(text, at.ports);
  const file = shown === text ? at.example : join(at.home, 'first-vm.yaml');
  if (file !== at.example) {
    await writeFile(`${file}.new`, shown);
    await rename(`${file}.new`, file);
  }
  await kubectl(at, ['apply', '-f', file], signal);
};

/** Stops the VM to start it again, or does the latter. The mark lets the next run go on when this one ends in between. */
const setPower = (at: Layout, powerState: 'Stopped' | null, signal: AbortSignal): Promise<string> => {
  const patch = { metadata: { annotations: { [restartMark]: powerState } }, spec: { powerState } };
  return kubectl(at, ['patch', 'vm', 'first-vm', '--type=merge', '-p', JSON.stringify(patch)], signal);
};

/** What booting it needs; `running`: uids of the VMs whose guests ran before this `./hack/up`. */
export type BootParts = { at: Layout; kube: Kube; running: ReadonlySet<string>; signal: AbortSignal };

/**
 * Applies examples/first-vm.yaml and waits until the VM is as declared and, when it runs, its guest has said so on the serial
 * console. A guest that ended while the stack was down is started again. Faults: FirstVmLate with the last that was known.
 */
export const bootFirstVm = async ({ at, kube, running, signal: outer }: BootParts, tell: (doing: string) => void): Promise<Booted> => {
  const late = AbortSignal.timeout(bootMs);
  const signal = AbortSignal.any([outer, late]);
  let known = 'nothing yet';
  const say = (text: string) => {
    known = text;
    tell(text);
  };
  try {
    await awaitGone(kube, signal, say);
    await apply(at, signal);
    const { vm, restarted } = await awaitDeclared(at, kube, signal, say);
    if (vm.spec.powerState !== 'Running') return { vm, how: `${vm.spec.powerState}, as declared` };
    say('waiting for the guest to say STRATO ready on its serial console');
    const said = await awaitSaid(serialLog(at, vm), signal);
    return { vm, how: `${restarted ? 'started again' : running.has(vm.metadata.uid) ? 'was running' : 'started'}; its serial console says: ${said}` };
  } catch (thrown) {
    if (outer.aborted || !late.aborted) throw thrown;
    throw new Fault('FirstVmLate', `first-vm is not up after ${bootMs / 1000} s: ${known}\nsee ${at.log('operator')} and ${at.log('agent-node-1')}`, { cause: thrown });
  }
};

const awaitSaid = async (file: string, signal: AbortSignal): Promise<string> => {
  for (;;) {
    const text = await readFile(file, 'utf8').catch(() => '');
    const said = readyLine(text);
    if (said !== undefined) return said;
    if (text.length > wholeSerialBytes) return 'more than is kept';
    await delay(pollMs, undefined, { signal });
  }
};

const awaitGone = async (kube: Kube, signal: AbortSignal, say: (text: string) => void): Promise<void> => {
  for (;;) {
    const vm = await read(kube, signal);
    if (vm === undefined || judge(vm).is !== 'leaving') return;
    say('waiting for the end of the one that is being deleted');
    await delay(pollMs, undefined, { signal });
  }
};

const awaitDeclared = async (at: Layout, kube: Kube, signal: AbortSignal, say: (text: string) => void): Promise<{ vm: VirtualMachine; restarted: boolean }> => {
  let restarting = false;
  for (;;) {
    const vm = await read(kube, signal);
    if (vm === undefined) throw new Fault('FirstVmGone', 'somebody deleted first-vm meanwhile', { retry: 'never' });
    const verdict = judge(vm);
    // What the API server has may be what was true before ./hack/down: the guest's lock tells.
    const present = (await observeHolders(at.agent.vms)).has(vm.metadata.uid);
    if (verdict.is === 'up' && present) return { vm, restarted: restarting };
    if (verdict.is === 'up') say('it is said to run, but there is no process of it; waiting for the agent to report that');
    if (verdict.is === 'ended' && !restarting) {
      say('its guest had ended; starting it again');
      await setPower(at, 'Stopped', signal);
      restarting = true;
    } else if (verdict.is === 'off' && restartMark in vm.metadata.annotations) {
      await setPower(at, null, signal);
      restarting = true;
    } else if (verdict.is === 'off') {
      return { vm, restarted: false };
    } else if (verdict.is === 'waiting' || verdict.is === 'ended') say(verdict.why);
    await delay(pollMs, undefined, { signal });
  }
};
