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

/** A violation, what befell that VM before it, and what was done to the processes around it. Pure. */
export const shownViolation = ({ rule, t, uid, what }: Violation, events: readonly HistoryEvent[]): string => {
  const history = inOrder(events);
  const began = history[0]?.t ?? 0;
  const processes = new Set(eventsOf(history, 'process').filter((each) => each.uid === uid).map(({ pid, ticks }) => `${pid} ${ticks}`));
  const requests = new Set(eventsOf(history, 'asked').filter((each) => each.uid === uid).map(({ request }) => request));
  const near = history.filter((each) => each.is !== 'looked' && each.t <= t + aroundMs && isAbout(each, uid, processes, requests, t - aroundMs));
  return [`VIOLATION at ${seconds(t - began)}: ${rule}: ${what}`, ...near.slice(-mostLines).map((each) => `  ${seconds(each.t - began)}  ${shownEvent(each)}`)].join('\n');
};

const seconds = (ms: number): string => `${(ms / 1000).toFixed(3).padStart(8)} s`;

const isAbout = (event: HistoryEvent, uid: string | undefined, processes: ReadonlySet<string>, requests: ReadonlySet<number>, nearMs: number): boolean => {
  switch (event.is) {
    case 'did':
      return event.uid === uid || (event.uid === undefined && event.t >= nearMs);
    case 'answered':
      return event.object?.uid === uid || requests.has(event.request);
    case 'ended':
    case 'closed':
      return processes.has(`${event.pid} ${event.ticks}`);
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
      return event.uid === uid;
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
