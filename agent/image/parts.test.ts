import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { fits } from './content.ts';
import { checkArgv, convertArgv } from './convert.ts';
import { confined } from './sandbox.ts';
import { seal, unseal } from './sealed.ts';

const a = 'a'.repeat(64);
const b = 'b'.repeat(128);
const desire = (more: Partial<DesiredImage>): DesiredImage => ({
  kind: 'image', uid: '00000000-0000-4000-8000-00000000000a', namespace: 'x', name: 'y', generation: 1, url: 'http://z/', format: 'qcow2', ...more,
});

describe('whether a content is what an image asks for', () => {
  test.each<[string, Partial<DesiredImage>, string | undefined, boolean | undefined]>([
    ['no hash is asked for', {}, undefined, true],
    ['the digest is the same', { digest: `sha256:${a}` }, undefined, true],
    ['the digest is another', { digest: `sha256:${'c'.repeat(64)}` }, undefined, false],
    ['the sha256 is the same', { checksum: `sha256:${a}` }, undefined, true],
    ['the sha256 is another', { checksum: `sha256:${'c'.repeat(64)}` }, undefined, false],
    ['the sha512 is the same', { checksum: `sha512:${b}` }, b, true],
    ['the sha512 is another', { checksum: `sha512:${'c'.repeat(128)}` }, b, false],
    ['the sha512 was never made', { checksum: `sha512:${b}` }, undefined, undefined],
    ['the digest is the same but not the sha512', { digest: `sha256:${a}`, checksum: `sha512:${'c'.repeat(128)}` }, b, false],
    ['the format is another', { format: 'raw', digest: `sha256:${a}` }, undefined, false],
  ])('%s', (_, more, sha512, verdict) => {
    expect(fits(desire(more), { sha256: a, format: 'qcow2', ...(sha512 === undefined ? {} : { sha512 }) })).toBe(verdict);
  });
});

describe('a sealed text', () => {
  const form = z.strictObject({ name: z.string(), count: z.int() });

  test('gives back what was sealed', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), fc.integer(), (name, count) => {
      expect(unseal(seal({ name, count }), form)).toEqual({ name, count });
    }));
  });

  test('with any byte changed or cut off gives nothing, or the same', () => {
    const text = seal({ name: 'root', count: 7 });
    fc.assert(fc.property(fc.nat({ max: text.length - 1 }), fc.string({ minLength: 0, maxLength: 2 }), (at, other) => {
      const opened = unseal(text.slice(0, at) + other + text.slice(at + 1), form);
      if (opened !== undefined) expect(opened).toEqual({ name: 'root', count: 7 });
      expect(unseal(text.slice(0, Math.min(at, text.length - 2)), form)).toBeUndefined();
    }));
  });
});

describe('the commands on hostile files', () => {
  test('name the format, rule out a backing file and take nothing from the user', () => {
    expect(convertArgv('qcow2', false)).toEqual([
      'qemu-img', 'convert', '-p', '-O', 'qcow2', 'json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"source"}}', 'converted.qcow2',
    ]);
    expect(convertArgv('raw', false)).toContain('json:{"driver":"raw","file":{"driver":"file","filename":"source"}}');
    expect(convertArgv('qcow2', true)).toEqual(convertArgv('qcow2', false).toSpliced(3, 0, '-n', '-W', '--target-is-zero'));
    expect(checkArgv()).toContain('json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"source"}}');
  });

  test('run without rights, network and siblings, under limits, and die with the agent', () => {
    const { file, args } = confined(['tool', '-x'], { unixId: 7, addressSpaceBytes: 1, fileBytes: 2, cpuSeconds: 3 }, 'linux');
    expect([file, ...args].join(' ')).toBe(
      'setpriv --pdeathsig KILL -- prlimit --as=1 --fsize=2 --cpu=3 --nofile=64 --nproc=256 --core=0 -- unshare --net --ipc --pid --fork --kill-child=KILL -- '
      + 'setpriv --reuid=7 --regid=7 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all --pdeathsig KILL -- tool -x',
    );
    expect(confined(['tool', '-x'], { unixId: 7, addressSpaceBytes: 1, fileBytes: 2, cpuSeconds: 3 }, 'darwin')).toEqual({ file: 'tool', args: ['-x'], uid: 7, gid: 7 });
  });
});
