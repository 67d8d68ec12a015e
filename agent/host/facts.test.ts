import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { nodeFacts } from '#crds/wire/observed.ts';
import { parseArchitecture, readNodeIdentity } from './facts.ts';
import { parseMemoryMiB, parseOsName } from './linux.ts';

describe('what a node is', () => {
  test.each([
    ['ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="x"\n', 'Debian GNU/Linux 12 (bookworm)'],
    ["# c\nPRETTY_NAME='Arch'\r\n", 'Arch'],
    ['NAME=Alpine\n', 'Alpine'],
    ['PRETTY_NAME="A \\"B\\" \\$C"\n', 'A "B" $C'],
    ['PRETTY_NAME=\nno line\n', 'Linux'],
    [`PRETTY_NAME=${'x'.repeat(500)}`, 'x'.repeat(128)],
    ['__proto__=x\n', 'Linux'],
  ])('os-release %j is %s', (text, name) => {
    expect(parseOsName(text)).toBe(name);
  });

  test('memory is whole MiB, rounded down', () => {
    expect(parseMemoryMiB('MemTotal:        2097663 kB\nMemFree: 1 kB\n')).toBe(2048);
    for (const text of ['', 'MemTotal: many kB', 'MemTotal: 0 kB']) expect(() => parseMemoryMiB(text)).toThrow('can not be read');
  });

  test('the architecture is told in the words of the API', () => {
    expect(['x64', 'arm64'].map(parseArchitecture)).toEqual(['amd64', 'arm64']);
    expect(() => parseArchitecture('riscv64')).toThrow('riscv64');
  });

  test('this node can tell it all, in the form of the wire', async () => {
    const { cpus: count, memoryMiB, ...rest } = await readNodeIdentity();
    expect([count, memoryMiB > 100]).toEqual([cpus().length, true]);
    nodeFacts.pick({ agentVersion: true, kernel: true, os: true, architecture: true, bootId: true }).strict().parse(rest);
    const { version } = z.object({ version: z.string() }).parse(JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')));
    expect(rest.agentVersion).toBe(version);
  });
});
