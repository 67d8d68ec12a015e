import { type Backoff, jittered } from '#crds/kit/backoff.ts';
import { canonical } from '#crds/kit/digest.ts';
import { asFault, type Fault } from '#crds/kit/fault.ts';
import { desireDigest } from '#crds/wire/desired.ts';
import { applyStep, deadlineMs } from './apply.ts';
import { changeKey } from './change.ts';
import type { VmEntry } from './entry.ts';
import type { Plan, Step, VmFacts } from './facts.ts';
import type { Failure, Hands, Scratch } from './hands.ts';
import { observeVm } from './observe.ts';
import { planVm } from './plan.ts';
import { reportVm } from './report.ts';
import { within } from './within.ts';

/** How often everything is looked at although nothing has happened. */
export const resyncMs = 30_000;

const retry: Backoff = { baseMs: 1_000, maxMs: 60_000 };

/**
 * How one pass ended.
 *
 *   moved   something was done or has failed: look again now
 *   still   nothing to do until something happens, or until `lookAfterMs` are over
 *   over    the ledger does not hold this VM any more
 */
export type PassEnd = { is: 'moved' } | { is: 'still'; lookAfterMs: number } | { is: 'over' };

/** Steps that teach the ledger what was seen, and touch nothing else. */
const lessons: ReadonlySet<Step['do']> = new Set(['remember', 'noteReady']);

/** Looks at one VM, decides, tells, and does what is to be done now. Never throws. */
export const pass = async (hands: Hands, uid: string, scratch: Scratch, signal: AbortSignal): Promise<PassEnd> => {
  const facts = await observeVm(hands, uid, scratch, signal);
  if (!facts) return { is: 'over' };
  // A look that was cut off by our own end says nothing.
  if (signal.aborted) return { is: 'still', lookAfterMs: resyncMs };
  const end = await act(hands, uid, scratch, facts, signal);
  if (end !== 'learned') return end;
  const entry = hands.ledger.vm(uid);
  // The world is as it was seen, and what was learned of it may be acted on.
  const again = entry && isWantedAs(facts.entry, entry) ? await act(hands, uid, scratch, { ...facts, entry }, signal) : undefined;
  return again === undefined || again === 'learned' ? { is: 'moved' } : again;
};

const act = async (hands: Hands, uid: string, scratch: Scratch, facts: VmFacts, signal: AbortSignal): Promise<PassEnd | 'learned'> => {
  const plan = planVm(facts);
  const { beside = [] } = plan;
  const key = keyOf(facts.entry);
  if (scratch.failure && (scratch.failure.key !== key || (plan.steps.length === 0 && beside.length === 0 && !plan.trouble))) scratch.failure = undefined;
  if (scratch.failure === undefined) scratch.refused.clear();
  // How a run ended is reported by the next pass, once `settle` has recorded it: until then lastExit is missing.
  if (scratch.failure || !plan.steps.some((step) => step.do === 'settle')) tell(hands, scratch, facts, plan);
  if (plan.steps.length === 0 && beside.length === 0) return { is: 'still', lookAfterMs: plan.lookAfterMs ?? resyncMs };
  if (scratch.hung) return { is: 'still', lookAfterMs: 1_000 };
  const besideMs = blockedMs(scratch.failure, beside, facts.nowMs);
  const steps = besideMs > 0 ? plan.steps : [...plan.steps, ...beside];
  const waitMs = steps.length === 0 ? besideMs : blockedMs(scratch.failure, plan.steps, facts.nowMs);
  if (waitMs > 0) return { is: 'still', lookAfterMs: Math.min(waitMs, plan.lookAfterMs ?? resyncMs) };
  const refusedNow = new Set<string>();
  for (const step of steps) {
    const change = liveKey(step);
    if (change !== undefined && refusedNow.has(change)) continue;
    const now = hands.ledger.vm(uid);
    // A newer desire or a tombstone came: the rest of this plan is out of date.
    if (!now || signal.aborted || !isWantedAs(facts.entry, now)) break;
    const fault = await attempt(hands, uid, scratch, step, signal);
    if (!fault) {
      if (step.do === 'change') scratch.refused.delete(changeKey(step.change));
      continue;
    }
    // `settle` tells of a start that failed: it is the next start that has to wait.
    const blamed = change !== undefined ? 'change' : step.do === 'settle' && fault.code === 'StartFailed' ? 'start' : step.do;
    if (!signal.aborted) scratch.failure = failed(hands, scratch.failure, fault, blamed, key);
    if (scratch.hung) break;
    if (change === undefined) {
      if (!beside.includes(step)) break;
      continue;
    }
    // A guest that does not release one device is no reason to keep another from it.
    scratch.refused.set(change, fault);
    refusedNow.add(change);
  }
  return steps.every((step) => lessons.has(step.do)) && !scratch.failure ? 'learned' : { is: 'moved' };
};

const isWantedAs = (before: VmEntry, now: VmEntry): boolean => now.desired === before.desired && now.ending === before.ending && now.keep === before.keep;

/** The live change that a step makes, or makes something ready for. */
const liveKey = (step: Step): string | undefined => {
  if ((step.do === 'createDisk' || step.do === 'takeDisk' || step.do === 'attach') && step.forChange) return changeKey({ is: step.forChange, name: step.name });
  return step.do === 'change' ? changeKey(step.change) : undefined;
};

const attempt = async (hands: Hands, uid: string, scratch: Scratch, step: Step, signal: AbortSignal): Promise<Fault | undefined> => {
  hands.log.debug({ uid, ...step }, 'step');
  try {
    await within(deadlineMs(step.do), signal, `${step.do} of VM ${uid}`, (each) => applyStep(hands, uid, scratch, step, each), (rest) => {
      scratch.hung = true;
      void rest.finally(() => { scratch.hung = false; });
    });
    return undefined;
  } catch (thrown) {
    return asFault(thrown, 'StepFailed', `${step.do} of VM ${uid}`);
  }
};

/** Which desire a failure belongs to: another desire is tried at once. */
const keyOf = ({ desired, ending }: VmEntry): string => `${desired ? desireDigest(desired) : ''} ${ending}`;

const failed = (hands: Hands, before: Failure | undefined, fault: Fault, step: Step['do'], key: string): Failure => {
  const attempts = before?.key === key ? before.attempt + 1 : 0;
  const waitMs = fault.retry === 'never' ? Number.POSITIVE_INFINITY : jittered(retry, attempts, hands.chance());
  if (before?.fault.message !== fault.message) hands.log.warn({ code: fault.code, step, err: fault.message }, 'a step failed');
  return { fault, step, key, attempt: attempts, untilMs: hands.hostMs() + waitMs };
};

/** How long this plan has to wait for the step that failed before; other plans (a kill after a failed power-off) go on. */
const blockedMs = (failure: Failure | undefined, steps: readonly Step[], nowMs: number): number =>
  failure && steps.some((step) => step.do === failure.step) ? Math.max(0, failure.untilMs - nowMs) : 0;

const tell = (hands: Hands, scratch: Scratch, facts: VmFacts, plan: Plan): void => {
  const observed = reportVm(facts, plan, hands.network.capabilities().forwards.address, scratch.failure, scratch.refused);
  const text = canonical(observed);
  if (text === scratch.reported) return;
  scratch.reported = text;
  const { uid, state, trouble } = observed;
  hands.log.info({ uid, vm: `${facts.entry.desired?.namespace ?? ''}/${facts.entry.desired?.name ?? ''}`, state, ...(trouble ? { reason: trouble.reason, message: trouble.message } : {}) }, 'vm');
  hands.report(observed);
};
