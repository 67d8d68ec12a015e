import type { Sight } from '../hypervisor/driver.ts';
import { dropSteps } from './diskplan.ts';
import type { Plan, Step, VmFacts } from './facts.ts';
import { needImageSteps } from './needimage.ts';
import { planPresent } from './planpresent.ts';
import { planSettle } from './plansettle.ts';
import { planStart } from './planstart.ts';
import { planUnknown, unanswered, unknownAgainMs } from './planunknown.ts';
import { restartIsAsked, restartWaitMs } from './restart.ts';
import { keepSteps } from './retain.ts';

/**
 * What is to be done about one VM. Pure. Repeating observe, plan and apply ends in a plan without steps.
 * On a sight that is `unknown` nothing is planned but an end that was asked for, and files go only after `gone`.
 */
export const planVm = (facts: VmFacts): Plan => ({ ...planWithout(facts), beside: [...dropSteps(facts), ...needImageSteps(facts)] });

/** As `planVm`, but for the files of disks that an edit took away, and for images that have left the cache. */
const planWithout = (facts: VmFacts): Plan => {
  const { entry, sight } = facts;
  if (entry.ending) return planEnd(facts, sight);
  const { desired } = entry;
  if (!desired) return { state: 'unknown', steps: [], trouble: unanswered('the ledger holds no desire for it') };
  if (sight.is === 'unknown') return planUnknown(facts, desired, sight);
  if (sight.is === 'present') return planPresent(facts, desired, sight);
  if (entry.run) return planSettle(facts, desired, sight, entry.run);
  const detach: Step[] = facts.holdsPorts ? [{ do: 'detach' }] : [];
  if (desired.powerState === 'Stopped') return { state: 'stopped', steps: detach };
  if (!entry.ended || restartIsAsked(entry, desired)) return planStart(facts, desired);
  const waitMs = restartWaitMs(entry, desired.restartPolicy, facts.nowMs);
  if (waitMs === 0) return planStart(facts, desired);
  return { state: 'ended', steps: detach, ...(waitMs === undefined ? {} : { lookAfterMs: waitMs }) };
};

/** Its disks go with it, but for those that outlive it, so the plug is pulled, whether it answers or not; there is nobody to shut down for. */
const planEnd = (facts: VmFacts, sight: Sight): Plan => {
  switch (sight.is) {
    case 'unknown':
      return { state: 'deleting', steps: [{ do: 'kill' }], trouble: unanswered(sight.why), lookAfterMs: unknownAgainMs };
    case 'present':
      return { state: 'deleting', steps: [{ do: 'kill' }] };
    case 'gone':
      return { state: 'deleting', steps: [{ do: 'detach' }, { do: 'forget' }, ...keepSteps(facts), { do: 'removeFiles' }, { do: 'end' }] };
  }
};
