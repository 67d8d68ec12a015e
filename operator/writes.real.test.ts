import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { operatorUser, readAudit, writesOf } from '#hack/bed/audit.ts';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

/** The operator's budget of writes, counted in the audit log of a real API server. Case C01 of acceptance.md. */
describe('the writes of the operator', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let node: SimNode;
  let me: ReturnType<typeof user>;
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const writes = async () => writesOf(await readAudit(cluster.audit), operatorUser).map(({ objectRef }) => objectRef);
  const eventList = z.object({ items: z.array(z.object({ regarding: z.object({ name: z.string() }), reason: z.string() })) });
  const events = async () =>
    eventList.parse(await cluster.kube.request('GET', '/apis/events.k8s.io/v1/namespaces/default/events')).items.map(({ regarding, reason }) => `${regarding.name} ${reason}`);

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    node = await startSimNode({ name: 'node-1', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
    me = user(cluster.kube);
    await me.apply(imageManifest());
    await me.imageIs('guest', 'Ready=True Ready');
    await Promise.all(names.map((name) => me.apply(vmManifest(name))));
    await Promise.all(names.map((name) => me.vmIs(name, 'Ready=True Running', 30_000)));
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);

  test('are at most four for a VM from its creation until it runs, and two events', async () => {
    const made = (await writes()).filter((ref) => ref?.resource === 'virtualmachines');
    const counts = names.map((name) => made.filter((ref) => ref?.name === name).length);
    expect(Math.max(...counts)).toBeLessThanOrEqual(4);
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(2);
    // Events are told after the status, and nobody waits for them.
    const said = await until('the events', async () => {
      const all = await events();
      return names.every((name) => all.includes(`${name} Running`)) && all;
    }, 15_000);
    for (const name of names) expect(said.filter((each) => each.startsWith(`${name} `)).toSorted()).toEqual([`${name} Running`, `${name} Scheduled`]);
  });

  test('are none once they run, however often everything is looked at and compared', async () => {
    const versions = () => Promise.all(names.map(async (name) => (await me.vm(name)).metadata.resourceVersion));
    const before = await versions();
    for (const round of [1, 2, 3, 4]) {
      const { house } = await operator.leading();
      // Less than silence is; after three of them the digests are compared, and the barrier has the agent speak in between.
      operator.skip(25_000);
      house.lookAtAll();
      // Comes after all of them in the queue: when it runs, they have been looked at.
      await me.apply(vmManifest(`barrier-${round}`));
      await me.vmIs(`barrier-${round}`, 'Ready=True Running');
    }
    expect(await versions()).toEqual(before);
  }, 60_000);

  test('that are refused are not tried without end: the operator was denied nothing', async () => {
    const denied = (await readAudit(cluster.audit)).filter(({ user: who, responseStatus }) => who.username === operatorUser && responseStatus?.code === 403);
    expect(denied).toEqual([]);
  });
});
