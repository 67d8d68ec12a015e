// How a guest sees its disks and CD drives, and what it may do with them, measured in it.
import { readdir, readFile, readlink } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bringImage } from '../bed/whole.ts';
import { bootMs, openScene } from './scene.ts';
import { seesDisks } from './seesdisks.ts';

const root = { name: 'root', image: { name: 'linux' } };
const mebibyte = 1024 ** 2;

describe('a guest', () => {
  const scene = opened(openScene);
  let uid: string;
  let commands = 0;
  beforeAll(async () => {
    for (const [name, text] of [['iso-one', 'MEDIUM ONE'], ['iso-two', 'MEDIUM TWO']] as const) {
      const bytes = Buffer.alloc(mebibyte);
      bytes.write(text);
      await bringImage(scene.all, name, bytes);
    }
    uid = await scene.runs(scene.linux('driven', { disks: [root], cloudInit: { userData: seesDisks } }));
    await scene.serialHas(uid, 'SEES root=');
  }, 2 * bootMs);

  const have = async (...disks: object[]) => scene.edit('driven', { disks: [root, ...disks] });
  const settled = (wanted = 'RestartRequired=False UpToDate') => until(wanted, async () => {
    const vm = await scene.all.me.vm('driven');
    const says = verdict(vm, 'RestartRequired');
    return says === wanted && (says.includes('True') || vm.status.appliedGeneration === vm.metadata.generation) && vm;
  }, bootMs);
  /** What a command says in the guest, on one line. */
  const asks = async (command: string): Promise<string> => {
    const mark = `A${(commands += 1)}`;
    await scene.type(uid, `\n(${command}) 2>&1 | tr '\\n' ' ' | sed "s/^/${mark}:/; s/$/:E\\n/"\n`);
    const answer = new RegExp(`^${mark}:(.*):E`, 'm');
    await scene.serialHas(uid, answer);
    return answer.exec(await scene.all.node.serial(uid))?.[1]?.trim() ?? '';
  };
  const deviceOf = async (name: string): Promise<string> => {
    const seen = `SEES ${name}=\\d+ ro=\\d as (\\w+)`;
    await scene.serialHas(uid, new RegExp(seen));
    return [...(await scene.all.node.serial(uid)).matchAll(new RegExp(seen, 'g'))].at(-1)?.[1] ?? '';
  };

  test('gets disks on scsi, read only and with another cache, while it runs', async () => {
    await have({ name: 'big', blank: {}, size: '24Mi', bus: 'scsi' }, { name: 'fixed', blank: {}, size: '8Mi', readOnly: true }, { name: 'through', blank: {}, size: '8Mi', cache: 'writethrough' }, { name: 'direct', blank: {}, size: '8Mi', cache: 'none' });
    await settled();
    const [big, fixed, through, direct] = await Promise.all(['big', 'fixed', 'through', 'direct'].map(deviceOf));
    expect([big, fixed, through, direct]).toEqual([expect.stringMatching(/^sd/), expect.stringMatching(/^vd/), expect.stringMatching(/^vd/), expect.stringMatching(/^vd/)]);
    expect(await asks(`cat /sys/block/${fixed}/ro; echo x > /dev/${fixed} || echo refused`)).toMatch(/^1 .*refused$/);
    expect(await asks(`cat /sys/block/${through}/queue/write_cache /sys/block/${direct}/queue/write_cache`)).toBe('write through write back');
    await have({ name: 'big', blank: {}, size: '40Mi', bus: 'scsi' });
    await scene.serialHas(uid, `SEES big=${40 * mebibyte}`);
    await scene.serialHas(uid, 'SEES fixed=gone');
    await settled();
    await have();
    await scene.serialHas(uid, 'SEES big=gone');
    await settled();
  }, 300_000);

  test('of a disk with cache none, the node keeps no pages: its files are open past the cache', async () => {
    await have({ name: 'direct', blank: {}, size: '8Mi', cache: 'none' });
    await settled();
    const [qemu] = await scene.qemuOf(uid);
    const flags = async (): Promise<string[]> => {
      const found: string[] = [];
      for (const fd of await readdir(`/proc/${qemu?.pid}/fd`)) {
        const file = await readlink(`/proc/${qemu?.pid}/fd/${fd}`).catch(() => '');
        if (file.endsWith('direct.qcow2')) found.push(/flags:\s*(\d+)/.exec(await readFile(`/proc/${qemu?.pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? '');
      }
      return found;
    };
    // O_DIRECT of open(2) on x86, octal.
    expect((await flags()).map((each) => (Number.parseInt(each, 8) & 0o40000) !== 0)).toEqual([true]);
    await have();
    await settled();
  }, bootMs);

  test('is kept to the limits of a disk, which change while it runs', async () => {
    await have({ name: 'slow', blank: {}, size: '64Mi', limits: { bytesPerSecond: '2Mi' } });
    const slow = await deviceOf('slow');
    await settled();
    const secondsOf = async (command: string): Promise<number> => {
      const [from, to] = (await asks(`cut -d' ' -f1 /proc/uptime; ${command} >/dev/null 2>&1; cut -d' ' -f1 /proc/uptime`)).split(' ').map(Number);
      return (to ?? Number.NaN) - (from ?? Number.NaN);
    };
    // Written through to the disk; the first tenth of a second is free.
    const writes = (count: number) => async () => count / await secondsOf(`dd if=/dev/zero of=/dev/${slow} bs=1M count=${count} conv=fsync`);
    /** It is never faster, and is as fast as that as soon as the machine has time for it. */
    const keepsTo = async (wanted: number, measure: () => Promise<number>) => {
      const measured: number[] = [];
      await until(`a rate of ${wanted}`, async () => measured.push(await measure()) > 0 && (measured.at(-1) ?? 0) > 0.75 * wanted, bootMs);
      expect(Math.max(...measured)).toBeLessThan(1.25 * wanted);
    };
    await keepsTo(2, writes(16));
    await have({ name: 'slow', blank: {}, size: '64Mi', limits: { bytesPerSecond: '8Mi' } });
    await settled();
    await keepsTo(8, writes(48));
    await have({ name: 'slow', blank: {}, size: '64Mi', limits: { iops: 50 } });
    await settled();
    const reads = 300;
    const perSecond = async () => reads / await secondsOf(`dd if=/dev/${slow} of=/dev/null bs=4k count=${reads} iflag=direct`);
    await keepsTo(50, perSecond);
    await have({ name: 'slow', blank: {}, size: '64Mi' });
    await settled();
    // Without a limit it is thousands; a busy machine halves that a few times.
    await until('a rate without a limit', async () => (await perSecond()) > 100, bootMs);
    await have();
    await settled();
  }, 400_000);

  test('has a CD drive, empty at first; a medium is put in, changed and taken out while it runs', async () => {
    const before = (await scene.qemuOf(uid)).map(({ pid }) => pid);
    await have({ name: 'cd', cdrom: {} });
    const { status } = await settled();
    expect(status.disks).toContainEqual({ name: 'cd', state: 'Empty' });
    const reads = (text: string) => until(text, async () => (await asks('head -c 10 /dev/sr0')).includes(text), bootMs);
    await have({ name: 'cd', cdrom: { image: { name: 'iso-one' } } });
    await reads('MEDIUM ONE');
    expect((await settled()).status.disks).toContainEqual({ name: 'cd', size: '1Mi', format: 'qcow2', state: 'Ready' });
    await have({ name: 'cd', cdrom: { image: { name: 'iso-two' } } });
    await reads('MEDIUM TWO');
    expect(await asks('echo x > /dev/sr0 || echo refused')).toMatch(/refused$/);
    await have({ name: 'cd', cdrom: {} });
    await settled();
    await until('no medium', async () => (await asks('head -c 10 /dev/sr0')).includes('No medium'), bootMs);
    expect((await scene.qemuOf(uid)).map(({ pid }) => pid)).toEqual(before);
  }, 300_000);

  test('that holds its medium locked keeps it, which is said; it is changed when the guest lets go', async () => {
    await have({ name: 'cd', cdrom: { image: { name: 'iso-one' } } });
    await until('the medium', async () => (await asks('head -c 10 /dev/sr0')).includes('MEDIUM ONE'), bootMs);
    await settled();
    await scene.type(uid, '\nsleep 9999 < /dev/sr0 & echo $! > /run/holder\n');
    expect(await asks('cat /run/holder')).toMatch(/^\d+$/);
    await have({ name: 'cd', cdrom: { image: { name: 'iso-two' } } });
    const held = await settled('RestartRequired=True ChangesRefused');
    expect(held.status.conditions?.find(({ type }) => type === 'RestartRequired')?.message).toMatch(/disks\[cd\]\.cdrom\.image.*locked/);
    expect(verdict(held)).toBe('Ready=True Running');
    await asks('kill $(cat /run/holder); echo done');
    await settled();
    await until('the other medium', async () => (await asks('head -c 10 /dev/sr0')).includes('MEDIUM TWO'), bootMs);
    await have();
    await scene.serialHas(uid, 'SEES cd=gone');
    await settled();
  }, 300_000);
});
