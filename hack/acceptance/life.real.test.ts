// What a user sees of a VM's life, on real QEMU: a small Linux where the guest has to answer, a boot sector where not.
import { readFile, appendFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { asFault } from '#crds/kit/fault.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { until } from '../bed/until.ts';
import { startWhole, type Whole } from '../bed/whole.ts';
import { ensureGuest } from '../guest/guest.ts';

const stepMs = 60_000;
const bootMs = 120_000;
const eventList = z.object({ items: z.array(z.object({ regarding: z.object({ name: z.string() }), reason: z.string(), note: z.string() })) });

describe('a VM', () => {
  let all: Whole;
  beforeAll(async () => {
    all = await startWhole();
    const { disk } = await ensureGuest(() => {});
    const url = all.web.serve('/linux.qcow2', { is: 'bytes', bytes: await readFile(disk) });
    await all.me.apply({
      apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'linux', namespace: 'default' },
      spec: { source: { http: { url } }, format: 'qcow2' },
    });
    await all.me.imageIs('linux', 'Ready=True Ready');
  }, 900_000);
  afterAll(async () => {
    await all?.[Symbol.asyncDispose]();
  }, stepMs);

  const linux = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '256Mi' }, ...spec }, 'default', 'linux');
  const tiny = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec });
  const qemuOf = async (uid: string) => (await all.node.qemus()).filter((each) => each.uid === uid);
  const serialHas = (uid: string, text: string | RegExp, ms = bootMs) =>
    until(`${String(text)} on the serial console`, async () => (typeof text === 'string' ? (await all.node.serial(uid)).includes(text) : text.test(await all.node.serial(uid))), ms);
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });
  const events = async (name: string) =>
    eventList.parse(await all.cluster.kube.request('GET', '/apis/events.k8s.io/v1/namespaces/default/events')).items.filter((each) => each.regarding.name === name);
  const removed = async (name: string, uid: string) => {
    await all.me.deleteVm(name);
    await all.me.vmGone(name, 30_000);
    expect(await all.node.traces(uid)).toEqual([]);
  };

  test('L01: runs under a QEMU with the UUID of its status, and its guest is told its host name', async () => {
    await all.me.apply(linux('first', { cloudInit: { hostname: 'my-host' } }));
    const { metadata: { uid }, status } = await all.me.vmIs('first', 'Ready=True Running', stepMs);
    expect(status).toMatchObject({ phase: 'Running', nodeName: 'node-1', resolved: { accelerator: expect.any(String), machine: expect.stringMatching(/^pc-q35-/) } });
    const [qemu] = await qemuOf(uid);
    expect(qemu?.command[(qemu?.command.indexOf('-uuid') ?? 0) + 1]).toBe(status.resolved?.uuid);
    await serialHas(uid, 'STRATO ready host=my-host');
  }, bootMs);

  test('L03: stopped, its guest hears the power button and QEMU is gone within the grace period', async () => {
    const { uid } = (await all.me.vm('first')).metadata;
    await power('first', 'Stopped');
    const { status } = await all.me.vmIs('first', 'Ready=True Stopped', stepMs);
    expect([status.phase, await qemuOf(uid)]).toEqual(['Stopped', []]);
    expect(await all.node.serial(uid)).toContain('STRATO acpi-power');
    expect((await events('first')).map(({ reason }) => reason)).not.toContain('Forced');
  }, bootMs);

  test('started again it has the same UUID, disk and epoch, and its console begins anew', async () => {
    const before = await all.me.vm('first');
    await power('first', 'Running');
    const { metadata: { uid }, status } = await all.me.vmIs('first', 'Ready=True Running', stepMs);
    expect([status.resolved?.uuid, status.epoch]).toEqual([before.status.resolved?.uuid, before.status.epoch]);
    await serialHas(uid, 'STRATO ready host=my-host');
    expect(await all.node.serial(uid)).not.toContain('acpi-power');
    await removed('first', uid);
  }, bootMs);

  test('L03: a guest that ignores the power button is forced off at the end of its grace period, and an event says so', async () => {
    await all.me.apply(tiny('deaf', { stop: { gracePeriodSeconds: 1 } }));
    const { metadata: { uid } } = await all.me.vmIs('deaf', 'Ready=True Running', stepMs);
    await serialHas(uid, 'up');
    await power('deaf', 'Stopped');
    await all.me.vmIs('deaf', 'Ready=True Stopped', stepMs);
    expect(await qemuOf(uid)).toEqual([]);
    await until('the event', async () => (await events('deaf')).some(({ reason, note }) => reason === 'Forced' && note.includes('grace period')), stepMs);
    await removed('deaf', uid);
  }, bootMs);

  test('L02: stopped at its creation it is Ready, claims no node and has no QEMU', async () => {
    await all.me.apply(tiny('idle', { powerState: 'Stopped' }));
    const { metadata: { uid }, status } = await all.me.vmIs('idle', 'Ready=True Stopped');
    expect([status.phase, status.nodeName, await qemuOf(uid), await all.node.traces(uid)]).toEqual(['Stopped', undefined, [], []]);
    await all.me.deleteVm('idle');
    await all.me.vmGone('idle');
  }, stepMs);

  test('L09: paused its guest stands still, and goes on where it stood', async () => {
    const count = '#!/bin/sh\n( while :; do read up _ < /proc/uptime; echo "UPTIME ${up%.*}" > /dev/ttyS0; sleep 1; done ) &\n';
    await all.me.apply(linux('paused', { cloudInit: { userData: count } }));
    const { metadata: { uid } } = await all.me.vmIs('paused', 'Ready=True Running', stepMs);
    const uptimes = async () => [...(await all.node.serial(uid)).matchAll(/UPTIME (\d+)/g)].map(([, seconds]) => Number(seconds));
    await until('the guest to count', async () => (await uptimes()).length > 2, bootMs);
    const [qemu] = await qemuOf(uid);
    await power('paused', 'Paused');
    const paused = await all.me.vmIs('paused', 'Ready=True Paused');
    expect(paused.status.phase).toBe('Paused');
    const before = await uptimes();
    const until8s = performance.now() + 8_000;
    await until('eight seconds to pass', () => performance.now() > until8s, stepMs);
    expect(await uptimes()).toEqual(before);
    await power('paused', 'Running');
    await until('the guest to count on', async () => (await uptimes()).length > before.length, stepMs);
    expect((await uptimes())[before.length]).toBeLessThan((before.at(-1) ?? 0) + 5);
    expect((await qemuOf(uid)).map(({ pid }) => pid)).toEqual([qemu?.pid]);
    await removed('paused', uid);
  }, 240_000);

  test('L12: deleted while it starts it is gone in less than 30 s, and nothing remains', async () => {
    for (const wanted of ['ledger', 'vm', 'sockets'] as const) {
      await all.me.apply(tiny('hasty'));
      const { uid } = (await all.me.vm('hasty')).metadata;
      await until(`its ${wanted}`, async () => (await all.node.traces(uid)).some((each) => each.includes(wanted === 'vm' ? '/vms/' : wanted === 'ledger' ? '/ledger/' : '/s/')), stepMs);
      await removed('hasty', uid);
    }
  }, 180_000);

  test('L13: protected, its delete is refused and says how to go on', async () => {
    await all.me.apply(tiny('kept', { deletionProtection: true, powerState: 'Stopped' }));
    // A policy is in force a moment after it was applied.
    const refusal = await until('the refusal', async () => {
      try {
        await all.cluster.kube.request('DELETE', '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/kept', { query: { dryRun: 'All' } });
        return undefined;
      } catch (thrown) {
        return asFault(thrown, 'DeleteFailed', 'deleting').message;
      }
    }, stepMs);
    expect(refusal).toMatch(/protected.*deletionProtection/);
    await expect(all.me.deleteVm('kept')).rejects.toThrow(/protected/);
    await all.me.patchVm('kept', { spec: { deletionProtection: false } });
    await all.me.deleteVm('kept');
    await all.me.vmGone('kept');
  }, stepMs);

  test('N05: QEMU that is killed is told of with the signal; Stopped and Running start it again', async () => {
    await all.me.apply(tiny('crashed', { restartPolicy: 'Never' }));
    const { metadata: { uid } } = await all.me.vmIs('crashed', 'Ready=True Running', stepMs);
    const [qemu] = await qemuOf(uid);
    process.kill(qemu?.pid ?? 0, 'SIGKILL');
    const told = await all.me.vmIs('crashed', 'Ready=False QemuCrashed', 15_000);
    expect(told.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(/SIGKILL/);
    expect(told.status.lastExit).toMatchObject({ reason: 'QemuCrashed' });
    await power('crashed', 'Stopped');
    await all.me.vmIs('crashed', 'Ready=True Stopped');
    await power('crashed', 'Running');
    await all.me.vmIs('crashed', 'Ready=True Running', stepMs);
    await removed('crashed', uid);
  }, bootMs);

  test('L05: a guest that powers itself off stays off under OnFailure, and is told of as such', async () => {
    await all.me.apply(tiny('done', { restartPolicy: 'OnFailure' }));
    const { metadata: { uid } } = await all.me.vmIs('done', 'Ready=True Running', stepMs);
    await serialHas(uid, 'up');
    await appendFile(all.node.paths.serialInput(uid), 'q');
    const { status } = await all.me.vmIs('done', 'Ready=False GuestShutdown', stepMs);
    expect(status.lastExit).toMatchObject({ reason: 'GuestShutdown' });
    expect(await qemuOf(uid)).toEqual([]);
    await removed('done', uid);
  }, bootMs);

  test('silence: an agent that hangs for 30 s is unreachable, a delete waits, and nothing is restarted when it comes back', async () => {
    await all.me.apply(tiny('silent'));
    await all.me.apply(tiny('leaving'));
    const { metadata: { uid } } = await all.me.vmIs('silent', 'Ready=True Running', stepMs);
    const { metadata: { uid: leaving } } = await all.me.vmIs('leaving', 'Ready=True Running', stepMs);
    const before = await qemuOf(uid);
    all.node.agent().kill('SIGSTOP');
    try {
      await all.me.vmIs('silent', 'Ready=Unknown NodeUnreachable', stepMs);
      await all.me.nodeIs('node-1', 'Ready=Unknown NodeUnreachable');
      await all.me.deleteVm('leaving');
      await until('the operator to see the delete', async () => verdict(await all.me.vm('leaving')) === 'Ready=Unknown NodeUnreachable', stepMs);
      expect((await qemuOf(leaving)).length).toBe(1);
    } finally {
      all.node.agent().kill('SIGCONT');
    }
    await all.me.vmIs('silent', 'Ready=True Running', stepMs);
    await all.me.vmGone('leaving', stepMs);
    expect(await qemuOf(uid)).toEqual(before);
    expect(await all.node.traces(leaving)).toEqual([]);
    await removed('silent', uid);
  }, 240_000);
});
