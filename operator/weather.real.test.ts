import { beforeAll, describe, expect, test } from '@jest/globals';
import { verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';

/** What the operator makes of an API server that ends, hangs, or comes back with an older history. */
describe('bad weather', () => {
  const lab = opened(startSimulated);
  const shortLead = { durationMs: 3_000, renewMs: 500, renewDeadlineMs: 2_000 };
  const said = (sentence: string) => lab.operator().lines.filter((line) => line.sentence === sentence);

  beforeAll(async () => {
    await lab.me.apply(vmManifest('web', { restartPolicy: 'Never' }));
    await lab.me.vmIs('web', 'Ready=True Running');
  });

  test('an API server that is killed and comes back: no guest notices, the agent stays, and work goes on', async () => {
    const starts = lab.node().starts();
    await lab.cluster.kill();
    const [uid = ''] = lab.node().running();
    lab.node().endGuest(uid, 'guest');
    await lab.cluster.start();
    await lab.me.apply(vmManifest('after'));
    await lab.me.vmIs('after', 'Ready=True Running');
    expect((await lab.me.vmIs('web', 'Ready=False GuestShutdown')).metadata.uid).toBe(uid);
    await lab.me.patchVm('web', { spec: { powerState: 'Stopped' } });
    await lab.me.vmIs('web', 'Ready=True Stopped');
    await lab.me.patchVm('web', { spec: { powerState: 'Running' } });
    await lab.me.vmIs('web', 'Ready=True Running');
    expect([said('this term ends'), said('agent connected').length, lab.node().starts()]).toEqual([[], 1, starts + 2]);
  });

  test('an API server that hangs for longer than the lead lasts: the lead is lost, and taken again by the same process', async () => {
    await lab.operator().stop();
    await lab.startOperator({ leaseTimes: shortLead });
    const first = await lab.operator().leading();
    const epoch = first.leaderEpoch() ?? 0;
    await until('the agent to join', () => lab.node().agent.joined(), 60_000);
    const running = lab.node().running();
    await lab.cluster.freeze(true);
    try {
      await until('the lead to be lost', () => lab.operator().running.term() !== first, 60_000);
    } finally {
      await lab.cluster.freeze(false);
    }
    const second = await lab.operator().leading();
    expect(second.leaderEpoch()).toBeGreaterThan(epoch);
    await until('the agent to be back', () => lab.node().agent.joined(), 60_000);
    await lab.me.apply(vmManifest('thaw'));
    await lab.me.vmIs('thaw', 'Ready=True Running');
    expect(lab.node().running()).toEqual(expect.arrayContaining(running));
    expect(lab.node().world.machine.doubleStarts).toBe(0);
  });

  test.each([
    ['while the operator leads', {}],
    ['and the operator loses the lead by it', shortLead],
  ])('a cluster that is restored to an older state %s: what is younger runs on as an orphan, what was deleted stays dead, and the epoch rises', async (_, leaseTimes) => {
    await lab.operator().stop();
    await lab.startOperator({ leaseTimes });
    await lab.me.apply(vmManifest('doomed'));
    const doomed = await lab.me.vmIs('doomed', 'Ready=True Running');
    const kept = await lab.me.vm('web');
    const restore = await lab.cluster.snapshot();
    await lab.me.vmIs('web', 'Ready=True Running');
    await lab.me.deleteVm('doomed');
    await lab.me.vmGone('doomed');
    await lab.me.apply(vmManifest('younger'));
    const younger = await lab.me.vmIs('younger', 'Ready=True Running');
    const before = lab.node().running();
    const starts = lab.node().starts();
    // What the agent is commanded under; the Lease's own count may well go back.
    const commanded = () => lab.operator().running.term()?.house.fleet.member('node-1').spoke?.leaderEpoch ?? 0;
    const epoch = commanded();

    await restore();
    await until('the operator to begin anew', () => lab.operator().lines.some(({ sentence, fields }) => sentence === 'this term ends' && /history|lead/.test(String(fields['why']))), 60_000);
    await until('a higher epoch', () => commanded() > epoch, 60_000);
    const found = await lab.me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent');
    expect(found.status.orphans?.map(({ uid }) => uid)).toEqual([younger.metadata.uid]);
    const dead = await lab.me.vmIs('doomed', 'Ready=False EndedForEver');
    expect([dead.metadata.uid, verdict(dead, 'Stalled')]).toEqual([doomed.metadata.uid, 'Stalled=True EndedForEver']);
    expect((await lab.me.vmIs('web', 'Ready=True Running')).metadata.uid).toBe(kept.metadata.uid);
    expect([lab.node().running(), lab.node().starts()]).toEqual([before, starts]);
    // The restored history is lived in: deletes and discards work.
    await lab.me.deleteVm('doomed');
    await lab.me.vmGone('doomed');
    await lab.me.annotateNode('node-1', { 'strato.dev/discard-orphan': younger.metadata.uid });
    await until('the orphan to end', () => !lab.node().running().includes(younger.metadata.uid), 60_000);
  }, 240_000);
});
