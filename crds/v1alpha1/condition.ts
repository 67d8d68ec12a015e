import type { ConditionType } from './conditiontypes.ts';
import type { Condition } from './meta.ts';
import type { Reason } from './reasons.ts';

/** A verdict before it is dated. */
export type Verdict = { type: ConditionType; status: Condition['status']; reason: Reason; message: string };

/**
 * Dates verdicts: `lastTransitionTime` stays that of the old condition while its status is the same. A message is cut, and has no half characters: the API
 * server stores others in their place, and such a status would be written again at every look.
 */
export const dated = (verdicts: readonly Verdict[], old: readonly Condition[], generation: number, now: Date): Condition[] =>
  verdicts.map((verdict) => {
    const before = old.find(({ type }) => type === verdict.type);
    const lastTransitionTime = before?.status === verdict.status ? before.lastTransitionTime : `${now.toISOString().slice(0, 19)}Z`;
    return { ...verdict, message: verdict.message.slice(0, 4096).toWellFormed(), observedGeneration: generation, lastTransitionTime };
  });

/** The condition of a type, when it is there. */
export const conditionOf = (conditions: readonly Condition[] | undefined, type: ConditionType): Condition | undefined =>
  conditions?.find((each) => each.type === type);
