import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, verdict, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';
import { type Kube, KubeFault } from './kube/kube.ts';

/** What happens while somebody says nothing: an agent, or an operator. Nothing is lost, started twice or ended by it. */
describe('silence', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let node: SimNode;
  let me: ReturnType<typeof user>;
  const uplink = () => ({ name: 'node-1', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
  const again = async (options: Parameters<typeof startBedOperator>[1] = {}) => {
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port), ...options });
  };

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    node = await startSimNode(uplink());
    me = user(cluster.kube);
    await me.apply(imageManifest());
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);
  beforeEach(async () => {
    for (const name of ['web', 'db']) await me.apply(vmManifest(name));
    for (const name of ['web', 'db']) await me.vmIs(name, 'Ready=True Running', 30_000);
  }, 60_000);

  test('of an agent is Unknown, never Failed; a delete waits for it; when it is back nothing was restarted', async () => {
    const { metadata: { uid } } = await me.vm('web');
    const starts = node.starts();
    node.mute(true);
    operator.skip(31_000);
    const silent = await me.vmIs('web', 'Ready=Unknown NodeUnreachable');
    expect([silent.status.phase, verdict(silent, 'AgentConnected'), silent.status.nodeName]).toEqual(['Unknown', 'AgentConnected=False NodeUnreachable', 'node-1']);
    await me.nodeIs('node-1', 'Ready=Unknown NodeUnreachable');
    await me.deleteVm('db');
    await until('the delete to wait', async () => (await me.vm('db')).status.phase === 'Terminating', 10_000);
    expect(node.running()).toHaveLength(2);
    node.mute(false);
    await me.vmGone('db');
    const back = await me.vmIs('web', 'Ready=True Running');
    expect([back.metadata.uid, node.starts(), node.running()]).toEqual([uid, starts, [uid]]);
  }, 60_000);

  test('of an operator that is away: the node goes on, and what users changed meanwhile is done when it is back', async () => {
    const before = node.running();
    await operator.stop();
    await me.patchVm('web', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    await me.deleteVm('db');
    await me.apply(vmManifest('late'));
    expect([node.running(), (await me.vm('late')).status.observedGeneration]).toEqual([before, -1]);
    await again();
    await me.vmGone('db');
    await me.vmIs('web', 'Ready=True Stopped');
    const late = await me.vmIs('late', 'Ready=True Running');
    expect(node.running()).toEqual([late.metadata.uid]);
    await me.patchVm('web', { spec: { powerState: 'Running' } });
    await me.deleteVm('late');
    await me.vmGone('late');
  }, 60_000);

  test('of an agent that is replaced by a new process: it is adopted as it is', async () => {
    const starts = node.starts();
    await node.stop();
    node = await startSimNode({ ...uplink(), world: node.world });
    await until('it to join', () => node.agent.joined(), 10_000);
    await me.vmIs('web', 'Ready=True Running');
    expect([node.starts(), node.running().length, node.world.machine.doubleStarts]).toEqual([starts, 2, 0]);
  }, 30_000);

  /** An API server that leaves VMs out of lists, or fails to list them. Streamed lists it does not know. */
  const blind = (view: (items: unknown[]) => unknown[]) => (real: Kube): Kube => ({
    request: async (method, path, options) => {
      const answer = await real.request(method, path, options);
      if (method !== 'GET' || !path.endsWith('/virtualmachines')) return answer;
      return { ...Object(answer), items: view(Object(answer).items) };
    },
    stream: (path, options) => (path.endsWith('/virtualmachines') && options.query?.['sendInitialEvents'] === true ? unstreamed(path) : real.stream(path, options)),
  });

  test.each([
    ['empty', (items: unknown[]) => items.slice(0, 0)],
    ['partial', (items: unknown[]) => items.slice(0, 1)],
  ])('of an operator whose list of VMs is %s: every VM runs on', async (_, view) => {
    const before = node.running();
    await operator.stop();
    await again({ kube: blind(view) });
    await operator.leading();
    const orphaned = await me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent', 30_000);
    expect(orphaned.status.orphans?.length).toBeGreaterThan(0);
    expect(node.running()).toEqual(before);
    await operator.stop();
    await again();
    await me.nodeIs('node-1', 'OrphansPresent=False NoOrphans', 30_000);
    expect(node.running()).toEqual(before);
  }, 90_000);

  test('of an operator whose list of VMs fails: it is not ready, does not lead, and every VM runs on', async () => {
    const before = node.running();
    await operator.stop();
    await again({ kube: blind(() => { throw new KubeFault('list', { status: 500, message: 'etcd is sad' }); }) });
    await until('the failure', () => operator.lines.some(({ sentence }) => sentence === 'list or watch ended'), 20_000);
    expect([operator.running.term()?.ready(), operator.running.term()?.leaderEpoch(), node.running()]).toEqual([false, undefined, before]);
    await operator.stop();
    await again();
    await me.nodeIs('node-1', 'Ready=True Ready');
    expect(node.running()).toEqual(before);
  }, 60_000);
});

/** What a server without streamed lists says. */
async function* unstreamed(path: string): AsyncGenerator<unknown> {
  yield await Promise.reject(new KubeFault(`WATCH ${path}`, { status: 422, reason: 'Invalid', message: 'sendInitialEvents is forbidden' }));
}
