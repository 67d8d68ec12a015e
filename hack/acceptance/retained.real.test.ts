// G16: disks that outlive their VM, on a real API server, with real agents and real QEMU.
import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { kubectl } from '../bed/kubectl.ts';
import { user, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { catching, until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

const namespace = 'retained';
const data = { name: 'data', blank: {}, size: '16Mi', deletionPolicy: 'Retain' };
const disks = (...more: object[]) => ({ disks: [{ name: 'root', image: { name: 'guest' } }, ...more] });

describe('a disk with deletionPolicy Retain', () => {
  const scene = opened(openScene);
  let me: ReturnType<typeof user>;
  beforeAll(() => { me = user(scene.all.cluster.kube, 'default'); });

  const node = () => scene.all.node;
  const inVm = (uid: string, name = 'data.qcow2') => join(node().paths.disks(uid), name);
  const inodeOf = async (file: string) => (await stat(file)).ino;
  const kept = () => readdir(node().paths.kept).catch(() => []);
  /** The one VirtualDisk of a VM, once it says what is wanted. */
  const virtualDisk = (vm: string, state = 'Kept', of = me) => until(`the VirtualDisk of ${vm} to be ${state}`, async () => {
    const [disk, ...more] = await of.disksOf(vm);
    return more.length === 0 && disk?.status.state === state && disk;
  }, stepMs);
  const noVirtualDisk = (vm: string, of = me) => until(`the VirtualDisk of ${vm} to be gone`, async () => (await of.disksOf(vm)).length === 0, stepMs);
  const keptFile = async (vm: string) => join(node().paths.kept, (await virtualDisk(vm)).status.uid ?? '', 'data.qcow2');
  /** Runs a small VM with such a disk and deletes it; the inode of the disk. */
  const leave = async (name: string, of = me) => {
    await of.apply(vmManifest(name, { memory: { size: '32Mi' }, ...disks(data) }, of === me ? 'default' : namespace));
    const { metadata: { uid } } = await of.vmIs(name, 'Ready=True Running', stepMs);
    const inode = await inodeOf(inVm(uid));
    await of.deleteVm(name);
    await of.vmGone(name, stepMs);
    return { uid, inode };
  };
  const back = async (name: string) => {
    await me.apply(vmManifest(name, { memory: { size: '32Mi' }, ...disks(data) }));
    return (await me.vmIs(name, 'Ready=True Running', stepMs)).metadata.uid;
  };
  const removed = async (name: string) => {
    await me.deleteVm(name);
    await me.vmGone(name, stepMs);
    for (const { metadata } of await me.disksOf(name)) await me.deleteDisk(metadata.name);
    await noVirtualDisk(name);
  };

  test('G16: outlives it as a VirtualDisk, and the VM that is applied again finds what it wrote; kubectl shows it meanwhile', async () => {
    const manifest = scene.linux('precious', { disks: [{ name: 'root', image: { name: 'linux' } }, data] });
    const first = await scene.runs(manifest);
    await scene.serialHas(first, 'STRATO ready');
    await scene.type(first, '\necho TOKEN-4711 | dd of=/dev/disk/by-id/virtio-data bs=512 count=1 conv=sync,fsync 2>/dev/null; sync; echo "WR""OTE"\n');
    await scene.serialHas(first, 'WROTE');
    expect(await scene.removed('precious', first)).toEqual([]);
    const { metadata, status } = await virtualDisk('precious');
    expect([status, existsSync(join(node().paths.kept, status.uid ?? '', 'data.qcow2'))]).toEqual([
      expect.objectContaining({ nodeName: 'node-1', vmName: 'precious', diskName: 'data', size: '16Mi', format: 'qcow2', state: 'Kept' }), true,
    ]);
    const shown = (await kubectl(scene.all.cluster, ['get', 'virtualdisks', metadata.name])).split('\n').map((line) => line.split(/\s+/).slice(0, 7));
    expect(shown.slice(0, 2)).toEqual([['NAME', 'VM', 'DISK', 'NODE', 'SIZE', 'STATE', 'READY'], [metadata.name, 'precious', 'data', 'node-1', '16Mi', 'Kept', 'True']]);

    const second = await scene.runs(manifest);
    await scene.serialHas(second, 'STRATO ready');
    await scene.type(second, '\necho "HOLDS [$(head -c 10 /dev/disk/by-id/virtio-data)]"\n');
    await scene.serialHas(second, 'HOLDS [TOKEN-4711]');
    await noVirtualDisk('precious');
    expect([second === first, await kept()]).toEqual([false, []]);
    await removed('precious');
  }, 3 * bootMs);

  test('goes to no VM of another name, of another namespace, or of one that came later under the same name', async () => {
    const { kube } = scene.all.cluster;
    const there = user(kube, namespace);
    await me.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    await there.apply({ apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'guest', namespace }, spec: (await me.image('guest')).spec });
    const { inode } = await leave('mine', there);
    await virtualDisk('mine', 'Kept', there);
    for (const name of ['mine', 'others']) {
      const uid = await back(name);
      expect(await inodeOf(inVm(uid)) === inode).toBe(false);
      await removed(name);
    }
    // A namespace that is being deleted takes no VirtualDisk: the node keeps the disk of a VM that goes with it, and says so.
    await there.apply(vmManifest('late', { memory: { size: '32Mi' }, ...disks(data) }, namespace));
    const late = await there.vmIs('late', 'Ready=True Running', stepMs);
    const lateInode = await inodeOf(inVm(late.metadata.uid));
    await kube.request('DELETE', `/api/v1/namespaces/${namespace}`);
    await there.deleteVm('late');
    await there.vmGone('late', stepMs);
    const [orphan] = (await me.nodeIs('node-1', 'OrphansPresent=True OrphansPresent', stepMs)).status.orphanDisks ?? [];
    expect(orphan).toMatchObject({ namespace, vm: 'late', disk: 'data', size: '16Mi' });
    expect(await inodeOf(join(node().paths.kept, orphan?.uid ?? '', 'data.qcow2'))).toBe(lateInode);
    // No namespace controller runs here: what is in the namespace outlives it, as after a restore.
    await kube.request('PUT', `/api/v1/namespaces/${namespace}/finalize`, { body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace }, spec: { finalizers: [] } } });
    await until('the namespace to be another one', async () => {
      await me.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }).catch(() => undefined);
      return kubectl(scene.all.cluster, ['get', 'namespace', namespace, '-o', 'jsonpath={.status.phase}']).then((phase) => phase === 'Active', () => false);
    }, stepMs);
    await me.annotateNode('node-1', { 'strato.dev/adopt-orphan': orphan?.uid ?? '' });
    await until('it to be said that it is not for this namespace', async () => (await me.node('node-1')).status.conditions?.some(({ message }) => message.includes('can not be adopted')), stepMs);
    await me.annotateNode('node-1', { 'strato.dev/adopt-orphan': null, 'strato.dev/discard-orphan': orphan?.uid ?? '' });
    await me.nodeIs('node-1', 'OrphansPresent=False NoOrphans', stepMs);
    expect(existsSync(join(node().paths.kept, orphan?.uid ?? ''))).toBe(false);
    await there.apply(vmManifest('mine', { memory: { size: '32Mi' }, ...disks(data) }, namespace));
    const { metadata: { uid } } = await there.vmIs('mine', 'Ready=True Running', stepMs);
    expect([await inodeOf(inVm(uid)) === inode, (await there.disksOf('mine')).map(({ status }) => status.state)]).toEqual([false, ['Kept']]);
    await there.deleteVm('mine');
    await there.vmGone('mine', stepMs);
    for (const { metadata } of await there.disksOf('mine')) await there.deleteDisk(metadata.name);
    await noVirtualDisk('mine', there);
  }, 6 * stepMs);

  test('is what a VM boots from again although its image was deleted', async () => {
    const root = { memory: { size: '32Mi' }, disks: [{ name: 'root', image: { name: 'once' }, deletionPolicy: 'Retain' }] };
    await me.apply({ apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'once', namespace: 'default' }, spec: (await me.image('guest')).spec });
    const first = await scene.runs(vmManifest('rooted', root));
    await scene.serialHas(first, 'up');
    const inode = await inodeOf(inVm(first, 'root.qcow2'));
    await me.deleteVm('rooted');
    await me.vmGone('rooted', stepMs);
    await virtualDisk('rooted');
    await me.deleteImage('once');
    await me.imageGone('once', stepMs);
    const second = await scene.runs(vmManifest('rooted', root));
    await scene.serialHas(second, 'up');
    expect([second === first, await inodeOf(inVm(second, 'root.qcow2'))]).toEqual([false, inode]);
    await noVirtualDisk('rooted');
    await removed('rooted');
  }, 6 * stepMs);

  test('is waited for while its node is silent: no other disk is made for it', async () => {
    const { inode } = await leave('patient');
    const { metadata: { name } } = await virtualDisk('patient');
    await node().end('SIGTERM');
    await me.nodeIs('node-1', 'AgentConnected=False NodeUnreachable', 2 * stepMs);
    await me.apply(vmManifest('patient', { memory: { size: '32Mi' }, ...disks(data) }));
    const waits = await me.vmIs('patient', 'Ready=False WaitingForDisk', stepMs);
    expect([waits.status.nodeName, waits.status.phase, waits.status.conditions?.find(({ type }) => type === 'Ready')?.message]).toEqual([
      undefined, 'Pending', `disk data was kept on node node-1, which is silent: bring it back; to start with a new disk and lose that data: kubectl -n default delete virtualdisk ${name}`,
    ]);
    await virtualDisk('patient', 'Unknown');
    await node().start();
    await node().joined();
    const { metadata: { uid } } = await me.vmIs('patient', 'Ready=True Running', 2 * stepMs);
    expect(await inodeOf(inVm(uid))).toBe(inode);
    await removed('patient');
  }, 8 * stepMs);

  test('is deleted with its VirtualDisk; a VM that comes later has a new one', async () => {
    const { inode } = await leave('over');
    const file = await keptFile('over');
    expect(await inodeOf(file)).toBe(inode);
    await me.deleteDisk((await virtualDisk('over')).metadata.name);
    await noVirtualDisk('over');
    expect([existsSync(file), await kept()]).toEqual([false, []]);
    await back('over');
    await removed('over');
  }, 4 * stepMs);

  test('is kept when it is removed from a VM that runs, and comes back into the running guest', async () => {
    const uid = await back('swap');
    const inode = await inodeOf(inVm(uid));
    await me.patchVm('swap', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    await me.vmIs('swap', 'Ready=True Stopped', stepMs);
    await me.patchVm('swap', { spec: disks() });
    expect(await inodeOf(await keptFile('swap'))).toBe(inode);
    await me.patchVm('swap', { spec: { powerState: 'Running', ...disks() } });
    await me.vmIs('swap', 'Ready=True Running', stepMs);
    await me.patchVm('swap', { spec: disks(data) });
    await until('it to be back', async () => (await me.vm('swap')).status.disks?.some(({ name, state }) => name === 'data' && state === 'Ready'), stepMs);
    expect(await inodeOf(inVm(uid))).toBe(inode);
    await noVirtualDisk('swap');
    await me.vmIs('swap', 'RestartRequired=False UpToDate', stepMs);
    await removed('swap');
  }, 6 * stepMs);

  const ledgers = () => readdir(node().paths.ledger);
  const asideHas = (file: string) => async () => (await kept()).some((uid) => existsSync(join(node().paths.kept, uid, file)));
  /** Waits for a step without a pause, so that the agent can be killed in the middle of what follows. */
  const sees = (happened: () => Promise<boolean> | boolean) => catching('the step', happened, stepMs);
  test.each<[string, (uid: string, before: readonly string[]) => () => Promise<boolean> | boolean]>([
    ['the VM is ending', (uid) => () => !existsSync(node().paths.sockets(uid))],
    ['the disk has its record', (_, before) => async () => (await ledgers()).some((file) => !before.includes(file))],
    ['the disk has its place', () => async () => (await kept()).length > 0],
    ['the base is there', () => asideHas('data.base')],
    ['the disk is there', () => asideHas('data.qcow2')],
    ['the VM has its end recorded', (uid) => () => existsSync(join(node().paths.ended, uid))],
  ])('is kept whole by an agent that is killed when %s', async (step, happened) => {
    const name = `kill-${step.replaceAll(/[^a-z]/g, '').slice(0, 30)}`;
    // With a base, as every disk from an image has one.
    const image = { name: 'data', image: { name: 'guest' }, deletionPolicy: 'Retain' };
    await me.apply(vmManifest(name, { memory: { size: '32Mi' }, ...disks(image) }));
    const { metadata: { uid } } = await me.vmIs(name, 'Ready=True Running', stepMs);
    const [inode, base] = [await inodeOf(inVm(uid)), await inodeOf(inVm(uid, 'data.base'))];
    const before = await ledgers();
    await me.deleteVm(name);
    await sees(happened(uid, before));
    await node().end('SIGKILL');
    await node().start();
    await me.vmGone(name, stepMs);
    const file = await keptFile(name);
    expect([await inodeOf(file), await inodeOf(file.replace('.qcow2', '.base')), (await kept()).length, await node().traces(uid)]).toEqual([inode, base, 1, []]);
    await me.deleteDisk((await virtualDisk(name)).metadata.name);
    await noVirtualDisk(name);
  }, 4 * stepMs);

  test.each<[string, (uid: string) => () => Promise<boolean> | boolean]>([
    ['its directory is there', (uid) => () => existsSync(node().paths.disks(uid))],
    ['the disk is in it', (uid) => () => existsSync(inVm(uid))],
    ['the place of the disk is gone', () => async () => (await kept()).length === 0],
  ])('is given back whole by an agent that is killed when %s', async (step, happened) => {
    const name = `give-${step.replaceAll(/[^a-z]/g, '').slice(0, 30)}`;
    const { inode } = await leave(name);
    await virtualDisk(name);
    await me.apply(vmManifest(name, { memory: { size: '32Mi' }, ...disks(data) }));
    const { uid } = (await me.vm(name)).metadata;
    await sees(happened(uid));
    await node().end('SIGKILL');
    await node().start();
    await me.vmIs(name, 'Ready=True Running', stepMs);
    expect([await inodeOf(inVm(uid)), await kept()]).toEqual([inode, []]);
    await noVirtualDisk(name);
    await removed(name);
  }, 4 * stepMs);
});
