// What zod accepts and defaults, the API server does too: generated objects, good and bad, are sent to both.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import { type ApiServer, startApiServer } from '#hack/bed/apiserver.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { hypervisorNodeKind } from './hypervisornode.ts';
import { apiVersion, group, type Kind, version } from './meta.ts';
import { virtualMachineKind } from './virtualmachine.ts';
import { virtualMachineImageKind } from './virtualmachineimage.ts';

const answered = z.object({ spec: z.unknown() });

/** Mostly a good value, now and then one that may be wrong. */
const or = (good: fc.Arbitrary<unknown>, ...odd: unknown[]) => fc.oneof({ weight: 80, arbitrary: good }, { weight: 1, arbitrary: fc.constantFrom<unknown>(...odd) });
const some = (...values: unknown[]) => fc.constantFrom<unknown>(...values);
/** A record of which each member is mostly there; now and then with one too many. */
const object = (members: Record<string, fc.Arbitrary<unknown>>, optional: readonly string[] = []) =>
  fc.tuple(fc.record(members, { requiredKeys: Object.keys(members).filter((key) => !optional.includes(key)) }), fc.nat(400), fc.constantFrom(...Object.keys(members)))
    .map(([record, dice, key]) => (dice === 0 ? { ...record, extra: 1 } : dice === 1 ? Object.fromEntries(Object.entries(record).filter(([name]) => name !== key)) : record));

const name = or(some('a', 'root', 'data-1', 'x'.repeat(15)), '', 'A', '-a', 'a-', 'a_b', 'x'.repeat(16), 'x'.repeat(21), 'ä', 7);
const port = or(fc.integer({ min: 1, max: 65_535 }), 0, 65_536, -1, 1.5, '22', true);
const size = (...good: string[]) => or(some(...good), '', '1', '0Mi', '1M', '1.5Gi', '-1Gi', '01Gi', '8193Gi', '10Ti', '1Ki', '1Mi ', 5, '99999999999Gi');
const disk = object({ name, image: object({ name: or(some('guest', 'debian-12.qcow2'), '', 'Guest', '../x', 'x'.repeat(254)) }), blank: some({}), size: size('1Mi', '10Gi', '9Ti'),
  bus: or(some('virtio', 'scsi', 'sata', 'nvme'), 'ide', ''), bootOrder: or(fc.integer({ min: 1, max: 9 }), 0, 65, '1'), readOnly: or(some(false, false, true), 'true'), cache: or(some('writeback', 'none', 'writethrough'), 'unsafe'),
  limits: object({ iops: or(fc.integer({ min: 1, max: 9_999 }), 0, -1, '5'), bytesPerSecond: size('1Mi', '9Ti') }, ['iops', 'bytesPerSecond']),
  deletionPolicy: or(some('Delete', 'Retain'), 'Keep', ''), cdrom: object({ image: object({ name: or(some('iso'), 'Iso', '') }) }, ['image']),
}, ['image', 'blank', 'size', 'bus', 'bootOrder', 'readOnly', 'cache', 'limits', 'deletionPolicy', 'cdrom'])
  .map((each) => {
    const dice = JSON.stringify(each).length % 7;
    // Mostly one source, and a drive without what a drive can not have.
    const sources = ['image', 'blank', 'cdrom'].filter((key) => key in each);
    const drop = dice === 0 ? [] : sources.length > 1 ? sources.filter((_, at) => at !== dice % sources.length) : [];
    const rest = Object.entries(each).filter(([key]) => !drop.includes(key));
    const drive = rest.some(([key]) => key === 'cdrom') && dice > 1;
    return Object.fromEntries(drive ? rest.filter(([key]) => !['size', 'readOnly', 'cache', 'limits', 'deletionPolicy', 'bus'].includes(key)) : rest);
  });
const forward = object({ name, hostPort: port, port, protocol: or(some('TCP', 'UDP'), 'tcp', 'SCTP', '') }, ['protocol']);
const face = object({ name, user: object({ forwards: fc.array(forward, { maxLength: 3 }) }, ['forwards']) });
const vm = object({
  powerState: or(some('Running', 'Stopped', 'Paused'), 'running', '', 1),
  restartPolicy: or(some('Always', 'OnFailure', 'Never'), 'always', ''),
  restartToken: or(some('1', '2030-01-02T03:04:05Z', 'a_b.c'), '', '-', 'a-', 'x'.repeat(64), 'ä', 1),
  cpu: object({ cores: or(fc.integer({ min: 1, max: 128 }), 0, 129, 1.5, '1', 2 ** 31), max: or(fc.integer({ min: 1, max: 128 }), 0, 129), model: or(some('host', 'max', 'EPYC-v4', 'Haswell-noTSX'), '', '-x', 'a,b', 'a b', 'x'.repeat(65)) }, ['max', 'model']),
  memory: object({ size: size('16Mi', '256Mi', '8Ti', '2Gi', '8192Gi', '64Mi', '18Mi', '20Mi', '1Ti', '17Mi'), max: size('16Mi', '8Ti', '3Gi', '4Gi', '34Mi', '64Mi', '1Gi', '2Ti', '512Mi', '33Mi') }, ['max']),
  architecture: or(some('amd64', 'arm64'), 'x86_64', ''),
  firmware: object({ type: or(some('bios', 'uefi'), 'efi', ''), secureBoot: or(some(false, false, false, false, false, false, true), 'true'), tpm: or(fc.boolean(), 1) }, ['type', 'secureBoot', 'tpm']),
  devices: object({ watchdog: fc.boolean(), rng: or(fc.boolean(), 'yes'), panic: fc.boolean(), graphics: fc.boolean(), vsock: fc.boolean(), guestAgent: or(fc.boolean(), 0) }, ['watchdog', 'rng', 'panic', 'graphics', 'vsock', 'guestAgent']),
  probes: object({ ready: or(fc.oneof(object({ serialPattern: or(some('login:', 'a*b', '* x', '😀'.repeat(256), '\u2028'), '', '*', '**', 'a\nb', 'a\rb', 'x'.repeat(257), '😀'.repeat(257)) }), object({ tcp: object({ port }) }), some({ guestAgent: {} }, { cloudInitDone: {} })), {}, { guestAgent: {}, cloudInitDone: {} }, { guestAgent: true }) }, ['ready']),
  disks: or(fc.oneof({ weight: 4, arbitrary: fc.array(disk, { minLength: 1, maxLength: 1 }) }, { weight: 1, arbitrary: fc.array(disk, { minLength: 1, maxLength: 3 }) }), [], 'none'),
  interfaces: fc.array(face, { maxLength: 2 }),
  cloudInit: object({
    userData: some('#!/bin/sh\necho', '', '😀'.repeat(10), '😀'.repeat(131_072 - 8), '😀'.repeat(131_072), 'x'.repeat(262_145)),
    sshAuthorizedKeys: fc.array(or(some('ssh-ed25519 AAAA me', '😀', 'ä'.repeat(8)), '', 'a\nb', 'x'.repeat(8193)), { maxLength: 2 }),
    hostname: or(some('web', 'a-1'), 'Web', 'a.b', '', '-', 'x'.repeat(64)),
    userDataSecretRef: object({ name: or(some('data', 'a.b'), '', '../x', 'A'), key: or(some('userData', '.key', 'A_b-c.d'), '', 'a/b', 'x'.repeat(254)) }, ['key']),
    networkData: or(some('version: 2', '', '😀'.repeat(65_536)), '😀'.repeat(65_537)),
    sshKeySecretRefs: or(fc.uniqueArray(some('a', 'b', 'c').map((each) => ({ name: each })), { selector: JSON.stringify, maxLength: 3 }), [{ name: 'a' }, { name: 'a' }], [{}], [{ name: 'A' }]),
  }, ['userData', 'sshAuthorizedKeys', 'hostname', 'userDataSecretRef', 'networkData', 'sshKeySecretRefs'])
    .map((each) => ('userData' in each && 'userDataSecretRef' in each && JSON.stringify(each).length % 4 > 0 ? Object.fromEntries(Object.entries(each).filter(([key]) => key !== 'userData')) : each)),
  stop: object({ mode: or(some('Graceful', 'Force'), 'force'), gracePeriodSeconds: or(fc.integer({ min: 0, max: 86_400 }), -1, 86_401, '90') }, ['mode', 'gracePeriodSeconds']),
  deletionProtection: or(fc.boolean(), 'true', 1),
}, ['powerState', 'restartPolicy', 'restartToken', 'architecture', 'firmware', 'devices', 'probes', 'interfaces', 'cloudInit', 'stop', 'deletionProtection']);
const goodUrl = some('http://a/b', 'https://a.example:8443/x?y=z#f', 'http://[::1]:80/', 'http://a_b/c', 'http://a/b/?c=/d', 'http://a/b#/');
const webUrl = or(goodUrl, 'ftp://a/b', 'http://u:p@a/b', 'http://a', 'http:///b', 'http://a/ b', 'http://a/\n', '', `http://a/${'x'.repeat(2048)}`);
const image = object({
  source: object({ http: object({ url: webUrl, mirrors: or(fc.array(goodUrl, { minLength: 1, maxLength: 3 }), [], ['ftp://a/b'], Array.from({ length: 9 }, () => 'http://a/b'), 'http://a/b') }, ['mirrors']) }),
  checksum: or(some(`sha256:${'0'.repeat(64)}`, `sha512:${'a'.repeat(128)}`), 'sha256:', `sha256:${'A'.repeat(64)}`, `md5:${'0'.repeat(32)}`, '0'.repeat(64), ''),
  checksumUrl: webUrl,
  format: or(some('qcow2', 'raw'), 'vmdk', ''),
}, ['checksum', 'checksumUrl']);
const node = object({ schedulable: or(fc.boolean(), 'false', 0) }, ['schedulable']);

describe('zod and the API server', () => {
  let server: ApiServer;
  beforeAll(async () => {
    server = await startApiServer();
    await installCrds(server.kube);
  }, 300_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  }, 60_000);

  /** The spec as it would be stored, or undefined when it is refused. */
  const stored = async (kind: Kind, spec: unknown): Promise<unknown> => {
    const scope = kind.scope === 'Namespaced' ? '/namespaces/default' : '';
    try {
      const body = { apiVersion, kind: kind.kind, metadata: { name: 'generated' }, spec };
      return answered.parse(await server.kube.request('POST', `/apis/${group}/${version}${scope}/${kind.plural}`, { body, query: { dryRun: 'All', fieldValidation: 'Strict' } })).spec;
    } catch (thrown) {
      if (Error.isError(thrown) && /: (400|422|500) /.test(thrown.message)) return undefined;
      throw thrown;
    }
  };

  test.each<[string, Kind, fc.Arbitrary<unknown>, number]>([
    ['VirtualMachine', virtualMachineKind, vm, 800],
    ['VirtualMachineImage', virtualMachineImageKind, image, 300],
    // It has one member alone: of fewer there may be none that is refused.
    ['HypervisorNode', hypervisorNodeKind, node, 400],
  ])('agree about every %s: what is refused, what is accepted, what it becomes', async (_name, kind, specs, numRuns) => {
    let accepted = 0;
    await fc.assert(fc.asyncProperty(specs, async (spec) => {
      const here = kind.spec.safeParse(spec);
      const there = await stored(kind, spec);
      if (there !== undefined) accepted += 1;
      expect(here.success ? here.data : undefined).toEqual(there);
    }), { numRuns });
    // Neither all good nor all bad, else nothing was compared.
    expect(accepted).toBeGreaterThan(numRuns / 20);
    expect(accepted).toBeLessThan(numRuns);
  });

  const sum = `sha256:${'0'.repeat(64)}`;
  const http = (url: string) => ({ source: { http: { url } } });
  test.each<[string, object, object]>([
    ['the URL', http('http://a/b'), http('http://a/c')],
    ['the format', { format: 'raw' }, { format: 'qcow2' }],
    ['the checksum', { checksum: sum }, { checksum: sum.replace('0', '1') }],
    ['the checksum, by adding one', {}, { checksum: sum }],
    ['the checksum, by removing it', { checksum: sum }, { checksum: null }],
  ])('the content of an image stays: an edit of %s is refused, of anything else it is not', async (_what, before, edit) => {
    const path = `/apis/${group}/${version}/namespaces/default/${virtualMachineImageKind.plural}`;
    const spec = { ...http('http://a/b'), format: 'raw', ...before };
    await server.kube.request('POST', path, { body: { apiVersion, kind: 'VirtualMachineImage', metadata: { name: 'fixed' }, spec } });
    const patch = (body: object) => server.kube.request('PATCH', `${path}/fixed`, { body, contentType: 'application/merge-patch+json' });
    try {
      await expect(patch({ spec: edit })).rejects.toThrow('the content of an image can not be changed; create another image');
      await expect(patch({ metadata: { labels: { a: 'b' } }, spec })).resolves.toMatchObject({ metadata: { generation: 1 }, spec });
    } finally {
      await server.kube.request('DELETE', `${path}/fixed`);
    }
  });
});
