import { describe, expect, test } from '@jest/globals';
import { imageManifest, verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';

/** The operator as a whole, on a real API server, with the real agent on a pretend node. */
describe('the life of a VM', () => {
  const lab = opened(() => startSimulated({}, { image: false }));

  test('the node is made when its agent has authenticated, and says what it has', async () => {
    const made = await lab.me.nodeIs('node-1', 'Ready=True Ready');
    expect(made.status).toMatchObject({ agentId: 'agent-of-node-1', capacity: { cpu: 64 }, networkMode: 'user', vmCount: 0 });
  });

  test('a VM waits for its image, whichever was applied first, and then runs', async () => {
    await lab.me.apply(vmManifest('first'));
    await lab.me.vmIs('first', 'Ready=False ImageNotFound');
    expect(lab.node().starts()).toBe(0);
    await lab.me.apply(imageManifest());
    const running = await lab.me.vmIs('first', 'Ready=True Running');
    expect(running.status).toMatchObject({ phase: 'Running', nodeName: 'node-1', epoch: 1, observedGeneration: 1 });
    expect(running.status.resolved?.uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8/);
    expect(running.metadata.finalizers).toEqual(['strato.dev/vm']);
    expect(lab.node().running()).toEqual([running.metadata.uid]);
    expect((await lab.me.imageIs('guest', 'Ready=True Ready')).status).toMatchObject({ phase: 'Ready', importingNode: 'node-1', progress: '100%' });
  });

  test('applied twice server-side, it keeps its resourceVersion', async () => {
    const before = await lab.me.vm('first');
    await lab.me.apply(vmManifest('first'));
    expect((await lab.me.vm('first')).metadata.resourceVersion).toBe(before.metadata.resourceVersion);
  });

  test("L16: a VM that fits nowhere says by how much, and starts by itself when there is room", async () => {
    await lab.me.apply(vmManifest('large', { memory: { size: '60Gi' } }));
    await lab.me.vmIs('large', 'Ready=True Running');
    await lab.me.apply(vmManifest('waits', { memory: { size: '10Gi' } }));
    const waits = await lab.me.vmIs('waits', 'Scheduled=False NoNodeFits');
    expect(waits.status.conditions?.find(({ type }) => type === 'Scheduled')?.message).toMatch(/the only ready node is node-1: needs \S+Mi of memory with overhead and \S+ is free/);
    await lab.me.deleteVm('large');
    await lab.me.vmIs('waits', 'Ready=True Running');
    await lab.me.deleteVm('waits');
    await lab.me.vmGone('waits');
  });

  test('a VM that is stopped from its creation is Ready and claims no node', async () => {
    await lab.me.apply(vmManifest('idle', { powerState: 'Stopped' }));
    const idle = await lab.me.vmIs('idle', 'Ready=True Stopped');
    expect([idle.status.phase, idle.status.nodeName, idle.metadata.finalizers]).toEqual(['Stopped', undefined, []]);
    await lab.me.deleteVm('idle');
    await lab.me.vmGone('idle');
  });

  test('stopped, paused and started again, it follows', async () => {
    const { metadata: { uid } } = await lab.me.vm('first');
    await lab.me.patchVm('first', { spec: { powerState: 'Paused' } });
    await lab.me.vmIs('first', 'Ready=True Paused');
    await lab.me.patchVm('first', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    expect((await lab.me.vmIs('first', 'Ready=True Stopped')).status.nodeName).toBe('node-1');
    expect(lab.node().running()).toEqual([]);
    await lab.me.patchVm('first', { spec: { powerState: 'Running' } });
    await lab.me.vmIs('first', 'Ready=True Running');
    expect(lab.node().starts(uid)).toBe(2);
  });

  test('a guest that powers itself off is not Ready, and says how to start it again', async () => {
    const { metadata: { uid } } = await lab.me.patchVm('first', { spec: { restartPolicy: 'OnFailure' } });
    lab.node().endGuest(uid, 'guest');
    const ended = await lab.me.vmIs('first', 'Ready=False GuestShutdown');
    expect([verdict(ended, 'Stalled'), ended.status.lastExit?.reason]).toEqual(['Stalled=True GuestShutdown', 'GuestShutdown']);
    await lab.me.patchVm('first', { spec: { powerState: 'Stopped' } });
    await lab.me.vmIs('first', 'Ready=True Stopped');
    await lab.me.patchVm('first', { spec: { powerState: 'Running' } });
    await lab.me.vmIs('first', 'Ready=True Running');
  });

  test('deleted, it ends on the node before it ends in the API; under its name the next one gets the same identity', async () => {
    const before = await lab.me.vm('first');
    await lab.me.deleteVm('first');
    await lab.me.vmGone('first');
    expect([lab.node().running(), [...lab.node().world.disks.keys()]]).toEqual([[], []]);
    await lab.me.apply(vmManifest('first'));
    const after = await lab.me.vmIs('first', 'Ready=True Running');
    expect([after.metadata.uid === before.metadata.uid, after.status.resolved?.uuid]).toEqual([false, before.status.resolved?.uuid]);
  });

  test('torn out of the API by force, the old one runs on as an orphan and the new one waits until it is discarded', async () => {
    const old = await lab.me.vm('first');
    await lab.operator().stop();
    await lab.me.patchVm('first', { metadata: { finalizers: null } });
    await lab.me.deleteVm('first');
    await lab.me.apply(vmManifest('first'));
    await lab.startOperator();
    const held = await lab.me.vmIs('first', 'Ready=False NameHeldByOrphan');
    expect(held.status.nodeName).toBeUndefined();
    const found = await lab.me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent');
    expect([found.status.orphans?.map(({ uid }) => uid), lab.node().running()]).toEqual([[old.metadata.uid], [old.metadata.uid]]);
    await lab.me.annotateNode('node-1', { 'strato.dev/discard-orphan': old.metadata.uid });
    const fresh = await lab.me.vmIs('first', 'Ready=True Running');
    await lab.me.nodeIs('node-1', 'OrphansPresent=False NoOrphans');
    expect(lab.node().running()).toEqual([fresh.metadata.uid]);
  });

  test('with as much cloudInit as the API server takes it reaches its node; with more it is refused by name', async () => {
    // Small in UTF-8 and large in JSON, so that etcd takes it and the frame is over a megabyte.
    const big = (bytes: number) => vmManifest('big', { cloudInit: { userData: '\u0001'.repeat(180_000), sshAuthorizedKeys: Array.from({ length: 43 }, () => 'k'.repeat(8_000)).concat('k'.repeat(bytes)) } });
    await expect(lab.me.apply(big(289))).rejects.toThrow('spec.cloudInit: Invalid value');
    await lab.me.apply(big(288));
    const { metadata: { uid } } = await lab.me.vmIs('big', 'Ready=True Running');
    expect(lab.node().world.disks.get(uid)?.seed?.userData).toHaveLength(180_000);
    await lab.me.deleteVm('big');
    await lab.me.vmGone('big');
  });

  test('an image whose object is gone is dropped from the node; the VM that was made from it runs on', async () => {
    const { metadata: { uid } } = await lab.me.image('guest');
    await lab.me.loseImage('guest');
    await until('the copy to be dropped', () => !lab.node().world.images.world.has(uid), 60_000);
    expect([lab.node().running().length, verdict(await lab.me.vm('first'))]).toEqual([1, 'Ready=True Running']);
  });

  test('without that image it still follows, tells of a crash, and keeps its disk when another image takes the name', async () => {
    const { metadata: { uid } } = await lab.me.vm('first');
    const disk = lab.node().world.disks.get(uid)?.disks.get('root');
    lab.node().endGuest(uid, 'crashed', { signal: 'SIGKILL' });
    await lab.me.vmIs('first', 'Ready=False QemuCrashed');
    await lab.me.patchVm('first', { spec: { powerState: 'Stopped' } });
    const before = await lab.me.vmIs('first', 'Ready=True Stopped');
    await lab.me.apply(imageManifest());
    await lab.me.imageIs('guest', 'Ready=True Ready');
    await lab.me.patchVm('first', { spec: { powerState: 'Running' } });
    const after = await lab.me.vmIs('first', 'Ready=True Running');
    expect([after.status.resolved?.images, lab.node().world.disks.get(uid)?.disks.get('root')]).toEqual([before.status.resolved?.images, disk]);
    await lab.me.deleteImage('guest');
  });

  test('protected, it is not torn down even when its delete went round the policy; it goes when the field is cleared', async () => {
    await lab.me.apply(imageManifest('other'));
    await lab.me.apply(vmManifest('guarded', { deletionProtection: true }, 'default', 'other'));
    const { metadata: { uid } } = await lab.me.vmIs('guarded', 'Ready=True Running');
    // What the end of a namespace does: no policy is asked.
    const bindings = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings';
    for (const { metadata } of Object(await lab.cluster.kube.request('GET', bindings)).items) await lab.cluster.kube.request('DELETE', `${bindings}/${metadata.name}`);
    await until('the delete', async () => { await lab.me.deleteVm('guarded'); return true; }, 60_000);
    const held = await lab.me.vmIs('guarded', 'DeletionProtected=True DeletionProtected');
    expect([verdict(held), lab.node().running().includes(uid)]).toEqual(['Ready=True Running', true]);
    await lab.me.patchVm('guarded', { spec: { deletionProtection: null } });
    await lab.me.vmGone('guarded');
    expect(lab.node().running().includes(uid)).toBe(false);
  });
});
