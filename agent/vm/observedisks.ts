import { asFault } from '#crds/kit/fault.ts';
import { disksInQuestion } from './diskplan.ts';
import type { VmEntry } from './entry.ts';
import type { DiskFact, VmFacts } from './facts.ts';
import type { Hands } from './hands.ts';
import { lookMs, within } from './within.ts';

type Seen = { fact: DiskFact; stale: boolean };

/** Looks at the disks and drives of a VM. What can not be looked at is a fault, never absent. */
export const observeDisks = async ({ storage }: Hands, entry: VmEntry, signal: AbortSignal): Promise<Pick<VmFacts, 'disks' | 'staleDrives'>> => {
  const { uid, desired } = entry;
  const wanted = new Map((desired?.disks ?? []).map((disk) => [disk.name, disk]));
  const removed = new Set((desired?.removedDisks ?? []).map(({ name }) => name));

  const lookAt = async (name: string, limit: AbortSignal): Promise<Seen> => {
    const disk = wanted.get(name);
    if (disk?.cdrom) {
      const { medium, stale } = await storage.drive(uid, name, disk.imageUid, limit);
      return { fact: disk.imageUid === undefined ? { is: 'empty' } : medium, stale };
    }
    // Of what an edit took away it is not recorded whether it was a disk or a CD drive, so both are looked for.
    const { stale } = removed.has(name) ? await storage.drive(uid, name, undefined, limit) : { stale: false };
    return { fact: await storage.observe(uid, name, limit), stale };
  };
  const seen = await Promise.all((entry.ending ? [] : disksInQuestion(entry)).map(async (name): Promise<[string, Seen]> => {
    try {
      return [name, await within(lookMs, signal, `looking at disk ${name}`, (limit) => lookAt(name, limit))];
    } catch (thrown) {
      return [name, { fact: { is: 'fault', fault: asFault(thrown, 'StorageFailed', `disk ${name} can not be looked at`) }, stale: false }];
    }
  }));
  return { disks: new Map(seen.map(([name, { fact }]) => [name, fact])), staleDrives: new Set(seen.flatMap(([name, { stale }]) => (stale ? [name] : []))) };
};
