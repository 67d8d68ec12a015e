// How the disks of a VM may be edited, on a real API server: the rules that compare with the old object.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type ApiServer, startApiServer } from '#hack/bed/apiserver.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { user, vmManifest } from '#hack/bed/objects.ts';

let server: ApiServer;
beforeAll(async () => {
  server = await startApiServer();
  await installCrds(server.kube);
}, 300_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
}, 60_000);

const root = { name: 'root', image: { name: 'guest' } };
const data = { name: 'data', blank: {}, size: '2Gi' };

test.each<[string, object[], object[], string | undefined]>([
  ['a disk is added', [root], [root, data], undefined],
  ['a disk is removed', [root, data], [root], undefined],
  ['the order is another', [root, data], [data, root], undefined],
  ['a disk grows', [root, data], [root, { ...data, size: '3Gi' }], undefined],
  ['the same size is written in another way', [root, data], [root, { ...data, size: '2048Mi' }], undefined],
  ['a disk gets a size', [root], [{ ...root, size: '9Gi' }], undefined],
  ['a disk shrinks', [root, data], [root, { ...data, size: '1Gi' }], 'size only grows'],
  ['a size is left out', [{ ...root, size: '9Gi' }], [root], 'size only grows'],
  ['a disk starts from another image', [root], [{ ...root, image: { name: 'other' } }], 'can not be changed'],
  ['a disk from an image becomes a blank one', [root, data], [{ name: 'root', blank: {}, size: '1Gi' }, data], 'can not be changed'],
  ['all are removed', [root], [], 'at least 1'],
  ['two have one name', [root], [root, { ...data, name: 'root' }], 'Duplicate value'],
])('%s', async (_what, from, to, refusal) => {
  const me = user(server.kube);
  const name = 'edited';
  await me.apply(vmManifest(name, { disks: from }));
  try {
    const edit = me.patchVm(name, { spec: { disks: to } });
    if (refusal === undefined) expect((await edit).spec.disks).toEqual(to);
    else await expect(edit).rejects.toThrow(refusal);
  } finally {
    await me.deleteVm(name);
    await me.vmGone(name);
  }
});
