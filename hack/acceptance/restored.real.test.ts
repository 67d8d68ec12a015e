// The cluster is restored to an older state under running VMs: no guest is lost or doubled, and what the cluster has forgotten can be taken back.
import { afterAll, describe, expect, test } from '@jest/globals';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { type BedOperator, startBedOperator } from '../bed/operator.ts';
import { until } from '../bed/until.ts';
import { startWhole } from '../bed/whole.ts';

const stepMs = 120_000;

describe('a cluster that is restored to an older state', () => {
  let operator: BedOperator | undefined;
  afterAll(() => operator?.stop(), stepMs);
  const all = opened(startWhole);

  const tiny = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec });
  const runs = (name: string) => all.me.vmIs(name, 'Ready=True Running', stepMs);
  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });

  test('keeps every guest; what it has forgotten is listed, and adopted by an object of its name as it is', async () => {
    await all.me.apply(tiny('doomed'));
    await all.me.apply(tiny('edited'));
    const doomed = await runs('doomed');
    await runs('edited');
    const restore = await all.cluster.snapshot();
    await runs('edited');
    await all.me.deleteVm('doomed');
    await all.me.vmGone('doomed', stepMs);
    await power('edited', 'Paused');
    await all.me.vmIs('edited', 'Ready=True Paused', stepMs);
    await all.me.apply(tiny('younger'));
    const younger = await runs('younger');
    await until('the guest is up', async () => (await all.node.serial(younger.metadata.uid)).includes('up'), stepMs);
    const before = await pids();

    await restore();
    const found = await all.me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent', stepMs);
    expect(found.status.orphans?.map(({ uid, namespace, name }) => ({ uid, namespace, name }))).toEqual([{ uid: younger.metadata.uid, namespace: 'default', name: 'younger' }]);
    // The older wish counts, for the machine that is there.
    await runs('edited');
    const dead = await all.me.vmIs('doomed', 'Ready=False EndedForEver', stepMs);
    expect([dead.metadata.uid, verdict(dead, 'Stalled')]).toEqual([doomed.metadata.uid, 'Stalled=True EndedForEver']);
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.node.joined();
    await runs('edited');
    expect(await pids()).toEqual(before);

    await all.me.apply(tiny('younger'));
    const waits = await all.me.vmIs('younger', 'Ready=False NameHeldByOrphan', stepMs);
    expect(waits.metadata.uid).not.toBe(younger.metadata.uid);
    await all.me.annotateNode('node-1', { 'strato.dev/adopt-orphan': younger.metadata.uid });
    const adopted = await runs('younger');
    expect(adopted.status).toMatchObject({ nodeName: 'node-1', machineUid: younger.metadata.uid, epoch: younger.status.epoch, resolved: { uuid: younger.status.resolved?.uuid } });
    const clean = await all.me.nodeIs('node-1', 'OrphansPresent=False NoOrphans', stepMs);
    expect([clean.status.orphans, await pids()]).toEqual([[], before]);
  }, 600_000);

  test('an adopted machine is a VM like any other, also for another agent, another operator, and at its end', async () => {
    const before = await pids();
    const { status: { machineUid = '' } } = await all.me.vm('younger');
    await power('younger', 'Paused');
    await all.me.vmIs('younger', 'Ready=True Paused', stepMs);
    await all.me.annotateNode('node-1', { 'strato.dev/adopt-orphan': null });
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.operator.stop();
    operator = await startBedOperator(all.cluster, { port: Number(new URL(all.operator.url).port) });
    await power('younger', 'Running');
    expect((await runs('younger')).status.machineUid).toBe(machineUid);
    await all.me.nodeIs('node-1', 'OrphansPresent=False NoOrphans', stepMs);
    expect(await pids()).toEqual(before);
    // It is nobody's orphan and in nobody's way.
    await all.me.apply(tiny('another'));
    await runs('another');

    await power('younger', 'Stopped');
    await all.me.patchVm('younger', { spec: { stop: { mode: 'Force' } } });
    await all.me.vmIs('younger', 'Ready=True Stopped', stepMs);
    await power('younger', 'Running');
    await runs('younger');
    expect((await all.node.qemus()).filter(({ uid }) => uid === machineUid)).toHaveLength(1);
    await all.me.deleteVm('younger');
    await all.me.vmGone('younger', stepMs);
    expect(await all.node.traces(machineUid)).toEqual([]);
    // What has ended stays ended; its name is free.
    await all.me.apply(tiny('younger'));
    const fresh = await runs('younger');
    expect([fresh.status.machineUid, fresh.metadata.uid === machineUid]).toEqual([undefined, false]);
  }, 600_000);
});
