// Hardware that the small guest's kernel knows nothing of, in a guest with Debian's full kernel: SATA, and a watchdog that bites.
import { appendFile, readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { theGuests } from '../bed/artifacts.ts';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bringImage, startWhole } from '../bed/whole.ts';

const stepMs = 120_000;
const bootMs = 240_000;

describe('a guest with a full kernel', () => {
  const all = opened(startWhole);
  let uid: string;
  beforeAll(async () => {
    await bringImage(all, 'full', await readFile((await theGuests()).hardware.disk), { format: 'qcow2' });
    // The disk that is to boot is not the first of the list.
    const disks = [
      { name: 'data', blank: {}, size: '16Mi', bus: 'nvme' }, { name: 'root', image: { name: 'full' }, bus: 'sata', bootOrder: 1 }, { name: 'cd', cdrom: {}, bus: 'sata' },
    ];
    await all.me.apply(vmManifest('full', { memory: { size: '512Mi' }, disks, devices: { watchdog: true } }, 'default', 'full'));
    uid = (await all.me.vmIs('full', 'Ready=True Running', stepMs)).metadata.uid;
    await serialHas(/STRATO ready host=full/);
  }, 2 * bootMs);

  const serialHas = (text: RegExp, after = 0) => until(`${text} on the serial console`, async () => text.test((await all.node.serial(uid)).slice(after)), bootMs);
  const pids = async () => (await all.node.qemus()).map(({ pid }) => pid);

  test('boots from SATA by bootOrder, and finds its NVMe disk by its serial number', async () => {
    const said = await all.node.serial(uid);
    expect(said).toMatch(/STRATO disk=sd[a-z]\(root\) /);
    expect(said).toMatch(/STRATO disk=nvme0n1\(data\) size=16777216 ro=0/);
  }, stepMs);

  test('is given a disk on SATA at the next power cycle only, which is said', async () => {
    const { spec: { disks } } = await all.me.vm('full');
    const more = { name: 'more', blank: {}, size: '8Mi', bus: 'sata' };
    await all.me.patchVm('full', { spec: { disks: [...disks, more] } });
    const waits = await all.me.vmIs('full', 'RestartRequired=True ChangesPending', stepMs);
    expect(waits.status.pendingChanges?.map(({ path }) => path)).toEqual([expect.stringContaining('disks[more]')]);
    await all.me.patchVm('full', { spec: { disks } });
    await all.me.vmIs('full', 'RestartRequired=False UpToDate', stepMs);
  }, 3 * stepMs);

  test('is reset by its watchdog when it feeds it no more, in the same QEMU', async () => {
    expect(await all.node.serial(uid)).toContain('STRATO watchdog=/dev/watchdog0');
    const before = await pids();
    const after = (await all.node.serial(uid)).length;
    // Fed once, it waits for its timeout.
    await appendFile(all.node.paths.serialInput(uid), '\nwatchdog -t 100 -T 5 -F /dev/watchdog0 &\n');
    await serialHas(/STRATO ready host=full/, after);
    expect([await pids(), (await all.me.vm('full')).status.lastExit]).toEqual([before, undefined]);
    await all.me.deleteVm('full');
    await all.me.vmGone('full', stepMs);
    expect(await all.node.traces(uid)).toEqual([]);
  }, 2 * bootMs);
});
