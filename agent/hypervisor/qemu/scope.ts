import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../../storage/durable.ts';
import type { Cgroups, Hierarchy } from './cgroup.ts';

/** The slice of all machines: beside that of the services, so that busy guests never starve the agent. */
export const slice = 'strato.slice';

const unitOf = (uid: string) => `strato-vm-${uid}-`;

/**
 * The command that runs `argv` in a transient scope of its own: it is neither in the agent's unit, nor does the end of that one or its KillMode
 * touch it. The process stays our child, with our descriptors, and ends with its own exit code. Pure. The name tells the start too: systemd
 * may still be about to forget the scope of the run before. Source: systemd-run(1), --scope; systemd.scope(5).
 */
export const scopeCommand = (uid: string, startId: string, argv: readonly string[]): string[] => [
  'systemd-run', '--scope', '--quiet', '--collect', `--unit=${unitOf(uid)}${startId}`, `--slice=${slice}`, `--description=Strato VM ${uid}`, '--', ...argv,
];

/**
 * The groups of machines where systemd runs the node: each start is a scope in `strato.slice`, which systemd makes and removes. `own` are
 * those that an agent without systemd made; machines of it are still found. Groups below another's are not ours to make: cgroups have a single
 * writer. Source: https://systemd.io/CGROUP_DELEGATION.
 */
export const openScopes = (own: Cgroups, hierarchies: readonly Hierarchy[]): Cgroups => {
  const scopesOf = async (uid: string): Promise<string[]> => {
    const lists = await Promise.all(hierarchies.map(async ({ directory }) => {
      const names = await readdir(join(directory, slice)).catch((thrown: unknown) => {
        if (errnoOf(thrown) === 'ENOENT') return [];
        throw thrown;
      });
      return names.filter((name) => name.startsWith(unitOf(uid))).map((name) => join(directory, slice, name));
    }));
    return lists.flat();
  };
  return {
    make: async () => [],
    command: scopeCommand,
    pids: async (uid) => {
      const files = (await scopesOf(uid)).map((scope) => join(scope, 'cgroup.procs'));
      const lists = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
      return [...new Set([...(await own.pids(uid)), ...lists.flatMap((list) => list.split('\n').filter(Boolean).map(Number))])];
    },
    // A scope goes with its last process, and what its kernel counted with it: a kill for memory is told as a crash by SIGKILL.
    oomKills: async () => 0,
    remove: own.remove,
  };
};
