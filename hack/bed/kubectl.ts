import { join } from 'node:path';
import { runChild } from '../cache/child.ts';
import { ensureServers } from '../servers/build.ts';
import type { ApiServer } from './apiserver.ts';

/** Runs the real kubectl as an administrator of a test's cluster, in namespace default, and gives its stdout. Faults: those of `runChild`. */
export const kubectl = async ({ dir, kubeconfig }: Pick<ApiServer, 'dir' | 'kubeconfig'>, args: readonly string[], timeoutMs = 60_000): Promise<string> => {
  const servers = await ensureServers(() => undefined);
  return runChild(servers.kubectl, [...args, '--kubeconfig', kubeconfig, '--cache-dir', join(dir, 'kubectl-cache')], {
    cwd: dir, env: { PATH: process.env.PATH, HOME: dir }, timeoutMs,
  });
};
