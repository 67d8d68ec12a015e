import { mkdir } from 'node:fs/promises';
import { Fault } from '#crds/kit/fault.ts';
import { runChild } from '../cache/child.ts';
import type { Deb } from './apt.ts';
import { parseKernelAbi, parseUris } from './apt.ts';

const askMs = 60_000;
const downloadMs = 10 * 60_000;
// Downloads of root would be left to the user _apt, who may not write into our folders.
const options = ['-o', 'APT::Sandbox::User=root'];

/** The present kernel of a meta package, and that kernel and the named packages as apt has them. Faults: AptLists; the signal's reason. */
export const findDebs = async (meta: string, names: readonly string[], signal?: AbortSignal): Promise<{ abi: string; debs: readonly Deb[] }> => {
  const abi = parseKernelAbi(meta, await apt('apt-cache', ['depends', meta], '/', askMs, signal));
  const wanted = [`linux-image-${abi}`, ...names];
  return { abi, debs: parseUris(await apt('apt-get', ['download', '--print-uris', ...wanted], '/', askMs, signal), wanted) };
};

/** Downloads the packages into the new folder `dir`; apt checks their digests. Faults: AptLists; the signal's reason. */
export const downloadDebs = async (debs: readonly Deb[], dir: string, signal?: AbortSignal): Promise<void> => {
  await mkdir(dir);
  await apt('apt-get', ['-qq', 'download', ...debs.map((deb) => `${deb.package}=${deb.version}`)], dir, downloadMs, signal);
};

const apt = async (command: string, args: readonly string[], cwd: string, timeoutMs: number, signal?: AbortSignal): Promise<string> => {
  try {
    return await runChild(command, [...options, ...args], { cwd, env: { ...process.env, LC_ALL: 'C' }, timeoutMs, ...(signal ? { signal } : {}) });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Fault('AptLists', `"${command} ${args[0]}" failed: is this a Debian, and was "apt-get update" run lately?`, { cause });
  }
};
