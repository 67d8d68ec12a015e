import { beforeAll, describe, expect, test } from '@jest/globals';
import { imageManifest, verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';
import { startSimNode } from '#hack/sim/node.ts';

// Generous: other suites load the machine meanwhile.
const testMs = 240_000;

/** Images on a real API server: whose word counts, and when an object may go. */
describe('an image', () => {
  const lab = opened(startSimulated);
  const other = `sha256:${'b'.repeat(64)}`;
  let uid = '';
  let isIt = '';
  /** Has the node say from now on that this is what it holds under the image. */
  const claims = (digest: string) => {
    const held = lab.node().world.images.world.get(uid);
    if (!held?.content) throw new Error('the node has no such image');
    held.content = { ...held.content, digest };
    lab.node().cut();
  };
  const message = async () => (await lab.me.image('guest')).status.conditions?.find(({ type }) => type === 'CopiesRefused')?.message;

  beforeAll(async () => {
    const image = await lab.me.image('guest');
    ({ uid } = image.metadata);
    isIt = image.status.digest ?? '';
    await lab.me.apply(vmManifest('before'));
    await lab.me.vmIs('before', 'Ready=True Running');
  });

  test('keeps its digest when a node reports other bytes; that is said, no disk is made of them, and what runs goes on', async () => {
    claims(other);
    const { status } = await lab.me.imageIs('guest', 'CopiesRefused=True DigestMismatch');
    expect([status.digest, status.phase, verdict({ status })]).toEqual([isIt, 'Ready', 'Ready=True Ready']);
    expect(await message()).toContain(`node-1 reports ${other}`);
    await lab.me.apply(vmManifest('after'));
    const { metadata, status: waits } = await lab.me.vmIs('after', 'Ready=False DigestMismatch');
    expect([waits.nodeName, waits.conditions?.find(({ type }) => type === 'Scheduled')?.message]).toEqual([undefined, expect.stringContaining('node-1: its copy of an image is not used')]);
    expect([verdict(await lab.me.vm('before')), lab.node().starts(metadata.uid)]).toEqual(['Ready=True Running', 0]);
  }, testMs);

  test('draws its VM to a node whose copy is right', async () => {
    await using another = await startSimNode({ name: 'node-2', memoryMiB: 1_024, url: lab.operator().url, caFile: lab.cluster.authority, token: () => lab.cluster.token({ node: 'node-2' }) });
    const after = await lab.me.vmIs('after', 'Ready=True Running');
    expect([after.status.nodeName, another.starts(after.metadata.uid)]).toEqual(['node-2', 1]);
    await lab.me.deleteVm('after');
    await lab.me.vmGone('after');
    await another.stop();
    await lab.cluster.kube.request('DELETE', '/apis/strato.dev/v1alpha1/hypervisornodes/node-2');
    await lab.me.apply(vmManifest('after'));
    await lab.me.vmIs('after', 'Ready=False DigestMismatch');
  }, testMs);

  test('is as before once the node reports the right bytes again, and the VM that waited for them runs', async () => {
    claims(isIt);
    await lab.me.vmIs('after', 'Ready=True Running');
    await until('the refusal to be told no more', async () => (await message()) === undefined, 60_000);
  }, testMs);

  const used = async () => (await lab.me.image('guest')).status.conditions?.find(({ type }) => type === 'InUse')?.message;

  test('that is deleted while VMs use it waits for them and names them; they go on and restart, over a restart of the operator, and nobody else gets it', async () => {
    expect((await lab.me.image('guest')).metadata.finalizers).toEqual(['strato.dev/image']);
    const { metadata } = await lab.me.vm('before');
    await lab.me.deleteImage('guest');
    const { status } = await lab.me.imageIs('guest', 'InUse=True InUse');
    expect([verdict({ status }), await used()]).toEqual(['Ready=True Ready', 'deleted, but used by 2 VMs, after, before: it goes with the last of them, and no other VM gets it']);
    await lab.me.apply(vmManifest('late'));
    await lab.me.vmIs('late', 'Ready=False ImageNotFound');
    await lab.operator().stop();
    await lab.startOperator();
    await lab.operator().leading();
    await lab.me.patchVm('before', { spec: { restartToken: 'again', stop: { mode: 'Force' } } });
    await until('the restart', () => lab.node().starts(metadata.uid) === 2, 60_000);
    await lab.me.vmIs('before', 'Ready=True Running');
    expect([lab.node().world.images.world.has(uid), verdict(await lab.me.image('guest'), 'InUse'), verdict(await lab.me.vm('late'))]).toEqual([true, 'InUse=True InUse', 'Ready=False ImageNotFound']);
  }, testMs);

  test('goes with the last of them, and its copies with it; another one of its name is for the VM that waits', async () => {
    await lab.me.deleteVm('before');
    await lab.me.vmGone('before');
    await until('the condition to name the other', async () => (await used())?.includes('by VM after:'), 60_000);
    await lab.me.deleteVm('after');
    await lab.me.imageGone('guest');
    await until('the copy to be dropped', () => !lab.node().world.images.world.has(uid), 60_000);
    await lab.me.apply(imageManifest());
    await lab.me.vmIs('late', 'Ready=True Running');
    expect((await lab.me.image('guest')).metadata.finalizers).toEqual(['strato.dev/image']);
  }, testMs);

  test('that no VM uses goes at once', async () => {
    await lab.me.apply(imageManifest('unused'));
    await lab.me.imageIs('unused', 'Ready=True Ready');
    await lab.me.deleteImage('unused');
    await lab.me.imageGone('unused');
  }, testMs);
});
