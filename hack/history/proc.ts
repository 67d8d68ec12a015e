import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { parseStat } from '../stack/identity.ts';
import { isQemu } from './events.ts';

// Everything here is synchronous: a look must not be taken apart by other work. Whoever ends meanwhile is not there.

/** A process that lives, and the program that it is now. Source: proc(5). */
export type Living = { pid: number; ticks: string; program: string };

/** A file that a process has open: its descriptor, and the name by which it was opened. */
export type OpenFile = { fd: number; path: string };

/** A disk that a process may write: the file itself (device and inode), and the name by which it was opened. */
export type OpenDisk = { fd: number; disk: string; path: string };

const orNothing = <T>(read: () => T): T | undefined => {
  try {
    return read();
  } catch {
    return undefined;
  }
};

/** Ids of all processes. */
export const pidsNow = (): number[] => readdirSync('/proc').filter((name) => name.charCodeAt(0) <= 57).map(Number).filter((pid) => pid > 0);

/** The program that a process runs; undefined for kernel threads, zombies and those that have ended. */
export const programOf = (pid: number): string | undefined => {
  const file = orNothing(() => readlinkSync(`/proc/${pid}/exe`));
  return file && basename(file.replace(/ \(deleted\)$/, ''));
};

/** Start of a process in clock ticks; undefined when it has ended, also when nobody has taken notice of that. */
export const ticksOf = (pid: number): string | undefined => {
  const seen = orNothing(() => parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8')));
  return seen === undefined || seen.state === 'Z' || seen.state === 'X' ? undefined : seen.startTicks;
};

/** The parent of a process; 0 when it has ended. */
const parentOf = (pid: number): number => Number(orNothing(() => /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) ?? 0);

/** The VM in whose folder a path lies; undefined when it lies in none. Pure. */
export const uidOfPath = (path: string, vms: string): string | undefined => (path.startsWith(`${vms}/`) ? path.slice(vms.length + 1).split(/[/ ]/)[0] : undefined);

/** The VM in whose folder a process is at work. */
const cwdUid = (pid: number, vms: string): string | undefined => {
  const cwd = orNothing(() => readlinkSync(`/proc/${pid}/cwd`));
  return cwd === undefined ? undefined : uidOfPath(cwd, vms);
};

/** What a process has open below the folder of VMs. A process that is ending has given up all at once. */
export const filesOf = (pid: number, vms: string): OpenFile[] =>
  (orNothing(() => readdirSync(`/proc/${pid}/fd`)) ?? []).flatMap((name): OpenFile[] => {
    const path = orNothing(() => readlinkSync(`/proc/${pid}/fd/${name}`));
    return path !== undefined && uidOfPath(path, vms) !== undefined ? [{ fd: Number(name), path }] : [];
  });

/** Whether a process still has this file open. */
export const holds = (pid: number, { fd, path }: OpenFile): boolean => orNothing(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) === path;

/** The disks among the open files of a process that it may write. */
export const disksAmong = (pid: number, files: readonly OpenFile[]): OpenDisk[] =>
  files.filter(({ path }) => path.includes('/disks/')).flatMap(({ fd, path }): OpenDisk[] => {
    const info = orNothing(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'));
    const file = orNothing(() => statSync(`/proc/${pid}/fd/${fd}`, { bigint: true }));
    return info !== undefined && file !== undefined && isWritable(info) ? [{ fd, path, disk: `${file.dev}:${file.ino}` }] : [];
  });

/** Whether a descriptor was opened for writing, from its fdinfo. Pure. Source: proc(5); open(2), O_ACCMODE. */
const isWritable = (fdinfo: string): boolean => (Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(fdinfo)?.[1] ?? '0', 8) & 3) !== 0;

/** Every process of a VM now: those at work in its folder, and any QEMU that has a file of it open. */
export const processesBelow = (vms: string): (Living & { uid: string; parent: number })[] =>
  pidsNow().flatMap((pid) => {
    const program = programOf(pid);
    const ticks = program === undefined ? undefined : ticksOf(pid);
    if (program === undefined || ticks === undefined) return [];
    const uid = uidOf(pid, program, vms);
    return uid === undefined ? [] : [{ pid, ticks, program, uid, parent: parentOf(pid) }];
  });

/** The VM that a process belongs to. */
export const uidOf = (pid: number, program: string, vms: string): string | undefined => {
  if (!isQemu(program)) return cwdUid(pid, vms);
  const [file] = filesOf(pid, vms);
  return file && uidOfPath(file.path, vms);
};
