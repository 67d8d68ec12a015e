import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parse } from 'yaml';
import { seedFiles, seedImage } from './seed.ts';

const seed = { instanceId: '00000000-0000-4000-8000-00000000000a', hostname: 'web-1', sshAuthorizedKeys: ['ssh-ed25519 AAAA me@home', 'ssh-rsa BBBB: "x" # y'] };

describe('the cloud-init seed', () => {
  test('meta-data names the instance, its host name and the keys', () => {
    expect(parse(seedFiles(seed).metaData)).toEqual({ 'instance-id': seed.instanceId, 'local-hostname': 'web-1', 'public-keys': seed.sshAuthorizedKeys });
  });

  test('a network configuration is passed byte for byte, and there is none without', () => {
    expect(seedFiles({ ...seed, networkData: 'version: 2\n' }).networkData).toBe('version: 2\n');
    expect(seedFiles(seed)).not.toHaveProperty('networkData');
    expect(Buffer.from(seedImage({ ...seed, networkData: 'version: 2\n' })).includes('version: 2\n')).toBe(true);
  });

  test('an ordinary key is plain text, so that a guest without a YAML parser finds it', () => {
    expect(seedFiles(seed).metaData).toContain('  - ssh-ed25519 AAAA me@home\n');
  });

  test.each([['#!/bin/sh\necho hi\n'], ['#cloud-config\nruncmd: [a]\nssh_authorized_keys: [k]'], ['## template: jinja\n#cloud-config\n'], ['']])(
    'the user-data of the user is passed byte for byte: %j', (userData) => {
      expect(seedFiles({ ...seed, userData }).userData).toBe(userData);
    });

  test('without user-data there is a cloud-config with the keys', () => {
    const { userData } = seedFiles(seed);
    expect(userData.startsWith('#cloud-config\n')).toBe(true);
    expect(parse(userData)).toEqual({ ssh_authorized_keys: seed.sshAuthorizedKeys });
    expect(seedFiles({ ...seed, sshAuthorizedKeys: [] }).userData).toBe('#cloud-config\n{}\n');
  });

  test('no key, host name or id can add a line of its own or turn into another type (A16)', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), fc.string(), fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('true', '1', '1e3', '~', 'a: b', 'x\nruncmd: [a]'))), (instanceId, hostname, keys) => {
      expect(parse(seedFiles({ instanceId, hostname, sshAuthorizedKeys: keys }).metaData)).toEqual({
        'instance-id': instanceId, 'local-hostname': hostname, ...(keys.length > 0 ? { 'public-keys': keys } : {}),
      });
    }));
  });

  test('the same seed gives the same bytes, with the label where a small guest looks for it', () => {
    const image = Buffer.from(seedImage(seed));
    expect(Buffer.from(seedImage(seed)).equals(image)).toBe(true);
    expect(image.subarray(43, 49).toString('latin1')).toBe('CIDATA');
    expect(image.byteLength % 512).toBe(0);
  });
});
