import type { DesiredVm } from '#crds/wire/desired.ts';
import { lossOf } from './diskplan.ts';
import { returnOf } from './retain.ts';
import type { Plan, Step, Trouble, VmFacts } from './facts.ts';

/** How soon a node that can start nothing is looked at again; it also tells when it can. */
const unreadyAgainMs = 5_000;

/** What is to be done so that a VM that is gone runs: everything is made ready, the start is recorded, then it is made. Pure. */
export const planStart = (facts: VmFacts, desired: DesiredVm): Plan => {
  const { entry, freshId } = facts;
  const broken = brokenDisk(facts, desired);
  if (broken) return { state: 'preparing', steps: [], trouble: broken, ...(broken.final ? {} : { lookAfterMs: 5_000 }) };
  const returns = desired.disks.map(({ name }) => ({ name, back: returnOf(facts, name) }));
  if (returns.some(({ back }) => back.is === 'wait')) return { state: 'preparing', steps: [], lookAfterMs: unreadyAgainMs };
  const allot: Step[] = entry.unixId === null ? [{ do: 'allot' }] : [];
  const takes = returns.flatMap(({ name, back }): Step[] => (back.is === 'take' ? [{ do: 'takeDisk', name, kept: back.kept }] : []));
  // Kept disks come back first; the next pass looks at them, since they may have to grow.
  if (takes.length > 0) return { state: 'preparing', steps: [...allot, ...takes] };
  const waits = missingImage(facts, desired);
  if (waits) return { state: 'preparing', steps: [], ...(waits.trouble ? { trouble: waits.trouble } : {}) };
  const absent = desired.disks.filter(({ name }) => facts.disks.get(name)?.is === 'absent');
  const made: Step[] = [
    ...allot,
    ...absent.map(({ name }) => ({ do: 'createDisk' as const, name })),
    ...growSteps(facts, desired),
  ];
  // The wait for the node is a plan without a start, not a step that waits: so this VM can still be stopped and deleted.
  if (facts.unready) return { state: 'preparing', steps: made, trouble: { ...facts.unready, final: false }, lookAfterMs: unreadyAgainMs };
  const steps: Step[] = [
    ...made,
    ...(entry.seeded ? [] : [{ do: 'seed' as const }]),
    ...desired.interfaces.filter(({ name }) => !facts.attached.has(name)).map(({ name }) => ({ do: 'attach' as const, name })),
    { do: 'intend', startId: freshId },
    { do: 'start', startId: freshId },
    ...(desired.powerState === 'Running' ? [{ do: 'resume' as const }] : []),
  ];
  return { state: 'starting', steps };
};

/** Disks that an edit has made larger, where that was not done while a guest ran. */
const growSteps = ({ disks }: VmFacts, desired: DesiredVm): Step[] =>
  desired.disks.flatMap(({ name, sizeMiB }) => {
    const seen = disks.get(name);
    return seen?.is === 'ready' && sizeMiB !== undefined && sizeMiB > seen.sizeMiB ? [{ do: 'growDisk' as const, name, sizeMiB }] : [];
  });

/** A disk that must be there and is not, or that can not be looked at. */
const brokenDisk = (facts: VmFacts, desired: DesiredVm): Trouble | undefined => {
  const { entry, disks } = facts;
  for (const { name } of desired.disks) {
    const back = returnOf(facts, name);
    if (back.is === 'trouble') return back.trouble;
    const seen = disks.get(name);
    if (seen?.is === 'fault') return { reason: seen.fault.code, message: seen.fault.message, final: seen.fault.retry === 'never' };
    const message = back.is === 'none' ? lossOf(name, entry, seen) : undefined;
    if (message !== undefined) return { reason: 'DiskMissing', message, final: true };
  }
  return undefined;
};

/** An image that a disk still to be made waits for. */
const missingImage = ({ disks, images }: VmFacts, desired: DesiredVm): { trouble?: Trouble } | undefined => {
  let waits: { trouble?: Trouble } | undefined;
  for (const { name, imageUid } of desired.disks) {
    if (imageUid === undefined || disks.get(name)?.is === 'ready' || images.get(imageUid)?.ready) continue;
    const trouble = images.get(imageUid)?.observed?.trouble;
    if (trouble) return { trouble: { ...trouble, message: `disk ${name}: ${trouble.message}`.slice(0, 4096) } };
    waits = {};
  }
  return waits;
};
