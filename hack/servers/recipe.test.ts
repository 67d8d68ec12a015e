import { describe, expect, test } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { goIsNewEnough, planBuild, sources } from './recipe.ts';

const goMod = 'module x\n\nrequire k8s.io/kubernetes v1.35.4\n';

describe('a recipe', () => {
  test('takes the version from go.mod, also into what the program says of itself', () => {
    const { args, version, wrapper } = planBuild('kubectl', goMod, 'sum', 'linux-x64');
    expect(version).toMatch(/^v1\.35\.4-[0-9a-f]{12}$/);
    expect(wrapper).toBe('kubernetes');
    expect(args).toContain('-mod=readonly');
    expect(args.at(-1)).toBe('k8s.io/kubernetes/cmd/kubectl');
    expect(args.join(' ')).toContain(
      '-X k8s.io/component-base/version.gitVersion=v1.35.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35',
    );
  });

  test('finds a requirement inside a block', () => {
    expect(planBuild('etcd', 'require (\n\tgo.etcd.io/etcd/server/v3 v3.6.6\n)\n', '', 'linux-x64').version).toMatch(/^v3\.6\.6-/);
  });

  test.each([
    ['go.mod', `${goMod}// more`, 'sum', 'linux-x64'],
    ['go.sum', goMod, 'other', 'linux-x64'],
    ['platform', goMod, 'sum', 'linux-arm64'],
  ])('has another version when %s changes', (_what, mod, sum, platform) => {
    const { version } = planBuild('kubectl', goMod, 'sum', 'linux-x64');
    expect(planBuild('kubectl', mod, sum, platform).version).not.toBe(version);
    expect(planBuild('kubectl', goMod, 'sum', 'linux-x64').version).toBe(version);
  });

  test('without its module in go.mod is a fault that names the file', () => {
    expect(() => planBuild('etcd', goMod, '', 'linux-x64')).toThrow('hack/servers/etcd/go.mod');
  });
});

test.each(['etcd', 'kubernetes'] as const)('the wrapper %s names each program it builds as a tool, and is complete', async (wrapper) => {
  const mod = await readFile(join(import.meta.dirname, wrapper, 'go.mod'), 'utf8');
  const sum = await readFile(join(import.meta.dirname, wrapper, 'go.sum'), 'utf8');
  for (const [name, source] of Object.entries(sources)) {
    if (source.wrapper !== wrapper) continue;
    expect([name, mod.includes(source.package)]).toEqual([name, true]);
    expect([name, sum.includes(`${source.module} v`)]).toEqual([name, true]);
  }
});

test('every staged Kubernetes module is replaced by its published one of the same minor and patch version', async () => {
  const mod = await readFile(join(import.meta.dirname, 'kubernetes', 'go.mod'), 'utf8');
  const patch = /require k8s\.io\/kubernetes v1\.(\S+)/.exec(mod)?.[1];
  const replaced = [...mod.matchAll(/^\t(\S+) => (\S+) v0\.(\S+)$/gm)];
  expect(replaced).toHaveLength(31);
  for (const [, from, to, version] of replaced) expect([to, version]).toEqual([from, patch]);
});

test.each([
  ['go1.25', true],
  ['go1.25.3', true],
  ['go1.26.8', true],
  ['go2.0', true],
  ['devel go1.27-abc', true],
  ['go1.24.11', false],
  ['go1.9', false],
  ['', false],
])('Go %s builds them: %s', (version, enough) => {
  expect(goIsNewEnough(version)).toBe(enough);
});
