import { judgeDisks } from './disks.ts';
import { eventsOf, type HistoryEvent, inOrder } from './events.ts';
import { judgeOverlaps } from './overlap.ts';
import { judgeAcknowledged } from './promises.ts';
import { judgeGone, judgeRests } from './rest.ts';
import type { Violation } from './violation.ts';

/** A witness that did not look for longer may have missed the whole life of a QEMU. */
const blindMs = 2_000;

/** Everything that is wrong with a history, in the order of its happening; nothing when it is clean. Pure. */
export const judge = (events: readonly HistoryEvent[]): Violation[] => {
  const history = inOrder(events);
  return [...judgeOverlaps(history), ...judgeDisks(history), ...judgeAcknowledged(history), ...judgeRests(history), ...judgeGone(history), ...judgeWitness(history)]
    .toSorted((a, b) => a.t - b.t);
};

const judgeWitness = (history: readonly HistoryEvent[]): Violation[] => {
  const looked = eventsOf(history, 'looked');
  const [end] = history.slice(-1);
  const last = looked.at(-1);
  if (!last) return [{ rule: 'the witness was awake', t: end?.t ?? 0, what: 'the witness has seen nothing' }];
  return [
    ...looked.filter(({ longestMs }) => longestMs > blindMs).map(({ t, longestMs }): Violation => (
      { rule: 'the witness was awake', t, what: `the witness did not look for ${Math.round(longestMs)} ms: what happened meanwhile is not known` }
    )),
    ...(end && end.t - last.t > blindMs ? [{ rule: 'the witness was awake' as const, t: end.t, what: 'the witness ended before the history did' }] : []),
  ];
};
