import { describe, expect, test } from '@jest/globals';
import { virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { makeFakeKube } from '../kube/fake.ts';
import { fakeKinds } from '../kube/fakekinds.ts';
import { KubeFault } from '../kube/kube.ts';
import { pathOf } from '../kube/resource.ts';
import { diskObjectName, recordDisk, recordedStatus } from './record.ts';

const uid = '11111111-2222-4333-8444-555555555555';
const disk = { uid, owner: { namespace: 'claimed', namespaceUid: uid, vm: 'claimed', vmUid: uid, disk: 'data' }, sizeMiB: 2048 };
const keptFor = { namespace: 'default', namespaceUid: uid, vm: 'web', node: 'node-1', architecture: 'arm64' as const };
const { resource } = fakeKinds.disk;
const path = pathOf(resource, { namespace: 'default', name: 'web-data-11111111' });

const lab = () => {
  const kube = makeFakeKube(Object.values(fakeKinds));
  const record = () => recordDisk({ kube, resource, signal: AbortSignal.timeout(10_000) }, disk, keptFor);
  const read = async () => virtualDisk.parse(await kube.request('GET', path));
  return { kube, record, read };
};

describe('the VirtualDisk of a kept disk', () => {
  test('has its finalizer from its first moment, and is for the VM that the operator knows, whatever the node claims', async () => {
    const { kube, record, read } = lab();
    await record();
    const { metadata, status } = await read();
    expect([metadata.finalizers, status]).toEqual([['strato.dev/disk'], recordedStatus(disk, keptFor)]);
    expect(status).toMatchObject({ vmName: 'web', namespaceUid: uid, nodeName: 'node-1', diskName: 'data', architecture: 'arm64', size: '2Gi', state: 'Kept' });
    expect(kube.requests.filter(({ method }) => method === 'POST' || method === 'PATCH').map(({ method }) => method)).toEqual(['POST', 'PATCH']);
  });

  test('is made once, and completed when an operator was killed between its two writes', async () => {
    const { kube, record, read } = lab();
    kube.fail({ method: 'PATCH', failure: { status: 500, message: 'killed' } });
    await expect(record()).rejects.toBeInstanceOf(KubeFault);
    expect((await read()).status.uid).toBeUndefined();
    await record();
    const { metadata: { resourceVersion, uid: first }, status } = await read();
    expect(status.uid).toBe(uid);
    await record();
    expect([(await read()).metadata.resourceVersion, (await read()).metadata.uid]).toEqual([resourceVersion, first]);
  });

  test('is not made where the API server refuses it, as in a namespace that is being deleted', async () => {
    const { kube, record } = lab();
    kube.fail({ method: 'POST', failure: { status: 403, message: 'it is being terminated', reason: 'Forbidden' } });
    await expect(record()).rejects.toMatchObject({ code: 'Forbidden' });
  });

  test('has a name that fits, the same for the same disk', () => {
    expect([diskObjectName('web', disk), diskObjectName('w'.repeat(253), disk).length <= 253]).toEqual(['web-data-11111111', true]);
  });
});
