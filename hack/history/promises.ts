import { canonical } from '#crds/kit/digest.ts';
import { type EventOf, eventsOf, type HistoryEvent, type Standing } from './events.ts';
import type { Violation } from './violation.ts';

/**
 * What the API server may hold under one name: an object, or nothing. `exact` when it was acknowledged whole; after a request
 * without an answer only what that request said is known.
 */
type Possible = { is: 'nothing' } | { is: 'object'; uid?: string; spec: Readonly<Record<string, unknown>>; exact: boolean };

/** Whatever the API server has acknowledged is what it holds when everything has settled, and nothing else. Pure. */
export const judgeAcknowledged = (history: readonly HistoryEvent[]): Violation[] => {
  const answers = new Map(eventsOf(history, 'answered').map((each) => [each.request, each]));
  const possible = new Map<string, readonly Possible[]>();
  const violations: Violation[] = [];
  for (const each of history) {
    if (each.is === 'asked') possible.set(each.name, after(possible.get(each.name) ?? [{ is: 'nothing' }], each, answers.get(each.request)));
    if (each.is === 'rest') violations.push(...compare(possible, each));
  }
  return violations;
};

const after = (before: readonly Possible[], { verb, body }: EventOf<'asked'>, answer: EventOf<'answered'> | undefined): readonly Possible[] => {
  if (answer?.outcome === 'refused') return before;
  if (answer?.outcome === 'done') {
    const { object } = answer;
    // An object that is ending can be edited and goes all the same.
    return verb === 'delete' || !object || object.deleting ? [{ is: 'nothing' }] : [{ is: 'object', uid: object.uid, spec: object.spec, exact: true }];
  }
  const spec = isRecord(body?.['spec']) ? body['spec'] : {};
  switch (verb) {
    case 'create':
      return [...before, { is: 'object', spec, exact: false }];
    case 'patch':
      return [...before, ...before.flatMap((each) => (each.is === 'object' ? [{ ...each, spec: merged(each.spec, spec) }] : []))];
    case 'delete':
      return [...before, { is: 'nothing' }];
  }
};

const compare = (possible: ReadonlyMap<string, readonly Possible[]>, { t, stage, objects }: EventOf<'rest'>): Violation[] => {
  const held = new Map(objects.map((each) => [each.name, each]));
  return [...new Set([...possible.keys(), ...held.keys()])].flatMap((name): Violation[] => {
    const found = held.get(name);
    const allowed = possible.get(name) ?? [{ is: 'nothing' as const }];
    if (allowed.some((each) => matches(each, found))) return [];
    const what = `${stage}: under the name ${name} there is ${found ? `${found.uid} with ${canonical(found.spec)}` : 'nothing'}; acknowledged was ${allowed.map(shown).join(', or ')}`;
    const uid = found?.uid ?? allowed.flatMap((each) => (each.is === 'object' ? (each.uid ?? []) : [])).at(0);
    return [{ rule: 'no acknowledged change is lost', t, ...(uid === undefined ? {} : { uid }), what }];
  });
};

const matches = (each: Possible, found: Standing | undefined): boolean => {
  if (each.is === 'nothing') return found === undefined;
  if (!found || (each.uid !== undefined && each.uid !== found.uid)) return false;
  return each.exact ? canonical(each.spec) === canonical(found.spec) : contains(found.spec, each.spec);
};

const shown = (each: Possible): string => (each.is === 'nothing' ? 'nothing' : `${each.uid ?? 'an object'} with ${canonical(each.spec)}`);

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** A merge patch applied. Source: RFC 7386. */
const merged = (to: Readonly<Record<string, unknown>>, patch: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> => {
  const result: Record<string, unknown> = { ...to };
  for (const [key, value] of Object.entries(patch)) {
    const mine = result[key];
    if (value === null) delete result[key];
    else result[key] = isRecord(value) ? merged(isRecord(mine) ? mine : {}, value) : value;
  }
  return result;
};

/** Whether all that `part` says is so in `whole`; the API server fills in defaults. */
const contains = (whole: unknown, part: unknown): boolean => {
  if (!isRecord(part)) return Array.isArray(part) && Array.isArray(whole) ? part.length === whole.length && part.every((each, at) => contains(whole[at], each)) : whole === part;
  return isRecord(whole) && Object.entries(part).every(([key, value]) => contains(whole[key], value));
};
