// What a user sees of a VM's life, on real QEMU: a small Linux where the guest has to answer, a boot sector where not.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { asFault } from '#crds/kit/fault.ts';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { catching, until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

describe('a VM', () => {
  const scene = opened(openScene);
  const power = (name: string, powerState: string) => scene.edit(name, { powerState });

  test('L01: runs under a QEMU with the UUID of its status, and its guest is told its host name', async () => {
    await scene.all.me.apply(scene.linux('first', { cloudInit: { hostname: 'my-host' } }));
    const { metadata: { uid }, status } = await scene.all.me.vmIs('first', 'Ready=True Running', stepMs);
    expect(status).toMatchObject({ phase: 'Running', nodeName: 'node-1', resolved: { accelerator: expect.any(String), machine: expect.stringMatching(/^pc-q35-/) } });
    const [qemu] = await scene.qemuOf(uid);
    expect(qemu?.command[(qemu?.command.indexOf('-uuid') ?? 0) + 1]).toBe(status.resolved?.uuid);
    await scene.serialHas(uid, 'STRATO ready host=my-host');
  }, bootMs);

  test('L03: stopped, its guest hears the power button and QEMU is gone within the grace period', async () => {
    const { uid } = (await scene.all.me.vm('first')).metadata;
    await power('first', 'Stopped');
    const { status } = await scene.all.me.vmIs('first', 'Ready=True Stopped', stepMs);
    expect([status.phase, await scene.qemuOf(uid)]).toEqual(['Stopped', []]);
    expect(await scene.all.node.serial(uid)).toContain('STRATO acpi-power');
    expect((await scene.events('first')).map(({ reason }) => reason)).not.toContain('Forced');
  }, bootMs);

  test('started again it has the same UUID, disk and epoch, and its console begins anew', async () => {
    const before = await scene.all.me.vm('first');
    await power('first', 'Running');
    const { metadata: { uid }, status } = await scene.all.me.vmIs('first', 'Ready=True Running', stepMs);
    expect([status.resolved?.uuid, status.epoch]).toEqual([before.status.resolved?.uuid, before.status.epoch]);
    await scene.serialHas(uid, 'STRATO ready host=my-host');
    expect(await scene.all.node.serial(uid)).not.toContain('acpi-power');
    expect(await scene.removed('first', uid)).toEqual([]);
  }, bootMs);

  test('L03: a guest that ignores the power button is forced off at the end of its grace period, and an event says so', async () => {
    await scene.all.me.apply(scene.tiny('deaf', { stop: { gracePeriodSeconds: 1 } }));
    const { metadata: { uid } } = await scene.all.me.vmIs('deaf', 'Ready=True Running', stepMs);
    await scene.serialHas(uid, 'up');
    await power('deaf', 'Stopped');
    await scene.all.me.vmIs('deaf', 'Ready=True Stopped', stepMs);
    expect(await scene.qemuOf(uid)).toEqual([]);
    await until('the event', async () => (await scene.events('deaf')).some(({ reason, note }) => reason === 'Forced' && note.includes('grace period')), stepMs);
    expect(await scene.removed('deaf', uid)).toEqual([]);
  }, bootMs);

  test('L02: stopped at its creation it is Ready, claims no node and has no QEMU', async () => {
    await scene.all.me.apply(scene.tiny('idle', { powerState: 'Stopped' }));
    const { metadata: { uid }, status } = await scene.all.me.vmIs('idle', 'Ready=True Stopped');
    expect([status.phase, status.nodeName, await scene.qemuOf(uid), await scene.all.node.traces(uid)]).toEqual(['Stopped', undefined, [], []]);
    await scene.all.me.deleteVm('idle');
    await scene.all.me.vmGone('idle');
  }, stepMs);

  test('L09: paused its guest stands still, and goes on where it stood', async () => {
    const count = '#!/bin/sh\n( while :; do read up _ < /proc/uptime; echo "UPTIME ${up%.*}" > /dev/ttyS0; sleep 1; done ) &\n';
    await scene.all.me.apply(scene.linux('paused', { cloudInit: { userData: count } }));
    const { metadata: { uid } } = await scene.all.me.vmIs('paused', 'Ready=True Running', stepMs);
    const uptimes = async () => [...(await scene.all.node.serial(uid)).matchAll(/UPTIME (\d+)/g)].map(([, seconds]) => Number(seconds));
    await until('the guest to count', async () => (await uptimes()).length > 2, bootMs);
    const [qemu] = await scene.qemuOf(uid);
    await power('paused', 'Paused');
    const paused = await scene.all.me.vmIs('paused', 'Ready=True Paused');
    expect(paused.status.phase).toBe('Paused');
    const before = await uptimes();
    const until8s = performance.now() + 8_000;
    await until('eight seconds to pass', () => performance.now() > until8s, stepMs);
    expect(await uptimes()).toEqual(before);
    await power('paused', 'Running');
    await until('the guest to count on', async () => (await uptimes()).length > before.length, stepMs);
    expect((await uptimes())[before.length]).toBeLessThan((before.at(-1) ?? 0) + 5);
    expect((await scene.qemuOf(uid)).map(({ pid }) => pid)).toEqual([qemu?.pid]);
    expect(await scene.removed('paused', uid)).toEqual([]);
  }, 6 * stepMs);

  test('L12: deleted while it starts it is gone in less than 30 s, and nothing remains', async () => {
    const { paths } = scene.all.node;
    for (const wanted of ['ledger', 'vm', 'sockets'] as const) {
      await scene.all.me.apply(scene.tiny('hasty'));
      const { uid } = (await scene.all.me.vm('hasty')).metadata;
      await catching(`its ${wanted}`, () => existsSync(wanted === 'ledger' ? join(paths.ledger, `${uid}.json`) : paths[wanted](uid)), stepMs);
      expect((await scene.all.me.vm('hasty')).status.phase).not.toBe('Running');
      expect(await scene.removed('hasty', uid, 30_000)).toEqual([]);
    }
  }, 4 * stepMs);

  test('L13: protected, its delete is refused and says how to go on', async () => {
    await scene.all.me.apply(scene.tiny('kept', { deletionProtection: true, powerState: 'Stopped' }));
    // A policy is in force a moment after it was applied.
    const refusal = await until('the refusal', async () => {
      try {
        await scene.all.cluster.kube.request('DELETE', '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/kept', { query: { dryRun: 'All' } });
        return undefined;
      } catch (thrown) {
        return asFault(thrown, 'DeleteFailed', 'deleting').message;
      }
    }, stepMs);
    expect(refusal).toMatch(/protected.*deletionProtection/);
    await expect(scene.all.me.deleteVm('kept')).rejects.toThrow(/protected/);
    await scene.all.me.patchVm('kept', { spec: { deletionProtection: false } });
    await scene.all.me.deleteVm('kept');
    await scene.all.me.vmGone('kept');
  }, stepMs);

  test('N05: QEMU that is killed is told of with the signal; Stopped and Running start it again', async () => {
    await scene.all.me.apply(scene.tiny('crashed', { restartPolicy: 'Never' }));
    const { metadata: { uid } } = await scene.all.me.vmIs('crashed', 'Ready=True Running', stepMs);
    const [qemu] = await scene.qemuOf(uid);
    process.kill(qemu?.pid ?? 0, 'SIGKILL');
    const told = await scene.all.me.vmIs('crashed', 'Ready=False QemuCrashed', 15_000);
    expect(told.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(/SIGKILL/);
    expect(told.status.lastExit).toMatchObject({ reason: 'QemuCrashed' });
    await power('crashed', 'Stopped');
    await scene.all.me.vmIs('crashed', 'Ready=True Stopped');
    await power('crashed', 'Running');
    await scene.all.me.vmIs('crashed', 'Ready=True Running', stepMs);
    expect(await scene.removed('crashed', uid)).toEqual([]);
  }, bootMs);

  test('L05: a guest that powers itself off stays off under OnFailure, and is told of as such', async () => {
    await scene.all.me.apply(scene.tiny('done', { restartPolicy: 'OnFailure' }));
    const { metadata: { uid } } = await scene.all.me.vmIs('done', 'Ready=True Running', stepMs);
    await scene.serialHas(uid, 'up');
    await scene.type(uid, 'q');
    const { status } = await scene.all.me.vmIs('done', 'Ready=False GuestShutdown', stepMs);
    expect(status.lastExit).toMatchObject({ reason: 'GuestShutdown' });
    expect(await scene.qemuOf(uid)).toEqual([]);
    expect(await scene.removed('done', uid)).toEqual([]);
  }, bootMs);

  test('silence: an agent that hangs for 30 s is unreachable, a delete waits, and nothing is restarted when it comes back', async () => {
    await scene.all.me.apply(scene.tiny('silent'));
    await scene.all.me.apply(scene.tiny('leaving'));
    const { metadata: { uid } } = await scene.all.me.vmIs('silent', 'Ready=True Running', stepMs);
    const { metadata: { uid: leaving } } = await scene.all.me.vmIs('leaving', 'Ready=True Running', stepMs);
    const before = await scene.qemuOf(uid);
    scene.all.node.agent().kill('SIGSTOP');
    try {
      await scene.all.me.vmIs('silent', 'Ready=Unknown NodeUnreachable', stepMs);
      await scene.all.me.nodeIs('node-1', 'Ready=Unknown NodeUnreachable');
      await scene.all.me.deleteVm('leaving');
      await until('the operator to see the delete', async () => verdict(await scene.all.me.vm('leaving')) === 'Ready=Unknown NodeUnreachable', stepMs);
      expect((await scene.qemuOf(leaving)).length).toBe(1);
    } finally {
      scene.all.node.agent().kill('SIGCONT');
    }
    await scene.all.me.vmIs('silent', 'Ready=True Running', stepMs);
    await scene.all.me.vmGone('leaving', stepMs);
    expect(await scene.qemuOf(uid)).toEqual(before);
    expect(await scene.all.node.traces(leaving)).toEqual([]);
    expect(await scene.removed('silent', uid)).toEqual([]);
  }, 6 * stepMs);
});
