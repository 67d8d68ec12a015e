import type { Sight } from '../hypervisor/driver.ts';
import { dropSteps } from './diskplan.ts';
import type { Plan, Step, Trouble, VmFacts } from './facts.ts';
import { needImageSteps } from './needimage.ts';
import { planPresent } from './planpresent.ts';
import { planSettle } from './plansettle.ts';
import { planStart } from './planstart.ts';
import { restartIsAsked, restartWaitMs } from './restart.ts';

/** How soon a machine that does not answer is looked at again. */
export const unknownAgainMs = 2_000;

/**
 * What is to be done about one VM. Pure. Repeating observe, plan and apply ends in a plan without steps.
 * Nothing is planned on a sight that is `unknown`, and files go only after `gone`.
 */
export const planVm = (facts: VmFacts): Plan => {
  const plan = planWithout(facts);
  const beside = [...dropSteps(facts), ...needImageSteps(facts)];
  return beside.length === 0 ? plan : { ...plan, steps: [...plan.steps, ...beside] };
};

/** As `planVm`, but for the files of disks that an edit took away, and for images that have left the cache. */
const planWithout = (facts: VmFacts): Plan => {
  const { entry, sight } = facts;
  if (entry.ending) return planEnd(sight);
  if (sight.is === 'unknown') return { state: 'unknown', steps: [], trouble: unanswered(sight.why), lookAfterMs: unknownAgainMs };
  const { desired } = entry;
  if (!desired) return { state: 'unknown', steps: [], trouble: unanswered('the ledger holds no desire for it') };
  if (sight.is === 'present') return planPresent(facts, desired, sight);
  if (entry.run) return planSettle(facts, desired, sight, entry.run);
  const detach: Step[] = facts.holdsPorts ? [{ do: 'detach' }] : [];
  if (desired.powerState === 'Stopped') return { state: 'stopped', steps: detach };
  if (!entry.ended || restartIsAsked(entry, desired)) return planStart(facts, desired);
  const waitMs = restartWaitMs(entry, desired.restartPolicy, facts.nowMs);
  if (waitMs === 0) return planStart(facts, desired);
  return { state: 'ended', steps: detach, ...(waitMs === undefined ? {} : { lookAfterMs: waitMs }) };
};

const unanswered = (why: string): Trouble => ({ reason: 'GuestUnknown', message: why, final: false });

/** Its disks go with it, so the plug is pulled; there is nobody to shut down for. */
const planEnd = (sight: Sight): Plan => {
  switch (sight.is) {
    case 'unknown':
      return { state: 'deleting', steps: [], trouble: unanswered(sight.why), lookAfterMs: unknownAgainMs };
    case 'present':
      return { state: 'deleting', steps: [{ do: 'kill' }] };
    case 'gone':
      return { state: 'deleting', steps: [{ do: 'detach' }, { do: 'forget' }, { do: 'removeFiles' }, { do: 'end' }] };
  }
};
