// A bounded run of `npm run history`, with another seed each time: what it finds is played again by the command that it prints.
import { afterEach, expect, test } from '@jest/globals';
import { eventsOf } from './events.ts';
import { shownSummary, shownViolation } from './print.ts';
import { runHistory } from './run.ts';

const minutes = 0.6;
const seed = Math.floor(Math.random() * 2 ** 32);
const ending = new AbortController();
afterEach(() => ending.abort(new Error('the test is over')));

test(`while everything is killed, frozen, doubled and edited (--seed ${seed} --minutes ${minutes}): no VM has two QEMUs, no disk is lost, no acknowledged change is lost`, async () => {
  const history = await runHistory({ seed, minutes, tell: () => {}, signal: ending.signal });
  const found = history.violations.map((each) => shownViolation(each, history.events)).join('\n');
  expect(`${found}${found === '' ? '' : `\nplay it again: npm run history -- --seed ${seed} --minutes ${minutes}; the record is in ${history.kept}`}`).toBe('');
  // A quiet history proves nothing.
  expect({ summary: shownSummary(history), busy: eventsOf(history.events, 'boot').length > 5 && eventsOf(history.events, 'did').length > 10 }).toMatchObject({ busy: true });
}, 900_000);
