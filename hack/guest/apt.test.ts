import { expect, test } from '@jest/globals';
import { parseKernelAbi, parseUris } from './apt.ts';

const hash = 'ab'.repeat(32);
const uris = [
  `'http://mirror/b.deb' busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb 928188 SHA256:${hash}`,
  `'http://mirror/l.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 SHA256:${hash}`,
].join('\n');

test('the kernel is the one that the meta package depends on', () => {
  expect(parseKernelAbi('linux-image-cloud-amd64', 'linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n')).toBe('6.1.0-56-cloud-amd64');
});

test('packages come in the order asked for, with epoch and digest', () => {
  expect(parseUris(uris, ['libc6', 'busybox-static'])).toEqual([
    { package: 'libc6', version: '2.36-9+deb12u14', sha256: hash },
    { package: 'busybox-static', version: '1:1.35.0-4+deb12u1+b1', sha256: hash },
  ]);
});

test('what apt does not know is a fault that says what to do', () => {
  expect(() => parseUris(uris, ['dropbear-bin'])).toThrow(/where dropbear-bin is; run "apt-get update"/);
  expect(() => parseUris('', ['libc6'])).toThrow(expect.objectContaining({ code: 'AptLists' }));
  expect(() => parseKernelAbi('meta', '')).toThrow(expect.objectContaining({ code: 'AptLists' }));
  expect(() => parseKernelAbi('meta', '  Depends: linux-image-$(reboot)\n')).toThrow(expect.objectContaining({ code: 'AptLists' }));
});
