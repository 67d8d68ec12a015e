import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { runChild } from '../cache/child.ts';
import { takeLock } from '../cache/lock.ts';
import type { Deb } from './apt.ts';
import { parseKernelAbi, parseUris } from './apt.ts';
import type { Architecture } from './recipes.ts';

/** apt as it is asked for packages of one architecture: `options` come first on each command line. */
export type Apt = { options: readonly string[]; signal?: AbortSignal };

const askMs = 60_000;
const updateMs = 5 * 60_000;
const downloadMs = 10 * 60_000;
const machinesLists = '/var/lib/apt/lists';
// Downloads of root would be left to the user _apt, who may not write into our folders.
const asRoot = ['-o', 'APT::Sandbox::User=root'];

/**
 * amd64 is the machine's own: its apt as it is. For another architecture: the machine's sources, but with lists of our own under
 * `root` (26 MB), so that the machine's package manager stays as it is; they are fetched when they are older than the machine's own.
 * Faults: AptLists, CacheLock; the signal's reason.
 */
export const aptFor = async (architecture: Architecture, root: string, signal?: AbortSignal): Promise<Apt> => {
  const given = signal ? { signal } : {};
  if (architecture === 'amd64') return { options: asRoot, ...given };
  const own = join(root, `apt-${architecture}`);
  const options = [
    ...asRoot,
    ...Object.entries({
      'APT::Architecture': architecture,
      'APT::Architectures': architecture,
      'Acquire::Languages': 'none',
      'Dir::State::lists': join(own, 'lists'),
      'Dir::State::status': join(own, 'status'),
      'Dir::Cache': join(own, 'cache'),
    }).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
  ];
  await mkdir(join(own, 'lists', 'partial'), { recursive: true });
  await mkdir(join(own, 'cache', 'archives', 'partial'), { recursive: true });
  await using _lock = await takeLock(join(own, 'lock'), given);
  const [mine, machines] = await Promise.all([modified(join(own, 'updated')), modified(machinesLists)]);
  if (mine < machines) {
    await writeFile(join(own, 'status'), '');
    await apt({ options, ...given }, 'apt-get', ['-qq', 'update'], '/', updateMs);
    await writeFile(join(own, 'updated'), '');
  }
  return { options, ...given };
};

/** The present kernel of a meta package, and that kernel and the named packages as apt has them. Faults: AptLists; the signal's reason. */
export const findDebs = async (from: Apt, meta: string, names: readonly string[]): Promise<{ abi: string; debs: readonly Deb[] }> => {
  const abi = parseKernelAbi(meta, await apt(from, 'apt-cache', ['depends', meta], '/', askMs));
  const wanted = [`linux-image-${abi}`, ...names];
  return { abi, debs: parseUris(await apt(from, 'apt-get', ['download', '--print-uris', ...wanted], '/', askMs), wanted) };
};

/** Downloads the packages into the new folder `dir`; apt checks their digests. Faults: AptLists; the signal's reason. */
export const downloadDebs = async (from: Apt, debs: readonly Deb[], dir: string): Promise<void> => {
  await mkdir(dir);
  await apt(from, 'apt-get', ['-qq', 'download', ...debs.map((deb) => `${deb.package}=${deb.version}`)], dir, downloadMs);
};

const apt = async ({ options, signal }: Apt, command: string, args: readonly string[], cwd: string, timeoutMs: number): Promise<string> => {
  try {
    return await runChild(command, [...options, ...args], { cwd, env: { ...process.env, LC_ALL: 'C' }, timeoutMs, ...(signal ? { signal } : {}) });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Fault('AptLists', `"${command} ${args[0]}" failed: is this a Debian, and was "apt-get update" run lately?`, { cause });
  }
};

const modified = (path: string): Promise<number> =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );
