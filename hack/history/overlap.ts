import { eventsOf, type HistoryEvent, isQemu } from './events.ts';
import type { Violation } from './violation.ts';

/** What one process surely had from one moment to another; `of` is a VM's uid or a disk. */
type Span = { of: string; uid: string; pid: number; from: number; to: number };

/** No two machines of one VM, and none that have one disk open for writing, at any moment that both were seen in. Pure. */
export const judgeOverlaps = (history: readonly HistoryEvent[]): Violation[] => [
  ...pairs(machineSpans(history)).map(([a, b]): Violation => ({
    rule: 'one QEMU for a VM', t: Math.max(a.from, b.from), uid: a.uid, what: `QEMU ${a.pid} and QEMU ${b.pid} of VM ${a.uid} ran at the same time, ${together(a, b)}`,
  })),
  ...pairs(diskSpans(history)).map(([a, b]): Violation => ({
    rule: 'one QEMU for a disk', t: Math.max(a.from, b.from), uid: b.uid, what: `processes ${a.pid} and ${b.pid} had the disk ${b.of} of VM ${b.uid} open for writing, ${together(a, b)}`,
  })),
];

const together = (a: Span, b: Span): string => `for ${(Math.min(a.to, b.to) - Math.max(a.from, b.from)).toFixed(1)} ms or more`;

const key = ({ pid, ticks }: { pid: number; ticks: string }): string => `${pid} ${ticks}`;

const machineSpans = (history: readonly HistoryEvent[]): Span[] => {
  const ends = new Map(eventsOf(history, 'ended').map((end) => [key(end), end.last]));
  return eventsOf(history, 'process').filter(({ program }) => isQemu(program)).map((seen) => (
    { of: seen.uid, uid: seen.uid, pid: seen.pid, from: seen.t, to: ends.get(key(seen)) ?? Number.POSITIVE_INFINITY }
  ));
};

const diskSpans = (history: readonly HistoryEvent[]): Span[] => {
  const spans: Span[] = [];
  const open = new Map<string, Span>();
  for (const each of history) {
    if (each.is !== 'opened' && each.is !== 'closed') continue;
    const at = `${key(each)} ${each.disk}`;
    if (each.is === 'opened') {
      const span = { of: each.disk, uid: each.uid, pid: each.pid, from: each.t, to: Number.POSITIVE_INFINITY };
      open.set(at, span);
      spans.push(span);
    } else {
      const span = open.get(at);
      if (span) span.to = each.last;
      open.delete(at);
    }
  }
  return spans;
};

/** Spans of two processes about one thing that share a moment. */
const pairs = (spans: readonly Span[]): [Span, Span][] => {
  const found: [Span, Span][] = [];
  for (const [, group] of Map.groupBy(spans, ({ of }) => of)) {
    const sorted = group.toSorted((a, b) => a.from - b.from);
    sorted.forEach((a, at) => {
      for (const b of sorted.slice(at + 1)) if (a.pid !== b.pid && b.from < a.to) found.push([a, b]);
    });
  }
  return found;
};
