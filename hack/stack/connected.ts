import { readdir, readFile, readlink } from 'node:fs/promises';

// Source: include/net/tcp_states.h of Linux.
const established = '01';

/** Inodes of the established connections to a TCP port, from the text of /proc/net/tcp. Source: proc(5). */
export const connectionsTo = (port: number, table: string): ReadonlySet<string> =>
  new Set(table.split('\n').flatMap((line) => {
    const [, , remote = '', state = '', , , , , , inode = ''] = line.trim().split(/\s+/);
    return state === established && Number.parseInt(remote.slice(remote.lastIndexOf(':') + 1), 16) === port ? [inode] : [];
  }));

/** Whether a process has a connection to a TCP port of this machine. What others say of it may be older than the process. */
export const isConnected = async (pid: number, port: number): Promise<boolean> => {
  const inodes = connectionsTo(port, await readFile('/proc/net/tcp', 'utf8'));
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const targets = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  return targets.some((target) => inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? ''));
};
