import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { observeProcess, type ProcessIdentity } from './identity.ts';

/** A process that has the lock of a VM: QEMU itself, or the supervisor that waits for it. */
export type Holder = ProcessIdentity & { isQemu: boolean; cgroups: string };

/**
 * The processes that hold the locks of the VMs under `vms`, by uid. Who has a VM's lock file open is of that VM, whatever it is
 * called: only the launcher hands it on.
 */
export const observeHolders = async (vms: string): Promise<ReadonlyMap<string, readonly Holder[]>> => {
  const uids = await readdir(vms).catch(() => []);
  // The kernel names files without the symbolic links that led to them.
  const real = await realpath(vms).catch(() => vms);
  const lockOf = new Map(uids.map((uid) => [join(real, uid, 'lock'), uid] as const));
  const found = new Map<string, Holder[]>();
  if (lockOf.size === 0) return found;
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    const uid = await heldLock(pid, lockOf);
    // Identity first, then what it is: an id that changes hands in between fails the comparison before a signal.
    const identity = uid === undefined ? undefined : await observeProcess(pid);
    if (uid === undefined || identity === undefined) continue;
    const text = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
    const holder = { ...identity, isQemu: isQemuOf(await text('cmdline'), uid), cgroups: await text('cgroup') };
    found.set(uid, [...(found.get(uid) ?? []), holder]);
  }
  return found;
};

const heldLock = async (pid: number, lockOf: ReadonlyMap<string, string>): Promise<string | undefined> => {
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const fd of fds) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
    const uid = lockOf.get(target);
    if (uid !== undefined) return uid;
  }
  return undefined;
};

/** Whether a command line (as in /proc/PID/cmdline) is that of the QEMU of a VM: `-name guest=UID`. */
export const isQemuOf = (cmdline: string, uid: string): boolean => {
  const args = cmdline.split('\0');
  return /(^|\/)qemu-system-[a-z0-9_]+$/.test(args[0] ?? '') && args.some((arg) => arg.split(',').includes(`guest=${uid}`));
};

/**
 * The cgroup folders of one VM, from the text of /proc/PID/cgroup and /proc/self/mountinfo: only those whose last part is the uid.
 * Source: cgroups(7).
 */
export const cgroupFolders = (cgroup: string, mountinfo: string, uid: string): string[] => {
  const mounts = mountinfo.split('\n').flatMap((line) => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root = '', point = ''] = left.split(' ');
    const [type = '', , options = ''] = right.split(' ');
    return type === 'cgroup' || type === 'cgroup2' ? [{ type, root, point, options: options.split(',') }] : [];
  });
  return cgroup.split('\n').flatMap((line) => {
    const [, id = '', controllers = '', path = ''] = /^(\d+):([^:]*):(.+)$/.exec(line) ?? [];
    if (!path.endsWith(`/${uid}`)) return [];
    const mount = mounts.find(({ type, options }) => (id === '0' && controllers === '' ? type === 'cgroup2' : type === 'cgroup' && controllers.split(',').every((each) => options.includes(each))));
    if (mount === undefined) return [];
    return [join(mount.point, mount.root === '/' ? path : path.startsWith(mount.root) ? path.slice(mount.root.length) : path)];
  });
};
