// A guest of another architecture than its node's: an arm64 Linux on an amd64 machine.
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { vmManifest } from '../bed/objects.ts';
import { ensureArm64Guest } from '../guest/guest.ts';
import { bootMs, openScene, type Scene, stepMs } from './scene.ts';

let scene: Scene;
beforeAll(async () => {
  scene = await openScene();
  const { disk } = await ensureArm64Guest(() => {});
  const url = scene.all.web.serve('/arm64.qcow2', { is: 'bytes', bytes: await readFile(disk) });
  await scene.all.me.apply({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'arm64', namespace: 'default' },
    spec: { source: { http: { url } }, format: 'qcow2', architecture: 'arm64' },
  });
  await scene.all.me.imageIs('arm64', 'Ready=True Ready', stepMs);
}, 900_000);
afterAll(async () => {
  await scene?.[Symbol.asyncDispose]();
}, stepMs);

test('takes the architecture of its image, boots by UEFI under software emulation, and its status says why', async () => {
  const { all, runs, serialHas, edit, qemuOf, removed } = scene;
  const uid = await runs(vmManifest('arm', { memory: { size: '512Mi' }, cpu: { cores: 1, max: 2 } }, 'default', 'arm64'));
  expect((await all.me.vm('arm')).status.resolved).toMatchObject({
    architecture: 'arm64', accelerator: 'tcg', acceleratorReason: 'the guest is arm64 and the node is amd64', machine: expect.stringMatching(/^virt-/),
  });
  await serialHas(uid, /STRATO ready host=arm firmware=uefi/);
  expect((await qemuOf(uid))[0]?.command[0]).toMatch(/qemu-system-aarch64$/);
  // Its machine takes no CPUs while it runs.
  await edit('arm', { cpu: { cores: 2 } });
  await all.me.vmIs('arm', 'RestartRequired=True ChangesPending', stepMs);
  await expect(all.me.patchVm('arm', { spec: { architecture: 'amd64' } })).rejects.toThrow(/architecture can not be changed/);
  await edit('arm', { powerState: 'Stopped' });
  await all.me.vmIs('arm', 'Ready=True Stopped', bootMs);
  expect((await all.me.vm('arm')).status.lastExit?.reason).toBe('Stopped');
  expect(await removed('arm', uid)).toEqual([]);
}, 600_000);
