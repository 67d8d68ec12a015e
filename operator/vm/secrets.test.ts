import { describe, expect, test } from '@jest/globals';
import { isPublicKeyLine } from '#crds/v1alpha1/cloudinit.ts';
import type { VmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import { KubeFault, type Kube } from '../kube/kube.ts';
import { cloudInitOf, readSecret, type SecretFact, secretNames } from './secrets.ts';

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home';
const there = (values: Record<string, string>): SecretFact => ({ is: 'there', values: new Map(Object.entries(values)) });
const spec = (cloudInit: VmSpec['cloudInit']) => ({ cloudInit });
const both = spec({ userDataSecretRef: { name: 'data' }, sshKeySecretRefs: [{ name: 'keys' }], sshAuthorizedKeys: ['ssh-rsa BBBB'], networkData: 'version: 2\n' });

describe('what a guest is given at its first boot', () => {
  test('comes from the spec and from Secrets together', () => {
    const secrets = new Map([['data', there({ userData: '#!/bin/sh\n' })], ['keys', there({ me: `# mine\n${key}\n\n`, you: `${key} 2` })]]);
    expect(cloudInitOf('web.1', both, secrets)).toEqual({
      is: 'ready', cloudInit: { hostname: 'web', networkData: 'version: 2\n', userData: '#!/bin/sh\n', sshAuthorizedKeys: ['ssh-rsa BBBB', key, `${key} 2`] },
    });
  });

  test.each([
    [`${'a'.repeat(62)}-b`, 'a'.repeat(62)],
    [`${'a'.repeat(62)}.b`, 'a'.repeat(62)],
    [`${'a'.repeat(63)}-b`, 'a'.repeat(63)],
  ])('has a host name that its agent takes, also when the VM is called %s', (name, hostname) => {
    expect(cloudInitOf(name, {}, undefined)).toMatchObject({ is: 'ready', cloudInit: { hostname } });
  });

  test('holds nothing of a Secret once the guest has it', () => {
    expect(cloudInitOf('web', both, undefined)).toEqual({ is: 'ready', cloudInit: { hostname: 'web', networkData: 'version: 2\n', sshAuthorizedKeys: ['ssh-rsa BBBB'] } });
  });

  test.each<[string, SecretFact | undefined, string, RegExp]>([
    ['absent', undefined, 'SecretNotFound', /Secret data does not exist/],
    ['unreadable', { is: 'unreadable', why: '403' }, 'SecretNotFound', /Secret data can not be read: 403/],
    ['without its key', there({ other: 'canary' }), 'SecretInvalid', /has no key userData/],
    ['too long', there({ userData: 'canary'.repeat(100_000) }), 'SecretInvalid', /more than 512 KiB/],
  ])('waits for a Secret that is %s, and says so without its values', (_, fact, reason, message) => {
    const waits = cloudInitOf('web', spec({ userDataSecretRef: { name: 'data' } }), new Map(fact ? [['data', fact]] : []));
    expect(waits).toMatchObject({ is: 'waits', reason, message: expect.stringMatching(message) });
    expect(JSON.stringify(waits)).not.toContain('canary');
  });

  test.each([['a private key', '-----BEGIN canary-----'], ['nothing', '# none\n']])('waits for a Secret of keys that holds %s', (_, text) => {
    const waits = cloudInitOf('web', spec({ sshKeySecretRefs: [{ name: 'keys' }] }), new Map([['keys', there({ k: text })]]));
    expect(waits).toMatchObject({ is: 'waits', reason: 'SecretInvalid' });
    expect(JSON.stringify(waits)).not.toContain('canary');
  });

  test('more keys than a seed takes are refused', () => {
    const many = there(Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`k${at}`, key])));
    expect(cloudInitOf('web', spec({ sshKeySecretRefs: [{ name: 'keys' }] }), new Map([['keys', many]]))).toMatchObject({ is: 'waits', message: expect.stringMatching(/65 SSH keys/) });
  });

  test('each Secret is read once', () => {
    expect(secretNames(spec({ userDataSecretRef: { name: 'a' }, sshKeySecretRefs: [{ name: 'a' }, { name: 'b' }] }))).toEqual(['a', 'b']);
  });
});

describe('reading a Secret', () => {
  const kube = (answer: () => unknown): Kube => ({ request: async () => answer(), stream: () => { throw new Error('not asked for'); } });
  const read = (answer: () => unknown) => readSecret(kube(answer), 'default', 's', AbortSignal.timeout(5_000));

  test('decodes its values', async () => {
    expect(await read(() => ({ data: { a: Buffer.from('x\n').toString('base64') } }))).toEqual(there({ a: 'x\n' }));
    expect(await read(() => ({}))).toEqual(there({}));
  });

  test('what is not there, what may not be read and what is no Secret are told apart', async () => {
    expect(await read(() => { throw new KubeFault('reading', { status: 404, reason: 'NotFound', message: 'gone' }); })).toEqual({ is: 'absent' });
    expect(await read(() => { throw new KubeFault('reading', { status: 403, reason: 'Forbidden', message: 'no' }); })).toMatchObject({ is: 'unreadable', why: expect.stringMatching(/403/) });
    expect(await read(() => ({ data: { a: '*' } }))).toMatchObject({ is: 'unreadable' });
  });

  test.each([[0, 'ApiServerTimeout'], [429, 'TooManyRequests'], [503, 'ServiceUnavailable']])('no answer (%s) says nothing of it', async (status, reason) => {
    await expect(read(() => { throw new KubeFault('reading', { status, reason, message: 'busy' }); })).rejects.toMatchObject({ code: reason });
  });
});

test.each([
  ['ssh-ed25519 AAAA', true], ['sk-ssh-ed25519@openssh.com AAAA+/== me@home and more', true], ['ecdsa-sha2-nistp256 AAAA', true],
  ['no-pty,command="echo hi there" ssh-rsa AAAA me', true], ['ssh-rsa', false], ['ssh-rsa  AAAA', false], ['ssh-rsa A!', false], ['xssh-rsa AAAA', false], ['', false],
])('%j is a line with a public key: %s', (line, is) => {
  expect([isPublicKeyLine(line), isPublicKeyLine(`${line} ${'x'.repeat(8192)}`)]).toEqual([is, false]);
});

test.each([['ssh-'], ['sk-'], ['ssh-a A '], ['sk-a ']])('a Secret that was written to keep the operator busy is read in a moment (%j)', (word) => {
  const line = word.repeat(100_000 / word.length);
  const since = performance.now();
  cloudInitOf('web', both, new Map([['data', { is: 'there', values: new Map([['userData', 'x']]) }], ['keys', { is: 'there', values: new Map([['a', line], ['b', `${key} ${line.slice(0, 8_000)}`]]) }]]));
  expect(performance.now() - since).toBeLessThan(1_000);
});
