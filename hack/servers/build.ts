import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';
import { cached, cacheRoot } from '../cache/cache.ts';
import { runChild } from '../cache/child.ts';
import type { OnProgress } from '../cache/progress.ts';
import { tellingMaking } from '../cache/progress.ts';
import type { Recipe, ServerName } from './recipe.ts';
import { goIsNewEnough, oldestGo, planBuild, sources } from './recipe.ts';

/** Absolute paths of the built programs. */
export type Servers = { etcd: string; kubeApiserver: string; kubeControllerManager: string; kubectl: string };

const buildMs = 45 * 60_000;

/**
 * The servers' programs, built from their Go modules when the cache lacks them (about eight minutes on two cores).
 * `onProgress` hears of each program by name, about once a second while it is being built.
 * Aborting ends the compiler; the next run goes on from Go's own build cache.
 * Faults: GoMissing, GoTooOld (only when something has to be built), ServerBuild with Go's last lines.
 */
export const ensureServers = async (onProgress: OnProgress, signal?: AbortSignal, root = cacheRoot()): Promise<Servers> => {
  const ensure = async (name: ServerName) => ensureServer(await recipeOf(name), onProgress, signal, root);
  return {
    etcd: await ensure('etcd'),
    kubeApiserver: await ensure('kube-apiserver'),
    kubeControllerManager: await ensure('kube-controller-manager'),
    kubectl: await ensure('kubectl'),
  };
};

/** Throws GoMissing or GoTooOld unless a Go that can build the servers is in PATH. */
const checkGo = async (signal?: AbortSignal): Promise<void> => {
  const hint = `Go >= ${oldestGo.major}.${oldestGo.minor} builds etcd and Kubernetes`;
  const options = { cwd: import.meta.dirname, env: goEnv(), timeoutMs: 30_000, ...(signal ? { signal } : {}) };
  const version = await runChild('go', ['env', 'GOVERSION'], options).catch((cause: unknown) => {
    if (signal?.aborted) throw cause;
    throw new Fault('GoMissing', `no usable "go" in PATH. ${hint}`, { cause, retry: 'never' });
  });
  if (!goIsNewEnough(version.trim())) {
    throw new Fault('GoTooOld', `"go" in PATH is ${version.trim()}. ${hint}`, { retry: 'never' });
  }
};

const recipeOf = async (name: ServerName): Promise<Recipe> => {
  const { wrapper } = sources[name];
  const text = (file: string) => readFile(join(import.meta.dirname, wrapper, file), 'utf8');
  return planBuild(name, await text('go.mod'), await text('go.sum'), `${process.platform}-${process.arch}`);
};

const ensureServer = async (recipe: Recipe, onProgress: OnProgress, signal: AbortSignal | undefined, root: string) => {
  const { name, version, wrapper, args } = recipe;
  let built = false;
  const onWait = () => onProgress({ what: name, is: 'waiting', seconds: 0 });
  const dir = await cached({ name, version, root, onWait, ...(signal ? { signal } : {}) }, async (into, aborted) => {
    built = true;
    await checkGo(aborted);
    await tellingMaking(name, onProgress, () => buildInto(into, { name, wrapper, args }, aborted));
  });
  if (!built) onProgress({ what: name, is: 'cached', seconds: 0 });
  return join(dir, name);
};

const buildInto = async (into: string, recipe: Omit<Recipe, 'version'>, signal: AbortSignal): Promise<void> => {
  const [verb = 'build', ...rest] = recipe.args;
  // Go's scratch folder lies in ours, so that a killed build leaves nothing in /tmp.
  const scratch = join(into, 'scratch');
  await mkdir(scratch);
  try {
    await runChild('go', [verb, '-o', join(into, recipe.name), ...rest], {
      cwd: join(import.meta.dirname, recipe.wrapper),
      env: { ...goEnv(), GOTMPDIR: scratch },
      signal,
      timeoutMs: buildMs,
    });
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new Fault('ServerBuild', `building ${recipe.name} from hack/servers/${recipe.wrapper} failed`, { cause });
  }
  await rm(scratch, { recursive: true, force: true });
};

// What would make the build differ from machine to machine is fixed; proxies and cache folders stay the user's.
const goEnv = (): NodeJS.ProcessEnv => {
  const { GOOS: _os, GOARCH: _arch, GOEXPERIMENT: _experiment, ...rest } = process.env;
  return { ...rest, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false', GOWORK: 'off' };
};
