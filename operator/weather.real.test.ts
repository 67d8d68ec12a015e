import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, verdict, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

/** What the operator makes of an API server that ends, hangs, or comes back with an older history. */
describe('bad weather', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let node: SimNode;
  let me: ReturnType<typeof user>;
  const shortLead = { durationMs: 3_000, renewMs: 500, renewDeadlineMs: 2_000 };
  const said = (sentence: string) => operator.lines.filter((line) => line.sentence === sentence).length;

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    node = await startSimNode({ name: 'node-1', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
    me = user(cluster.kube);
    await me.apply(imageManifest());
    await me.apply(vmManifest('web', { restartPolicy: 'Never' }));
    await me.vmIs('web', 'Ready=True Running', 30_000);
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);

  test('an API server that is killed and comes back: no guest notices, the agent stays, and work goes on', async () => {
    const starts = node.starts();
    await cluster.kill();
    const [uid = ''] = node.running();
    node.endGuest(uid, 'guest');
    await cluster.start();
    await me.apply(vmManifest('after'));
    await me.vmIs('after', 'Ready=True Running', 60_000);
    expect((await me.vmIs('web', 'Ready=False GuestShutdown', 30_000)).metadata.uid).toBe(uid);
    expect([said('agent connected'), said('this term ends'), node.starts()]).toEqual([1, 0, starts + 1]);
    await me.patchVm('web', { spec: { powerState: 'Stopped' } });
    await me.vmIs('web', 'Ready=True Stopped', 30_000);
    await me.patchVm('web', { spec: { powerState: 'Running' } });
    await me.vmIs('web', 'Ready=True Running', 30_000);
  }, 120_000);

  test('an API server that hangs for longer than the lead lasts: the lead is lost, and taken again by the same process', async () => {
    await operator.stop();
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port), leaseTimes: shortLead });
    const first = await operator.leading();
    const epoch = first.leaderEpoch() ?? 0;
    await until('the agent to join', () => node.agent.joined(), 20_000);
    const running = node.running();
    await cluster.freeze(true);
    try {
      await until('the lead to be lost', () => operator.running.term() !== first, 20_000);
    } finally {
      await cluster.freeze(false);
    }
    const second = await operator.leading();
    expect(second.leaderEpoch()).toBeGreaterThan(epoch);
    await until('the agent to be back', () => node.agent.joined(), 20_000);
    await me.apply(vmManifest('thaw'));
    await me.vmIs('thaw', 'Ready=True Running', 30_000);
    expect(node.running()).toEqual(expect.arrayContaining(running));
    expect(node.world.machine.doubleStarts).toBe(0);
  }, 120_000);

  test.each([
    ['while the operator leads', {}],
    ['and the operator loses the lead by it', shortLead],
  ])('a cluster that is restored to an older state %s: what is younger runs on as an orphan, what was deleted stays dead, and the epoch rises', async (_, leaseTimes) => {
    await operator.stop();
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port), leaseTimes });
    await me.apply(vmManifest('doomed'));
    const doomed = await me.vmIs('doomed', 'Ready=True Running', 30_000);
    const kept = await me.vm('web');
    const restore = await cluster.snapshot();
    await me.vmIs('web', 'Ready=True Running', 60_000);
    await me.deleteVm('doomed');
    await me.vmGone('doomed', 60_000);
    await me.apply(vmManifest('younger'));
    const younger = await me.vmIs('younger', 'Ready=True Running', 60_000);
    const before = node.running();
    const starts = node.starts();
    // What the agent is commanded under; the Lease's own count may well go back.
    const commanded = () => operator.running.term()?.house.fleet.member('node-1').spoke?.leaderEpoch ?? 0;
    const epoch = commanded();

    await restore();
    await until('the operator to begin anew', () => operator.lines.some(({ sentence, fields }) => sentence === 'this term ends' && /history|lead/.test(String(fields['why']))), 60_000);
    await until('a higher epoch', () => commanded() > epoch, 60_000);
    const found = await me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent', 60_000);
    expect(found.status.orphans?.map(({ uid }) => uid)).toEqual([younger.metadata.uid]);
    const dead = await me.vmIs('doomed', 'Ready=False EndedForEver', 30_000);
    expect([dead.metadata.uid, verdict(dead, 'Stalled')]).toEqual([doomed.metadata.uid, 'Stalled=True EndedForEver']);
    expect((await me.vmIs('web', 'Ready=True Running', 30_000)).metadata.uid).toBe(kept.metadata.uid);
    expect([node.running(), node.starts()]).toEqual([before, starts]);
    // The restored history is lived in: deletes and discards work.
    await me.deleteVm('doomed');
    await me.vmGone('doomed');
    await me.annotateNode('node-1', { 'strato.dev/discard-orphan': younger.metadata.uid });
    await until('the orphan to end', () => !node.running().includes(younger.metadata.uid), 20_000);
  }, 240_000);
});
