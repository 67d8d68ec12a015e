// Disks of a VM that runs: what its guest sees when they are added, grown and taken away.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';
import { seesDisks } from './seesdisks.ts';

const root = { name: 'root', image: { name: 'linux' } };

describe('a disk', () => {
  const scene = opened(openScene);
  let uid: string;
  beforeAll(async () => {
    uid = await scene.runs(scene.linux('disky', { disks: [root, { name: 'data', blank: {}, size: '32Mi' }], cloudInit: { userData: seesDisks } }));
    await sees('data', mib(32));
  }, 2 * bootMs);

  const sees = (name: string, bytes: number | 'gone') => scene.serialHas(uid, `SEES ${name}=${bytes}`);
  const mib = (count: number) => count * 1024 ** 2;
  const pids = async () => (await scene.qemuOf(uid)).map(({ pid }) => pid);
  const file = (name: string) => join(scene.all.node.paths.disks(uid), name);
  const settled = (wanted = 'RestartRequired=False UpToDate') => until(wanted, async () => {
    const vm = await scene.all.me.vm('disky');
    return verdict(vm, 'RestartRequired') === wanted && vm.status.appliedGeneration === vm.metadata.generation && vm;
  }, bootMs);
  const inStatus = async () => (await scene.all.me.vm('disky')).status.disks?.map(({ name, size, state }) => `${name} ${size} ${state}`);

  test('is added and found by its name while the guest runs', async () => {
    const before = await pids();
    await scene.edit('disky', { disks: [root, { name: 'data', blank: {}, size: '32Mi' }, { name: 'more', blank: {}, size: '48Mi' }] });
    await sees('more', mib(48));
    const { status, metadata } = await settled();
    expect([verdict(await scene.all.me.vm('disky')), status.appliedGeneration, await pids()]).toEqual(['Ready=True Running', metadata.generation, before]);
    expect(await inStatus()).toEqual(expect.arrayContaining(['data 32Mi Ready', 'more 48Mi Ready']));
  }, bootMs);

  test('grows, and the guest sees its new size; what was in it is still there', async () => {
    const before = await pids();
    await scene.type(uid, '\necho precious | dd of=/dev/disk/by-id/virtio-more bs=512 count=1 conv=sync,fsync 2>/dev/null; sync\n');
    await scene.edit('disky', { disks: [{ ...root, size: '1Gi' }, { name: 'data', blank: {}, size: '32Mi' }, { name: 'more', blank: {}, size: '80Mi' }] });
    await sees('more', mib(80));
    await sees('root', mib(1024));
    await settled();
    expect([await pids(), await inStatus()]).toEqual([before, expect.arrayContaining(['root 1Gi Ready', 'data 32Mi Ready', 'more 80Mi Ready'])]);
    const after = (await scene.all.node.serial(uid)).length;
    await scene.type(uid, '\necho "HAS $(head -c 8 /dev/disk/by-id/virtio-more)"\n');
    await scene.serialHas(uid, /HAS precious/, after);
  }, bootMs);

  test('is taken away: the guest releases it, and then its file is gone', async () => {
    const before = await pids();
    expect(existsSync(file('more.qcow2'))).toBe(true);
    await scene.edit('disky', { disks: [{ ...root, size: '1Gi' }, { name: 'data', blank: {}, size: '32Mi' }] });
    await sees('more', 'gone');
    await settled();
    await until('the file to be gone', () => !existsSync(file('more.qcow2')), stepMs);
    await until('the status to say so', async () => !(await inStatus())?.some((each) => each.startsWith('more')), stepMs);
    expect([await pids(), existsSync(file('data.qcow2'))]).toEqual([before, true]);
  }, bootMs);

  test('of the same name that is added later is another one, and empty', async () => {
    const after = (await scene.all.node.serial(uid)).length;
    await scene.edit('disky', { disks: [{ ...root, size: '1Gi' }, { name: 'data', blank: {}, size: '32Mi' }, { name: 'more', blank: {}, size: '16Mi' }] });
    await scene.serialHas(uid, `SEES more=${mib(16)}`, after);
    await scene.type(uid, '\necho "HOLDS [$(head -c 8 /dev/disk/by-id/virtio-more | tr -d \'\\000\')]"\n');
    await scene.serialHas(uid, 'HOLDS []', after);
    await settled();
  }, bootMs);

  test('that is added, grown or taken away by an agent that is killed meanwhile ends as it was wanted, in the same QEMU', async () => {
    const before = await pids();
    const base = [{ ...root, size: '1Gi' }, { name: 'data', blank: {}, size: '32Mi' }, { name: 'more', blank: {}, size: '16Mi' }];
    let logged = 0;
    const logs = (text: string) => async () => (await scene.all.node.log()).slice(logged).includes(text);
    const steps: [string, object[], () => Promise<boolean> | boolean, [string, number | 'gone']][] = [
      ['its file is there', [...base, { name: 'walk', blank: {}, size: '8Mi' }], () => existsSync(file('walk.qcow2')), ['walk', mib(8)]],
      ['the edit is on the node', [...base, { name: 'walk', blank: {}, size: '24Mi' }], logs('"growDisk"'), ['walk', mib(24)]],
      ['its guest was asked to release it', base, logs('"unplugDisk"'), ['walk', 'gone']],
    ];
    for (const [_when, disks, happened, [name, size]] of steps) {
      const from = (await scene.all.node.serial(uid)).length;
      logged = (await scene.all.node.log()).length;
      await scene.edit('disky', { disks });
      await until('the step', happened, stepMs);
      await scene.all.node.end('SIGKILL');
      await scene.all.node.start();
      await settled();
      await scene.serialHas(uid, `SEES ${name}=${size}`, from);
    }
    await until('the file to be gone', () => !existsSync(file('walk.qcow2')), stepMs);
    expect(await pids()).toEqual(before);
  }, 300_000);

  test('that was made larger while the VM was stopped is so at its next start', async () => {
    await scene.edit('disky', { powerState: 'Stopped' });
    await scene.all.me.vmIs('disky', 'Ready=True Stopped', stepMs);
    await scene.edit('disky', { powerState: 'Running', disks: [{ ...root, size: '2Gi' }, { name: 'data', blank: {}, size: '40Mi' }] });
    await scene.all.me.vmIs('disky', 'Ready=True Running', stepMs);
    await scene.serialHas(uid, 'STRATO ready');
    await scene.type(uid, '\nfor d in /sys/block/vd*; do echo "IS $(cat $d/serial)=$(($(cat $d/size) * 512))"; done\n');
    await scene.serialHas(uid, `IS data=${mib(40)}`);
    await scene.serialHas(uid, `IS root=${mib(2048)}`);
    await until('the removed one to be gone', () => !existsSync(file('more.qcow2')), stepMs);
  }, 240_000);
});
