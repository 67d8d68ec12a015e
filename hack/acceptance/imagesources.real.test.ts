// Where images come from, as their user sees it: from the manifest to the guest, and to the status.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { testGuest, testGuestReady } from '#agent/hypervisor/testguest.ts';
import type { Manifest } from '../bed/apply.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { startWhole } from '../bed/whole.ts';

const run = promisify(execFile);
const stepMs = 120_000;

describe('the sources of images', () => {
  const all = opened(startWhole);
  afterEach(() => all.web.release());

  const image = (name: string, http: object, more: object = {}): Manifest => ({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name, namespace: 'default' }, spec: { source: { http }, format: 'raw', ...more },
  });
  const guest = Buffer.from(testGuest());

  test.each(['gzip', 'xz', 'zstd'])('a VM boots from a disk compressed by %s, from a mirror, with its checksum in a list', async (packing) => {
    const file = join(all.node.paths.images, '..', `guest-${packing}`);
    await writeFile(file, guest);
    const { stdout: bytes } = await run(packing, ['-c', '-q', file], { encoding: 'buffer' });
    const sum = createHash('sha512').update(bytes).digest('hex');
    const url = all.web.serve(`/${packing}/guest.img`, { is: 'status', status: 404 });
    const mirror = all.web.serve(`/mirror/${packing}`, { is: 'bytes', bytes });
    const checksumUrl = all.web.serve(`/${packing}/SHA512SUMS`, { is: 'bytes', bytes: Buffer.from(`${sum}  guest.img\n`) });
    await all.me.apply(image(packing, { url, mirrors: [mirror] }, { checksumUrl }));
    await all.me.apply(vmManifest(`from-${packing}`, { memory: { size: '32Mi' } }, 'default', packing));
    const { metadata: { uid } } = await all.me.vmIs(`from-${packing}`, 'Ready=True Running', stepMs);
    await until('the guest', async () => (await all.node.serial(uid)).includes(testGuestReady), stepMs);
    expect((await all.me.image(packing)).status).toMatchObject({
      phase: 'Ready', progress: '100%', digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, size: bytes.byteLength, virtualSize: '1Mi',
    });
    await all.me.deleteVm(`from-${packing}`);
    await all.me.vmGone(`from-${packing}`, stepMs);
    await all.me.deleteImage(packing);
  }, 2 * stepMs);

  test('an image that is deleted stays for the VM that uses it, which restarts; it goes with that VM, from the node too', async () => {
    await all.me.apply(image('leaving', { url: all.web.serve('/leaving', { is: 'bytes', bytes: Buffer.concat([guest, Buffer.alloc(512, 'l')]) }) }));
    await all.me.apply(vmManifest('stays', { memory: { size: '32Mi' }, stop: { mode: 'Force' } }, 'default', 'leaving'));
    const { metadata: { uid } } = await all.me.vmIs('stays', 'Ready=True Running', stepMs);
    const { status: { digest = '' } } = await all.me.image('leaving');
    const inCache = join(all.node.paths.images, `${digest.slice(7)}.qcow2`);
    await all.me.deleteImage('leaving');
    const { status } = await all.me.imageIs('leaving', 'InUse=True InUse', stepMs);
    expect(status.conditions?.find(({ type }) => type === 'InUse')?.message).toContain('used by VM stays:');
    const pid = async () => (await all.node.qemus()).find((each) => each.uid === uid)?.pid;
    const before = await pid();
    await all.me.patchVm('stays', { spec: { restartToken: 'once' } });
    await until('another QEMU', async () => { const now = await pid(); return now !== undefined && now !== before; }, stepMs);
    await all.me.vmIs('stays', 'Ready=True Running', stepMs);
    expect(existsSync(inCache)).toBe(true);
    await all.me.deleteVm('stays');
    await all.me.imageGone('leaving', stepMs);
    await until('the copy of the node to go', () => !existsSync(inCache), stepMs);
  }, 2 * stepMs);

  test('the progress of an import is told in steps of ten', async () => {
    all.web.holdAll();
    await all.me.apply(image('half', { url: all.web.serve('/half', { is: 'bytes', bytes: Buffer.concat([guest, Buffer.alloc(7 * 1024 * 1024, 'x')]) }) }));
    const half = await until('half of it', async () => { const { status } = await all.me.image('half'); return status.progress === '40%' && status; }, stepMs);
    expect([half.phase, verdict({ status: half }, 'Reconciling')]).toEqual(['Importing', 'Reconciling=True Importing']);
    all.web.release();
    expect((await all.me.imageIs('half', 'Ready=True Ready', stepMs)).status.progress).toBe('100%');
    await all.me.deleteImage('half');
  }, stepMs);

  test.each([
    ['private', 'http://10.0.0.1/x', /10\.0\.0\.1 is a private address, .* image_allowed_networks in the configuration of the agent/],
    ['metadata', 'http://169.254.169.254/latest/meta-data/', /the metadata service of a cloud, .* no setting allows that/],
    ['decimal', 'http://2852039166/latest/', /the metadata service of a cloud/],
    ['mapped', 'http://[::ffff:10.0.0.1]/x', /a private address/],
  ])('A24: a %s address stalls, says which setting would allow it, and nothing is fetched', async (name, url, why) => {
    await all.me.apply(image(name, { url }));
    const refused = await all.me.imageIs(name, 'Ready=False SourceRefused', stepMs);
    expect(verdict(refused, 'Stalled')).toBe('Stalled=True SourceRefused');
    expect(refused.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(why);
    await all.me.deleteImage(name);
  }, stepMs);

  test('A24: a redirect to a refused address stalls, too', async () => {
    await all.me.apply(image('redirected', { url: all.web.serve('/away', { is: 'status', status: 302, location: 'http://10.96.0.1/' }) }));
    const refused = await all.me.imageIs('redirected', 'Ready=False SourceRefused', stepMs);
    expect(refused.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(/\/away: it redirects to where nothing is fetched from/);
    await all.me.deleteImage('redirected');
  }, stepMs);

  test('a list without the file is told', async () => {
    const checksumUrl = all.web.serve('/SHA256SUMS', { is: 'bytes', bytes: Buffer.from(`${'a'.repeat(64)}  other.img\n`) });
    await all.me.apply(image('unlisted', { url: all.web.serve('/mine.img', { is: 'bytes', bytes: guest }) }, { checksumUrl }));
    const waits = await all.me.imageIs('unlisted', 'Ready=False ChecksumMissing', stepMs);
    expect(waits.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(/SHA256SUMS has 1 checksums and none of "mine\.img"/);
    expect(all.web.requests('/mine.img')).toBe(0);
    await all.me.deleteImage('unlisted');
  }, stepMs);
});
