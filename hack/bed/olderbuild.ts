import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runTool } from '#agent/host/exec.ts';

const root = join(import.meta.dirname, '..', '..');
const toolMs = 60_000;

/** A checkout of an earlier commit that can be run. Dispose it after all that runs from it. */
export type OlderBuild = AsyncDisposable & { directory: string; commit: string };

const run = async (file: string, args: readonly string[]): Promise<string> => {
  const { code, stdout, stderr } = await runTool(file, args, { signal: AbortSignal.timeout(toolMs) });
  if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${code ?? 'a signal'}: ${stderr}`);
  return stdout.trim();
};

/** What an agent writes down and says: its ledger files and its frames. */
const formats = ['agent/vm/entry.ts', 'crds/wire'];

/**
 * The last build before these formats changed, so one that the present has to get along with. In a clone without that history (a shallow one)
 * it is the oldest commit that has them as they are, in the end HEAD itself: still a build of its own, from what was committed.
 */
const commitBefore = async (): Promise<string> => {
  const changed = await run('git', ['-C', root, 'log', '-1', '--format=%H', '--', ...formats]);
  const [commit, parent] = (await run('git', ['-C', root, 'rev-list', '--parents', '-n', '1', changed])).split(' ');
  return parent ?? commit ?? 'HEAD';
};

/** Checks out `wanted` (anything that git resolves; unset: see `commitBefore`) into a folder of its own. It runs on the packages of this checkout. */
export const openOlderBuild = async (wanted?: string): Promise<OlderBuild> => {
  const commit = await run('git', ['-C', root, 'rev-parse', '--verify', `${wanted ?? await commitBefore()}^{commit}`]);
  const directory = await mkdtemp(join(tmpdir(), 'strato-older-'));
  await run('sh', ['-c', 'git -C "$1" archive "$2" | tar -x -C "$3"', 'sh', root, commit, directory]);
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
  return { directory, commit, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
};
