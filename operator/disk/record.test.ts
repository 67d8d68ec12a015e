import { describe, expect, test } from '@jest/globals';
import { virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { makeFakeKube } from '../kube/fake.ts';
import { fakeKinds } from '../kube/fakekinds.ts';
import { KubeFault } from '../kube/kube.ts';
import { pathOf } from '../kube/resource.ts';
import { diskObjectNames, recordDisk, recordedStatus } from './record.ts';

const uid = '11111111-2222-4333-8444-555555555555';
const disk = { uid, owner: { namespace: 'claimed', namespaceUid: uid, vm: 'claimed', vmUid: uid, disk: 'data' }, sizeMiB: 2048 };
const keptFor = { namespace: 'default', namespaceUid: uid, vm: 'web', node: 'node-1', architecture: 'arm64' as const };
const { resource } = fakeKinds.disk;
const path = pathOf(resource, { namespace: 'default', name: 'web-data-11111111' });

const lab = () => {
  const kube = makeFakeKube(Object.values(fakeKinds));
  const record = (of = disk) => recordDisk({ kube, resource, signal: AbortSignal.timeout(10_000) }, of, keptFor);
  const read = async (name?: string) => virtualDisk.parse(await kube.request('GET', name === undefined ? path : pathOf(resource, { namespace: 'default', name })));
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

  test('is not that of another disk whose name is the same: it is made under its whole uid then, also when it is asked for twice', async () => {
    const { record, read } = lab();
    const other = { ...disk, uid: '11111111-9999-4333-8444-555555555555' };
    await record();
    for (const _ of [1, 2]) await record(other);
    expect([(await read()).status.uid, (await read(`web-data-${other.uid}`)).status.uid]).toEqual([uid, other.uid]);
  });

  test('is none that is being deleted and stood for nothing: its end would be that of the disk', async () => {
    const { kube, record, read } = lab();
    const manifest = (name: string) => ({ apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualDisk', metadata: { name, namespace: 'default', finalizers: ['example.com/slow'] }, spec: {} });
    const doomed = async (name: string) => {
      await kube.request('POST', pathOf(resource, { namespace: 'default' }), { body: manifest(name) });
      await kube.request('DELETE', pathOf(resource, { namespace: 'default', name }));
    };
    await doomed('web-data-11111111');
    await record();
    expect([(await read()).status.uid, (await read(`web-data-${uid}`)).status.uid]).toEqual([undefined, uid]);
    await doomed('web-data-11111111-9999-4333-8444-555555555555');
    await expect(record({ ...disk, uid: '11111111-9999-4333-8444-555555555555' })).rejects.toMatchObject({ code: 'DiskNameTaken' });
  });

  test('has a name that fits, the same for the same disk', () => {
    expect(diskObjectNames('web', disk)).toEqual(['web-data-11111111', `web-data-${uid}`]);
    for (const vm of ['w'.repeat(253), ...[215, 216, 217, 242, 243, 244].map((count) => `${'w'.repeat(count)}.x`)]) {
      for (const name of diskObjectNames(vm, disk)) expect([name.length <= 253, name]).toEqual([true, expect.stringMatching(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/)]);
    }
  });
});
