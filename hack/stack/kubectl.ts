import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { runChild } from '../cache/child.ts';
import type { Layout } from './layout.ts';

/** Puts kubectl into .strato/bin, so that a copy stays when the cache is cleared. */
export const installKubectl = async (at: Layout, built: string): Promise<void> => {
  const size = async (file: string) => (await stat(file).catch(() => undefined))?.size;
  if ((await size(at.kubectl)) === (await size(built))) return;
  await mkdir(at.bin, { recursive: true });
  const fresh = `${at.kubectl}.new`;
  await rm(fresh, { force: true });
  await copyFile(built, fresh);
  await rename(fresh, at.kubectl);
};

/** Runs kubectl as the stack's administrator and returns its stdout. Faults: those of `runChild`. */
export const kubectl = (at: Layout, args: readonly string[], signal: AbortSignal, timeoutMs = 60_000): Promise<string> =>
  runChild(at.kubectl, [...args, '--kubeconfig', at.kubeconfig, '--cache-dir', at.kubectlCache], {
    cwd: at.root,
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
    signal,
    timeoutMs,
  });
