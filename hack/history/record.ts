import { type HistoryEvent, monotonicMs } from './events.ts';

/** An event that has no time yet: now is meant. */
type Untimed = HistoryEvent extends infer Each ? (Each extends HistoryEvent ? Omit<Each, 't'> : never) : never;

/** What this process itself tells of a history. */
export type Record = { note: (event: Untimed) => void; events: () => readonly HistoryEvent[] };

/** An empty record. `hear` gets each event as it is noted. */
export const makeRecord = (hear: (event: HistoryEvent) => void = () => {}): Record => {
  const events: HistoryEvent[] = [];
  return {
    note: (untimed) => {
      const event: HistoryEvent = { ...untimed, t: monotonicMs() };
      events.push(event);
      hear(event);
    },
    events: () => events,
  };
};
