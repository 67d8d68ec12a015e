import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { judgeAddress, parseAddress, parseNetwork } from './addresses.ts';
import { makeGuard, parseSource, type Resolve } from './guard.ts';

const signal = AbortSignal.timeout(30_000);
const nobody: Resolve = () => Promise.reject(new Error('nothing is to be looked up'));
const answering = (...addresses: string[]): Resolve => async () => addresses;
const guarded = (url: string, { resolve = nobody, allowed = [], own = [] }: { resolve?: Resolve; allowed?: string[]; own?: string[] } = {}) =>
  makeGuard({ allowed, resolve, own: () => own })(parseSource(url), signal);
const refused = (message: RegExp) => expect.objectContaining({ code: 'SourceRefused', retry: 'never', message: expect.stringMatching(message) });

describe('an address', () => {
  test.each<[string, RegExp]>([
    ['127.0.0.1', /loopback/], ['127.255.255.254', /loopback/], ['::1', /loopback/],
    ['0.0.0.0', /unspecified/], ['0.1.2.3', /unspecified/], ['::', /unspecified/],
    ['169.254.169.254', /metadata/], ['168.63.129.16', /metadata/], ['100.100.100.200', /metadata/], ['fd00:ec2::254', /metadata/],
    ['169.254.0.1', /link-local/], ['fe80::1', /link-local/], ['fe80::1%eth0', /link-local/], ['febf::1', /link-local/],
    ['10.96.0.1', /private/], ['172.16.0.1', /private/], ['172.31.255.255', /private/], ['192.168.1.1', /private/], ['100.64.0.1', /private/],
    ['fc00::1', /private/], ['fd12:3456::1', /private/], ['fec0::1', /private/], ['64:ff9b:1::1', /private/],
    ['224.0.0.1', /multicast/], ['239.255.255.250', /multicast/], ['ff02::1', /multicast/],
    ['255.255.255.255', /broadcast/], ['240.0.0.1', /reserved/], ['192.0.2.1', /reserved/], ['198.18.0.1', /reserved/], ['203.0.113.9', /reserved/],
    ['2001:db8::1', /reserved/], ['2002:7f00:1::1', /reserved/], ['2001::1', /reserved/], ['4000::1', /reserved/], ['100::1', /reserved/], ['5f00::1', /reserved/],
    // The same address in the clothes of IPv6: mapped, compatible, and behind a translator.
    ['::ffff:127.0.0.1', /loopback/], ['::ffff:7f00:1', /loopback/], ['0:0:0:0:0:FFFF:A9FE:A9FE', /metadata/], ['::127.0.0.1', /reserved/],
    ['64:ff9b::10.0.0.1', /private/], ['64:ff9b::a9fe:a9fe', /metadata/],
    ['localhost', /no IP address/], ['', /no IP address/], ['1.2.3', /no IP address/], ['1.2.3.4.5', /no IP address/], ['01.2.3.4', /no IP address/], [':::', /no IP address/],
  ])('%s is refused', (address, what) => {
    expect(judgeAddress(address, [], [])).toMatchObject({ is: 'refused', what: expect.stringMatching(what) });
  });

  test.each(['1.1.1.1', '8.8.8.8', '172.15.255.255', '172.32.0.1', '100.63.255.255', '100.128.0.1', '169.253.0.1', '2606:4700:4700::1111', '2a01:4f8::1', '64:ff9b::8.8.8.8', '::ffff:8.8.8.8'])('%s is public', (address) => {
    expect(judgeAddress(address, [], [])).toEqual({ is: 'fit' });
  });

  test('of the node itself is refused, public as it may be', () => {
    expect(judgeAddress('8.8.8.8', [], ['127.0.0.1', '8.8.8.8'])).toMatchObject({ is: 'refused', what: 'an address of this node itself' });
    expect(judgeAddress('::ffff:8.8.8.8', [], ['8.8.8.8'])).toMatchObject({ is: 'refused' });
  });

  test.each([
    ['127.0.0.1', '127.0.0.0/8', true], ['::ffff:127.0.0.1', '127.0.0.0/8', true], ['127.0.0.1', '127.0.0.2', false], ['10.1.2.3', '10.1.0.0/16', true], ['10.2.2.3', '10.1.0.0/16', false],
    ['fd00:1::5', 'fd00:1::/32', true], ['fd00:2::5', 'fd00:1::/32', false], ['127.0.0.1', '0.0.0.0/0', true], ['::1', '0.0.0.0/0', false], ['::1', '::/0', true], ['10.0.0.1', '::/0', true],
    // What nobody fetches an image from stays refused, whatever is listed.
    ['169.254.169.254', '0.0.0.0/0', false], ['169.254.169.254', '169.254.169.254', false], ['224.0.0.1', '::/0', false], ['0.0.0.0', '::/0', false], ['::', '::/0', false],
  ])('%s with %s allowed: %s', (address, allowed, fit) => {
    const network = parseNetwork(allowed);
    expect(judgeAddress(address, network ? [network] : [], []).is).toBe(fit ? 'fit' : 'refused');
  });

  test('is read as the URL parser reads it, however it is written', () => {
    fc.assert(fc.property(fc.ipV6(), (address) => {
      const again = new URL(`http://[${address}]/`).hostname.slice(1, -1);
      expect(parseAddress(address)).toBeDefined();
      expect(parseAddress(address)).toBe(parseAddress(again));
    }), { numRuns: 500 });
    fc.assert(fc.property(fc.ipV4(), (address) => {
      expect(parseAddress(address)).toBe(parseAddress(`::ffff:${address}`));
    }));
  });

  test.each(['10.0.0.1/8', '10.0.0.0/33', 'fd00::/129', 'fd00::1/64', 'x/8', '10.0.0.0/', '/8', '', 'fe80::1%eth0'])('%j is no network', (text) => {
    expect(parseNetwork(text)).toBeUndefined();
  });
});

describe('the guard', () => {
  test.each([
    'http://127.0.0.1/', 'http://127.1/', 'http://127.0.0.1./', 'http://2130706433/', 'http://0x7f000001/', 'http://0x7f.0.0.1/', 'http://0177.0.0.01/', 'http://017700000001/',
    'http://[::1]/', 'http://[0:0:0:0:0:0:0:1]/', 'http://[::ffff:127.0.0.1]/', 'http://[::ffff:7f00:1]/', 'http://１２７.０.０.１/', 'http://127%2e0.0.1/', 'http://0/', 'http://[::]/',
    'http://169.254.169.254/latest/meta-data/', 'http://2852039166/', 'http://0xa9fea9fe/', 'http://[fd00:ec2::254]/', 'https://10.0.0.1:6443/', 'http:\\\\10.0.0.1\\x', 'http://10.0.0.1:10250/pods',
  ])('refuses %s without asking a name server', async (url) => {
    await expect(guarded(url)).rejects.toEqual(refused(/nothing is fetched from there/));
  });

  test('says which setting would allow it, and where none does', async () => {
    await expect(guarded('http://10.1.2.3/x')).rejects.toEqual(refused(/10\.1\.2\.3 is a private address, .* image_allowed_networks in the configuration of the agent/));
    await expect(guarded('http://169.254.169.254/x', { allowed: ['0.0.0.0/0'] })).rejects.toEqual(refused(/the metadata service of a cloud, .* no setting allows that/));
  });

  test('refuses a name when any of its addresses is refused, and does not tell which one that is', async () => {
    const resolve = answering('93.184.216.34', '10.96.0.1');
    await expect(guarded('http://kubernetes.default.svc/', { resolve })).rejects.toEqual(refused(/kubernetes\.default\.svc resolves to a private address/));
    await expect(guarded('http://kubernetes.default.svc/', { resolve })).rejects.toMatchObject({ message: expect.not.stringContaining('10.96.0.1') });
  });

  test('gives the addresses of a public name, all that were judged', async () => {
    expect(await guarded('https://cloud.example/x', { resolve: answering('93.184.216.34', '2606:2800:220:1::1') })).toEqual(['93.184.216.34', '2606:2800:220:1::1']);
    expect(await guarded('https://[2606:2800:220:1::1]/x')).toEqual(['2606:2800:220:1::1']);
  });

  test('lets through what is allowed', async () => {
    expect(await guarded('http://images.corp/x', { resolve: answering('10.20.0.7'), allowed: ['10.20.0.0/16'] })).toEqual(['10.20.0.7']);
  });

  test('a name without an address, or that can not be looked up, may work later', async () => {
    await expect(guarded('http://gone.example/x?token=secret', { resolve: answering() })).rejects.toMatchObject({ code: 'DownloadFailed', retry: 'later', message: 'fetching http://gone.example/x: gone.example has no address' });
    await expect(guarded('http://gone.example/x', { resolve: () => Promise.reject(new Error('ENOTFOUND')) })).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('can not be looked up: ENOTFOUND') });
  });

  test('a name server that is silent costs no more than the deadline', async () => {
    const resolve: Resolve = () => new Promise(() => {});
    await expect(makeGuard({ allowed: [], resolve })(parseSource('http://slow.example/'), AbortSignal.timeout(20))).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test('asks this machine for names, and knows its own addresses', async () => {
    await expect(makeGuard({ allowed: [] })(parseSource('http://localhost/x'), signal)).rejects.toEqual(refused(/localhost resolves to a loopback address/));
    expect(await makeGuard({ allowed: ['127.0.0.0/8', '::1'] })(parseSource('http://localhost/x'), signal)).toContain('127.0.0.1');
  });

  test.each(['file:///etc/passwd', 'ftp://a/b', 'http://me@a/b', 'http://me:pw@a/b', 'http://8.8.8.8@127.0.0.1/', 'gopher://a', 'data:,x', 'nonsense', ''])('%j is refused for ever by its form', (url) => {
    expect(() => parseSource(url)).toThrow(expect.objectContaining({ code: 'SourceRefused', retry: 'never', message: expect.not.stringContaining('pw') }));
  });

  test('no setting that is no network is taken for one', () => {
    expect(() => makeGuard({ allowed: ['10.0.0.1/8'] })).toThrow(/10\.0\.0\.1\/8/);
  });
});
