import { type EventOf, eventsOf, type HistoryEvent, inOrder, isQemu } from './events.ts';
import type { History } from './run.ts';
import type { Violation } from './violation.ts';

const aroundMs = 4_000;
const mostLines = 60;

/** What a clean history has been through, in a line; so that nobody takes a quiet one for a strong one. Pure. */
export const shownSummary = ({ events }: Pick<History, 'events'>): string => {
  const answered = eventsOf(events, 'answered');
  const looked = eventsOf(events, 'looked');
  const outcomes = (outcome: EventOf<'answered'>['outcome']) => answered.filter((each) => each.outcome === outcome).length;
  return [
    `${outcomes('done')} changes acknowledged, ${outcomes('refused')} refused, ${outcomes('unknown')} without an answer`,
    `${eventsOf(events, 'did').length} acts on processes`,
    `${eventsOf(events, 'process').filter(({ program }) => isQemu(program)).length} QEMUs, ${eventsOf(events, 'boot').length} boots, ${eventsOf(events, 'gone').length} VMs ended`,
    `the witness looked ${looked.reduce((sum, { looks }) => sum + looks, 0)} times, its longest pause was ${Math.round(Math.max(0, ...looked.map(({ longestMs }) => longestMs)))} ms`,
  ].join('; ');
};

/** A violation, and what happened around it to that VM and to the processes. Pure. */
export const shownViolation = ({ rule, t, uid, what }: Violation, events: readonly HistoryEvent[]): string => {
  const began = events[0]?.t ?? 0;
  const near = inOrder(events).filter((each) => each.is !== 'looked' && Math.abs(each.t - t) <= aroundMs && isAbout(each, uid));
  const from = Math.max(0, near.findIndex((each) => each.t >= t) - mostLines / 2);
  const lines = near.slice(from, from + mostLines).map((each) => `  ${seconds(each.t - began)}  ${shownEvent(each)}`);
  return [`VIOLATION at ${seconds(t - began)}: ${rule}: ${what}`, ...lines].join('\n');
};

const seconds = (ms: number): string => `${(ms / 1000).toFixed(3).padStart(8)} s`;

const isAbout = (event: HistoryEvent, uid: string | undefined): boolean => {
  switch (event.is) {
    case 'did':
      return event.uid === undefined || event.uid === uid;
    case 'answered':
      return uid === undefined || event.object?.uid === uid;
    case 'ended':
    case 'closed':
    case 'rest':
    case 'looked':
      return true;
    case 'process':
    case 'opened':
    case 'file':
    case 'boot':
    case 'asked':
    case 'gone':
    case 'says':
      return uid === undefined || event.uid === uid;
  }
};

const shownEvent = (event: HistoryEvent): string => {
  switch (event.is) {
    case 'process':
      return `process ${event.pid} is ${event.program}`;
    case 'ended':
      return `process ${event.pid} is gone`;
    case 'opened':
      return `process ${event.pid} has ${event.path} open for writing (${event.disk})`;
    case 'closed':
      return `process ${event.pid} has closed ${event.disk}`;
    case 'file':
      return `${event.path}: ${event.id ?? 'gone'}`;
    case 'boot':
      return `guest: disk ${event.mark}, boot ${event.count}`;
    case 'looked':
      return `witness: ${event.looks} looks`;
    case 'did':
      return `did: ${event.what}`;
    case 'asked':
      return `asked: ${event.verb} ${event.name} ${event.body ? JSON.stringify(event.body) : ''}`;
    case 'answered':
      return `answer: ${event.outcome} ${event.why ?? ''}`;
    case 'gone':
      return `the API server does not know ${event.name} any more`;
    case 'says':
      return `status of ${event.name}: ${event.text}`;
    case 'rest':
      return `at rest: ${event.stage}`;
  }
};
