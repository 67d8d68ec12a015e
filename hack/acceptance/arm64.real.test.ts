// A guest of another architecture than its node's: an arm64 Linux on an amd64 machine.
import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test } from '@jest/globals';
import { theGuests } from '../bed/artifacts.ts';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { bringImage } from '../bed/whole.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

const scene = opened(openScene);
beforeAll(async () => {
  await bringImage(scene.all, 'arm64', await readFile((await theGuests()).arm64.disk), { format: 'qcow2', architecture: 'arm64' });
}, bootMs);

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
