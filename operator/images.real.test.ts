import { beforeAll, describe, expect, test } from '@jest/globals';
import { verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';

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
    const { metadata } = await lab.me.vmIs('after', 'Ready=False DigestMismatch');
    expect([verdict(await lab.me.vm('before')), lab.node().starts(metadata.uid)]).toEqual(['Ready=True Running', 0]);
  });

  test('is as before once the node reports the right bytes again, and the VM that waited for them runs', async () => {
    claims(isIt);
    await lab.me.vmIs('after', 'Ready=True Running');
    expect(await message()).toBeUndefined();
  });
});
