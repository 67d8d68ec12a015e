import { createHash, randomBytes } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { lstat, mkdir, open, readFile, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { takeLock } from './lock.ts';

/** What is cached: `NAME-VERSION/` under `root`, made once however many runs want it. */
export type Artifact = {
  /** Lower-case letters, digits and dashes. */
  name: string;
  /** Everything that the content depends on, as a file name: letters, digits, `.`, `_`, `+` and `-`. */
  version: string;
  /** Default: `cacheRoot()`. */
  root?: string;
  signal?: AbortSignal;
  /** Called once when another run is making things of this name, with a sentence for people. */
  onWait?: (message: string) => void;
};

/** `$STRATO_CACHE`, else `~/.cache/strato`. */
export const cacheRoot = (env: NodeJS.ProcessEnv = process.env): string =>
  env.STRATO_CACHE ?? join(homedir(), '.cache', 'strato');

/** The folder of an artifact, whether it is there or not. */
export const artifactDir = ({ name, version, root = cacheRoot() }: Artifact): string => {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(name)) throw new Fault('CacheName', `not an artifact name: "${name}"`, { retry: 'never' });
  if (!/^[A-Za-z0-9][A-Za-z0-9._+-]*$/.test(version)) {
    throw new Fault('CacheName', `not an artifact version: "${version}"`, { retry: 'never' });
  }
  return join(root, `${name}-${version}`);
};

/**
 * The folder of the artifact, made by `make` if it is missing.
 *
 * `make` fills the empty folder it is given; when it returns, the files are synced and the folder is renamed to its
 * name, so what has its name is whole. Runs for one name take turns under a lock, also of several processes; what a
 * killed run left behind is removed by the next that takes the lock. A failing `make` leaves nothing.
 * Faults: those of `make`, CacheLock, CacheName; the signal's reason when aborted while waiting.
 */
export const cached = async (
  artifact: Artifact,
  make: (dir: string, signal: AbortSignal) => Promise<void>,
): Promise<string> => {
  const { name, root = cacheRoot(), signal = new AbortController().signal, onWait } = artifact;
  const dir = artifactDir(artifact);
  signal.throwIfAborted();
  if (await isThere(dir)) return dir;
  await mkdir(root, { recursive: true });
  await using _lock = await takeLock(join(root, `.lock.${name}`), {
    signal,
    onWait: () => onWait?.(`another run is making ${name}; waiting for it`),
  });
  if (await isThere(dir)) return dir;
  // The dot after the name keeps `.tmp.kube.` from matching what belongs to `kube-apiserver`.
  const mine = `.tmp.${name}.`;
  const leftovers = (await readdir(root)).filter((entry) => entry.startsWith(mine));
  await Promise.all(leftovers.map((entry) => rm(join(root, entry), { recursive: true, force: true })));
  const making = join(root, `${mine}${process.pid}-${randomBytes(4).toString('hex')}`);
  await mkdir(making);
  try {
    await make(making, signal);
    signal.throwIfAborted();
    await syncTree(making);
    await rename(making, dir);
    await syncPath(root);
  } catch (thrown) {
    await rm(making, { recursive: true, force: true });
    throw thrown;
  }
  return dir;
};

/** SHA-256 in hex over the names and contents of files; the order of `files` does not matter, their folder neither. */
export const digestFiles = async (files: readonly string[]): Promise<string> => {
  const hash = createHash('sha256');
  for (const file of files.toSorted((a, b) => (basename(a) < basename(b) ? -1 : 1))) {
    const content = await readFile(file);
    hash.update(`${basename(file)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
};

const isThere = async (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === 'ENOENT') return false;
      throw thrown;
    },
  );

const syncPath = async (path: string): Promise<void> => {
  await using handle = await open(path, 'r');
  await handle.sync();
};

const syncTree = async (dir: string): Promise<void> => {
  const entries: Dirent[] = await readdir(dir, { withFileTypes: true });
  for (const entry of entries) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncPath(path);
  }
  await syncPath(dir);
};
