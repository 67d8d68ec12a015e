import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { checksumOf, fetchChecksum, fileNameOf, parseChecksums } from './checksums.ts';
import { makeGuard } from './guard.ts';
import { openTestWeb } from './testweb.ts';

const run = promisify(execFile);
const a = 'a'.repeat(64);
const b = 'b'.repeat(64);
const long = 'c'.repeat(128);

describe('a list of checksums', () => {
  test.each<[string, string, object[]]>([
    ['coreutils, text', `${a}  debian.qcow2`, [{ name: 'debian.qcow2', checksum: `sha256:${a}` }]],
    ['coreutils, binary', `${a} *debian.qcow2`, [{ name: 'debian.qcow2', checksum: `sha256:${a}` }]],
    ['SHA-512', `${long}  debian.qcow2`, [{ name: 'debian.qcow2', checksum: `sha512:${long}` }]],
    ['BSD', `SHA256 (debian.qcow2) = ${a}`, [{ name: 'debian.qcow2', checksum: `sha256:${a}` }]],
    ['BSD, SHA-512', `SHA512 (debian.qcow2) = ${long}`, [{ name: 'debian.qcow2', checksum: `sha512:${long}` }]],
    ['OpenSSL', `SHA256(debian.qcow2)= ${a}`, [{ name: 'debian.qcow2', checksum: `sha256:${a}` }]],
    ['OpenSSL 3', `SHA2-256(debian.qcow2)= ${a}`, [{ name: 'debian.qcow2', checksum: `sha256:${a}` }]],
    ['large letters', `${'A'.repeat(64)}  x`, [{ name: 'x', checksum: `sha256:${a}` }]],
    ['names with blanks', `${a}  my disk.raw`, [{ name: 'my disk.raw', checksum: `sha256:${a}` }]],
    ['names with brackets', `SHA256 (a (1) = b) = ${a}`, [{ name: 'a (1) = b', checksum: `sha256:${a}` }]],
    ['escaped names', `\\${a}  a\\nb\\\\c`, [{ name: 'a\nb\\c', checksum: `sha256:${a}` }]],
    ['lines of DOS', `${a}  x\r\n${b}  y\r\n`, [{ name: 'x', checksum: `sha256:${a}` }, { name: 'y', checksum: `sha256:${b}` }]],
    ['signed, with comments', `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# x: 5 bytes\nSHA256 (x) = ${a}\n-----BEGIN PGP SIGNATURE-----\niQIzBAEBCAAdFiEE\n`, [{ name: 'x', checksum: `sha256:${a}` }]],
    ['other hashes', `MD5 (x) = ${'d'.repeat(32)}\n${'e'.repeat(40)}  x\nSHA256 (x) = ${long}`, []],
    ['a hash without a name', a, []],
    ['a page', '<!DOCTYPE html>\n<html></html>', []],
    ['nothing', '', []],
  ])('is read: %s', (_, text, entries) => {
    expect(parseChecksums(text)).toEqual(entries);
  });

  test.each([['sha256sum'], ['sha512sum'], ['sha256sum', '--tag'], ['sha512sum', '--tag'], ['sha256sum', '-b']])('is read as %s %s writes it, for whatever name', async (tool, ...options) => {
    const folder = await mkdtemp(join(tmpdir(), 'strato-sums-'));
    try {
      const names = ['debian-12.qcow2', 'a b', 'back\\slash', 'new\nline', '(x) = y', 'ä'];
      for (const name of names) await writeFile(join(folder, name), `content of ${name}`);
      const { stdout } = await run(tool, [...options, '--', ...names], { cwd: folder });
      const entries = parseChecksums(stdout);
      for (const name of names) {
        const kind = tool.slice(0, 6);
        expect(checksumOf(entries, name, 'x')).toBe(`${kind}:${createHash(kind).update(`content of ${name}`).digest('hex')}`);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test.each([[`${a}${' '.repeat(80_000)}\rx`], [`${a}${' *'.repeat(40_000)}\u2028`], [`SHA256 (${') = a'.repeat(20_000)}\rx`], [`SHA256 (x) = ${'a'.repeat(80_000)}x`]])('is read in a moment, whatever was written to make it slow (%#)', (text) => {
    const since = performance.now();
    parseChecksums(text);
    expect(performance.now() - since).toBeLessThan(1_000);
  });

  test('whatever it holds, it is read without an end of the world', () => {
    const piece = fc.oneof(fc.string(), fc.constantFrom(a, long, '  ', ' *', '\n', '\\', 'SHA256 (', ') = ', 'x'));
    fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), (parts) => {
      for (const { name, checksum } of parseChecksums(parts.join(''))) {
        expect(checksum).toMatch(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/);
        expect(name).not.toBe('');
      }
    }), { numRuns: 1000 });
  });
});

describe('the checksum of a file', () => {
  const of = (text: string, name = 'x.img') => checksumOf(parseChecksums(text), name, 'http://h/SHA256SUMS');
  const missing = (why: RegExp) => expect.objectContaining({ code: 'ChecksumMissing', retry: 'later', message: expect.stringMatching(why) });

  test.each<[string, string, string]>([
    ['by its name', `${b}  y.img\n${a}  x.img`, `sha256:${a}`],
    ['with a folder in front', `${a}  ./x.img`, `sha256:${a}`],
    ['with another file of that name in a folder', `${b}  old/x.img\n${a}  x.img`, `sha256:${a}`],
    ['of two kinds the longer', `${a}  x.img\n${long}  x.img`, `sha512:${long}`],
    ['said twice', `${a}  x.img\nSHA256 (x.img) = ${a}`, `sha256:${a}`],
  ])('is found: %s', (_, text, sum) => {
    expect(of(text)).toBe(sum);
  });

  test('is missing, and it is said why', () => {
    expect(() => of(`${a}  y.img\n${b}  xx.img`)).toThrow(missing(/http:\/\/h\/SHA256SUMS has 2 checksums and none of "x\.img"/));
    expect(() => of('<html>')).toThrow(missing(/is no list of SHA-256 or SHA-512 checksums/));
    expect(() => of(`${a}  1/x.img\n${b}  2/x.img`)).toThrow(missing(/has 2 different checksums of "x\.img"/));
  });

  test.each([['http://h/a/x.img?token=y#z', 'x.img'], ['http://h/a%20b.img', 'a b.img'], ['http://h/%zz', '%zz'], ['http://h/a/', '']])('%s is called %j', (url, name) => {
    expect(fileNameOf(new URL(url))).toBe(name);
  });
});

describe('fetching the checksum', () => {
  const limits = { connectMs: 5_000, idleMs: 5_000, maxRedirects: 2 };
  const guard = makeGuard({ allowed: ['127.0.0.1'] });
  const withWeb = async (act: (web: Awaited<ReturnType<typeof openTestWeb>>) => Promise<void>) => {
    const web = await openTestWeb();
    try {
      await act(web);
    } finally {
      await web.close();
    }
  };
  const get = (list: string, url = 'http://h/x.img', signal = AbortSignal.timeout(20_000), bounds = limits) => fetchChecksum(list, url, guard, bounds, signal);

  test('follows redirects and reads the list', () => withWeb(async (web) => {
    web.serve('/list', { is: 'bytes', bytes: Buffer.from(`${a}  x.img\n`) });
    expect(await get(web.serve('/SHA256SUMS', { is: 'status', status: 301, location: '/list' }))).toBe(`sha256:${a}`);
  }));

  test('passes the same guard', () => withWeb(async (web) => {
    await expect(get(web.serve('/a', { is: 'status', status: 302, location: 'http://169.254.169.254/' }))).rejects.toMatchObject({ code: 'SourceRefused', retry: 'never' });
    await expect(get('file:///etc/passwd')).rejects.toMatchObject({ code: 'SourceRefused' });
  }));

  test('is bounded in size and in time, and tells what went wrong without a query', () => withWeb(async (web) => {
    await expect(get(web.serve('/big', { is: 'bytes', bytes: Buffer.alloc(1024 * 1024 + 1, 'x') }))).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringContaining('more than 1048576 bytes') });
    await expect(get(web.serve('/slow', { is: 'bytes', bytes: Buffer.alloc(1000), midway: 'hold' }), undefined, undefined, { ...limits, connectMs: 100, idleMs: 10 })).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringMatching(/in time|no answer within/) });
    await expect(get(web.serve('/cut', { is: 'bytes', bytes: Buffer.alloc(1000), midway: 'cut' }))).rejects.toMatchObject({ code: 'DownloadFailed', retry: 'later' });
    await expect(get(web.serve('/gone?secret', { is: 'status', status: 404 }))).rejects.toMatchObject({ code: 'DownloadFailed', message: expect.stringMatching(/\/gone: HTTP 404/) });
  }));

  test('can be ended by the caller', () => withWeb(async (web) => {
    const controller = new AbortController();
    const end = get(web.serve('/slow', { is: 'silent' }), undefined, controller.signal);
    controller.abort(new Error('removed'));
    await expect(end).rejects.toThrow('removed');
  }));
});
