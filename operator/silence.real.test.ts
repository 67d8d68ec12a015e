import { beforeEach, describe, expect, test } from '@jest/globals';
import { verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';
import { type Kube, KubeFault } from './kube/kube.ts';

/** What happens while somebody says nothing: an agent, or an operator. Nothing is lost, started twice or ended by it. */
describe('silence', () => {
  const lab = opened(startSimulated);

  beforeEach(async () => {
    for (const name of ['web', 'db']) await lab.me.apply(vmManifest(name));
    for (const name of ['web', 'db']) await lab.me.vmIs(name, 'Ready=True Running');
  });

  test('of an agent is Unknown, never Failed; a delete waits for it; when it is back nothing was restarted', async () => {
    const { metadata: { uid } } = await lab.me.vm('web');
    const starts = lab.node().starts();
    lab.node().mute(true);
    lab.operator().skip(31_000);
    const silent = await lab.me.vmIs('web', 'Ready=Unknown NodeUnreachable');
    expect([silent.status.phase, verdict(silent, 'AgentConnected'), silent.status.nodeName]).toEqual(['Unknown', 'AgentConnected=False NodeUnreachable', 'node-1']);
    await lab.me.nodeIs('node-1', 'Ready=Unknown NodeUnreachable');
    await lab.me.deleteVm('db');
    await until('the delete to wait', async () => (await lab.me.vm('db')).status.phase === 'Terminating', 60_000);
    expect(lab.node().running()).toHaveLength(2);
    lab.node().mute(false);
    await lab.me.vmGone('db');
    const back = await lab.me.vmIs('web', 'Ready=True Running');
    expect([back.metadata.uid, lab.node().starts(), lab.node().running()]).toEqual([uid, starts, [uid]]);
  });

  test('of an operator that is away: the node goes on, and what users changed meanwhile is done when it is back', async () => {
    const before = lab.node().running();
    await lab.operator().stop();
    await lab.me.patchVm('web', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    await lab.me.deleteVm('db');
    await lab.me.apply(vmManifest('late'));
    expect([lab.node().running(), (await lab.me.vm('late')).status.observedGeneration]).toEqual([before, -1]);
    await lab.startOperator();
    await lab.me.vmGone('db');
    await lab.me.vmIs('web', 'Ready=True Stopped');
    const late = await lab.me.vmIs('late', 'Ready=True Running');
    expect(lab.node().running()).toEqual([late.metadata.uid]);
    await lab.me.patchVm('web', { spec: { powerState: 'Running' } });
    await lab.me.deleteVm('late');
    await lab.me.vmGone('late');
  });

  test('of an agent that is replaced by a new process: it is adopted as it is', async () => {
    const starts = lab.node().starts();
    await lab.node().stop();
    await lab.startNode();
    await until('it to join', () => lab.node().agent.joined(), 60_000);
    await lab.me.vmIs('web', 'Ready=True Running');
    expect([lab.node().starts(), lab.node().running().length, lab.node().world.machine.doubleStarts]).toEqual([starts, 2, 0]);
  });

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
    const before = lab.node().running();
    await lab.operator().stop();
    await lab.startOperator({ kube: blind(view) });
    await lab.operator().leading();
    const orphaned = await lab.me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent');
    expect(orphaned.status.orphans?.length).toBeGreaterThan(0);
    expect(lab.node().running()).toEqual(before);
    await lab.operator().stop();
    await lab.startOperator();
    await lab.me.nodeIs('node-1', 'OrphansPresent=False NoOrphans');
    expect(lab.node().running()).toEqual(before);
  });

  test('of an operator whose list of VMs fails: it is not ready, does not lead, and every VM runs on', async () => {
    const before = lab.node().running();
    await lab.operator().stop();
    await lab.startOperator({ kube: blind(() => { throw new KubeFault('list', { status: 500, message: 'etcd is sad' }); }) });
    await until('the failure', () => lab.operator().lines.some(({ sentence }) => sentence === 'list or watch ended'), 60_000);
    const term = await until('its term', () => lab.operator().running.term(), 60_000);
    expect([term.ready(), term.leaderEpoch(), lab.node().running()]).toEqual([false, undefined, before]);
    await lab.operator().stop();
    await lab.startOperator();
    await lab.me.nodeIs('node-1', 'Ready=True Ready');
    expect(lab.node().running()).toEqual(before);
  });
});

/** What a server without streamed lists says. */
async function* unstreamed(path: string): AsyncGenerator<unknown> {
  yield await Promise.reject(new KubeFault(`WATCH ${path}`, { status: 422, reason: 'Invalid', message: 'sendInitialEvents is forbidden' }));
}
