import { basename } from 'node:path';
import { z } from 'zod';
import { addedDisk } from './schedule.ts';
import { type EventOf, eventsOf, type HistoryEvent } from './events.ts';
import type { Violation } from './violation.ts';

/**
 * A disk is there from its making to the delete of its VM: one file, and what its guest wrote into it stays in it. Pure.
 * From the moment that a delete is asked for nobody is owed the disk, unless the VM is found to live on: then it was not done.
 */
export const judgeDisks = (history: readonly HistoryEvent[]): Violation[] => {
  const alive = new Map(eventsOf(history, 'rest').flatMap(({ t, objects }) => objects.filter(({ deleting }) => !deleting).map(({ uid }) => [uid, t] as const)));
  const deletes = new Map<string, number>();
  for (const { t, verb, uid } of eventsOf(history, 'asked')) {
    if (verb === 'delete' && uid !== undefined && !deletes.has(uid) && t > (alive.get(uid) ?? Number.NEGATIVE_INFINITY)) deletes.set(uid, t);
  }
  const owed = ({ uid, t }: { uid: string; t: number }): boolean => t < (deletes.get(uid) ?? Number.POSITIVE_INFINITY);
  return [...judgeFiles(history, owed), ...judgeDiaries(history)];
};

/**
 * One file for each disk, from its making on. One that an edit took away may go and be made anew, until everything has settled and its VM has it: an edit
 * that gives it back may come before or after its node has heard of the first.
 */
const judgeFiles = (history: readonly HistoryEvent[], owed: (file: EventOf<'file'>) => boolean): Violation[] => {
  const violations: Violation[] = [];
  const known = new Map<string, string>();
  const released = new Set<string>();
  for (const each of history) {
    // One that its VM is found without goes when its guest lets go of it, at the latest with the next stop.
    if (each.is === 'rest') for (const { uid, spec } of each.objects) for (const { name } of spec.disks) released.delete(`${uid}/${name}`);
    if (each.is === 'asked') for (const name of leftOut(each)) released.add(`${each.uid}/${name}`);
    if (each.is !== 'file' || !owed(each)) continue;
    const { t, uid, path, id } = each;
    const at = `${uid}/${path}`;
    const first = known.get(at);
    const free = released.has(`${uid}/${nameOf(path)}`);
    if (id !== null && (first === undefined || free)) known.set(at, id);
    if (id === null && free) known.delete(at);
    if (first === undefined || id === first || free) continue;
    const what = id === null ? `${path} of VM ${uid} is gone` : `${path} of VM ${uid} is another file: it was ${first} and is ${id}`;
    violations.push({ rule: 'no disk is lost', t, uid, what });
  }
  return violations;
};

/** Names of disks that an edit may have taken away: all that a user ever adds, but for those that it names. */
const leftOut = ({ verb, body }: EventOf<'asked'>): string[] => {
  const named = sentDisks.safeParse(body);
  return verb === 'patch' && named.success && !named.data.spec.disks.some(({ name }) => name === addedDisk) ? [addedDisk] : [];
};

const sentDisks = z.object({ spec: z.object({ disks: z.array(z.object({ name: z.string() })) }) });
const nameOf = (path: string): string => basename(path).replace(/\..*$/, '');

/** Each boot adds one to what the boot before it has left, and the disk itself has it; boots that nobody saw in between are fine. */
const judgeDiaries = (history: readonly HistoryEvent[]): Violation[] => {
  const violations: Violation[] = [];
  const last = new Map<string, { mark: string; count: number }>();
  const lost = (t: number, uid: string, what: string): void => void violations.push({ rule: 'no disk is lost', t, uid, what });
  for (const each of history) {
    if (each.is === 'boot') {
      const { t, uid, mark, count } = each;
      const before = last.get(uid);
      if (before && before.mark !== mark) lost(t, uid, `VM ${uid} booted from the disk ${mark}; before it was ${before.mark}`);
      else if (before && count <= before.count) lost(t, uid, `the disk of VM ${uid} went back: boot ${count} comes after boot ${before.count}`);
      last.set(uid, { mark, count });
    }
    if (each.is !== 'rest') continue;
    for (const { uid } of each.objects) {
      const told = last.get(uid);
      const written = each.diaries[uid];
      if (!told || !written) continue;
      if (told.mark !== written.mark || told.count > written.count) lost(each.t, uid, `${each.stage}: the disk of VM ${uid} is ${written.mark} at boot ${written.count}; its guest told of ${told.mark} at boot ${told.count}`);
    }
  }
  return violations;
};
