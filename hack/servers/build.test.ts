import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureServers } from './build.ts';

// A PATH that holds the tools the build itself needs, and the `go` of each test.
let dir = '';
let bin = '';
const path = process.env.PATH ?? '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-go-'));
  bin = await mkdtemp(join(tmpdir(), 'strato-bin-'));
  for (const tool of ['setpriv', 'flock', 'sh', 'cat']) {
    await symlink(execFileSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), join(bin, tool));
  }
  process.env.PATH = bin;
});
afterEach(async () => {
  process.env.PATH = path;
  await rm(dir, { recursive: true, force: true });
  await rm(bin, { recursive: true, force: true });
});

const go = (script: string) => writeFile(join(bin, 'go'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
const nothing = () => undefined;
const ensure = () => ensureServers(nothing, AbortSignal.timeout(20_000), dir);

test('without Go it is said what to install', async () => {
  await expect(ensure()).rejects.toMatchObject({ code: 'GoMissing', message: expect.stringContaining('Go >= 1.25') });
});

test('a Go that is too old is named', async () => {
  await go('echo go1.19.8');
  await expect(ensure()).rejects.toMatchObject({ code: 'GoTooOld', message: expect.stringContaining('go1.19.8') });
});

test('what the compiler said last is told, and nothing half-made is left', async () => {
  await go('case $1 in env) echo go1.26.0;; *) echo "etcd.go:7: no space left on device" >&2; exit 1;; esac');
  const failed: unknown = await ensure().catch((thrown: unknown) => thrown);
  expect(failed).toMatchObject({ code: 'ServerBuild', message: expect.stringContaining('etcd') });
  expect(failed).toMatchObject({ cause: { message: expect.stringContaining('no space left on device') } });
  expect((await readdir(dir)).filter((name) => !name.startsWith('.lock.'))).toEqual([]);
});

test('each program is built once, told by name, and then found without Go', async () => {
  // $3 is the output file, after "build -o".
  await go('case $1 in env) echo go1.26.0;; *) echo built >"$3";; esac');
  const told: string[] = [];
  const servers = await ensureServers(({ what, is }) => told.push(`${what} ${is}`), undefined, dir);
  expect(told.filter((line) => line.endsWith(' made'))).toEqual(['etcd made', 'kube-apiserver made', 'kube-controller-manager made', 'kubectl made']);
  await rm(join(bin, 'go'));
  expect(await ensure()).toEqual(servers);
  expect(servers.kubeApiserver).toMatch(/\/kube-apiserver-v1\.[^/]+\/kube-apiserver$/);
});
