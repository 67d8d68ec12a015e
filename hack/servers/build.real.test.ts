import { expect, jest, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ensureServers } from './build.ts';

const run = promisify(execFile);
// Cold, with an empty Go build cache, it is a build of several minutes.
jest.setTimeout(45 * 60_000);

test('the servers say the versions that their modules have', async () => {
  const servers = await ensureServers(() => undefined);
  const says = async (program: string, ...args: string[]) => (await run(program, args)).stdout;
  expect(await says(servers.etcd, '--version')).toContain('etcd Version: 3.6.6');
  expect(await says(servers.kubeApiserver, '--version')).toBe('Kubernetes v1.35.4\n');
  expect(await says(servers.kubeControllerManager, '--version')).toBe('Kubernetes v1.35.4\n');
  expect(await says(servers.kubectl, 'version', '--client')).toContain('Client Version: v1.35.4');
});

test('a build that is aborted leaves nothing, and the next one builds', async () => {
  const root = await mkdtemp(join(tmpdir(), 'strato-build-'));
  try {
    const stop = new AbortController();
    const aborted = ensureServers(({ is }) => is === 'making' && stop.abort(new Error('Ctrl-C')), stop.signal, root);
    await expect(aborted).rejects.toThrow('Ctrl-C');
    expect(await readdir(root)).toEqual(['.lock.etcd']);
    const again = new AbortController();
    const second = ensureServers(({ what, is }) => what === 'kube-apiserver' && is === 'making' && again.abort(new Error('enough')), again.signal, root);
    await expect(second).rejects.toThrow('enough');
    expect((await readdir(root)).filter((name) => name.startsWith('etcd-v3.6.6-'))).toHaveLength(1);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});
