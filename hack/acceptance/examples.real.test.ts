// Every file of examples/ applied as it stands, but for where its images are served: it becomes what it declares, on real QEMU.
import { readdirSync, readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { type Manifest, parseManifests } from '../bed/apply.ts';
import { theGuests } from '../bed/artifacts.ts';
import { user } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { startWhole } from '../bed/whole.ts';
import { planPorts } from '../stack/layout.ts';

const namespace = 'examples';
const stepMs = 120_000;
const bootMs = 300_000;
const folder = join(import.meta.dirname, '..', '..', 'examples');
const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
const text = (file: string) => readFileSync(join(folder, file), 'utf8');

const all = opened(startWhole);
let me: ReturnType<typeof user>;
beforeAll(async () => {
  me = user(all.cluster.kube, namespace);
  await me.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  // As in the stack of hack/up, an image is served by its name.
  const { small, arm64 } = await theGuests();
  const guests = new Map([['guest.qcow2', small], ['guest-arm64.qcow2', arm64]]);
  const served = [...guests].map(([name, { disk }]): [string, string] => [`http://127.0.0.1:${planPorts(undefined).images}/${name}`, all.web.serve(`/${name}`, { is: 'bytes', bytes: readFileSync(disk) })]);
  for (const object of files.flatMap((file) => parseManifests(served.reduce((yaml, [from, to]) => yaml.replaceAll(from, to), text(file))))) {
    await me.apply({ ...object, metadata: { ...object.metadata, namespace } });
  }
}, stepMs);

const vmsOf = (file: string): Manifest[] => parseManifests(text(file)).filter(({ kind }) => kind === 'VirtualMachine');

test.each(files)('%s becomes what it declares', async (file) => {
  for (const { metadata: { name }, spec } of vmsOf(file)) {
    const declared = JSON.stringify(spec);
    if (declared.includes('"powerState":"Stopped"')) {
      await me.vmIs(name, 'Ready=True Stopped', stepMs);
      continue;
    }
    const { metadata: { uid } } = await me.vmIs(name, 'Ready=True Running', bootMs);
    await until(`${name} to be up`, async () => (await all.node.serial(uid)).includes('STRATO ready'), bootMs);
    if (declared.includes('"probes"')) await me.vmIs(name, 'GuestReady=True ProbeSucceeded', bootMs);
    if (declared.includes('"userData"')) await until(`the script of ${name}`, async () => (await all.node.serial(uid)).includes('STRATO script=user-data exit=0'), bootMs);
  }
}, 2 * bootMs);

test('what they show is there: the firmware, the architecture, the disk, the host name', async () => {
  const serialOf = async (name: string) => all.node.serial((await me.vm(name)).metadata.uid);
  expect(await serialOf('uefi-tpm')).toMatch(/STRATO tpm=1[^]*STRATO ready .*firmware=uefi secureboot=1/);
  expect(await serialOf('data-disk')).toMatch(/STRATO disk=vd.\(data\) size=2147483648/);
  expect(await serialOf('cloud-init-user')).toContain('STRATO ready host=web-1');
  expect((await me.vm('arm64')).status.resolved).toMatchObject({ architecture: 'arm64', accelerator: 'tcg' });
});

test('the retained disk outlives its VM and is back when the file is applied again', async () => {
  const inode = async () => (await stat(join(all.node.paths.disks((await me.vm('retained-disk')).metadata.uid), 'data.qcow2'))).ino;
  const before = await inode();
  await me.deleteVm('retained-disk');
  await me.vmGone('retained-disk', stepMs);
  expect((await me.disksOf('retained-disk')).map(({ status }) => status.diskName)).toEqual(['data']);
  for (const object of vmsOf('retained-disk.yaml')) await me.apply({ ...object, metadata: { ...object.metadata, namespace } });
  await me.vmIs('retained-disk', 'Ready=True Running', bootMs);
  expect(await inode()).toBe(before);
  await until('the VirtualDisk to be gone', async () => (await me.disksOf('retained-disk')).length === 0, stepMs);
}, 2 * bootMs);
