import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, verdict, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

/** The operator as a whole, on a real API server, with the real agent on a pretend node. */
describe('the life of a VM', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let node: SimNode;
  let me: ReturnType<typeof user>;

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    node = await startSimNode({ name: 'node-1', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
    me = user(cluster.kube);
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);

  test('the node is made when its agent has authenticated, and says what it has', async () => {
    const made = await me.nodeIs('node-1', 'Ready=True Ready');
    expect(made.status).toMatchObject({ agentId: 'agent-of-node-1', capacity: { cpu: 64 }, networkMode: 'user', vmCount: 0 });
  });

  test('a VM waits for its image, whichever was applied first, and then runs', async () => {
    await me.apply(vmManifest('first'));
    await me.vmIs('first', 'Ready=False ImageNotFound');
    expect(node.starts()).toBe(0);
    await me.apply(imageManifest());
    const running = await me.vmIs('first', 'Ready=True Running');
    expect(running.status).toMatchObject({ phase: 'Running', nodeName: 'node-1', epoch: 1, observedGeneration: 1 });
    expect(running.status.resolved?.uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8/);
    expect(running.metadata.finalizers).toEqual(['strato.dev/vm']);
    expect(node.running()).toEqual([running.metadata.uid]);
    expect((await me.imageIs('guest', 'Ready=True Ready')).status).toMatchObject({ phase: 'Ready', importingNode: 'node-1', progress: '100%' });
  });

  test('applied twice server-side, it keeps its resourceVersion', async () => {
    const before = await me.vm('first');
    await me.apply(vmManifest('first'));
    expect((await me.vm('first')).metadata.resourceVersion).toBe(before.metadata.resourceVersion);
  });

  test("L16: a VM that fits nowhere says by how much, and starts by itself when there is room", async () => {
    await me.apply(vmManifest('large', { memory: { size: '60Gi' } }));
    await me.vmIs('large', 'Ready=True Running');
    await me.apply(vmManifest('waits', { memory: { size: '10Gi' } }));
    const waits = await me.vmIs('waits', 'Scheduled=False NoNodeFits');
    expect(waits.status.conditions?.find(({ type }) => type === 'Scheduled')?.message).toMatch(/closest of 1 ready nodes is node-1: needs \S+Mi of memory with overhead and \S+ is free/);
    await me.deleteVm('large');
    await me.vmIs('waits', 'Ready=True Running');
    await me.deleteVm('waits');
    await me.vmGone('waits');
  }, 60_000);

  test('a VM that is stopped from its creation is Ready and claims no node', async () => {
    await me.apply(vmManifest('idle', { powerState: 'Stopped' }));
    const idle = await me.vmIs('idle', 'Ready=True Stopped');
    expect([idle.status.phase, idle.status.nodeName, idle.metadata.finalizers]).toEqual(['Stopped', undefined, []]);
    await me.deleteVm('idle');
    await me.vmGone('idle');
  });

  test('stopped, paused and started again, it follows', async () => {
    const { metadata: { uid } } = await me.vm('first');
    await me.patchVm('first', { spec: { powerState: 'Paused' } });
    await me.vmIs('first', 'Ready=True Paused');
    await me.patchVm('first', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    expect((await me.vmIs('first', 'Ready=True Stopped')).status.nodeName).toBe('node-1');
    expect(node.running()).toEqual([]);
    await me.patchVm('first', { spec: { powerState: 'Running' } });
    await me.vmIs('first', 'Ready=True Running');
    expect(node.starts(uid)).toBe(2);
  });

  test('a guest that powers itself off is not Ready, and says how to start it again', async () => {
    const { metadata: { uid } } = await me.patchVm('first', { spec: { restartPolicy: 'OnFailure' } });
    node.endGuest(uid, 'guest');
    const ended = await me.vmIs('first', 'Ready=False GuestShutdown');
    expect([verdict(ended, 'Stalled'), ended.status.lastExit?.reason]).toEqual(['Stalled=True GuestShutdown', 'GuestShutdown']);
    await me.patchVm('first', { spec: { powerState: 'Stopped' } });
    await me.vmIs('first', 'Ready=True Stopped');
    await me.patchVm('first', { spec: { powerState: 'Running' } });
    await me.vmIs('first', 'Ready=True Running');
  });

  test('deleted, it ends on the node before it ends in the API; under its name the next one gets the same identity', async () => {
    const before = await me.vm('first');
    await me.deleteVm('first');
    await me.vmGone('first');
    expect([node.running(), [...node.world.disks.keys()]]).toEqual([[], []]);
    await me.apply(vmManifest('first'));
    const after = await me.vmIs('first', 'Ready=True Running');
    expect([after.metadata.uid === before.metadata.uid, after.status.resolved?.uuid]).toEqual([false, before.status.resolved?.uuid]);
  });

  test('torn out of the API by force, the old one runs on as an orphan and the new one waits until it is discarded', async () => {
    const old = await me.vm('first');
    await operator.stop();
    await me.patchVm('first', { metadata: { finalizers: null } });
    await me.deleteVm('first');
    await me.apply(vmManifest('first'));
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port) });
    const held = await me.vmIs('first', 'Ready=False NameHeldByOrphan');
    expect(held.status.nodeName).toBeUndefined();
    const found = await me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent');
    expect([found.status.orphans?.map(({ uid }) => uid), node.running()]).toEqual([[old.metadata.uid], [old.metadata.uid]]);
    await me.annotateNode('node-1', { 'strato.dev/discard-orphan': old.metadata.uid });
    const fresh = await me.vmIs('first', 'Ready=True Running');
    await me.nodeIs('node-1', 'OrphansPresent=False NoOrphans');
    expect(node.running()).toEqual([fresh.metadata.uid]);
  }, 30_000);

  test('with as much cloudInit as the API server takes it reaches its node; with more it is refused by name', async () => {
    // Small in UTF-8 and large in JSON, so that etcd takes it and the frame is over a megabyte.
    const big = (bytes: number) => vmManifest('big', { cloudInit: { userData: '\u0001'.repeat(180_000), sshAuthorizedKeys: Array.from({ length: 43 }, () => 'k'.repeat(8_000)).concat('k'.repeat(bytes)) } });
    await expect(me.apply(big(289))).rejects.toThrow('spec.cloudInit: Invalid value');
    await me.apply(big(288));
    const { metadata: { uid } } = await me.vmIs('big', 'Ready=True Running');
    expect(node.world.disks.get(uid)?.seed?.userData).toHaveLength(180_000);
    await me.deleteVm('big');
    await me.vmGone('big');
  }, 30_000);

  test('an image whose object is gone is dropped from the node; the VM that was made from it runs on', async () => {
    const { metadata: { uid } } = await me.image('guest');
    await me.deleteImage('guest');
    await until('the copy to be dropped', () => !node.world.images.world.has(uid), 10_000);
    expect([node.running().length, verdict(await me.vm('first'))]).toEqual([1, 'Ready=True Running']);
  });

  test('without that image it still follows, tells of a crash, and keeps its disk when another image takes the name', async () => {
    const { metadata: { uid } } = await me.vm('first');
    const disk = node.world.disks.get(uid)?.disks.get('root');
    node.endGuest(uid, 'crashed', { signal: 'SIGKILL' });
    await me.vmIs('first', 'Ready=False QemuCrashed');
    await me.patchVm('first', { spec: { powerState: 'Stopped' } });
    const before = await me.vmIs('first', 'Ready=True Stopped');
    await me.apply(imageManifest());
    await me.imageIs('guest', 'Ready=True Ready');
    await me.patchVm('first', { spec: { powerState: 'Running' } });
    const after = await me.vmIs('first', 'Ready=True Running');
    expect([after.status.resolved?.images, node.world.disks.get(uid)?.disks.get('root')]).toEqual([before.status.resolved?.images, disk]);
    await me.deleteImage('guest');
  });

  test('protected, it is not torn down even when its delete went round the policy; it goes when the field is cleared', async () => {
    await me.apply(imageManifest('other'));
    await me.apply(vmManifest('guarded', { deletionProtection: true }, 'default', 'other'));
    const { metadata: { uid } } = await me.vmIs('guarded', 'Ready=True Running');
    // What the end of a namespace does: no policy is asked.
    const bindings = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings';
    for (const { metadata } of Object(await cluster.kube.request('GET', bindings)).items) await cluster.kube.request('DELETE', `${bindings}/${metadata.name}`);
    await until('the delete', async () => { await me.deleteVm('guarded'); return true; }, 20_000);
    const held = await me.vmIs('guarded', 'DeletionProtected=True DeletionProtected');
    expect([verdict(held), node.running().includes(uid)]).toEqual(['Ready=True Running', true]);
    await me.patchVm('guarded', { spec: { deletionProtection: null } });
    await me.vmGone('guarded');
    expect(node.running().includes(uid)).toBe(false);
  }, 60_000);
});
