import { describe, expect, test } from '@jest/globals';
import { readClusterId } from './clusterid.ts';
import { makeFakeKube } from './kube/fake.ts';
import { fakeKinds } from './kube/fakekinds.ts';
import { pathOf } from './kube/resource.ts';

/** A cluster with one VM. */
const cluster = async (status: object = {}) => {
  const kube = makeFakeKube(Object.values(fakeKinds));
  kube.put(fakeKinds.vm, 'default', { metadata: { name: 'web', namespace: 'default' }, spec: { cpu: { cores: 1 }, memory: { size: '1Gi' }, disks: [{ name: 'root', blank: {}, size: '1Gi' }] } });
  await kube.request('PATCH', pathOf(fakeKinds.vm.resource, { namespace: 'default', name: 'web', sub: 'status' }), { body: { status }, contentType: 'application/merge-patch+json' });
  return kube;
};

describe('the id of the cluster', () => {
  test('is made once, also when VMs were applied before', async () => {
    const kube = await cluster();
    const first = await readClusterId(kube, 'strato-system');
    expect([await readClusterId(kube, 'strato-system'), first.length]).toEqual([first, 36]);
  });

  test('is not made anew when it was lost: every VM would get another UUID and other MAC addresses', async () => {
    const kube = await cluster({ observedGeneration: 1, nodeName: 'node-1', epoch: 1 });
    await expect(readClusterId(kube, 'strato-system')).rejects.toMatchObject({ code: 'ClusterIdLost', message: expect.stringMatching(/VMs such as default\/web .* restore it/) });
    kube.put(fakeKinds.configMap, 'strato-system', { metadata: { name: 'strato', namespace: 'strato-system' }, data: { clusterId: 'mine' } });
    expect(await readClusterId(kube, 'strato-system')).toBe('mine');
  });
});
