// node hack/history/witness.ts VMS FILE: tells in FILE, line by line, what happens to the processes and disks of VMs.
// A process of its own that does nothing else, so that the work of others does not close its eyes.
import { openSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { type HistoryEvent, isQemu, monotonicMs } from './events.ts';
import { bootsOf } from './guest.ts';
import { disksAmong, filesOf, holds, type OpenDisk, type OpenFile, pidsNow, programOf, ticksOf, uidOf, uidOfPath } from './proc.ts';

const pauseMs = 4;
/** A process may become a machine at any age, but mostly does so at once. */
const youngMs = 3_000;
const oldEveryMs = 1_000;
const filesEveryMs = 50;
const tellEveryMs = 250;

type Tracked = { ticks: string; uid: string; program: string; last: number; bornMs: number; files: OpenFile[]; listedMs: number; disks: (OpenDisk & { last: number })[] };

const watch = (vms: string, tell: (event: HistoryEvent) => void, parent: number): void => {
  const tracked = new Map<number, Tracked>();
  const firstSeen = new Map<number, number>();
  const folders = makeFolderWatch(vms, tell);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  let oldMs = 0;
  let filesMs = 0;
  let toldMs = monotonicMs();
  let beganMs = toldMs;
  let looks = 0;
  let longestMs = 0;
  while (process.ppid === parent) {
    const now = monotonicMs();
    longestMs = Math.max(longestMs, now - beganMs);
    beganMs = now;
    looks += 1;
    const all = now - oldMs >= oldEveryMs;
    if (all) oldMs = now;
    const pids = new Set(pidsNow());
    for (const pid of firstSeen.keys()) if (!pids.has(pid)) firstSeen.delete(pid);
    // Those that are known go first: a new one that is seen after them overlaps only with who is seen yet again.
    for (const [pid, it] of tracked) if (!stillThere(pid, it, vms, tell)) tracked.delete(pid);
    for (const pid of pids) {
      if (tracked.has(pid)) continue;
      const since = firstSeen.get(pid) ?? now;
      firstSeen.set(pid, since);
      if (!all && now - since > youngMs) continue;
      const found = lookAt(pid, vms, tell);
      if (found) tracked.set(pid, found);
    }
    if (now - filesMs >= filesEveryMs) {
      filesMs = now;
      folders();
    }
    if (now - toldMs >= tellEveryMs) {
      tell({ is: 'looked', t: monotonicMs(), looks, longestMs });
      toldMs = now;
      looks = 0;
      longestMs = 0;
    }
    Atomics.wait(pause, 0, 0, pauseMs);
  }
};

const lookAt = (pid: number, vms: string, tell: (event: HistoryEvent) => void): Tracked | undefined => {
  const program = programOf(pid);
  const uid = program === undefined ? undefined : uidOf(pid, program, vms);
  const ticks = uid === undefined ? undefined : ticksOf(pid);
  if (program === undefined || uid === undefined || ticks === undefined) return undefined;
  const it: Tracked = { ticks, uid, program, last: 0, bornMs: monotonicMs(), files: [], listedMs: 0, disks: [] };
  tell({ is: 'process', t: it.bornMs, pid, ticks, uid, program });
  return stillThere(pid, it, vms, tell) ? it : undefined;
};

/** Looks again at a process that is known; false when it has ended. */
const stillThere = (pid: number, it: Tracked, vms: string, tell: (event: HistoryEvent) => void): boolean => {
  const before = monotonicMs();
  const program = ticksOf(pid) === it.ticks ? programOf(pid) : undefined;
  if (program !== undefined && program !== it.program) {
    it.program = program;
    it.bornMs = monotonicMs();
    tell({ is: 'process', t: it.bornMs, pid, ticks: it.ticks, uid: it.uid, program });
  }
  const there = program !== undefined && (!isQemu(program) || lookAtFiles(pid, it, vms, before, tell));
  if (there) it.last = before;
  else {
    for (const { disk, last } of it.disks) tell({ is: 'closed', t: monotonicMs(), pid, ticks: it.ticks, disk, last });
    // One that was never seen again was there at its first sight.
    tell({ is: 'ended', t: monotonicMs(), pid, ticks: it.ticks, last: it.last === 0 ? it.bornMs : it.last });
  }
  return there;
};

/** A machine is there as long as it has anything of a VM open: the lock goes with the last of it. */
const lookAtFiles = (pid: number, it: Tracked, vms: string, before: number, tell: (event: HistoryEvent) => void): boolean => {
  if (before - it.bornMs < youngMs || before - it.listedMs > 10 * pauseMs || !it.files.some((file) => holds(pid, file))) {
    it.files = filesOf(pid, vms);
    it.listedMs = before;
    for (const disk of disksAmong(pid, it.files)) {
      if (it.disks.some((known) => known.disk === disk.disk)) continue;
      const t = monotonicMs();
      it.disks.push({ ...disk, last: t });
      tell({ is: 'opened', t, pid, ticks: it.ticks, uid: uidOfPath(disk.path, vms) ?? it.uid, disk: disk.disk, path: disk.path });
    }
  }
  it.disks = it.disks.filter((disk) => {
    const open = it.files.some(({ path }) => path === disk.path) && (holds(pid, disk) || it.files.some((file) => file.path === disk.path && holds(pid, file)));
    if (open) disk.last = Math.max(disk.last, before);
    else tell({ is: 'closed', t: monotonicMs(), pid, ticks: it.ticks, disk: disk.disk, last: disk.last });
    return open;
  });
  return it.files.length > 0;
};

/** Follows the disks' files and the diaries that guests print. */
const makeFolderWatch = (vms: string, tell: (event: HistoryEvent) => void): (() => void) => {
  const files = new Map<string, string | null>();
  const consoles = new Map<string, { stamp: string; boots: string[] }>();
  const note = (uid: string, path: string, id: string | null): void => {
    const at = `${uid}/${path}`;
    if (files.get(at) === id || (id === null && !files.has(at))) return;
    files.set(at, id);
    tell({ is: 'file', t: monotonicMs(), uid, path, id });
  };
  const lookAtDisks = (uid: string): void => {
    const names = new Set(list(join(vms, uid, 'disks')).filter((name) => !name.endsWith('.new')));
    for (const name of names) {
      const file = statOf(join(vms, uid, 'disks', name));
      note(uid, `disks/${name}`, file === undefined ? null : `${file.ino} born ${file.birthtimeNs}`);
    }
  };
  const lookAtConsole = (uid: string): void => {
    const file = join(vms, uid, 'serial.log');
    const before = consoles.get(uid) ?? { stamp: '', boots: [] };
    const stamp = stampOf(file);
    if (stamp === before.stamp) return;
    const text = read(file);
    // What was written while it was read is seen by the next look.
    if (stampOf(file) !== stamp) return;
    const boots = bootsOf(text);
    const lines = boots.map(({ mark, count }) => `${mark} ${count}`);
    // The record begins anew at each start.
    const goesOn = lines.length > before.boots.length && before.boots.every((line, at) => line === lines[at]);
    for (const { mark, count } of goesOn ? boots.slice(before.boots.length) : boots) tell({ is: 'boot', t: monotonicMs(), uid, mark, count });
    consoles.set(uid, { stamp, boots: lines });
  };
  return () => {
    const uids = list(vms);
    for (const uid of uids) {
      lookAtDisks(uid);
      lookAtConsole(uid);
    }
    for (const at of files.keys()) {
      const [uid = '', ...path] = at.split('/');
      if (files.get(at) !== null && statOf(join(vms, at)) === undefined) note(uid, path.join('/'), null);
    }
  };
};

const list = (folder: string): string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};

const statOf = (file: string) => statSync(file, { bigint: true, throwIfNoEntry: false });

const stampOf = (file: string): string => {
  const seen = statOf(file);
  return seen === undefined ? '' : `${seen.ino} ${seen.size} ${seen.mtimeNs}`;
};

const read = (file: string): string => {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
};

const [vms, file] = process.argv.slice(2);
if (vms === undefined || file === undefined) {
  console.error('usage: witness.ts VMS FILE');
  process.exitCode = 2;
} else {
  // Before the work of those who are watched, in a machine that is full of it.
  setPriority(-10);
  const out = openSync(file, 'a', 0o600);
  watch(vms, (event) => void writeSync(out, `${JSON.stringify(event)}\n`), process.ppid);
}
