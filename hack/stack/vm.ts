import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault } from '#crds/kit/fault.ts';
import { type VirtualMachine, virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { isNotFound, type Kube } from '#operator/kube/kube.ts';
import { exampleFor } from './example.ts';
import { judge, saysReady } from './firstvm.ts';
import { kubectl } from './kubectl.ts';
import type { Layout } from './layout.ts';

const path = '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/first-vm';
const pollMs = 200;
const bootMs = 240_000;

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

const setPower = (at: Layout, powerState: 'Stopped' | null, signal: AbortSignal): Promise<string> =>
  kubectl(at, ['patch', 'vm', 'first-vm', '--type=merge', '-p', JSON.stringify({ spec: { powerState } })], signal);

/**
 * Applies examples/first-vm.yaml and waits until the VM is as declared and, when it runs, its guest has said so on the serial
 * console. A guest that ended while the stack was down is started again. Faults: FirstVmLate with the last that was known.
 */
export const bootFirstVm = async (at: Layout, kube: Kube, outer: AbortSignal, tell: (doing: string) => void): Promise<Booted> => {
  const late = AbortSignal.timeout(bootMs);
  const signal = AbortSignal.any([outer, late]);
  let known = 'nothing yet';
  const say = (text: string) => {
    known = text;
    tell(text);
  };
  try {
    const before = await read(kube, signal);
    const ran = before !== undefined && judge(before).is === 'up';
    await awaitGone(kube, signal, say);
    await apply(at, signal);
    const { vm, restarted } = await awaitDeclared(at, kube, signal, say);
    if (vm.spec.powerState !== 'Running') return { vm, how: `${vm.spec.powerState}, as declared` };
    if (ran && !restarted) return { vm, how: 'was running' };
    say('waiting for the guest to say STRATO ready on its serial console');
    while (!saysReady(await readFile(serialLog(at, vm), 'utf8').catch(() => ''))) await delay(pollMs, undefined, { signal });
    return { vm, how: restarted ? 'started again; its guest is up' : 'its guest is up' };
  } catch (thrown) {
    if (outer.aborted || !late.aborted) throw thrown;
    throw new Fault('FirstVmLate', `first-vm is not up after ${bootMs / 1000} s: ${known}\nsee ${at.log('operator')} and ${at.log('agent-node-1')}`, { cause: thrown });
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
  let restarting: 'no' | 'stopping' | 'done' = 'no';
  for (;;) {
    const vm = await read(kube, signal);
    if (vm === undefined) throw new Fault('FirstVmGone', 'somebody deleted first-vm meanwhile', { retry: 'never' });
    const verdict = judge(vm);
    if (verdict.is === 'up') return { vm, restarted: restarting === 'done' };
    if (verdict.is === 'ended' && restarting === 'no') {
      say('its guest had ended; starting it again');
      await setPower(at, 'Stopped', signal);
      restarting = 'stopping';
    } else if (verdict.is === 'off' && restarting === 'stopping') {
      await setPower(at, null, signal);
      restarting = 'done';
    } else if (verdict.is === 'off') {
      return { vm, restarted: false };
    } else if (verdict.is === 'waiting' || verdict.is === 'ended') say(verdict.why);
    await delay(pollMs, undefined, { signal });
  }
};
