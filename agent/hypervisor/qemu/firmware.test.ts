import { describe, expect, test } from '@jest/globals';
import { plainHardware } from '../driver.ts';
import { chooseFirmware, firmwareFor } from './firmware.ts';

const descriptor = (over: object = {}) => JSON.stringify({
  'interface-types': ['uefi'], mapping: { device: 'flash', executable: { filename: '/f/code.fd', format: 'raw' }, 'nvram-template': { filename: '/f/vars.fd', format: 'raw' } },
  targets: [{ architecture: 'x86_64', machines: ['pc-i440fx-*', 'pc-q35-*'] }], features: ['acpi-s3'], ...over,
});
const plain = { code: '/f/code.fd', variables: '/f/vars.fd' };

describe('the firmware of a node', () => {
  test('is what its descriptors offer; the first by name wins', () => {
    const other = descriptor({ mapping: { device: 'flash', executable: { filename: '/g/code.fd', format: 'raw' }, 'nvram-template': { filename: '/g/vars.fd', format: 'raw' } } });
    expect(chooseFirmware([{ name: '60-b.json', text: other }, { name: '50-a.json', text: descriptor() }])).toEqual({ amd64: { plain } });
    expect(chooseFirmware([{ name: '60.json', text: descriptor({ targets: [{ architecture: 'aarch64', machines: ['virt-*'] }] }) }])).toEqual({ arm64: { plain } });
  });

  test.each<[string, string, object]>([
    ['with Secure Boot and keys is for those who ask for it', descriptor({ features: ['secure-boot', 'enrolled-keys', 'requires-smm'] }), { amd64: { secure: plain } }],
    ['with Secure Boot and no keys starts nothing signed and is of no use', descriptor({ features: ['secure-boot'] }), {}],
    ['with Secure Boot whose variables the guest can write protects nobody', descriptor({ features: ['secure-boot', 'enrolled-keys'] }), {}],
    ['for another machine is not ours', descriptor({ targets: [{ architecture: 'x86_64', machines: ['pc-i440fx-*'] }] }), {}],
    ['that is a BIOS is not meant', descriptor({ 'interface-types': ['bios'] }), {}],
    ['in memory has no variable store', descriptor({ mapping: { device: 'memory', filename: '/f/all.fd' } }), {}],
    ['at a relative path is passed over', descriptor({ mapping: { device: 'flash', executable: { filename: 'code.fd', format: 'raw' }, 'nvram-template': { filename: '/v', format: 'raw' } } }), {}],
    ['in a file that is no JSON is passed over', '{', {}],
  ])('%s', (_, text, found) => {
    expect(chooseFirmware([{ name: 'a.json', text }])).toEqual(found);
  });

  test('that is not there is named', () => {
    const wants = { ...plainHardware, firmware: { type: 'uefi' as const, secureBoot: true, tpm: false } };
    expect(() => firmwareFor(wants, { amd64: { plain } })).toThrow(/no UEFI firmware with Secure Boot for amd64/);
    expect(firmwareFor({ ...wants, firmware: { ...wants.firmware, secureBoot: false } }, { amd64: { plain } })).toEqual(plain);
    expect(firmwareFor(plainHardware, {})).toBeUndefined();
  });
});
