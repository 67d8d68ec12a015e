// A QEMU that does not answer, stopped or held by the kernel: it is Unknown, nothing is done to it, and it delays nobody else.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { hierarchiesOf } from '#agent/hypervisor/qemu/cgroup.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bringImage, startWhole } from '../bed/whole.ts';
import { loopImage } from '../guest/loop.ts';

const stepMs = 120_000;
const ten = Array.from({ length: 10 }, (_, n) => `well-${n}`);

describe('a QEMU that does not answer', () => {
  const all = opened(startWhole);
  beforeAll(async () => {
    await bringImage(all, 'tick', Buffer.from(loopImage('tick')));
    for (const name of ['sick', ...ten]) await all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }, 'default', name === 'sick' ? 'tick' : 'guest'));
    // More than the processors of a small machine take: the rest is bound by hand.
    for (const name of ['sick', ...ten]) {
      const { status } = await until(`a place for ${name}`, async () => { const vm = await all.me.vm(name); return vm.status.observedGeneration > 0 && vm; }, stepMs);
      if (status.nodeName === undefined) await bind(name);
    }
    for (const name of ['sick', ...ten]) await all.me.vmIs(name, 'Ready=True Running', stepMs);
  }, 400_000);

  const bind = async (name: string) => void (await all.cluster.kube.request('PATCH', `/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/${name}/status`, {
    body: { status: { observedGeneration: 1, nodeName: 'node-1', epoch: 1 } }, contentType: 'application/merge-patch+json',
  }));
  const uidOf = async (name: string) => (await all.me.vm(name)).metadata.uid;
  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  const pidOf = async (name: string) => {
    const uid = await uidOf(name);
    return (await all.node.qemus()).find((each) => each.uid === uid)?.pid ?? 0;
  };
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });
  /** Seconds until all ten have done what they were told. */
  const allDo = async (powerState: 'Paused' | 'Running'): Promise<number> => {
    const since = performance.now();
    await Promise.all(ten.map((name) => power(name, powerState)));
    await Promise.all(ten.map((name) => all.me.vmIs(name, `Ready=True ${powerState}`, stepMs)));
    return (performance.now() - since) / 1_000;
  };
  const sickIsUnknown = () => all.me.vmIs('sick', 'Ready=Unknown GuestUnknown', stepMs);
  const sickTicks = async () => {
    const before = (await all.node.serial(await uidOf('sick'))).length;
    await until('the sick guest to go on', async () => (await all.node.serial(await uidOf('sick'))).length > before, stepMs);
  };
  const state = async (pid: number) => /^State:\s+(\S)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1];
  const freezer = async (name: string) => {
    const hierarchy = hierarchiesOf(await readFile('/proc/self/mountinfo', 'utf8')).find(({ controllers }) => controllers.includes('freezer'));
    return join(hierarchy?.directory ?? '', 'strato', await uidOf(name), 'freezer.state');
  };

  test('is stopped: Unknown in one message, nothing is done to it, also by another agent, and ten others do at once what they are told', async () => {
    const [pause, resume] = [await allDo('Paused'), await allDo('Running')];
    const before = await pids();
    const pid = await pidOf('sick');
    process.kill(pid, 'SIGSTOP');
    try {
      const unknown = await sickIsUnknown();
      expect([unknown.status.phase, conditionOf(unknown.status.conditions, 'Ready')?.message]).toEqual(['Unknown', 'QEMU did not answer within 3000 ms']);
      const beside = [await allDo('Paused'), await allDo('Running')];
      // Were they to wait for it in turn, each for one look, it would be half a minute more.
      expect(beside[0]).toBeLessThan(3 * pause + 15);
      expect(beside[1]).toBeLessThan(3 * resume + 15);
      await power('sick', 'Paused');
      await all.node.end('SIGKILL');
      await all.node.start();
      await all.node.joined();
      expect(await allDo('Paused')).toBeLessThan(3 * pause + 25);
      await allDo('Running');
      const still = await sickIsUnknown();
      expect([still.status.conditions, await pids(), await state(pid)]).toEqual([unknown.status.conditions?.map((each) => ({ ...each, observedGeneration: 2 })), before, 'T']);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await all.me.vmIs('sick', 'Ready=True Paused', stepMs);
    await power('sick', 'Running');
    await all.me.vmIs('sick', 'Ready=True Running', stepMs);
    await sickTicks();
    expect(await pids()).toEqual(before);
  }, 600_000);

  test('is held by the kernel: the same, and a delete waits until its process is gone', async () => {
    const before = await pids();
    const pid = await pidOf('sick');
    const uid = await uidOf('sick');
    const file = await freezer('sick');
    await writeFile(file, 'FROZEN');
    try {
      await until('the kernel to hold it', async () => (await state(pid)) === 'D', stepMs);
      await sickIsUnknown();
      await allDo('Paused');
      await allDo('Running');
      await all.me.deleteVm('sick');
      await until('the delete to be under way', async () => (await all.me.vm('sick')).status.phase === 'Terminating', stepMs);
      await allDo('Paused');
      await allDo('Running');
      // What keeps the node from ending it is told.
      const { status } = await all.me.vmIs('sick', 'Ready=False GuestUnknown', stepMs);
      expect([status.phase, await pids(), (await all.node.traces(uid)).length > 3]).toEqual(['Terminating', before, true]);
    } finally {
      await writeFile(file, 'THAWED');
    }
    await all.me.vmGone('sick', stepMs);
    expect(await all.node.traces(uid)).toEqual([]);
    expect(await pids()).toEqual(before.filter((each) => !each.startsWith(uid)));
  }, 600_000);
});
