// Images, names and values that were made to do harm. Nothing of them may become an argument of QEMU or a file elsewhere.
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { describe, expect, test } from '@jest/globals';
import { testGuest } from '#agent/hypervisor/testguest.ts';
import { emptyQcow2 } from '#agent/storage/qcow2.ts';
import type { Manifest } from '../bed/apply.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { startWhole } from '../bed/whole.ts';

const stepMs = 120_000;

describe('hostile input', () => {
  const all = opened(startWhole);

  const image = (name: string, bytes: Buffer, spec: Record<string, unknown> = {}): Manifest => ({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name, namespace: 'default' },
    spec: { source: { http: { url: all.web.serve(`/${name}`, { is: 'bytes', bytes }) } }, format: 'qcow2', ...spec },
  });
  const qcow2 = (backing?: string): Buffer => {
    const { fileBytes, pieces } = emptyQcow2(1024 * 1024, backing);
    const bytes = Buffer.alloc(fileBytes);
    for (const piece of pieces) bytes.set(piece.bytes, piece.at);
    return bytes;
  };
  /** Bit 2 of the incompatible features: the data is in another file. Source: qcow2.txt. */
  const withDataFile = (): Buffer => {
    const bytes = qcow2();
    bytes.writeBigUInt64BE(bytes.readBigUInt64BE(72) | 4n, 72);
    return bytes;
  };
  const files = async (folder: string): Promise<string[]> => (await readdir(folder, { recursive: true }).catch(() => [])).toSorted((a, b) => (a < b ? -1 : 1));

  test.each<[string, () => Buffer, RegExp]>([
    ['backed', () => qcow2('/etc/passwd'), /backing file/],
    ['elsewhere', withDataFile, /data file/],
    ['nonsense', () => Buffer.from('this is no disk at all'.repeat(100)), /qcow2|magic/i],
  ])('A19: the image %s is refused, stalls with the reason, and leaves no file', async (name, bytes, why) => {
    const before = await files(all.node.paths.images);
    await all.me.apply(image(name, bytes()));
    const refused = await all.me.imageIs(name, 'Ready=False ImageRefused', stepMs);
    expect(refused.status.conditions?.find(({ type }) => type === 'Ready')?.message).toMatch(why);
    expect(verdict(refused, 'Stalled')).toBe('Stalled=True ImageRefused');
    expect((await files(all.node.paths.images)).filter((file) => !before.includes(file) && !file.includes(refused.metadata.uid))).toEqual([]);
    await all.me.deleteImage(name);
  }, stepMs);

  test('N11: a wrong checksum stalls with the reason; no part of it stays', async () => {
    const before = await files(all.node.paths.images);
    const sum = createHash('sha256').update('something else').digest('hex');
    await all.me.apply(image('forged', Buffer.from(testGuest()), { format: 'raw', checksum: `sha256:${sum}` }));
    const stalled = await all.me.imageIs('forged', 'Ready=False ChecksumMismatch', stepMs);
    expect(verdict(stalled, 'Stalled')).toBe('Stalled=True ChecksumMismatch');
    expect((await files(all.node.paths.images)).filter((file) => !before.includes(file) && !file.includes(stalled.metadata.uid))).toEqual([]);
    await all.me.deleteImage('forged');
  }, stepMs);

  const evil = ['../../../etc/cron.d/x', 'a\nb', 'a,if=none,file=/etc/passwd', '-device', 'a"b', "a'b", 'a b', 'a\u0000b', '$(reboot)', 'ä'];
  const vm = (spec: Record<string, unknown>) => vmManifest('named', { powerState: 'Stopped', ...spec });
  const places: readonly [what: string, good: string, make: (value: string) => Manifest][] = [
    ['VM', 'named', (value) => vmManifest(value, { powerState: 'Stopped' })],
    ['image of a disk', 'guest', (value) => vm({ disks: [{ name: 'root', image: { name: value } }] })],
    ['disk', 'root', (value) => vm({ disks: [{ name: value, image: { name: 'guest' } }] })],
    ['size of a disk', '2Gi', (value) => vm({ disks: [{ name: 'root', image: { name: 'guest' }, size: value }] })],
    ['interface', 'net0', (value) => vm({ interfaces: [{ name: value, user: {} }] })],
    ['forward', 'ssh', (value) => vm({ interfaces: [{ name: 'net0', user: { forwards: [{ name: value, port: 22, hostPort: 30_222 }] } }] })],
    ['host name', 'host', (value) => vm({ cloudInit: { hostname: value } })],
    ['model of the CPU', 'qemu64', (value) => vm({ cpu: { cores: 1, model: value } })],
    ['restart token', 'again', (value) => vm({ restartToken: value })],
    ['medium of a drive', 'guest', (value) => vm({ disks: [{ name: 'root', image: { name: 'guest' } }, { name: 'cd', cdrom: { image: { name: value } } }] })],
    ['Secret of the user-data', 'data', (value) => vm({ cloudInit: { userDataSecretRef: { name: value } } })],
    ['memory', '64Mi', (value) => vm({ memory: { size: value } })],
    ['image', 'named', (value) => ({ ...image('named', Buffer.alloc(0)), metadata: { name: value, namespace: 'default' } })],
    ['source of an image', 'http://127.0.0.1:9/named', (value) => ({ ...image('named', Buffer.alloc(0)), spec: { source: { http: { url: value } }, format: 'raw' } })],
  ];
  test.each(places)('A16: the %s may be %j, and nothing that was made to do harm', async (_what, good, make) => {
    for (const value of evil) await expect(all.me.apply(make(value))).rejects.toThrow();
    await all.me.apply(make(good));
    if (make(good).kind === 'VirtualMachineImage') return all.me.deleteImage('named');
    await all.me.deleteVm('named');
    await all.me.vmGone('named');
  }, stepMs);

  test('A16: where any text is allowed it stays text: QEMU gets the same arguments, and no file lies elsewhere', async () => {
    const plain = await started('plain', {}, {});
    const text = evil.filter((each) => !each.includes('\u0000')).join('\n');
    const full = await started('full', { note: text }, { cloudInit: { userData: `#!/bin/sh\n${text}`, sshAuthorizedKeys: ['ssh-ed25519 AAAA -oProxyCommand=x,file=/etc/passwd'] } });
    expect(full).toEqual(plain);
    const outside = (await files(all.node.paths.vms)).map((file) => file.split('/').slice(1).join('/')).filter((file) => !/^(|lock|run|seed\.img|serial\.(log|in|out)|disks(\/root\.(base|qcow2))?|runs(\/[^/]+(\/(start\.json|events|exit(\.new)?|stderr|qmp\.in))?)?)$/.test(file));
    expect(outside).toEqual([]);
  }, 2 * stepMs);

  /** The arguments of a VM's QEMU without what is its own. */
  const started = async (name: string, annotations: Record<string, string>, spec: Record<string, unknown>): Promise<string[]> => {
    const manifest = vmManifest(name, { memory: { size: '32Mi' }, ...spec });
    await all.me.apply({ ...manifest, metadata: { ...manifest.metadata, annotations } });
    const { metadata: { uid }, status } = await all.me.vmIs(name, 'Ready=True Running', stepMs);
    const qemu = (await all.node.qemus()).find((each) => each.uid === uid);
    return (qemu?.command ?? []).map((each) => each.replaceAll(uid, 'UID').replaceAll(status.resolved?.uuid ?? uid, 'UUID'));
  };
});
