import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile, rmdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { errnoOf } from '../../storage/durable.ts';
import { openScopes } from './scope.ts';

/** A mounted hierarchy of cgroups. `controllers` are those of a version 1 hierarchy; version 2 has one for all. */
export type Hierarchy = { version: 1 | 2; directory: string; controllers: readonly string[] };

/** The cgroups of machines: one for each VM in every hierarchy, all below one parent, beside the agent's own. */
export type Cgroups = {
  /** Makes the groups of a VM; returns their `cgroup.procs`, which a process writes itself into. Faults: CgroupFailed. */
  make: (uid: string) => Promise<string[]>;
  /** The command that runs `argv` where nothing that ends the agent ends it. */
  command: (uid: string, startId: string, argv: readonly string[]) => string[];
  /** Processes in the VM's groups. */
  pids: (uid: string) => Promise<number[]>;
  /** How often the node's kernel has killed a process of the VM's group for memory. */
  oomKills: (uid: string) => Promise<number>;
  /** Removes the groups of a VM whose processes are gone. */
  remove: (uid: string) => Promise<void>;
};

const parent = 'strato';

/**
 * The hierarchies among the mounts of a process, from /proc/self/mountinfo. Pure. Only whole ones count, mounted at their
 * root: below a part of one there is no way out of a pod's group. Source: proc(5), cgroups(7).
 */
export const hierarchiesOf = (mountinfo: string): Hierarchy[] => {
  const found = mountinfo.split('\n').flatMap((line): Hierarchy[] => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root, directory] = left.split(' ');
    const [type, , options = ''] = right.split(' ');
    if (root !== '/' || directory === undefined) return [];
    if (type === 'cgroup2') return [{ version: 2, directory, controllers: [] }];
    return type === 'cgroup' ? [{ version: 1, directory, controllers: options.split(',').filter((each) => each !== 'rw' && each !== 'ro') }] : [];
  });
  return found.filter((each, at) => found.findIndex(({ directory }) => directory === each.directory) === at);
};

/** Whether systemd runs the node and its tool is there; in a pod neither is. Source: sd_booted(3). */
export const usesSystemd = (exists: (file: string) => boolean, path: string): boolean =>
  exists('/run/systemd/system') && path.split(delimiter).some((folder) => exists(join(folder, 'systemd-run')));

/** The cgroups of this node: of our own making, or scopes where systemd runs it. */
export const openCgroups = async (): Promise<Cgroups> => {
  // macOS has no such file and no cgroups: then none are made.
  const hierarchies = hierarchiesOf(await readFile('/proc/self/mountinfo', 'utf8').catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return '';
    throw thrown;
  }));
  const own = ownCgroups(hierarchies);
  return usesSystemd(existsSync, process.env.PATH ?? '') ? openScopes(own, hierarchies) : own;
};

/** Cgroups of our own making in these hierarchies. */
export const ownCgroups = (hierarchies: readonly Hierarchy[]): Cgroups => {
  let hasParents = false;
  const groups = (uid: string) => hierarchies.map(({ directory }) => join(directory, parent, uid));
  const makeGroups = (uid: string): void => {
    if (!hasParents) for (const hierarchy of hierarchies) makeParent(hierarchy);
    hasParents = true;
    for (const hierarchy of hierarchies) makeGroup(hierarchy, join(hierarchy.directory, parent, uid));
  };
  return {
    make: async (uid) => {
      try {
        try {
          makeGroups(uid);
        } catch (thrown) {
          if (!hasParents) throw thrown;
          // Somebody may have removed the parents since, or made them anew.
          hasParents = false;
          makeGroups(uid);
        }
      } catch (cause) {
        hasParents = false;
        throw new Fault('CgroupFailed', `the cgroups of VM ${uid} could not be made: ${messageOf(cause)}`, { cause });
      }
      return groups(uid).map((group) => join(group, 'cgroup.procs'));
    },
    // The launcher itself joins the groups.
    command: (_uid, _startId, argv) => [...argv],
    pids: async (uid) => {
      const lists = await Promise.all(groups(uid).map((group) => readFile(join(group, 'cgroup.procs'), 'utf8').catch(() => '')));
      return [...new Set(lists.flatMap((list) => list.split('\n').filter(Boolean).map(Number)))];
    },
    oomKills: async (uid) => {
      const files = hierarchies.flatMap(({ version, directory, controllers }) =>
        version === 2 ? [join(directory, parent, uid, 'memory.events')] : controllers.includes('memory') ? [join(directory, parent, uid, 'memory.oom_control')] : []);
      const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
      return Math.max(0, ...texts.map((text) => Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)));
    },
    remove: async (uid) => {
      for (const group of groups(uid)) {
        await rmdir(group).catch((thrown: unknown) => {
          if (errnoOf(thrown) !== 'ENOENT') throw new Fault('CgroupFailed', `${group} could not be removed: ${messageOf(thrown)}`, { cause: thrown });
        });
      }
    },
  };
};

// No disk is behind these files that could hang, and each of them takes less than a trip through the pool of threads: they are made at once.
const makeGroup = ({ controllers }: Hierarchy, group: string): void => {
  try {
    mkdirSync(group);
  } catch (thrown) {
    if (errnoOf(thrown) !== 'EEXIST') throw thrown;
  }
  if (!controllers.includes('cpuset')) return;
  // A new cpuset of version 1 has no CPUs and no memory nodes, and takes no process before it has.
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (readFileSync(join(group, file), 'utf8').trim() !== '') continue;
    const above = readFileSync(join(group, '..', file), 'utf8');
    if (above.trim() === '') throw new Error(`${file} of the group above ${group} is empty`);
    writeFileSync(join(group, file), above);
  }
};

const makeParent = (hierarchy: Hierarchy): void => {
  const { version, directory } = hierarchy;
  const group = join(directory, parent);
  makeGroup(hierarchy, group);
  // Version 2: a group shares out only what its parent hands down.
  if (version === 2) for (const each of [directory, group]) spread(each);
};

const spread = (group: string): void => {
  const there = readFileSync(join(group, 'cgroup.controllers'), 'utf8').trim().split(/\s+/);
  const wanted = ['cpu', 'memory', 'pids', 'io'].filter((each) => there.includes(each));
  if (wanted.length > 0) writeFileSync(join(group, 'cgroup.subtree_control'), wanted.map((each) => `+${each}`).join(' '));
};
