import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

/** A cluster of two nodes that is restored to before the binding of a VM, which one of them runs: no other node may get it. */
describe('a VM whose binding the cluster has forgotten', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let a: SimNode;
  let b: SimNode;
  let restore: () => Promise<void>;
  let uid: string;
  let me: ReturnType<typeof user>;
  const node = (name: string, world?: SimNode['world']) =>
    startSimNode({ name, url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: name }), ...(world ? { world } : {}) });
  const begin = async () => { operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port) }); };
  const schedulable = (name: string, on: boolean) => me.patchNode(name, { spec: { schedulable: on } });
  const says = (object: Awaited<ReturnType<typeof me.vm>>) => conditionOf(object.status.conditions, 'Ready')?.message;

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    me = user(cluster.kube);
    [a, b] = [await node('node-a'), await node('node-b')];
    for (const name of ['node-a', 'node-b']) await me.nodeIs(name, 'Ready=True Ready');
    await me.apply(imageManifest());
    await me.imageIs('guest', 'Ready=True Ready');
    await schedulable('node-b', false);
    await operator.stop();
    await me.apply(vmManifest('web'));
    restore = await cluster.snapshot();
    await begin();
    ({ metadata: { uid } } = await me.vmIs('web', 'Ready=True Running'));
    expect(a.running()).toEqual([uid]);
  }, 300_000);
  afterAll(async () => {
    await Promise.all([a, b].map((each) => each?.stop()));
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  });

  test('waits for the node that may have it, although a new operator knows of no other history, and goes where it runs', async () => {
    await operator.stop();
    await a.stop();
    await restore();
    await schedulable('node-b', true);
    await begin();
    await until('node-b to be there', () => b.agent.joined(), 60_000);
    const waits = await me.vmIs('web', 'Ready=False WaitingForNodes');
    expect([waits.status.nodeName, says(waits)]).toEqual([undefined, 'node node-a has not said yet what it holds, and this VM may be there']);
    // Who came after it waits for nobody.
    await me.apply(vmManifest('late'));
    await me.vmIs('late', 'Ready=True Running');
    a = await node('node-a', a.world);
    expect((await me.vmIs('web', 'Ready=True Running')).status.nodeName).toBe('node-a');
    expect([a.running(), a.starts(uid), b.starts(uid)]).toEqual([[uid], 1, 0]);
    await me.deleteVm('late');
    await me.vmGone('late');
  }, 240_000);

  test('waits for as long as it takes in a history that went back, until an administrator gives the node up', async () => {
    await a.stop();
    await restore();
    await until('the operator to begin anew', () => operator.lines.some(({ sentence, fields }) => sentence === 'this term ends' && /history/.test(String(fields['why']))), 60_000);
    await operator.leading();
    await schedulable('node-b', true);
    await until('node-b to be there', () => b.agent.joined(), 60_000);
    operator.skip(60_000);
    const waits = await until('the long wait to be said', async () => {
      const now = await me.vmIs('web', 'Ready=False WaitingForNodes');
      return says(now)?.includes('kubectl delete hvn node-a') === true && now;
    }, 60_000);
    expect([waits.status.nodeName, b.starts(uid)]).toEqual([undefined, 0]);
    await cluster.kube.request('DELETE', '/apis/strato.dev/v1alpha1/hypervisornodes/node-a');
    expect((await me.vmIs('web', 'Ready=True Running')).status.nodeName).toBe('node-b');
  }, 240_000);

  test('is told to nobody any more when the node comes back with it all the same, and goes on when one copy is discarded', async () => {
    a = await node('node-a', a.world);
    const twice = await me.vmIs('web', 'Ready=Unknown HeldElsewhere');
    expect([twice.status.nodeName, a.running(), b.running()]).toEqual(['node-b', [uid], [uid]]);
    await me.nodeIs('node-a', 'OrphansPresent=True OrphansPresent');
    // Listed before it was looked at, it is `unknown`.
    const listed = await until('the orphan to be looked at', async () => {
      const { orphans } = (await me.node('node-a')).status;
      return orphans?.some(({ state }) => state !== 'unknown') && orphans;
    }, 60_000);
    expect(listed).toEqual([{ uid, namespace: 'default', name: 'web', state: 'running' }]);
    await me.patchVm('web', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    // Another operator knows no more than this one, while the node is away.
    await operator.stop();
    await a.stop();
    await begin();
    await me.vmIs('web', 'Ready=Unknown HeldElsewhere');
    await until('node-b to be there', () => b.agent.joined(), 60_000);
    await until('the new operator to have looked', () => operator.lines.some(({ fields }) => fields['key'] === 'default/web' && /held by node-a/.test(String(fields['on']))), 60_000);
    expect([(await me.node('node-b')).status.orphans, b.running()]).toEqual([[], [uid]]);
    a = await node('node-a', a.world);
    await until('node-a to be there', () => a.agent.joined(), 60_000);
    expect([a.running(), b.running()]).toEqual([[uid], [uid]]);
    await me.annotateNode('node-a', { 'strato.dev/discard-orphan': uid });
    await me.vmIs('web', 'Ready=True Stopped');
    expect([a.running(), b.running(), a.world.disks.has(uid), b.world.disks.has(uid)]).toEqual([[], [], false, true]);
    await me.nodeIs('node-a', 'OrphansPresent=False NoOrphans');
  }, 240_000);
});
